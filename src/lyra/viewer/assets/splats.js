"use strict";
// The splats of the page: from the text that viewer.py wrote to numbers, and in the order of their depths.
//
// They are drawn by classic EWA splatting as lyra's own renderer does it: OpenCV axes, pixel centres at +0.5, 0.3 px^2
// added to the projected covariance, contributions under 1/255 skipped. A camera is `axes` (right, down, forward in the
// world), `center`, and `intrinsics` fx fy cx cy in pixels.

const NEAR = 0.01;
const DEPTH_BUCKETS = 1 << 16;
const TEXTURE_SPLATS = 1024; // in a row of a texture; the order is stored in whole rows

const SPLAT_WORDS = 12; // three texels: centre and color; covariance xx xy xz yy; covariance yz zz and two unused

// Inflates the base64 text; the bytes are planes, one for each byte of a splat's record.
async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Puts `size` planes of `count` bytes, from plane `first` on, back together into numbers of `size` bytes.
function gather(planes, count, first, size, numbers) {
  const bytes = new Uint8Array(numbers.buffer);
  for (let byte = 0; byte < size; byte++) {
    const start = (first + byte) * count;
    for (let i = 0; i < count; i++) bytes[i * size + byte] = planes[start + i];
  }
  return numbers;
}

// Where each part of the records begins, and the end: what is there at every moment, then every moment's own splats.
const boundaries = ({ count, moments }) => {
  const bounds = [0];
  if (moments) for (const part of [moments.static, ...moments.counts]) bounds.push(bounds.at(-1) + part);
  else bounds.push(count);
  return bounds;
};

// Record: x y z float32; logarithms of the scales uint16 over a range; quaternion w x y z int16; red green blue
// opacity uint8. All little-endian, as every browser's machine is.
function decodeSplats(planes, scene) {
  const count = scene.count;
  let plane = 0;
  const next = (size, Kind) => {
    const numbers = gather(planes, count, plane, size, new Kind(count));
    plane += size;
    return numbers;
  };
  const means = [0, 1, 2].map(() => next(4, Float32Array));
  const scales = [0, 1, 2].map(() => next(2, Uint16Array));
  const turns = [0, 1, 2, 3].map(() => next(2, Int16Array));
  const colors = [0, 1, 2, 3].map(() => next(1, Uint8Array));
  const [low, high] = scene.logScales;

  const floats = new Float32Array(count * SPLAT_WORDS);
  const words = new Uint32Array(floats.buffer);
  for (let i = 0; i < count; i++) {
    const at = i * SPLAT_WORDS;
    for (let axis = 0; axis < 3; axis++) floats[at + axis] = means[axis][i];
    words[at + 3] = (colors[0][i] | (colors[1][i] << 8) | (colors[2][i] << 16) | (colors[3][i] << 24)) >>> 0;
    const variances = scales.map((axis) => Math.exp(2 * (low + ((high - low) * axis[i]) / 65535)));
    covariance(turns.map((part) => part[i]), variances, floats, at + 4);
  }
  return { means, words, bounds: boundaries(scene) };
}

// Writes xx xy xz yy yz zz of R diag(variances) R^T.
function covariance(turn, variances, out, at) {
  const length = Math.hypot(...turn) || 1;
  const [w, x, y, z] = turn.map((part) => part / length);
  const rows = [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ];
  for (let i = 0; i < 3; i++) {
    for (let j = i; j < 3; j++) {
      out[at++] = rows[i].reduce((sum, _, k) => sum + rows[i][k] * rows[j][k] * variances[k], 0);
    }
  }
}

// A picture's size, set only where it changes, since that empties the canvas.
function fit(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

// Lowest and highest x/z and y/z at which the perspective derivative is taken: 0.3 of the half field of view outside.
function tangentLimits([fx, fy, cx, cy], width, height) {
  const [marginX, marginY] = [(0.3 * width) / (2 * fx), (0.3 * height) / (2 * fy)];
  return [-cx / fx - marginX, -cy / fy - marginY, (width - cx) / fx + marginX, (height - cy) / fy + marginY];
}

// Ranks of a moment's splats in front of the near plane, nearest first, by counting sort of the logarithms of their
// depths.
class DepthOrder {
  constructor({ means, bounds }) {
    this.means = means;
    this.bounds = bounds;
    this.count = means[0].length;
    // There at once, at most.
    this.most = bounds[1] + bounds.slice(2).reduce((most, end, i) => Math.max(most, end - bounds[i + 1]), 0);
    this.keys = new Uint16Array(this.count);
    this.order = new Uint32Array(Math.ceil(this.most / TEXTURE_SPLATS) * TEXTURE_SPLATS);
    this.depths = new Float32Array(this.count);
    this.starts = new Uint32Array(DEPTH_BUCKETS + 1);
    this.show(0);
  }

  // Makes `ranges` those of the splats that are there at a moment.
  show(moment) {
    const { bounds, count } = this;
    this.ranges = [[0, bounds[1]], [bounds[moment + 1] ?? count, bounds[moment + 2] ?? count]];
  }

  // Fills `depths`, and `keys` where they are beyond the near plane, and makes `starts[key]` the rank of the first splat
  // with a key; returns how many have a rank.
  countKeys(forward, center) {
    const { depths, keys, starts, ranges, means: [xs, ys, zs] } = this;
    const [a, b, c] = forward;
    const shift = a * center[0] + b * center[1] + c * center[2];
    let farthest = NEAR;
    for (const [from, to] of ranges) {
      for (let i = from; i < to; i++) {
        const depth = a * xs[i] + b * ys[i] + c * zs[i] - shift;
        depths[i] = depth;
        if (depth > farthest) farthest = depth;
      }
    }
    const scale = (DEPTH_BUCKETS - 1) / Math.max(Math.log(farthest / NEAR), 1e-6);
    starts.fill(0);
    let visible = 0;
    for (const [from, to] of ranges) {
      for (let i = from; i < to; i++) {
        if (depths[i] <= NEAR) continue;
        keys[i] = Math.log(depths[i] / NEAR) * scale;
        starts[keys[i] + 1]++;
        visible++;
      }
    }
    for (let i = 0; i < DEPTH_BUCKETS; i++) starts[i + 1] += starts[i];
    return visible;
  }

  // Numbers of the splats by rank in `order`; returns how many.
  sort(forward, center) {
    const visible = this.countKeys(forward, center);
    const { depths, keys, starts, order, ranges } = this;
    for (const [from, to] of ranges) {
      for (let i = from; i < to; i++) if (depths[i] > NEAR) order[starts[keys[i]]++] = i;
    }
    return visible;
  }
}
