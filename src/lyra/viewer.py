"""Splats in the browser: one self-contained HTML file, or a live server on this machine."""

import contextlib
import html
import io
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lyra.cameras import Cameras
from lyra.errors import LyraError, MissingExtraError
from lyra.formats import write_atomically
from lyra.gaussians import Gaussians, covariances

LOOPBACK = "127.0.0.1"
LARGEST_PORT = 64_000
"""Viser tries the thousand ports from the one asked for, and hangs when it runs past the last."""
NEAR = 0.01
"""Distance of the near plane in scene units."""
BACKGROUND = (24, 24, 27)
"""sRGB bytes shown where there is no splat; a neutral dark gray."""

# Viser gives its splat geometry positions of two components, of which three.js reports the missing third
# as NaN (viser 1.1.1). Nothing follows from it: a bounding sphere of unknown radius is never culled.
_QUIET_SCRIPT = """<script>
const report = console.error;
console.error = (...words) =>
  String(words[0]).startsWith("THREE.BufferGeometry.computeBoundingSphere") || report(...words);
</script>"""


def write_viewer(gaussians: Gaussians, path: Path, initial_camera: Cameras, title: str = "lyra scene") -> None:
    """Writes one HTML file that shows the splats, opens from disk and loads nothing from anywhere.

    Args:
        gaussians: An unbatched set; NaN is a defect of the caller.
        path: The file, by convention ``index.html``.
        initial_camera: Exactly one view; the page starts there, with its vertical field of view.
        title: Title of the page.

    Raises:
        LyraError: The file cannot be written, or no local port can be opened.
        MissingExtraError: viser is not installed.
    """
    with _server(0) as server:
        _show(server, gaussians, initial_camera)
        page = server.get_scene_serializer().as_html(dark_mode=True)
    head = f"<title>{html.escape(title)}</title>{_QUIET_SCRIPT}"
    page = re.sub(r"<title>.*?</title>", lambda _: head, page, count=1)
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def serve_viewer(gaussians: Gaussians, initial_camera: Cameras, port: int = 8080) -> None:
    """Runs :func:`live_viewer` until it is interrupted (Ctrl-C), after printing its address."""
    with live_viewer(gaussians, initial_camera, port) as address, contextlib.suppress(KeyboardInterrupt):
        print(f"{address} shows the scene; Ctrl-C ends", flush=True)
        threading.Event().wait()


@contextlib.contextmanager
def live_viewer(gaussians: Gaussians, initial_camera: Cameras, port: int = 8080) -> Iterator[str]:
    """Runs a live viewer on this machine's loopback address while the block runs; yields its address.

    A port that is taken is replaced by the next free one. Arguments and errors are those of
        :func:`write_viewer`.
    """
    with _server(port) as server:
        _show(server, gaussians, initial_camera)
        # Sharing would send the scene to viser's public relay.
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        yield f"http://{LOOPBACK}:{server.get_port()}"


@contextlib.contextmanager
def _server(port: int) -> Iterator[Any]:
    """A quiet viser server bound to loopback, stopped at the end."""
    try:
        import viser
    except ImportError:
        raise MissingExtraError("viser", "viewer", "the viewer") from None
    if not 0 <= port <= LARGEST_PORT:
        raise LyraError(f"the viewer cannot use port {port}: choose one from 1024 to {LARGEST_PORT}")
    with _silence():
        server = viser.ViserServer(host=LOOPBACK, port=port, verbose=False)
    try:
        yield server
    finally:
        with _silence():
            server.stop()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Viser's banner and its farewell would mix with what the command prints, or break its JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _show(server: Any, gaussians: Gaussians, camera: Cameras) -> None:
    if gaussians.means.ndim != 2 or len(camera) != 1:
        raise ValueError("the viewer shows one unbatched set of Gaussians from one initial view")
    pose = camera.camera_to_world[0].double().cpu().numpy()
    means = gaussians.means.detach().float().cpu()
    depths = (means.double().numpy() - pose[:3, 3]) @ pose[:3, 2]
    in_front = depths[depths > NEAR]
    center = float(np.median(in_front)) if len(in_front) else 1.0
    _place_camera(server, pose, camera, center, means)
    # Far to near from the initial view: viser's sorting worker does not run in a page opened from disk (1.1.1), where
    # splats are drawn in the order in which they are stored.
    order = torch.from_numpy(np.argsort(-depths, kind="stable"))
    _add_splats(server, gaussians.select(order.to(gaussians.means.device)), means[order])
    background = np.full((1, 1, 3), BACKGROUND, dtype=np.uint8)
    server.scene.set_background_image(background, format="png")


def _place_camera(server: Any, pose: np.ndarray, camera: Cameras, center: float, means: torch.Tensor) -> None:
    """Starts at the view, turning around what it sees in the middle of its depth; up is the view's -y."""
    position, down, forward = pose[:3, 3], pose[:3, 1], pose[:3, 2]
    focal = float(camera.intrinsics[0, 1])
    reach = float((means.double() - torch.from_numpy(position)).norm(dim=-1).max()) if len(means) else 1.0
    server.scene.set_up_direction(tuple((-down).tolist()))
    start = server.initial_camera
    start.position = tuple(position.tolist())
    start.look_at = tuple((position + center * forward).tolist())
    start.up = tuple((-down).tolist())
    start.fov = 2 * math.atan(0.5 * camera.height / focal)
    start.near = NEAR
    start.far = max(1000.0, 4 * reach)


def _add_splats(server: Any, gaussians: Gaussians, means: torch.Tensor) -> None:
    """Hands over the splats in a unit in which their covariances fit float16, which is what viser stores.

    In scene units a standard deviation of 3e-4 would have one significant bit; measured by the typical
    one, the range from 1/100 to 250 of it is exact to 11 bits.
    """
    sizes = gaussians.scales.detach().float().amax(dim=-1)
    unit = float(sizes.clamp(min=1e-6).log().median().exp()) if len(means) else 1.0
    spreads = covariances(gaussians.map(lambda t: t.detach().float())).cpu() / unit**2
    # Viser's shader (1.1.1) normalises a zero vector where a splat's picture is an exact circle, and the splat
    # vanishes: every splat is made longer by 0.2 % in a direction that no view is likely to lie along.
    skew = torch.tensor([0.48, 0.64, 0.6])
    size = spreads.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    spreads = spreads + 4e-3 * size * torch.outer(skew, skew)
    server.scene.add_gaussian_splats(
        "/splats",
        centers=(means / unit).numpy(),
        covariances=spreads.clamp(-6e4, 6e4).numpy(),
        rgbs=_to_bytes(gaussians.colors),
        opacities=_to_bytes(gaussians.opacities)[:, None],
        scale=unit,
    )


def _to_bytes(values: torch.Tensor) -> np.ndarray:
    return (values.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
