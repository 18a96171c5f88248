"""The viewer's page opens from disk in a real browser and shows the right thing at the right place."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians, matrix_from_quaternion, transform
from lyra.viewer.page import BACKGROUND, SCRIPTS, write_viewer
from lyra.viewer.verification import BACKENDS, open_browser

WIDTH, HEIGHT = 800, 500
# Not pure, so that a wrong transfer curve shows.
COLORS = {"left": (0.8, 0.1, 0.25), "right": (0.1, 0.6, 0.2), "up": (0.3, 0.2, 0.7)}
OFFSETS = {"left": (-0.6, 0.0), "right": (0.6, 0.0), "up": (0.0, -0.4)}
DEPTH = 2.0


def oblique_camera() -> Cameras:
    """A camera away from the origin, turned around every axis."""
    pose = torch.eye(4)
    pose[:3, :3] = matrix_from_quaternion(torch.tensor([0.8, 0.3, -0.4, 0.33]))
    pose[:3, 3] = torch.tensor([0.5, -1.0, 0.7])
    return Cameras(pose[None], intrinsics_from_fov(50.0, 120, 160)[None], 120, 160)


def three_blobs(camera: Cameras, size: float = 0.05) -> Gaussians:
    """Red left of the middle, green right, blue above, as ``camera`` sees it: dense clusters, 0.2 across."""
    generator = torch.Generator().manual_seed(0)
    count = 300
    parts, colors = [], []
    for side, (x, y) in OFFSETS.items():
        parts.append(torch.tensor([x, y, DEPTH]) + (torch.rand(count, 3, generator=generator) - 0.5) * 0.2)
        colors.append(torch.tensor(COLORS[side]).expand(count, 3))
    pose = camera.camera_to_world[0]
    means = torch.cat(parts) @ pose[:3, :3].T + pose[:3, 3]
    total = len(means)
    return Gaussians(
        means=means,
        scales=torch.full((total, 3), size),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(total, 1),
        opacities=torch.full((total,), 0.9),
        colors=torch.cat(colors),
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium with software WebGL."""
    pytest.importorskip("playwright", reason="browser tests need playwright")
    try:
        opened = open_browser()
        launched = opened.__enter__()
    except LyraError as problem:
        pytest.skip(str(problem))
    yield launched
    opened.__exit__(None, None, None)


def show(browser: Any, address: str, screenshot: Path) -> tuple[np.ndarray, list[str]]:
    """A screenshot [h, w, 3] once the page has drawn, and every request and error on the way."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    seen: list[str] = []
    page.on("request", lambda request: seen.append(f"request {request.url[:200]}"))
    page.on("websocket", lambda socket: seen.append(f"websocket {socket.url}"))
    page.on("pageerror", lambda error: seen.append(f"error {error}"))
    page.on("console", lambda line: seen.append(f"console {line.text}") if line.type == "error" else None)
    try:
        page.set_default_timeout(60_000)
        page.goto(address)
        page.evaluate("window.lyra.ready.then(({ page }) => page.redraw())")
        page.screenshot(path=str(screenshot))
    finally:
        page.close()
    return np.asarray(Image.open(screenshot).convert("RGB")).astype(int), seen


def center_of(pixels: np.ndarray, color: tuple[float, float, float]) -> tuple[float, float, int]:
    """Mean column and row of the pixels of a color, and how many there are."""
    distance = np.abs(pixels - np.array(color) * 255).max(axis=-1)
    rows, columns = np.nonzero(distance < 12)
    return (float(columns.mean()), float(rows.mean()), len(rows)) if len(rows) else (-1.0, -1.0, 0)


def assert_blobs_in_place(pixels: np.ndarray, camera: Cameras, sides: Iterable[str] = OFFSETS) -> None:
    focal = float(camera.intrinsics[0, 1]) * HEIGHT / camera.height  # the page shows the whole height of the view
    for side in sides:
        x, y = OFFSETS[side]
        column, row, count = center_of(pixels, COLORS[side])
        assert count > 500, f"{side} is not to be seen"
        assert column == pytest.approx(WIDTH / 2 + focal * x / DEPTH, abs=8), side
        assert row == pytest.approx(HEIGHT / 2 + focal * y / DEPTH, abs=8), side


def test_a_title_of_any_file_s_name_is_written(tmp_path):
    camera = oblique_camera()
    write_viewer(three_blobs(camera), tmp_path / "index.html", camera, title=os.fsdecode(b"caf\xe9 <1>"))
    assert "<title>caf? &lt;1&gt;</title>" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.browser
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shrink", [1.0, 0.008])
def test_the_page_from_disk(browser, tmp_path, backend, shrink):
    """Also with Gaussians of 4e-4 units."""
    camera = oblique_camera()
    blobs = three_blobs(camera)
    # Towards the camera, which leaves the picture as it is.
    if shrink < 1:
        blobs = transform(blobs, torch.eye(3), (1 - shrink) * camera.centers[0], shrink)
    path = tmp_path / "index.html"
    write_viewer(blobs, path, camera, title="A <scene> & $more")
    address = f"{path.as_uri()}#{backend}"
    pixels, seen = show(browser, address, tmp_path / "page.png")
    foreign = [line for line in seen if not line.startswith(("request blob:", "request data:"))]
    assert foreign == [f"request {path.as_uri()}"]
    assert_blobs_in_place(pixels, camera)
    assert pixels[-60, 30].tolist() == pytest.approx(list(BACKGROUND), abs=1)


@pytest.mark.browser
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("front", [0, 1])
def test_the_nearer_splat_hides_the_farther_and_round_ones_show(browser, tmp_path, backend, front):
    means = torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, 1.5]])
    means[front, 2] = 1.0
    colors = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    colors[front] = torch.tensor([1.0, 0.0, 0.0])
    upright = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(2, 4)
    pair = Gaussians(means, torch.full((2, 3), 0.2), upright, torch.full((2,), 0.999), colors)
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 128, 128)[None], 128, 128)
    write_viewer(pair, tmp_path / "index.html", camera)
    pixels, _ = show(browser, f"{(tmp_path / 'index.html').as_uri()}#{backend}", tmp_path / "shot.png")
    red, green, _ = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2][:3].tolist()
    assert red > 10 * max(green, 1)


@pytest.mark.browser
def test_a_visitor_moves_the_camera(browser, tmp_path):
    """Dragging turns around what is seen and keeps it in the middle; R comes back."""
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 128, 128)[None], 128, 128)
    spot = Gaussians(
        means=torch.tensor([[0.0, 0.0, 2.0], [0.5, 0.0, 3.0]]),
        scales=torch.full((2, 3), 0.05),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4),
        opacities=torch.full((2,), 0.99),
        colors=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    )
    write_viewer(spot, tmp_path / "index.html", camera)
    page = browser.new_page(viewport={"width": 300, "height": 200})

    def where(name: str) -> dict[str, tuple[float, float]]:
        page.evaluate("window.lyra.ready.then(({ page }) => page.redraw())")
        page.screenshot(path=str(tmp_path / f"{name}.png"))
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        found = {}
        for channel, color in enumerate(("red", "green")):
            rows, columns = np.nonzero(pixels[..., channel] > 150)
            found[color] = (float(columns.mean()), float(rows.mean())) if len(rows) else (-1.0, -1.0)
        return found

    try:
        page.goto((tmp_path / "index.html").as_uri())
        before = where("before")
        page.mouse.move(150, 100)
        page.mouse.down()
        page.mouse.move(190, 100)
        page.mouse.up()
        turned = where("turned")
        page.keyboard.press("r")
        after = where("after")
    finally:
        page.close()
    middle = np.mean([before["red"], before["green"]], axis=0)
    assert np.abs(np.mean([turned["red"], turned["green"]], axis=0) - middle).max() < 40
    assert abs(turned["green"][0] - turned["red"][0] - before["green"][0] + before["red"][0]) > 5
    assert turned["red"][1] == pytest.approx(before["red"][1], abs=1)
    assert after == before


@pytest.mark.browser
def test_an_empty_scene_and_a_problem_are_shown(browser, tmp_path):
    camera = oblique_camera()
    path = tmp_path / "index.html"
    write_viewer(three_blobs(camera).select(torch.zeros(900, dtype=torch.bool)), path, camera)
    pixels, seen = show(browser, path.as_uri(), tmp_path / "page.png")
    assert not [line for line in seen if line.startswith(("error", "console"))]
    assert pixels[HEIGHT // 2, WIDTH // 2].tolist() == list(BACKGROUND)
    path.write_text(re.sub('(id="splats">)[^<]*', r"\1AAAA", path.read_text()))
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_function("document.getElementById('problem').textContent.length > 5", timeout=30_000)
    page.close()


def test_the_page_is_titled_the_same_every_time_and_holds_what_it_shows(tmp_path):
    camera = oblique_camera()
    for name in ("a.html", "b.html"):
        write_viewer(three_blobs(camera), tmp_path / name, camera, title="A <scene> & $more")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<title>A &lt;scene&gt; &amp; $more</title>" in page
    assert page == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]
    scene = json.loads(re.findall('id="scene">(.*?)<', page)[0])
    assert scene["count"] == 900
    assert scene["camera"]["distance"] == pytest.approx(DEPTH, abs=0.02)
    assert "http" not in re.sub('id="(splats|composite)">[^<]*', "", page)


def test_the_compiled_loop_is_that_of_its_source():
    wasmtime = pytest.importorskip("wasmtime", reason="assembling splat.wat needs wasmtime")
    folder = resources.files("lyra.viewer") / "assets"
    assert wasmtime.wat2wasm((folder / "splat.wat").read_text()) == (folder / "splat.wasm").read_bytes()


def test_the_scripts_parse():
    node = shutil.which("node")
    if node is None:
        pytest.skip("parsing the page's scripts needs node")
    folder = resources.files("lyra.viewer") / "assets"
    for name in SCRIPTS:
        done = subprocess.run([node, "--check", str(folder / f"{name}.js")], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_what_the_viewer_refuses(tmp_path):
    camera = oblique_camera()
    blobs = three_blobs(camera)
    with pytest.raises(ValueError, match="one initial view"):
        write_viewer(blobs, tmp_path / "index.html", concatenate_cameras([camera, camera]))
    (tmp_path / "file").write_text("")
    with pytest.raises(LyraError, match="choose another folder"):
        write_viewer(blobs, tmp_path / "file" / "index.html", camera)
