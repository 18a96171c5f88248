"""The live viewer: served on this machine alone, the splats or frames of our renderer."""

import contextlib
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_viewer import COLORS, HEIGHT, WIDTH, assert_blobs_in_place, browser, center_of, oblique_camera, three_blobs

from lyra.errors import LyraError, MissingExtraError
from lyra.geometry.gaussians import quaternion_from_matrix
from lyra.viewer import live as module
from lyra.viewer.live import live_viewer, render_frame

pytest.importorskip("viser", reason="the live viewer needs viser: pip install 'lyra[viewer]'")

__all__ = ["browser"]  # a fixture


def watch(browser, address: str, screenshot: Path, seconds: float = 60.0) -> tuple[np.ndarray, list[str]]:
    """A screenshot [h, w, 3] once the scene is there, and every request on the way."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    seen: list[str] = []
    page.on("request", lambda request: seen.append(f"request {request.url[:200]}"))
    page.on("websocket", lambda socket: seen.append(f"websocket {socket.url}"))
    try:
        page.goto(address)
        end = time.monotonic() + seconds
        while True:
            page.wait_for_timeout(1000)
            page.screenshot(path=str(screenshot))
            pixels = np.asarray(Image.open(screenshot).convert("RGB")).astype(int)
            # Splats fade in.
            if center_of(pixels, COLORS["left"])[2] > 2000 or time.monotonic() > end:
                return pixels, seen
    finally:
        page.close()


@pytest.mark.browser
@pytest.mark.parametrize("send", ["splats", "frames"])
def test_a_browser_sees_the_scene_and_asks_nobody_else(browser, tmp_path, send):
    camera = oblique_camera()
    with live_viewer(three_blobs(camera), camera, 0, send) as address:
        pixels, seen = watch(browser, address, tmp_path / "page.png")
    hosts = {line.split("/")[2] for line in seen if line.startswith(("request http", "websocket"))}
    assert hosts == {address.removeprefix("http://")}
    assert_blobs_in_place(pixels, camera, ["left", "up"])  # the panel covers what is right


def test_a_frame_is_what_the_camera_sees():
    camera = oblique_camera()
    pose = camera.camera_to_world[0]
    wxyz = quaternion_from_matrix(pose[:3, :3]).numpy()
    fov = 2 * float(torch.atan(0.5 * camera.height / camera.intrinsics[0, 1]))
    frame = render_frame(three_blobs(camera), wxyz, pose[:3, 3].numpy(), fov, WIDTH / HEIGHT, HEIGHT)
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert_blobs_in_place(frame.astype(int), camera)


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

    monkeypatch.setattr(module, "live_viewer", stand_in)
    module.serve_viewer(three_blobs(camera), camera)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:8080 shows")


def test_what_the_live_viewer_refuses(monkeypatch):
    camera = oblique_camera()
    blobs = three_blobs(camera)
    with pytest.raises(LyraError, match="port 70000"), live_viewer(blobs, camera, 70_000):
        pass
    with pytest.raises(ValueError, match="unbatched"), live_viewer(blobs.map(lambda t: t[None]), camera):
        pass
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(MissingExtraError, match=r"lyra\[viewer\]"), live_viewer(blobs, camera):
        pass
