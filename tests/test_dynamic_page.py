"""The page of a scene that moves, in a real browser: what it shows when, and that it stops."""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians, merge
from lyra.rendering import render
from lyra.viewer.page import BACKGROUND, write_viewer
from lyra.viewer.verification import BACKENDS, open_browser

SIZE = 360
SHOWN = SIZE - 60
"""Rows above the bar."""
CAMERA = Cameras(torch.eye(4)[None], intrinsics_from_fov(50.0, SIZE, SIZE)[None], SIZE, SIZE)
TIMES = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])


def cloud(means: torch.Tensor, colors: torch.Tensor, size: float) -> Gaussians:
    count = len(means)
    turns = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    return Gaussians(means, torch.full((count, 3), size), turns, torch.full((count,), 0.9), colors.expand(count, 3))


def moving_scene(backdrop: int = 40) -> DynamicGaussians:
    """A yellow blob passes from left to right, at first in front of a blue pillar's depth and then behind it."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, backdrop)
    y, x = (part.flatten() for part in torch.meshgrid(axis, axis, indexing="ij"))
    wall = cloud(
        torch.stack([1.5 * x, 1.5 * y, torch.full_like(x, 3.0)], dim=1),
        torch.stack([0.5 + 0.4 * torch.sin(5 * x), 0.4 + 0.3 * y, 0.5 + 0 * x], dim=1),
        1.6 / backdrop,
    )
    heights = torch.linspace(-0.8, 0.8, 60)
    pillar = cloud(torch.stack([0 * heights, heights, 0 * heights + 2], dim=1), torch.tensor([0.1, 0.2, 0.9]), 0.05)
    moments = []
    for step, at in enumerate(TIMES.tolist()):
        # Of different counts, as a real scene's moments are.
        spread = 0.06 * torch.randn(200 + 20 * step, 3, generator=generator)
        center = torch.tensor([0.8 * at - 0.4, 0.2 * math.sin(6 * at), 1.6 + 0.8 * at])
        moments.append(cloud(center + spread, torch.tensor([0.9, 0.8, 0.1]), 0.02))
    return DynamicGaussians(merge([wall, pillar]), tuple(moments), TIMES, 1.5)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="browser tests need playwright")
    try:
        opened = open_browser()
        launched = opened.__enter__()
    except LyraError as problem:
        pytest.skip(str(problem))
    yield launched
    opened.__exit__(None, None, None)


class Tab:
    """A page that is open, and what went wrong in it."""

    def __init__(self, browser: Any, path: Path, backend: str = "processor"):
        self.page = browser.new_page(viewport={"width": SIZE, "height": SIZE})
        self.seen: list[str] = []
        self.page.on("request", lambda request: self.seen.append(f"request {request.url[:200]}"))
        self.page.on("pageerror", lambda error: self.seen.append(f"error {error}"))
        self.page.on("console", lambda line: self.seen.append(f"console {line.type} {line.text}"))
        self.page.set_default_timeout(60_000)
        self.page.goto(f"{path.as_uri()}#{backend}")
        self.lyra("ready.then(() => null)")
        self.path = path

    def lyra(self, call: str) -> Any:
        return self.page.evaluate(f"window.lyra.{call}")

    def shot(self) -> np.ndarray:
        """What is above the bar."""
        self.page.evaluate("document.getElementById('help').hidden = true")
        file = self.path.with_name("shot.png")
        self.page.screenshot(path=str(file))
        return np.asarray(Image.open(file).convert("RGB"))[:SHOWN].astype(float) / 255

    def count(self) -> tuple[int, int]:
        """Pictures drawn and frames asked for so far, counted from the first call on."""
        return tuple(
            self.page.evaluate(
                """window.lyra.ready.then(({ page }) => {
                  if (!window.counts) {
                    window.counts = [0, 0];
                    const [draw, ask] = [page.renderer.render, window.requestAnimationFrame];
                    page.renderer.render = function (...all) { counts[0]++; return draw.apply(this, all); };
                    window.requestAnimationFrame = (then) => { counts[1]++; return ask(then); };
                  }
                  return window.counts;
                })"""
            )
        )

    def problems(self) -> list[str]:
        allowed = (f"request {self.path.as_uri()}", "request blob:", "request data:")
        # Chromium's own remark on reading back software WebGL's pictures.
        return [line for line in self.seen if not line.startswith(allowed) and "GPU stall" not in line]


@pytest.fixture
def tab(browser, tmp_path) -> Iterator[Tab]:
    write_viewer(moving_scene(), tmp_path / "index.html", CAMERA)
    opened = Tab(browser, tmp_path / "index.html")
    yield opened
    opened.page.close()
    assert opened.problems() == []


def expected(scene: DynamicGaussians, at: float) -> np.ndarray:
    background = torch.tensor(BACKGROUND) / 255
    color = render(scene.at(float(at)), CAMERA, background).color[0].clamp(0, 1)
    return color.permute(1, 2, 0).double().numpy()[:SHOWN]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return -10 * math.log10(float(np.square(one - other).mean()) + 1e-12)


@pytest.mark.browser
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_slider_shows_the_moment_that_our_renderer_shows(browser, tmp_path, backend):
    scene = moving_scene()
    write_viewer(scene, tmp_path / "index.html", CAMERA)
    tab = Tab(browser, tmp_path / "index.html", backend)
    try:
        box = tab.page.locator("#time").bounding_box()
        shots = {}
        tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.page.mouse.down()
        for share in (0.05, 0.45, 0.95):
            tab.page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2, steps=3)
            tab.lyra("ready.then(({ page }) => page.redraw())")
            at = tab.lyra("time()")
            shots[at] = tab.shot()
            assert psnr(shots[at], expected(scene, at)) > 35
        tab.page.mouse.up()
        assert list(shots) == [0.0, 0.5, 1.0]
        assert psnr(shots[0.0], shots[0.5]) < 25 and psnr(shots[0.5], shots[1.0]) < 25
        assert tab.lyra("ready.then(({ page }) => page.player.playing)") is False
    finally:
        tab.page.close()
    assert tab.problems() == []


@pytest.mark.browser
def test_it_plays_on_opening_and_draws_nothing_once_it_is_paused(tab):
    tab.count()
    tab.page.wait_for_function("window.counts[0] >= 4")
    times = set()
    tab.page.evaluate("document.getElementById('speed').value = 2")
    until = time.monotonic() + 30
    while len(times) < 5 and time.monotonic() < until:
        times.add(tab.lyra("time()"))
    assert times == set(TIMES.tolist())
    assert tab.page.locator("#toggle").get_attribute("aria-label") == "pause"
    tab.lyra("pause()")
    at, before, picture = tab.lyra("time()"), tab.count(), tab.shot()
    tab.page.wait_for_timeout(500)
    assert (tab.lyra("time()"), tab.count()) == (at, before)
    assert np.array_equal(tab.shot(), picture)
    assert psnr(picture, expected(moving_scene(), at)) > 35
    tab.lyra("play()")
    tab.page.wait_for_function(f"window.counts[0] > {before[0] + 2}")


@pytest.mark.browser
def test_a_time_that_is_set_is_drawn_when_the_call_returns(tab):
    scene = moving_scene()
    for at, nearest in ((0.25, 0.25), (0.9, 1.0), (0.6, 0.5), (-3, 0.0), (7, 1.0)):
        tab.lyra(f"setTime({at})")
        assert tab.lyra("time()") == nearest
        assert psnr(tab.shot(), expected(scene, nearest)) > 35
    # While it plays, a call finds it drawing.
    tab.lyra("play()")
    tab.lyra("setTime(0.5)")
    assert psnr(tab.shot(), expected(scene, 0.5)) > 35


@pytest.mark.browser
def test_keys_and_the_button(tab):
    playing = "ready.then(({ page }) => page.player.playing)"
    tab.page.keyboard.press("Space")
    assert tab.lyra(playing) is False
    tab.page.keyboard.press("Space")
    assert tab.lyra(playing) is True
    tab.page.locator("#toggle").click()
    assert tab.lyra(playing) is False
    # The button has the focus, and the key is its own.
    tab.page.keyboard.press("Space")
    assert tab.lyra(playing) is True
    tab.lyra("setTime(0)")
    tab.page.locator("#view").focus()
    found = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
        tab.page.keyboard.press(key)
        found.append(tab.lyra("time()"))
    assert found == [0.25, 0.5, 0.25, 0.0, 1.0]


def phases(tab: Tab, mode: str) -> list[float]:
    """Times at every eighth of twice the duration, by the page's own clock replaced."""
    return tab.page.evaluate(
        """(mode) => window.lyra.ready.then(({ page: { player } }) => {
          player.seek(0);
          const real = window.requestAnimationFrame;
          let tick;
          window.requestAnimationFrame = (then) => { tick = then; return 1; };
          player.repeat.value = mode;
          player.play();
          const found = [];
          for (let i = 0; i <= 16; i++) {
            tick((i * 1000 * player.seconds) / 8);
            found.push(player.time);
          }
          window.requestAnimationFrame = real;
          player.pause();
          return found;
        })""",
        mode,
    )


@pytest.mark.browser
def test_it_begins_anew_or_turns_back_at_the_end(tab):
    looping, swinging = phases(tab, "loop"), phases(tab, "swing")
    assert looping[:8] == looping[8:16]
    assert looping[2:8:2] == swinging[2:8:2] == [0.25, 0.5, 0.75]
    assert swinging[8:16:2] == [1.0, 0.75, 0.5, 0.25]
    assert swinging[16] == 0.0


@pytest.mark.browser
def test_frames_are_counted_while_time_runs(tab):
    assert tab.lyra("measurePlayback(0.5)") > 0
    assert tab.lyra("ready.then(({ page }) => page.player.playing)") is True
    assert tab.lyra("measureFrames(0.5)") > 0


@pytest.mark.browser
def test_drawn_coarsely_while_it_plays_and_in_full_when_it_stops(tab):
    widths = tab.page.evaluate(
        """window.lyra.ready.then(async ({ page }) => {
          page.adjustDetail = () => {};
          page.detail = 0.5;
          page.player.play();
          await page.redraw();
          const coarse = page.canvas.width;
          await window.lyra.setTime(0.5);
          return [coarse, page.canvas.width, page.canvas.clientWidth];
        })"""
    )
    assert widths == [SIZE // 2, SIZE, SIZE]
    assert psnr(tab.shot(), expected(moving_scene(), 0.5)) > 35


@pytest.mark.browser
def test_a_still_scene_has_no_bar_and_no_time(browser, tmp_path):
    scene = moving_scene()
    write_viewer(scene.moment(0), tmp_path / "still.html", CAMERA)
    # One moment alone does not move either.
    write_viewer(scene.between(0.5, 0.5), tmp_path / "one.html", CAMERA)
    for name in ("still.html", "one.html"):
        tab = Tab(browser, tmp_path / name)
        try:
            assert not tab.page.locator("#player").is_visible()
            assert tab.lyra("time()") is None
            tab.lyra("setTime(0.5)")
            assert psnr(tab.shot(), expected(scene, 0.0 if name == "still.html" else 0.5)) > 35
            assert tab.lyra("measurePlayback(0.2)") > 0
            before = tab.count()
            tab.page.wait_for_timeout(300)
            assert tab.count() == before
        finally:
            tab.page.close()
        assert tab.problems() == []


def test_what_stays_is_stored_once(tmp_path):
    scene = moving_scene(backdrop=100)
    write_viewer(scene, tmp_path / "all.html", CAMERA)
    sizes = []
    for index in range(len(scene)):
        write_viewer(scene.moment(index), tmp_path / f"{index}.html", CAMERA)
        sizes.append((tmp_path / f"{index}.html").stat().st_size)
    assert (tmp_path / "all.html").stat().st_size < 1.5 * max(sizes) < 0.4 * sum(sizes)
    described = json.loads(re.findall('id="scene">(.*?)<', (tmp_path / "all.html").read_text())[0])
    assert described["count"] == len(scene.static) + sum(len(moment) for moment in scene.moments)
    assert described["moments"]["counts"] == [len(moment) for moment in scene.moments]
    assert described["moments"]["times"] == TIMES.tolist()
