"""Does a scene look the same everywhere? Its page in a real browser against our renderer at the same cameras."""

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError, MissingExtraError
from lyra.files import load_image, save_image
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.trajectories import fly_through
from lyra.rendering import render
from lyra.rendering.appearance import seen_from
from lyra.scene.scene import Scene
from lyra.viewer.page import BACKGROUND, remake_page, write_viewer

NEEDED_PSNR = 35.0
"""dB between the page and our renderer, in every view."""
NEEDED_ALPHA, NEEDED_ENLARGED_PSNR = 0.97, 30.0
"""What a picture of ``ENLARGEMENT`` times the size should keep: its share of alpha, and dB once scaled down again."""
MOST_PSNR = 120.0
"""dB of pictures that are the same, which would be infinite."""
LEAST_CONTRAST = 1 / 255
"""Standard deviation of a channel below which a picture shows nothing."""
ENLARGEMENT = 4
PAGE = "index.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
FLAGS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-sandbox")
"""Software WebGL, so that the pictures do not depend on the machine's GPU."""

Backend = Literal["processor", "webgl"]
"""The page's two ways to draw."""
BACKENDS: tuple[Backend, ...] = ("processor", "webgl")


@dataclass(frozen=True)
class Verification:
    """What was found."""

    psnr: Mapping[Backend, tuple[float, ...]]
    """dB of each view, page against renderer."""
    frames_per_second: float | None
    """Of the page as it chooses to draw while its camera moves; None where it was not measured."""
    enlarged_alpha: float
    """Least share of a view's alpha that is left at ``ENLARGEMENT`` times the size, by our renderer."""
    enlarged_psnr: float
    """Least dB of a view so enlarged and scaled down again."""
    empty: tuple[int, ...] = ()
    """Views in which our renderer shows nothing but one color: they agree with any page that shows nothing."""

    @property
    def agrees(self) -> bool:
        """Whether page and renderer show the same picture, and there is something in it."""
        return not self.empty and all(value >= NEEDED_PSNR for values in self.psnr.values() for value in values)

    @property
    def problem(self) -> str | None:
        """What is wrong, in one sentence; None where they agree."""
        if self.agrees:
            return None
        if self.empty:
            views = ", ".join(map(str, self.empty))
            return f"nothing is to be seen in view {views}: the scene is empty, or not before its camera"
        least = min(value for values in self.psnr.values() for value in values)
        return f"the page differs from the renderer: {least:.1f} dB where {NEEDED_PSNR:g} are needed"

    @property
    def enlarges(self) -> bool:
        """Whether the scene keeps its looks at ``ENLARGEMENT`` times the size."""
        return self.enlarged_alpha >= NEEDED_ALPHA and self.enlarged_psnr >= NEEDED_ENLARGED_PSNR

    def as_json(self) -> dict[str, Any]:
        """What ``lyra verify --json`` prints."""
        return {
            "psnr": min(value for values in self.psnr.values() for value in values),
            "rows": [
                {"backend": backend, "view": view, "psnr": value}
                for backend, values in self.psnr.items()
                for view, value in enumerate(values)
            ],
            "frames_per_second": self.frames_per_second,
            "enlarged_alpha": self.enlarged_alpha,
            "enlarged_psnr": self.enlarged_psnr,
            "empty_views": list(self.empty),
            "agrees": self.agrees,
            "enlarges": self.enlarges,
        }


def verify_scene(
    path: Path, views: int = 4, size: int = 640, save: Path | None = None, seconds: float = 4.0
) -> Verification:
    """Shows a scene's page in headless Chromium and compares it with our renderer.

    Args:
        path: A scene folder, of whose ``index.html`` the splats are shown, or a PLY, for which a page is written first.
        views: How many, the input camera first, the others along the fly-through.
        size: Shorter side of the pictures in pixels.
        save: Folder for the pictures, ours and the page's, and ``pairs.png`` with both side by side.
        seconds: How long the frame rate is measured; 0 for not at all.

    Raises:
        LyraError: The scene will not do, or there is no browser.
        MissingExtraError: playwright is not installed.
    """
    if views < 1 or not 64 <= size <= 2048:
        raise LyraError("verify needs at least 1 view and a size of 64 to 2048 pixels")
    scene = Scene.load(path)
    # The page shows the colors that its first view sees.
    scene = replace(scene, gaussians=seen_from(scene.gaussians, scene.input_camera.centers[0]))
    cameras = choose_views(scene.input_camera, views, size, scene.unit)
    with open_browser() as browser, _page_of(scene, Path(path)) as page:
        shots: dict[Backend, list[Tensor]] = {name: take_shots(browser, page, cameras, name) for name in BACKENDS}
        rate = measure_frames(browser, page, cameras, seconds) if seconds > 0 else None
    pictures = _draw(scene.gaussians, cameras)
    if save is not None:
        _save(save, pictures, shots)
    shorter = min(scene.input_camera.height, scene.input_camera.width)
    native = choose_views(scene.input_camera, views, shorter, scene.unit)
    empty = tuple(view for view, ours in enumerate(pictures) if float(ours.flatten(1).std(1).max()) < LEAST_CONTRAST)
    ratios: dict[Backend, tuple[float, ...]] = {
        name: tuple(_psnr(ours, shot) for ours, shot in zip(pictures, shots[name], strict=True)) for name in shots
    }
    return Verification(ratios, rate, *enlarge(scene.gaussians, native), empty)


def choose_views(camera: Cameras, views: int, size: int, unit: float = 1.0) -> Cameras:
    """The input camera, then others evenly along the fly-through around the point ``unit`` ahead of it.

    Their shorter side has ``size`` pixels.
    """
    factor = size / min(camera.height, camera.width)
    height, width = round(camera.height * factor), round(camera.width * factor)
    path = fly_through(0.3, 4 * views, camera.intrinsics[0], camera.height, camera.width)[::4]
    poses = path.camera_to_world.clone()
    poses[:, :3, 3] *= unit
    poses = camera.camera_to_world[0].to(poses) @ poses
    return Cameras(poses, path.intrinsics, camera.height, camera.width).resized(height, width)


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """Headless Chromium with software WebGL, closed at the end.

    Raises:
        LyraError: There is no Chromium, or it does not start.
        MissingExtraError: playwright is not installed.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise MissingExtraError("playwright", "verify", "verify") from None
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        except Error as error:
            reason = "does not start" if program else "is not installed"
            raise LyraError(
                f"verify needs Chromium, which {reason}: apt-get install chromium, or playwright install chromium"
            ) from error
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def _page_of(scene: Scene, path: Path) -> Iterator[Path]:
    """The splats of the page that was exported with a scene folder, or of a PLY, in a page of our own.

    The browser has no sandbox and would run whatever a folder's own page holds.
    """
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / PAGE
        if path.is_dir():
            if not (path / PAGE).is_file():
                raise LyraError(f"{path} holds no {PAGE}: generate the scene again")
            try:
                page.write_text(remake_page((path / PAGE).read_text(encoding="utf-8")), encoding="utf-8")
            except ValueError as error:
                raise LyraError(f"{path / PAGE} is no page of this version: generate the scene again") from error
        else:
            write_viewer(scene.gaussians, page, scene.input_camera)
        yield page


@contextlib.contextmanager
def open_page(browser: Any, page: Path, height: int, width: int, backend: Backend | None = None) -> Iterator[Any]:
    """A tab with a scene's page, ready to draw."""
    tab = browser.new_page(viewport={"width": width, "height": height})
    try:
        tab.goto(page.resolve().as_uri() + (f"#{backend}" if backend else ""))
        if not tab.evaluate("typeof window.lyra === 'object'"):
            raise LyraError("the page's splats cannot be shown: generate the scene again with this version")
        tab.set_default_timeout(120_000)
        tab.evaluate("window.lyra.ready.then(() => null)")
        # A scene that moves begins to play; compared is its first moment.
        tab.evaluate("window.lyra.setTime && window.lyra.setTime(0)")
        yield tab
    finally:
        tab.close()


def take_shots(browser: Any, page: Path, cameras: Cameras, backend: Backend) -> list[Float[Tensor, "3 height width"]]:
    """Screenshots of a page at some cameras."""
    shots = []
    with (
        open_page(browser, page, cameras.height, cameras.width, backend) as tab,
        tempfile.TemporaryDirectory() as folder,
    ):
        for pose, intrinsics in zip(cameras.camera_to_world.tolist(), cameras.intrinsics.tolist(), strict=True):
            tab.evaluate("([pose, numbers]) => window.lyra.setCamera(pose, ...numbers)", [pose, intrinsics])
            tab.screenshot(path=f"{folder}/shot.png")
            shots.append(load_image(Path(folder) / "shot.png"))
    return shots


def measure_frames(browser: Any, page: Path, cameras: Cameras, seconds: float) -> float:
    """Frames a second while the page's camera moves, drawn as the page itself chooses."""
    with open_page(browser, page, cameras.height, cameras.width) as tab:
        return float(tab.evaluate("(seconds) => window.lyra.measureFrames(seconds)", seconds))


@torch.no_grad()
def _draw(gaussians: Gaussians, cameras: Cameras) -> list[Float[Tensor, "3 height width"]]:
    background = torch.tensor(BACKGROUND) / 255
    return [render(gaussians, cameras[i : i + 1], background).color[0].clamp(0, 1) for i in range(len(cameras))]


@torch.no_grad()
def enlarge(gaussians: Gaussians, cameras: Cameras) -> tuple[float, float]:
    """Least share of alpha kept, and least PSNR once scaled down again, of views at ``ENLARGEMENT`` times the size."""
    large = cameras.resized(ENLARGEMENT * cameras.height, ENLARGEMENT * cameras.width)
    shares, ratios = [], []
    for view in range(len(cameras)):
        before = render(gaussians, cameras[view : view + 1])
        after = render(gaussians, large[view : view + 1])
        shares.append(float(after.alpha.mean() / before.alpha.mean().clamp(min=1e-6)))
        ratios.append(_psnr(before.color.clamp(0, 1), F.avg_pool2d(after.color.clamp(0, 1), ENLARGEMENT)))
    return min(shares), min(ratios)


def _psnr(a: Tensor, b: Tensor) -> float:
    error = float((a - b).double().square().mean())
    return -10 * math.log10(max(error, 10 ** (-MOST_PSNR / 10)))


def _save(folder: Path, pictures: list[Tensor], shots: Mapping[Backend, list[Tensor]]) -> None:
    """Each picture, and one of them all: a row a view, ours first."""
    rows = []
    for view, ours in enumerate(pictures):
        columns = {"renderer": ours, **{name: shots[name][view] for name in shots}}
        for name, picture in columns.items():
            save_image(picture, folder / f"{view}-{name}.png")
        rows.append(torch.cat([ours, shots["processor"][view]], dim=-1))
    save_image(torch.cat(rows, dim=-2), folder / "pairs.png")
