"""A viewer served on this machine: the browser draws the splats, or shows frames that our CPU renderer draws."""

import contextlib
import io
import math
import threading
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch

from lyra.errors import LyraError, MissingExtraError
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians, covariances, matrix_from_quaternion
from lyra.rendering import render
from lyra.rendering.appearance import seen_from
from lyra.viewer.page import BACKGROUND, NEAR, middle_depth

LOOPBACK = "127.0.0.1"
LARGEST_PORT = 64_000
"""Viser tries the thousand ports from the one asked for, and hangs when it runs past the last."""
FRAME_HEIGHT = 540
"""Rows of the frames that are sent; the browser enlarges them."""

Sent = Literal["splats", "frames"]


def serve_viewer(gaussians: Gaussians, initial_camera: Cameras, port: int = 8080, send: Sent = "splats") -> None:
    """Runs :func:`live_viewer` until it is interrupted (Ctrl-C), after printing its address."""
    with live_viewer(gaussians, initial_camera, port, send) as address, contextlib.suppress(KeyboardInterrupt):
        print(f"{address} shows the scene; Ctrl-C ends", flush=True)
        threading.Event().wait()


@contextlib.contextmanager
def live_viewer(
    gaussians: Gaussians, initial_camera: Cameras, port: int = 8080, send: Sent = "splats"
) -> Iterator[str]:
    """Runs a live viewer on this machine's loopback address while the block runs; yields its address.

    Args:
        gaussians: An unbatched set; NaN is a defect of the caller.
        initial_camera: Exactly one view; the viewer starts there, with its vertical field of view.
        port: One that is taken is replaced by the next free one; 0 for any.
        send: What the browser gets: the splats once, or a frame of our renderer whenever its camera moves.

    Raises:
        LyraError: No local port can be opened.
        MissingExtraError: viser is not installed.
    """
    if gaussians.means.ndim != 2 or len(initial_camera) != 1:
        raise ValueError("the viewer shows one unbatched set of Gaussians from one initial view")
    # Each splat has one color there: the one that the first view sees.
    gaussians = seen_from(gaussians, initial_camera.centers[0]).map(lambda tensor: tensor.detach().float().cpu())
    with _server(port) as server:
        _place_camera(server, initial_camera, gaussians.means)
        # Sharing would send the scene to viser's public relay.
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        with _send_splats(server, gaussians) if send == "splats" else _send_frames(server, gaussians):
            yield f"http://{LOOPBACK}:{server.get_port()}"


@contextlib.contextmanager
def _server(port: int) -> Iterator[Any]:
    """A quiet viser server bound to loopback, stopped at the end."""
    try:
        import viser
    except ImportError:
        raise MissingExtraError("viser", "viewer", "the live viewer") from None
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
    """Viser's banner and its farewell would mix with what the command prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _place_camera(server: Any, camera: Cameras, means: torch.Tensor) -> None:
    """Starts at the view, turning around what it sees in the middle of its depth; up is the view's -y."""
    pose = camera.camera_to_world[0].double().cpu().numpy()
    position, down, forward = pose[:3, 3], pose[:3, 1], pose[:3, 2]
    reach = float((means.double() - torch.from_numpy(position)).norm(dim=-1).max()) if len(means) else 1.0
    server.scene.set_up_direction(tuple((-down).tolist()))
    start = server.initial_camera
    start.position = tuple(position.tolist())
    start.look_at = tuple((position + middle_depth(pose, means.numpy()) * forward).tolist())
    start.up = tuple((-down).tolist())
    start.fov = 2 * math.atan(0.5 * camera.height / float(camera.intrinsics[0, 1]))
    start.near = NEAR
    start.far = max(1000.0, 4 * reach)


@contextlib.contextmanager
def _send_splats(server: Any, gaussians: Gaussians) -> Iterator[None]:
    """Hands over the splats in a unit in which their covariances fit float16, which is what viser stores.

    In scene units a standard deviation of 3e-4 would have one significant bit; measured by the typical
    one, the range from 1/100 to 250 of it is exact to 11 bits.
    """
    sizes = gaussians.scales.amax(dim=-1)
    unit = float(sizes.clamp(min=1e-6).log().median().exp()) if len(gaussians) else 1.0
    spreads = covariances(gaussians) / unit**2
    # Viser's shader (1.1.1) normalises a zero vector where a splat's picture is an exact circle, and the splat
    # vanishes: every splat is made longer by 0.2 % in a direction that no view is likely to lie along.
    skew = torch.tensor([0.48, 0.64, 0.6])
    size = spreads.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    spreads = spreads + 4e-3 * size * torch.outer(skew, skew)
    server.scene.add_gaussian_splats(
        "/splats",
        centers=(gaussians.means / unit).numpy(),
        covariances=spreads.clamp(-6e4, 6e4).numpy(),
        rgbs=_to_bytes(gaussians.colors),
        opacities=_to_bytes(gaussians.opacities)[:, None],
        scale=unit,
    )
    background = np.full((1, 1, 3), BACKGROUND, dtype=np.uint8)
    server.scene.set_background_image(background, format="png")
    yield


class _Visitor:
    """A browser, and the thread that renders for it whenever its camera has moved."""

    def __init__(self, client: Any, gaussians: Gaussians):
        self.client, self.gaussians = client, gaussians
        self.moved, self.gone = threading.Event(), threading.Event()
        self.moved.set()
        client.camera.on_update(lambda _: self.moved.set())
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while self.moved.wait() and not self.gone.is_set():
            self.moved.clear()
            camera = self.client.camera
            frame = render_frame(self.gaussians, camera.wxyz, camera.position, camera.fov, camera.aspect)
            if not self.gone.is_set():
                self.client.scene.set_background_image(frame, format="jpeg", jpeg_quality=90)

    def leave(self) -> None:
        self.gone.set()
        self.moved.set()


@contextlib.contextmanager
def _send_frames(server: Any, gaussians: Gaussians) -> Iterator[None]:
    """Renders for every browser while the block runs."""
    visitors: dict[int, _Visitor] = {}

    @server.on_client_connect
    def _(client: Any) -> None:
        visitors[client.client_id] = _Visitor(client, gaussians)

    @server.on_client_disconnect
    def _(client: Any) -> None:
        visitors.pop(client.client_id).leave()

    try:
        yield
    finally:
        for visitor in list(visitors.values()):
            visitor.leave()
            visitor.thread.join()


def render_frame(
    gaussians: Gaussians, wxyz: np.ndarray, position: np.ndarray, fov: float, aspect: float, height: int = FRAME_HEIGHT
) -> np.ndarray:
    """One frame, bytes [height, width, 3], of a camera as viser gives it: OpenCV axes, vertical ``fov`` in radians."""
    width = max(1, round(height * aspect))
    pose = torch.eye(4)
    pose[:3, :3] = matrix_from_quaternion(torch.as_tensor(wxyz, dtype=torch.float32))
    pose[:3, 3] = torch.as_tensor(position, dtype=torch.float32)
    focal = 0.5 * height / math.tan(fov / 2)
    camera = Cameras(pose[None], torch.tensor([[focal, focal, width / 2, height / 2]]), height, width)
    with torch.no_grad():
        color = render(gaussians, camera, torch.tensor(BACKGROUND) / 255).color[0]
    return _to_bytes(color.permute(1, 2, 0))


def _to_bytes(values: torch.Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
