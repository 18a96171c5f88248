// The camera that a visitor moves, the loop that draws, and `window.lyra`, by which a program moves it.

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const plus = (a, b, factor = 1) => a.map((value, i) => value + factor * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => a.map((value) => value / Math.hypot(...a));

// Turns a vector around an axis of length 1.
function turned(vector, axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const along = dot(axis, vector) * (1 - c);
  return plus(plus(vector.map((value) => value * c), cross(axis, vector), s), axis, along);
}

// Right, down, forward and centre in the world, looking at a point `distance` ahead; the intrinsics follow the window.
class Camera {
  constructor(start) {
    this.start = start;
    this.reset();
  }

  reset() {
    this.axes = this.start.axes.map((axis) => [...axis]);
    this.center = [...this.start.center];
    this.distance = this.start.distance;
    this.fixed = null;
  }

  // The view's whole height is always shown. `density`: pixels of the picture for one of the page.
  intrinsics(width, height, density) {
    if (this.fixed) return this.fixed.map((value) => value * density);
    const focal = this.start.focalOfHeight * height;
    return [focal * this.start.aspect, focal, width / 2, height / 2];
  }

  orbit(right, down) {
    const pivot = plus(this.center, this.axes[2], this.distance);
    const vertical = this.start.axes[1];
    let axes = this.axes.map((axis) => turned(axis, vertical, right));
    const tilted = axes.map((axis) => turned(axis, axes[0], -down));
    // Not over the top.
    if (Math.abs(dot(tilted[2], vertical)) < 0.99) axes = tilted;
    const forward = unit(axes[2]);
    const side = unit(cross(vertical, forward));
    this.axes = [side, cross(forward, side), forward];
    this.center = plus(pivot, forward, -this.distance);
  }

  move(right, down, forward) {
    const step = [right, down, forward];
    step.forEach((amount, i) => (this.center = plus(this.center, this.axes[i], amount * this.distance)));
  }

  approach(factor) {
    const ahead = this.distance * (1 - factor);
    this.center = plus(this.center, this.axes[2], ahead);
    this.distance *= factor;
  }
}

// Milliseconds a frame: a moving scene is drawn coarser above the one, finer below the other.
const [SLOW, FAST] = [55, 35];

class Page {
  constructor(canvas, renderer, camera) {
    Object.assign(this, { canvas, renderer, camera, held: new Set(), pointers: new Map(), waiting: null, drawing: Promise.resolve() });
    Object.assign(this, { player: null, detail: 1, cost: FAST });
    this.listen();
    this.redraw();
  }

  // Draws with the next frame, once whoever draws is free; resolves when what is asked for now has been drawn.
  redraw() {
    if (!this.waiting) {
      this.waiting = this.drawing.then(() => new Promise(requestAnimationFrame)).then((now) => {
        this.waiting = null;
        this.drawing = this.frame(now);
        return this.drawing;
      });
    }
    return this.waiting;
  }

  async frame(now) {
    this.fly(Math.min(now - (this.last ?? now), 100) / 1000);
    this.last = now;
    const playing = Boolean(this.player?.playing);
    const density = (this.camera.fixed ? 1 : window.devicePixelRatio) * (playing ? this.detail : 1);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * density));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * density));
    const { axes, center } = this.camera;
    const intrinsics = this.camera.intrinsics(width, height, density);
    const began = performance.now();
    await this.renderer.render({ axes, center, intrinsics }, this.player?.moment ?? 0, width, height);
    if (playing) this.adjustDetail(performance.now() - began);
    if (this.held.size) this.redraw();
    else this.last = undefined;
  }

  // While time runs, fewer pixels are drawn where all of them take too long.
  adjustDetail(milliseconds) {
    this.cost += (milliseconds - this.cost) / 4; // not by one late frame
    if (this.cost < SLOW && this.cost > FAST) return;
    this.detail = Math.min(Math.max(this.detail + (this.cost < FAST ? 0.125 : -0.125), 0.25), 1);
    this.cost = (SLOW + FAST) / 2;
  }

  fly(seconds) {
    const key = (name) => Number(this.held.has(name));
    const step = 0.6 * seconds;
    if (!this.held.size) return;
    this.camera.move(step * (key("d") - key("a")), step * (key("q") - key("e")), step * (key("w") - key("s")));
  }

  listen() {
    const { canvas, camera, pointers, held } = this;
    const change = (action) => (event) => {
      event.preventDefault();
      camera.fixed = null;
      action(event);
      this.redraw();
    };
    canvas.addEventListener("pointerdown", change((event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.focus();
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    }));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointermove", (event) => {
      if (pointers.has(event.pointerId)) change(() => this.drag(event))(event);
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", change((event) => camera.approach(Math.exp(event.deltaY * 0.001))), { passive: false });
    window.addEventListener("keydown", (event) => {
      const name = event.key.toLowerCase();
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (name === "r") change(() => camera.reset())(event);
      if ("wasdqe".includes(name)) change(() => held.add(name))(event);
    });
    window.addEventListener("keyup", (event) => held.delete(event.key.toLowerCase()));
    window.addEventListener("blur", () => held.clear());
    window.addEventListener("resize", () => this.redraw());
  }

  drag(event) {
    const { camera, pointers, canvas } = this;
    const before = pointers.get(event.pointerId);
    const here = [event.clientX, event.clientY];
    const [dx, dy] = here.map((value, i) => (value - before[i]) / canvas.clientHeight);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, here);
    if (other) {
      const reach = (point) => Math.max(1, Math.hypot(point[0] - other[0], point[1] - other[1]));
      camera.approach(reach(before) / reach(here));
    }
    if (other || event.shiftKey || event.buttons & 6) camera.move(-dx / 2, -dy / 2, 0);
    else camera.orbit(2.5 * dx, 2.5 * dy);
  }
}

// By WebGL2, or on the processor where WebGL itself would run there; "#webgl" or "#processor" at the end of the address
// chooses.
async function makeRenderer(canvas, splats, background) {
  const wanted = location.hash.slice(1);
  const options = { antialias: false, alpha: false, depth: false, preserveDrawingBuffer: true };
  const probe = document.createElement("canvas").getContext("webgl2");
  const details = probe?.getExtension("WEBGL_debug_renderer_info");
  const name = probe ? probe.getParameter(details ? details.UNMASKED_RENDERER_WEBGL : probe.RENDERER) : "software";
  const isSoftware = /swiftshader|llvmpipe|software|basic render/i.test(name);
  if (probe && (wanted === "webgl" || (wanted !== "processor" && !isSoftware))) {
    return new GraphicsRenderer(canvas, canvas.getContext("webgl2", options), splats, background);
  }
  const code = Uint8Array.from(atob(document.getElementById("composite").textContent), (letter) => letter.charCodeAt(0));
  const source = document.getElementById("source").textContent;
  return new ProcessorRenderer(canvas, await WebAssembly.compile(code), splats, background, source);
}

async function start() {
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const canvas = document.getElementById("view");
  const splats = decodeSplats(await inflate(document.getElementById("splats").textContent), scene);
  const camera = new Camera(scene.camera);
  const page = new Page(canvas, await makeRenderer(canvas, splats, scene.background), camera);
  if (scene.moments) page.player = new Player(scene.moments, page);
  return { page, camera };
}

window.lyra = { ready: start() };
window.lyra.ready.catch((problem) => (document.getElementById("problem").textContent = String(problem.message ?? problem)));

// Shows one camera (4x4 rows, camera to world, OpenCV axes; intrinsics in pixels); resolves when it is drawn.
window.lyra.setCamera = async (pose, fx, fy, cx, cy) => {
  const { page, camera } = await window.lyra.ready;
  camera.axes = [0, 1, 2].map((axis) => [0, 1, 2].map((row) => pose[row][axis]));
  camera.center = [0, 1, 2].map((row) => pose[row][3]);
  camera.fixed = [fx, fy, cx, cy];
  for (const name of ["help", "player"]) document.getElementById(name).hidden = true;
  await page.redraw();
};

// Frames a second, every one finished before the next begins.
async function rateOf(page, seconds, beforeFrame = () => {}) {
  const { gl } = page.renderer;
  const pixel = new Uint8Array(4);
  const frame = async () => {
    await page.redraw();
    if (gl) gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel); // waits for the picture
  };
  await frame();
  const began = performance.now();
  let frames = 0;
  for (; performance.now() - began < 1000 * seconds; frames++) {
    beforeFrame(frames);
    await frame();
  }
  return (1000 * frames) / (performance.now() - began);
}

// While the camera moves around what it sees.
window.lyra.measureFrames = async (seconds) => {
  const { page, camera } = await window.lyra.ready;
  camera.reset();
  const rate = await rateOf(page, seconds, (frames) => {
    camera.orbit(0.01 * Math.cos(frames / 20), 0.005 * Math.sin(frames / 20));
  });
  camera.reset();
  await page.redraw();
  return rate;
};

// In a scene that moves. Time is in [0, 1]; null in one that does not.
window.lyra.time = async () => (await window.lyra.ready).page.player?.time ?? null;
window.lyra.play = async () => (await window.lyra.ready).page.player?.play();
window.lyra.pause = async () => (await window.lyra.ready).page.player?.pause();

// Stops at the moment nearest to a time; resolves when it is drawn.
window.lyra.setTime = async (time) => {
  const { page } = await window.lyra.ready;
  await (page.player ? page.player.seek(time) : page.redraw());
};

// While time runs.
window.lyra.measurePlayback = async (seconds) => {
  const { page } = await window.lyra.ready;
  page.player?.play();
  return rateOf(page, seconds);
};
