"""Splats in the browser: one self-contained HTML file that opens from disk.

The page draws with WebGL2 by the conventions of our renderer, and decodes and sorts without a server or a worker, which
a browser would not run beside a file. A scene that moves plays there. The page's parts are readable files in
``assets/``, put together when it is written.
"""

import base64
import html
import json
import re
import zlib
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from jaxtyping import Float

from lyra.files import write_atomically
from lyra.files.strict_json import to_json
from lyra.geometry.cameras import Cameras
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians, merge
from lyra.rendering.appearance import seen_from

NEAR = 0.01
"""Distance of the near plane in scene units."""
BACKGROUND = (24, 24, 27)
"""sRGB bytes shown where there is no splat; a neutral dark gray."""
SCRIPTS = ("splats", "processor", "graphics", "player", "controls")
SMALLEST_SCALE = 1e-9
"""Scales below this many scene units are stored as this, since the page stores logarithms."""


def write_viewer(
    gaussians: Gaussians | DynamicGaussians, path: Path, initial_camera: Cameras, title: str = "lyra scene"
) -> None:
    """Writes one HTML file that shows the splats, opens from disk and loads nothing from anywhere.

    Means are stored in full, scales to 16 bits of their logarithm, rotations to 16 bits, colors and opacities to 8. Of
    a scene that moves, ``static`` is stored once.

    Args:
        gaussians: An unbatched set, or a scene that moves; NaN is a defect of the caller.
        path: The file, by convention ``index.html``.
        initial_camera: Exactly one view; the page starts there and always shows the view's whole height.
        title: Title of the page; what is no Unicode, as in file names of other encodings, becomes "?".

    Raises:
        LyraError: The file cannot be written.
    """
    whole, moments = _flatten(gaussians)
    if whole.means.ndim != 2 or len(initial_camera) != 1:
        raise ValueError("the viewer shows one unbatched set of Gaussians from one initial view")
    # The page draws one color a splat: the one that its first view sees.
    plain = seen_from(whole, initial_camera.centers[0])
    fields = {name: tensor.float().cpu().numpy() for name, tensor in plain.detach().tensors().items()}
    packed, log_scales = _pack(fields)
    first = len(whole) if moments is None else moments["static"] + moments["counts"][0]
    scene = {
        "count": len(whole),
        "moments": moments,
        "logScales": log_scales,
        "camera": _describe_camera(initial_camera, fields["means"][:first]),
        "background": [value / 255 for value in BACKGROUND],
    }
    page = _fill(scene, packed, title)
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _fill(scene: Any, packed: bytes, title: str) -> str:
    assets = resources.files("lyra.viewer") / "assets"
    parts = {name: (assets / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS}
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        parts,
        title=html.escape(title.encode("utf-8", "replace").decode("utf-8")),
        background=", ".join(map(str, BACKGROUND)),
        scene=to_json(scene).replace("<", "\\u003c"),
        packed=_text(packed),
        composite=_text((assets / "splat.wasm").read_bytes()),
    )


def remake_page(page: str) -> str:
    """A page with another's splats and nothing else of it: no script of a file from elsewhere is run.

    Raises:
        ValueError: it is no page that ``write_viewer`` wrote.
    """
    found = [re.search(rf'<script type="[^"]*" id="{part}">([^<]*)</script>', page) for part in ("scene", "splats")]
    if found[0] is None or found[1] is None:
        raise ValueError("no splats are in it")
    return _fill(json.loads(found[0][1]), base64.b64decode(found[1][1], validate=True), "")


def _flatten(gaussians: Gaussians | DynamicGaussians) -> tuple[Gaussians, dict[str, Any] | None]:
    """All splats of a page, and how many of them belong to what; None where nothing moves."""
    if isinstance(gaussians, Gaussians):
        return gaussians, None
    if len(gaussians) == 1:
        return gaussians.moment(0), None
    moments = {
        "static": len(gaussians.static),
        "counts": [len(moment) for moment in gaussians.moments],
        "times": gaussians.times.tolist(),
        "seconds": gaussians.seconds,
    }
    return merge([gaussians.static, *gaussians.moments]), moments


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _pack(fields: dict[str, np.ndarray]) -> tuple[bytes, list[float]]:
    """The splats' records, compressed, and the range of the logarithms of their scales.

    Stored byte by byte in planes (all first bytes, then all second ones), which compresses best.
    """
    scales = np.log(np.maximum(fields["scales"].astype(np.float64), SMALLEST_SCALE))
    low, high = (float(scales.min()), float(scales.max())) if scales.size else (0.0, 1.0)
    turns = fields["quaternions"].astype(np.float64)
    turns = turns / np.maximum(np.abs(turns).max(axis=1, keepdims=True), 1e-30)
    colors = np.concatenate([fields["colors"], fields["opacities"][:, None]], axis=1)
    columns = [
        fields["means"].astype("<f4"),
        np.round((scales - low) / max(high - low, 1e-12) * 65535).astype("<u2"),
        np.round(turns * 32767).astype("<i2"),
        np.round(np.clip(colors, 0, 1) * 255).astype(np.uint8),
    ]
    planes = [
        np.ascontiguousarray(column).view(np.uint8).reshape(len(column), column.shape[1] * column.itemsize).T
        for column in columns
    ]
    return zlib.compress(np.ascontiguousarray(np.concatenate(planes)).tobytes(), 9), [low, high]


def _describe_camera(camera: Cameras, means: np.ndarray) -> dict[str, Any]:
    """Where the page starts, and how far ahead the point is that it turns around: the middle of what is seen."""
    pose = camera.camera_to_world[0].double().cpu().numpy()
    fx, fy = camera.intrinsics[0, :2].tolist()
    return {
        "axes": pose[:3, :3].T.tolist(),
        "center": pose[:3, 3].tolist(),
        "distance": middle_depth(pose, means),
        "focalOfHeight": fy / camera.height,
        "aspect": fx / fy,
    }


def middle_depth(pose: Float[np.ndarray, "4 4"], means: Float[np.ndarray, "splat 3"]) -> float:
    """Median z-depth of the points in front of a camera (``pose`` to world), 1 where there is none."""
    depths = (means.astype(np.float64) - pose[:3, 3]) @ pose[:3, 2]
    in_front = depths[depths > NEAR]
    return float(np.median(in_front)) if len(in_front) else 1.0
