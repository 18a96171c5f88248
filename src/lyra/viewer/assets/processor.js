// Draws splats on the processor, for browsers whose WebGL is software: several times as fast as software WebGL, since
// pixels that let nothing more through cost next to nothing. The loop over pixels is WebAssembly (splat.wat).

const BAND = 16; // rows that are drawn together, so that they stay in a core's cache
const SURVEYS = 24; // how often it is looked where all pixels have ended
const FARTHEST = 3.4; // standard deviations at which every opacity has fallen below 1/255
const RECORD = 16; // 32-bit numbers of a splat, see splat.wat

// Projects all splats and draws bands of the picture.
class Rasterizer {
  constructor(module, splats) {
    this.order = new DepthOrder(splats);
    this.words = splats.words;
    this.floats = new Float32Array(splats.words.buffer);
    // No standard deviation is larger than the root of the covariance's trace.
    this.widest = Float32Array.from({ length: this.order.count }, (_, i) => {
      const at = i * SPLAT_WORDS + 4;
      return Math.sqrt(this.floats[at] + this.floats[at + 3] + this.floats[at + 5]);
    });
    this.memory = new WebAssembly.Memory({ initial: 1 });
    this.loops = new WebAssembly.Instance(module, { page: { memory: this.memory } }).exports;
  }

  // Makes room for the records and one band.
  reserve(width) {
    this.stride = (width + 15) & ~15;
    this.band = 4 * RECORD * this.order.most;
    this.open = this.band + BAND * this.stride * 16;
    const missing = this.open + this.stride / 4 - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / 65536));
    this.records = new Float32Array(this.memory.buffer, 0, RECORD * this.order.most);
    this.boxes = new Int32Array(this.memory.buffer, 0, RECORD * this.order.most);
    this.state = new Float32Array(this.memory.buffer, this.band, BAND * this.stride * 4);
    this.untouched = Float32Array.from(this.state, (_, at) => Number(at % 16 < 4));
  }

  // Writes the records of a moment's splats that reach into rows first to last; those of all others have empty boxes.
  project(camera, moment, width, height, first, last) {
    if (width !== this.width) this.reserve(width);
    this.width = width;
    this.order.show(moment);
    this.visible = this.order.countKeys(camera.axes[2], camera.center);
    for (const range of this.order.ranges) this.projectRange(range, camera, width, height, first, last);
  }

  projectRange([from, to], camera, width, height, first, last) {
    const { words, floats, widest, records, boxes, order } = this;
    const { depths, keys, starts, means: [xs, ys, zs] } = order;
    const [[rx, ry, rz], [dx, dy, dz], [ax, ay, az]] = camera.axes;
    const [ox, oy, oz] = camera.center;
    const [fx, fy, cx, cy] = camera.intrinsics;
    const [lowX, lowY, highX, highY] = tangentLimits(camera.intrinsics, width, height);
    const scale = -0.5 * Math.LOG2E;
    for (let i = from; i < to; i++) {
      if (depths[i] <= NEAR) continue;
      const at = RECORD * starts[keys[i]]++;
      boxes[at + 12] = 0;
      const word = words[i * SPLAT_WORDS + 3];
      const opacity = (word >>> 24) / 255;
      if (opacity < 1 / 255) continue;
      const x = xs[i] - ox, y = ys[i] - oy, z = zs[i] - oz;
      const inverse = 1 / depths[i];
      const tanX = (rx * x + ry * y + rz * z) * inverse, tanY = (dx * x + dy * y + dz * z) * inverse;
      const alongX = Math.min(Math.max(tanX, lowX), highX), alongY = Math.min(Math.max(tanY, lowY), highY);
      const gx = fx * inverse, gy = fy * inverse;
      const middleX = tanX * fx + cx, middleY = tanY * fy + cy;
      const farthest = FARTHEST * (widest[i] * gy * (1 + Math.abs(alongY)) + 0.6);
      if (middleY + farthest < first || middleY - farthest > last) continue;
      const ux = gx * (rx - alongX * ax), uy = gx * (ry - alongX * ay), uz = gx * (rz - alongX * az);
      const vx = gy * (dx - alongY * ax), vy = gy * (dy - alongY * ay), vz = gy * (dz - alongY * az);
      const c = i * SPLAT_WORDS + 4;
      const c0 = floats[c], c1 = floats[c + 1], c2 = floats[c + 2];
      const c3 = floats[c + 3], c4 = floats[c + 4], c5 = floats[c + 5];
      const sx = c0 * ux + c1 * uy + c2 * uz, sy = c1 * ux + c3 * uy + c4 * uz, sz = c2 * ux + c4 * uy + c5 * uz;
      const xx = ux * sx + uy * sy + uz * sz + 0.3, xy = vx * sx + vy * sy + vz * sz;
      const yy = vx * (c0 * vx + c1 * vy + c2 * vz) + vy * (c1 * vx + c3 * vy + c4 * vz)
        + vz * (c2 * vx + c4 * vy + c5 * vz) + 0.3;
      // Where alpha falls to 1/255, and a little more.
      const reach = Math.sqrt(2 * Math.log(opacity * 255)) + 0.001;
      const extentX = reach * Math.sqrt(xx), extentY = reach * Math.sqrt(yy);
      const left = Math.max(Math.ceil(middleX - extentX - 0.5), 0);
      const top = Math.max(Math.ceil(middleY - extentY - 0.5), 0);
      const right = Math.min(Math.floor(middleX + extentX + 0.5), width);
      const bottom = Math.min(Math.floor(middleY + extentY + 0.5), height);
      if (!(left < right && top < bottom)) continue;
      const part = scale / Math.max(xx * yy - xy * xy, 1e-6);
      records[at] = middleX;
      records[at + 1] = middleY;
      records[at + 2] = yy * part;
      records[at + 3] = -2 * xy * part;
      records[at + 4] = xx * part;
      records[at + 5] = opacity;
      records[at + 6] = (word & 255) / 255;
      records[at + 7] = ((word >>> 8) & 255) / 255;
      records[at + 8] = ((word >>> 16) & 255) / 255;
      boxes[at + 9] = left;
      boxes[at + 10] = top;
      boxes[at + 11] = right;
      boxes[at + 12] = bottom;
    }
  }

  // Rows top to top + rows as bytes for a canvas.
  draw(top, rows, width, background) {
    const { state, stride } = this;
    state.set(this.untouched);
    for (let survey = 0; survey < SURVEYS; survey++) {
      const [first, last] = [survey, survey + 1].map((share) => Math.floor((share * this.visible) / SURVEYS));
      this.loops.survey(this.band, rows, stride, this.open);
      this.loops.composite(4 * RECORD * first, last - first, this.band, top, top + rows, stride, this.open);
    }
    const bytes = new Uint8ClampedArray(4 * width * rows);
    const [red, green, blue] = background.map((value) => 255 * value);
    for (let y = 0, to = 0; y < rows; y++) {
      for (let x = 0; x < width; x++, to += 4) {
        const at = ((y * stride + x) >> 2) * 16 + (x & 3);
        const left = state[at];
        bytes[to] = 255 * state[at + 4] + left * red;
        bytes[to + 1] = 255 * state[at + 8] + left * green;
        bytes[to + 2] = 255 * state[at + 12] + left * blue;
        bytes[to + 3] = 255;
      }
    }
    return bytes;
  }
}

// What a worker runs: the same functions, in a thread of its own.
function work() {
  let rasterizer;
  self.onmessage = ({ data }) => {
    if (data.module) {
      rasterizer = new Rasterizer(data.module, data.splats);
      return;
    }
    const { camera, moment, width, height, background, part, parts } = data;
    const [first, last] = [part, part + 1].map((share) => Math.round((share * height) / parts));
    rasterizer.project(camera, moment, width, height, first, last);
    const bands = [];
    for (let top = first; top < last; top += BAND) {
      bands.push({ top, bytes: rasterizer.draw(top, Math.min(BAND, last - top), width, background) });
    }
    self.postMessage(bands, bands.map((band) => band.bytes.buffer));
  };
}

class ProcessorRenderer {
  constructor(canvas, module, splats, background, source) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.background = background;
    const address = URL.createObjectURL(new Blob([`${source}\nwork();`], { type: "text/javascript" }));
    const threads = Math.min(Math.max(navigator.hardwareConcurrency || 1, 1), 8);
    this.workers = Array.from({ length: threads }, () => new Worker(address));
    for (const worker of this.workers) worker.postMessage({ module, splats });
  }

  async render(camera, moment, width, height) {
    const parts = this.workers.length;
    const answers = this.workers.map((worker, part) => new Promise((done, fail) => {
      worker.onmessage = ({ data }) => done(data);
      worker.onerror = (problem) => fail(new Error(problem.message));
      worker.postMessage({ camera, moment, width, height, background: this.background, part, parts });
    }));
    const done = await Promise.all(answers);
    // Only now: until then the picture before stays.
    fit(this.canvas, width, height);
    for (const bands of done) {
      for (const { top, bytes } of bands) this.context.putImageData(new ImageData(bytes, width), 0, top);
    }
  }
}
