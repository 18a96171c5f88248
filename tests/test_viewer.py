"""The viewer's page opens from disk in a real browser and shows the right thing at the right place."""

import contextlib
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lyra import viewer
from lyra.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.errors import LyraError
from lyra.gaussians import Gaussians, matrix_from_quaternion, transform

pytest.importorskip("viser", reason="the viewer needs viser: pip install 'lyra[viewer]'")

from lyra.viewer import BACKGROUND, live_viewer, write_viewer

CHROMIUM = Path("/usr/bin/chromium")
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
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"the browser test needs {CHROMIUM}")
    flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-sandbox"]
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield launched
        launched.close()


def watch(browser: Any, address: str, screenshot: Path, seconds: float = 8.0) -> tuple[np.ndarray, list[str]]:
    """A screenshot [h, w, 3] after a real wait, and every request and console error on the way."""
    from PIL import Image

    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    seen: list[str] = []
    page.on("request", lambda request: seen.append(f"request {request.url[:200]}"))
    page.on("websocket", lambda socket: seen.append(f"websocket {socket.url}"))
    page.on("pageerror", lambda error: seen.append(f"error {error}"))
    page.on("console", lambda line: seen.append(f"console {line.text}") if line.type == "error" else None)
    try:
        page.goto(address)
        page.wait_for_timeout(seconds * 1000)
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


@pytest.mark.browser
@pytest.mark.parametrize("shrink", [1.0, 0.008])
def test_the_page_from_disk(browser, tmp_path, shrink):
    """Also with Gaussians of 4e-4 units, whose covariances would be lost in float16."""
    camera = oblique_camera()
    blobs = three_blobs(camera)
    # Towards the camera, which leaves the picture as it is.
    if shrink < 1:
        blobs = transform(blobs, torch.eye(3), (1 - shrink) * camera.centers[0], shrink)
    path = tmp_path / "index.html"
    write_viewer(blobs, path, camera, title="A <scene> & more")
    address = path.as_uri()
    pixels, seen = watch(browser, address, tmp_path / "page.png")
    foreign = [line for line in seen if not line.startswith(("request blob:", "request data:"))]
    assert foreign == [f"request {address}"]
    assert_blobs_in_place(pixels, camera)
    assert pixels[-30, 30].tolist() == pytest.approx(list(BACKGROUND), abs=3)


@pytest.mark.browser
@pytest.mark.parametrize("front", [0, 1])
def test_the_nearer_splat_hides_the_farther_and_round_ones_show(browser, tmp_path, front):
    means = torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, 1.5]])
    means[front, 2] = 1.0
    colors = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    colors[front] = torch.tensor([1.0, 0.0, 0.0])
    upright = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(2, 4)
    pair = Gaussians(means, torch.full((2, 3), 0.2), upright, torch.full((2,), 0.999), colors)
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 128, 128)[None], 128, 128)
    write_viewer(pair, tmp_path / "index.html", camera)
    pixels, _ = watch(browser, (tmp_path / "index.html").as_uri(), tmp_path / "shot.png")
    red, green, _ = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2][:3].tolist()
    assert red > 10 * green


@pytest.mark.browser
def test_the_live_viewer(browser, tmp_path):
    camera = oblique_camera()
    with live_viewer(three_blobs(camera), camera, 0) as address:
        pixels, seen = watch(browser, address, tmp_path / "page.png")
    hosts = {line.split("/")[2] for line in seen if line.startswith(("request http", "websocket"))}
    assert hosts == {address.removeprefix("http://")}
    assert_blobs_in_place(pixels, camera, ["left", "up"])  # the panel covers what is right


def test_the_page_is_silent_titled_and_the_same_every_time(tmp_path, capfd):
    camera = oblique_camera()
    for name in ("a.html", "b.html"):
        write_viewer(three_blobs(camera), tmp_path / name, camera, title="A <scene> & more")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<title>A &lt;scene&gt; &amp; more</title>" in page
    assert page == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert tuple(capfd.readouterr()) == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_the_server_is_on_loopback_and_stops(capfd):
    camera = oblique_camera()
    with live_viewer(three_blobs(camera), camera, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.status == 200
    with pytest.raises(OSError), urllib.request.urlopen(address, timeout=2):
        pass
    assert capfd.readouterr().out == ""


def test_serving_ends_with_an_interrupt(monkeypatch, capsys):
    def interrupt(_event):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Event, "wait", interrupt)
    camera = oblique_camera()

    @contextlib.contextmanager
    def stand_in(*_):
        yield "http://127.0.0.1:8080"

    monkeypatch.setattr(viewer, "live_viewer", stand_in)
    viewer.serve_viewer(three_blobs(camera), camera)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:8080 shows")


def test_what_the_viewer_refuses(tmp_path, monkeypatch):
    camera = oblique_camera()
    blobs = three_blobs(camera)
    with pytest.raises(ValueError, match="one initial view"):
        write_viewer(blobs, tmp_path / "index.html", concatenate_cameras([camera, camera]))
    with pytest.raises(LyraError, match="port 70000"), live_viewer(blobs, camera, 70_000):
        pass
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(LyraError, match=r"lyra\[viewer\]"):
        write_viewer(blobs, tmp_path / "index.html", camera)
    assert list(tmp_path.iterdir()) == []
