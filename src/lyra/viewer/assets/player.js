// Time of a scene that moves: which moment is shown, the bar below the picture, and its keys.

const SPEEDS = [0.25, 0.5, 1, 2];
const PLAY = "M3 1l11 7-11 7z";
const PAUSE = "M2 1h4v14H2zM10 1h4v14h-4z";

class Player {
  // `times` of the moments, ascending in [0, 1]; `seconds` from 0 to 1.
  constructor({ times, seconds }, page) {
    const part = (name) => document.getElementById(name);
    Object.assign(this, { times, seconds, page, moment: 0, ticking: null });
    Object.assign(this, { toggle: part("toggle"), slider: part("time"), clock: part("clock") });
    Object.assign(this, { speed: part("speed"), repeat: part("repeat") });
    Object.assign(this.slider, { min: times[0], max: times.at(-1), step: "any" });
    for (const speed of SPEEDS) this.speed.add(new Option(`${speed}×`, speed, false, speed === 1));
    part("help").append(" · space: play, pause · ←, →: moments");
    part("player").hidden = false;
    this.listen();
    this.seek(0);
    this.play();
  }

  get playing() {
    return this.ticking !== null;
  }

  get time() {
    return this.times[this.moment];
  }

  // `phase` runs on from 0: to 1 and back to 2, or to 1 and from the beginning.
  play() {
    if (this.playing) return;
    let last;
    this.phase = this.time;
    const tick = (now) => {
      this.ticking = requestAnimationFrame(tick);
      // A page that nobody sees is not drawn, and goes on where it was.
      const passed = Math.min(now - (last ?? now), 250) / 1000;
      last = now;
      this.phase = (this.phase + (passed * Number(this.speed.value)) / this.seconds) % 2;
      this.show(this.repeat.value === "loop" ? this.phase % 1 : 1 - Math.abs(1 - this.phase));
    };
    this.ticking = requestAnimationFrame(tick);
    this.label();
  }

  // Draws once more, as finely as the page does when nothing moves.
  pause() {
    if (this.playing) cancelAnimationFrame(this.ticking);
    this.ticking = null;
    this.label();
    return this.page.redraw();
  }

  seek(time) {
    this.show(time);
    return this.pause();
  }

  // The moment nearest to a time.
  show(time) {
    const away = this.times.map((other) => Math.abs(other - time));
    const moment = away.indexOf(Math.min(...away));
    if (moment < 0 || moment === this.moment) return;
    this.moment = moment;
    this.label();
    this.page.redraw();
  }

  step(moments) {
    const count = this.times.length;
    return this.seek(this.times[(this.moment + moments + count) % count]);
  }

  label() {
    const { toggle, slider, clock, playing, seconds, time } = this;
    toggle.querySelector("path").setAttribute("d", playing ? PAUSE : PLAY);
    toggle.setAttribute("aria-label", playing ? "pause" : "play");
    slider.value = time;
    clock.value = `${(time * seconds).toFixed(2)} / ${seconds.toFixed(2)} s`;
  }

  listen() {
    const flip = () => (this.playing ? this.pause() : this.play());
    this.toggle.addEventListener("click", flip);
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    const actions = { " ": flip, ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1) };
    window.addEventListener("keydown", (event) => {
      // Buttons and menus have their own use for these keys.
      if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("button, select")) return;
      event.preventDefault();
      actions[event.key]();
    });
    for (const menu of [this.speed, this.repeat]) menu.addEventListener("change", () => menu.blur());
  }
}
