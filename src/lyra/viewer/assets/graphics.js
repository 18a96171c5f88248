// Draws splats front to back with WebGL2.

const BATCHES = 8;

const SPLAT_VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform usampler2D splats;
uniform mat3 toCamera;       // its columns are the camera's axes in the world: multiply from the left
uniform vec3 center;
uniform vec4 intrinsics;     // fx fy cx cy in pixels
uniform vec4 limits;         // lowest and highest x/z, y/z at which the derivative is taken
uniform vec2 size;           // of the picture in pixels
uniform usampler2D order;    // numbers of the splats, nearest first
flat out vec4 color;
out vec2 offset;             // alpha is opacity times 2^-|offset|^2

void main() {
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);  // outside
  int rank = gl_VertexID >> 2;
  int index = int(texelFetch(order, ivec2(rank % ${TEXTURE_SPLATS}, rank / ${TEXTURE_SPLATS}), 0).x);
  int column = index % ${TEXTURE_SPLATS} * 3, row = index / ${TEXTURE_SPLATS};
  uvec4 first = texelFetch(splats, ivec2(column, row), 0);
  vec3 local = (uintBitsToFloat(first.xyz) - center) * toCamera;
  float opacity = float(first.w >> 24) / 255.0;
  if (local.z <= ${NEAR} || opacity < 1.0 / 255.0) return;
  vec2 tangent = local.xy / local.z;
  vec2 middle = tangent * intrinsics.xy + intrinsics.zw;

  vec4 second = uintBitsToFloat(texelFetch(splats, ivec2(column + 1, row), 0));
  vec4 third = uintBitsToFloat(texelFetch(splats, ivec2(column + 2, row), 0));
  mat3 covariance = mat3(second.xyz, second.yw, third.x, second.z, third.xy);
  vec2 along = clamp(tangent, limits.xy, limits.zw);
  vec3 rowX = intrinsics.x / local.z * (toCamera[0] - along.x * toCamera[2]);
  vec3 rowY = intrinsics.y / local.z * (toCamera[1] - along.y * toCamera[2]);
  vec3 spreadX = covariance * rowX, spreadY = covariance * rowY;
  float xx = dot(rowX, spreadX) + 0.3, xy = dot(rowX, spreadY), yy = dot(rowY, spreadY) + 0.3;

  // Half the squared distance at which alpha falls to 1/255.
  float reach = log(opacity * 255.0);
  vec2 extent = sqrt(2.0 * reach * vec2(xx, yy)) + 0.01;
  if (any(lessThan(middle + extent, vec2(0.0))) || any(greaterThan(middle - extent, size))) return;

  vec2 corner = vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0;
  vec2 d = corner * extent;
  // 0.5 log2(e) d^T covariance^-1 d as a sum of two squares.
  float rest = max(yy - xy * xy / xx, 1e-6);
  offset = sqrt(0.72134752) * vec2(d.x * inversesqrt(xx), (d.y - xy / xx * d.x) * inversesqrt(rest));
  color = vec4(uvec3(first.w, first.w >> 8, first.w >> 16) & 255u, 255.0) / 255.0;
  color.a = opacity;
  vec2 place = (middle + d) / size * 2.0 - 1.0;
  gl_Position = vec4(place.x, -place.y, 0.0, 1.0);
}`;

// The target's alpha holds the transmittance: what is drawn adds transmittance * color and lowers it.
const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
flat in vec4 color;
in vec2 offset;
out vec4 result;
void main() {
  float alpha = min(color.a * exp2(-dot(offset, offset)), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(color.rgb * alpha, alpha);
}`;

const FULL_VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, -1.0, 1.0);
}`;

// Where next to nothing passes any more, writes the nearest depth, so that later splats are not shaded there.
const END_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D picture;
void main() {
  if (texelFetch(picture, ivec2(gl_FragCoord.xy), 0).a > 0.001) discard;
}`;

const SHOW_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D picture;
uniform vec3 background;
out vec4 result;
void main() {
  vec4 here = texelFetch(picture, ivec2(gl_FragCoord.xy), 0);
  result = vec4(here.rgb + here.a * background, 1.0);
}`;

function link(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error([gl.getProgramInfoLog(program), ...logs].join("\n"));
  }
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(program, i);
    uniforms[name] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}

class GraphicsRenderer {
  constructor(canvas, gl, splats, background) {
    this.canvas = canvas;
    this.gl = gl;
    this.background = background;
    this.half = Boolean(gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float"));
    this.draw = link(gl, SPLAT_VERTEX, SPLAT_FRAGMENT);
    this.end = link(gl, FULL_VERTEX, END_FRAGMENT);
    this.show = link(gl, FULL_VERTEX, SHOW_FRAGMENT);
    this.order = new DepthOrder(splats);
    const rowsOf = (count) => Math.max(1, Math.ceil(count / TEXTURE_SPLATS));
    const rows = rowsOf(this.order.count);
    const padded = new Uint32Array(rows * TEXTURE_SPLATS * SPLAT_WORDS);
    padded.set(splats.words);
    const texels = (TEXTURE_SPLATS * SPLAT_WORDS) / 4;
    this.splats = this.texture(gl.RGBA32UI, texels, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, padded);
    this.ranks = this.texture(gl.R32UI, TEXTURE_SPLATS, rowsOf(this.order.most), gl.RED_INTEGER, gl.UNSIGNED_INT, null);
    this.makeCorners();
    this.resize(canvas.width, canvas.height);
  }

  // Two triangles a splat, by numbers of corners. Not instances: software renderers start anew for each of them.
  makeCorners() {
    const gl = this.gl;
    const corners = new Uint32Array(6 * this.order.most);
    for (let i = 0; i < this.order.most; i++) corners.set([4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 2, 4 * i + 1, 4 * i + 3], 6 * i);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
  }

  texture(kind, width, height, format, type, data) {
    const gl = this.gl;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, kind, width, height, 0, format, type, data);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    return texture;
  }

  resize(width, height) {
    if (this.width === width && this.height === height) return;
    const gl = this.gl;
    [this.width, this.height] = [width, height];
    gl.deleteTexture(this.picture);
    gl.deleteRenderbuffer(this.depth);
    gl.deleteFramebuffer(this.target);
    gl.deleteFramebuffer(this.ending);
    const [kind, type] = this.half ? [gl.RGBA16F, gl.HALF_FLOAT] : [gl.RGBA8, gl.UNSIGNED_BYTE];
    this.picture = this.texture(kind, width, height, gl.RGBA, type, null);
    this.depth = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, this.depth);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.DEPTH_COMPONENT16, width, height);
    // Two frames share the depth: a picture must not be read while it is drawn to.
    [this.target, this.ending] = [gl.createFramebuffer(), gl.createFramebuffer()];
    for (const frame of [this.target, this.ending]) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
      gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, gl.RENDERBUFFER, this.depth);
    }
    gl.drawBuffers([gl.NONE]);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.picture, 0);
  }

  // camera: axes (three unit vectors in the world: right, down, forward), center, and intrinsics in pixels of a picture
  // of width and height. moment: its number.
  async render(camera, moment, width, height) {
    const gl = this.gl;
    fit(this.canvas, width, height);
    this.resize(width, height);
    this.order.show(moment);
    const count = this.order.sort(camera.axes[2], camera.center);
    gl.bindTexture(gl.TEXTURE_2D, this.ranks);
    const rows = Math.ceil(count / TEXTURE_SPLATS);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, TEXTURE_SPLATS, rows, gl.RED_INTEGER, gl.UNSIGNED_INT, this.order.order);
    gl.viewport(0, 0, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.depthMask(true);
    gl.clearColor(0, 0, 0, 1);
    gl.clearDepth(1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    for (let batch = 0; batch < BATCHES; batch++) {
      const first = Math.floor((count * batch) / BATCHES);
      const last = Math.floor((count * (batch + 1)) / BATCHES);
      if (batch > 0) this.endPixels();
      this.drawSplats(camera, first, last - first);
    }
    this.showPicture();
  }

  drawSplats(camera, first, count) {
    const { gl, draw: { program, uniforms }, width, height } = this;
    const [fx, fy, cx, cy] = camera.intrinsics;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.useProgram(program);
    gl.bindTexture(gl.TEXTURE_2D, this.splats);
    gl.uniform1i(uniforms.order, 1);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.ranks);
    gl.activeTexture(gl.TEXTURE0);
    gl.uniformMatrix3fv(uniforms.toCamera, false, camera.axes.flat());
    gl.uniform3fv(uniforms.center, camera.center);
    gl.uniform4f(uniforms.intrinsics, fx, fy, cx, cy);
    gl.uniform4fv(uniforms.limits, tangentLimits(camera.intrinsics, width, height));
    gl.uniform2f(uniforms.size, width, height);
    gl.depthMask(false);
    gl.depthFunc(gl.LESS);
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.DST_ALPHA, gl.ONE, gl.ZERO, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawElements(gl.TRIANGLES, 6 * count, gl.UNSIGNED_INT, 24 * first);
  }

  endPixels() {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.ending);
    gl.depthMask(true);
    gl.depthFunc(gl.ALWAYS);
    this.fill(this.end);
  }

  showPicture() {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.disable(gl.DEPTH_TEST);
    gl.disable(gl.BLEND);
    this.fill(this.show, (uniforms) => gl.uniform3fv(uniforms.background, this.background));
  }

  fill({ program, uniforms }, set = () => {}) {
    const gl = this.gl;
    gl.useProgram(program);
    gl.bindTexture(gl.TEXTURE_2D, this.picture);
    set(uniforms);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}
