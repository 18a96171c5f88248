"""The published data set of Lyra's clips: one folder a trajectory, in it latents, poses and intrinsics by sample.

Layout, below ``root/{0..5}`` (a dynamic set has ``6..11`` too): ``latent/ID.pkl``, ``pose/ID.npz``,
``intrinsics/ID.npz``, ``rgb/ID.mp4``. Poses are OpenCV camera_to_world, intrinsics fx, fy, cx, cy in pixels; latents
are normalized, as our clips store them.

Source: PhysicalAI-SpatialIntelligence-Lyra-SDG, CC-BY-4.0, and the reader of Lyra's training.
"""

import pickle
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras

DECODING_ORDER = (5, 0, 1, 2, 3, 4)
"""Trajectories in the order in which the published decoder was given them; its scan is not indifferent to it."""
SPATIAL = 8
"""Pixels of one latent cell's side."""
_LARGEST_ARRAY = 1 << 30
"""Bytes; the published latents are 14 MB."""


def is_published_data(root: Path) -> bool:
    """Whether a folder has the data set's layout."""
    return any((root / str(view) / "latent").is_dir() for view in DECODING_ORDER)


def find_samples(root: Path) -> list[str]:
    """Names of all samples of which the first folder there is has latents."""
    view = next(view for view in sorted(DECODING_ORDER) if (root / str(view) / "latent").is_dir())
    return sorted(path.stem for path in (root / str(view) / "latent").glob("*.pkl"))


def load_published_clips(
    root: Path, sample: str, allow_pickle: bool = False, views: Sequence[int] = DECODING_ORDER
) -> list[Clip]:
    """The clips of one sample, in the order of ``views``; those whose folder does not exist are left out.

    Args:
        root: The data set's folder.
        sample: Name of a sample.
        allow_pickle: Read its latents, which are pickled. They are opened by torch's restricted unpickler, which is
            told of nothing but numpy arrays of floats and refuses the rest; still, it parses a pickle, which you have
            to trust more than an array.
        views: Folders.

    Raises:
        LyraError: a file is missing, damaged, of another shape, holds objects, or pickles are not allowed.
    """
    if not allow_pickle:
        raise LyraError(
            f"the latents in {root} are Python pickles: if you trust where they come from, give --allow-pickle "
            "(a restricted reader that builds arrays alone)"
        )
    present = [view for view in views if (root / str(view)).is_dir()]
    if not present:
        raise LyraError(f"{root} has none of the folders {', '.join(map(str, views))}: give the data set's folder")
    return [_load_clip(root / str(view), sample) for view in present]


def _load_clip(folder: Path, sample: str) -> Clip:
    latents = read_pickled_latents(folder / "latent" / f"{sample}.pkl")
    poses = _read_array(folder / "pose" / f"{sample}.npz", (4, 4))
    intrinsics = _read_array(folder / "intrinsics" / f"{sample}.npz", (4,))
    frames = 1 + 8 * (latents.shape[1] - 1)
    if len(poses) != frames or len(intrinsics) != frames:
        raise LyraError(
            f"{folder}: sample {sample} has {len(poses)} poses and {len(intrinsics)} intrinsics for latents of "
            f"{frames} frames"
        )
    height, width = (SPATIAL * side for side in latents.shape[2:])
    return Clip(latents, Cameras(poses, intrinsics, height, width))


def _read_array(path: Path, shape: tuple[int, ...]) -> Float[Tensor, "frame ..."]:
    """Array ``data`` of an npz by frame, in the order of its ``inds``."""
    try:
        with explain_reading(path), np.load(path, allow_pickle=False) as archive:
            data, order = archive["data"], archive["inds"]
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise LyraError(f"{path} is damaged or not of the published kind: {error}") from error
    if data.shape[1:] != shape or order.shape != data.shape[:1] or not np.isfinite(data).all():
        raise LyraError(f"{path} holds {data.shape} of {order.shape} frames, or NaN: not of the published kind")
    return torch.from_numpy(data[np.argsort(order, kind="stable")].astype(np.float32))


def read_pickled_latents(path: Path) -> Float[Tensor, "channel latent_time latent_height latent_width"]:
    """Normalized latents from a file that ``torch.save`` made of a float array [1, c, t, h, w].

    Raises:
        LyraError: the file is missing, too large, no such array, or refers to anything but arrays.
    """
    with explain_reading(path):
        if path.stat().st_size > _LARGEST_ARRAY:
            raise LyraError(f"{path} is larger than any published latents: not of the published kind")
    with torch.serialization.safe_globals(_array_makers()), warnings.catch_warnings():
        # torch warns of pickles newer than its own, which it reads or refuses all the same.
        warnings.simplefilter("ignore", UserWarning)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            reason = next((line for line in str(error).splitlines() if "global" in line.lower()), type(error).__name__)
            raise LyraError(f"{path} holds no array, or more than one, and is refused: {reason[:120]}") from error
    if isinstance(content, np.ndarray) and content.dtype.kind == "f":
        content = torch.from_numpy(np.ascontiguousarray(content, dtype=np.float32))
    if not isinstance(content, Tensor) or content.ndim != 5 or len(content) != 1:
        raise LyraError(f"{path} holds no latents of shape 1, channel, time, height, width")
    latents = content[0].float()
    if not bool(latents.isfinite().all()):
        raise LyraError(f"{path} holds NaN or infinity: download it again")
    return latents


def _array_makers() -> list[Any]:
    """What a pickled float array refers to, under the names that numpy 1 and numpy 2 give it."""
    rebuild = np.zeros(1).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64)]
    names = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    return [np.ndarray, np.dtype, *kinds, *((rebuild, name) for name in names)]
