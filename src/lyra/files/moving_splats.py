"""The files of a scene that moves: exact tensors, a ``.4dgs`` for other programs, and one PLY a moment."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import write_atomically
from lyra.files.splats import save_ply
from lyra.files.tensors import load_tensors, save_tensors
from lyra.geometry.cameras import Cameras
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians, merge, transform

WIDTHS = {"means": 3, "scales": 3, "quaternions": 4, "opacities": None, "colors": 3}
"""Length of the last axis of each field; None where there is none."""
HALF_TURN = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
"""Around x."""


def save_dynamic(dynamic: DynamicGaussians, path: Path) -> None:
    """Writes everything exactly, by convention to ``dynamic.safetensors``.

    The tensors are ``static.means`` and so on, ``moments.means`` and so on with the moments one after another,
    ``counts`` of Gaussians a moment, ``times``, and ``seconds``.

    Raises:
        LyraError: The file cannot be written.
    """
    tensors = {f"static.{name}": tensor for name, tensor in dynamic.static.tensors().items()}
    tensors |= {f"moments.{name}": tensor for name, tensor in merge(dynamic.moments).tensors().items()}
    tensors["counts"] = torch.tensor([len(moment) for moment in dynamic.moments])
    tensors["times"] = dynamic.times
    tensors["seconds"] = torch.tensor(dynamic.seconds, dtype=torch.float64)
    save_tensors(tensors, path)


def load_dynamic(path: Path) -> DynamicGaussians:
    """Reads what :func:`save_dynamic` wrote, on the CPU.

    Raises:
        LyraError: The file is missing, damaged or something else.
    """
    tensors = load_tensors(path)
    try:
        static, moments = _read_gaussians(tensors, "static"), _read_gaussians(tensors, "moments")
        counts = _read_counts(tensors, len(moments))
        times, seconds = _read_times(tensors, len(counts))
    except KeyError as missing:
        raise LyraError(f"{path} holds no moving scene (no {missing.args[0]}): give a dynamic.safetensors") from None
    except ValueError as problem:
        raise LyraError(f"{path} is damaged ({problem}): generate the scene again") from None
    ends = [0, *accumulate(counts)]
    parts = tuple(
        moments.map(lambda tensor, start=start, end=end: tensor[start:end].clone()) for start, end in pairwise(ends)
    )
    return DynamicGaussians(static, parts, times, seconds)


def _read_gaussians(tensors: Mapping[str, Tensor], part: str) -> Gaussians:
    """One set of Gaussians of a file; raises KeyError where a tensor is missing and ValueError where it is wrong."""
    fields = {name: tensors[f"{part}.{name}"] for name in WIDTHS}
    count = fields["opacities"].numel()
    for name, width in WIDTHS.items():
        tensor = fields[name]
        if list(tensor.shape) != ([count] if width is None else [count, width]) or not tensor.is_floating_point():
            raise ValueError(f"{part}.{name} is {tensor.dtype} {list(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{part}.{name} holds NaN or infinity")
    return Gaussians(**fields)


def _read_counts(tensors: Mapping[str, Tensor], total: int) -> list[int]:
    counts = tensors["counts"]
    if counts.dtype != torch.int64 or counts.ndim != 1 or len(counts) == 0 or bool((counts < 0).any()):
        raise ValueError(f"counts is {counts.dtype} {list(counts.shape)}")
    if int(counts.sum()) != total:
        raise ValueError(f"its moments count {int(counts.sum())} Gaussians, {total} are there")
    return counts.tolist()


def _read_times(tensors: Mapping[str, Tensor], moments: int) -> tuple[Tensor, float]:
    times, seconds = tensors["times"], tensors["seconds"]
    if list(times.shape) != [moments] or not times.is_floating_point():
        raise ValueError(f"times is {times.dtype} {list(times.shape)} of {moments} moments")
    if not bool(times.isfinite().all() & (times.diff() > 0).all()):
        raise ValueError("times do not ascend")
    if seconds.numel() != 1 or not 0 < float(seconds) < float("inf"):
        raise ValueError("seconds is no duration")
    return times, float(seconds)


def save_frames(dynamic: DynamicGaussians, folder: Path) -> list[Path]:
    """Writes the whole scene at each moment as ``frames/0000.ply`` and so on in a folder; returns the files.

    Raises:
        LyraError: A file cannot be written.
    """
    paths = [Path(folder) / "frames" / f"{index:04d}.ply" for index in range(len(dynamic))]
    for index, path in enumerate(paths):
        save_ply(dynamic.moment(index), path)
    return paths


def save_4dgs(dynamic: DynamicGaussians, path: Path, camera: Cameras | None = None) -> None:
    """Writes a ``.4dgs`` file: each Gaussian once, with the span of time in which it is there.

    A moment lasts from halfway after the one before to halfway before the next, so the file's duration is ``seconds``
    and half of the last gap; ``static`` is there throughout. The axes are the format's: x right, y up, z backward,
    ours turned by half a turn around x. Values are off by the bounds of the format's profile "fine", which the file
    states: 0.02 median scales in position, 0.5 % in scale, 5e-4 in three components of a rotation, half a byte in color
    and opacity.

    Args:
        dynamic: What to write.
        path: The file, by convention ``scene.4dgs``.
        camera: Exactly one view in which a player starts; without it the player chooses.

    Raises:
        LyraError: The file cannot be written.
        MissingExtraError: fourdgs is not installed.
    """
    try:
        import fourdgs
    except ImportError:
        raise MissingExtraError("fourdgs", "video", "a .4dgs file") from None
    seconds = dynamic.times.double().numpy(force=True) * dynamic.seconds
    gaps = np.diff(seconds)
    duration = float(seconds[-1] + gaps[-1] / 2) if len(gaps) else dynamic.seconds
    edges = np.concatenate([[0.0], seconds[:-1] + gaps / 2, [duration]])
    counts = [len(dynamic.static), *map(len, dynamic.moments)]
    whole = merge([dynamic.static, *dynamic.moments])
    upright = transform(whole.map(lambda tensor: tensor.detach().cpu().float()), HALF_TURN, torch.zeros(3))
    begins = np.repeat([0.0, *edges[:-1]], counts)
    ends = np.repeat([duration, *edges[1:]], counts)
    content = fourdgs.GaussianSet(
        positions=upright.means.numpy(),
        scales=upright.scales.numpy(),
        rotations=upright.quaternions.roll(-1, dims=1).numpy(),
        colors=torch.cat([upright.colors, upright.opacities[:, None]], dim=1).numpy(),
        motions=np.zeros((len(whole), 3), np.float32),
        mu_t=((begins + ends) / 2).astype(np.float32),
        # It neither appears nor vanishes gradually.
        sigma_t=np.full(len(whole), np.inf, np.float32),
        win_lo=begins,
        win_hi=ends,
    )
    # Right-handed, up +y, forward -z, by the numbers of the format's registry.
    frame = fourdgs.CoordinateFrame(handedness=1, up_axis=1, forward_axis=5)
    options = fourdgs.WriteOptions(
        profile="fine",
        metadata={"coordinate_system": "y-up-right-handed"},
        provenance=fourdgs.Provenance(frames=[frame]),
        library="lyra",
    )
    with write_atomically(path) as temporary:
        fourdgs.write(str(temporary), content, duration, options=options, camera=_start(camera))


def _start(camera: Cameras | None):
    """A camera as the format has it: where it is, a point that it looks at, and the angle of its height."""
    from fourdgs import CameraTrajectory

    if camera is None:
        return None
    pose = camera.camera_to_world[0].double().cpu()
    position = HALF_TURN.double() @ pose[:3, 3]
    target = position + HALF_TURN.double() @ pose[:3, 2]
    angle = 2 * np.degrees(np.arctan(camera.height / (2 * float(camera.intrinsics[0, 1]))))
    return CameraTrajectory(float(angle), tuple(position.tolist()), tuple(target.tolist()), loop=False)
