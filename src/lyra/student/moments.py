"""A dynamic scene's Gaussians at many moments: what a student is given, and how its answers become one scene.

A small student is told which of its Gaussians belong to a moment, by a prior on their opacity: what stays still is
shown from the first picture for ever, what moves from its own moment's picture alone, and what a trajectory adds
wherever the moment's input picture does not show the place.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.geometry.dynamic import DynamicGaussians, separate
from lyra.geometry.gaussians import Gaussians
from lyra.student.decoder import CONSIDERED, GaussianDecoder, StudentInputs, count_gaussians
from lyra.student.inputs import encode_times, frame_times
from lyra.student.surface import is_hidden
from lyra.student.underlay import find_blocks, keep_most_opaque
from lyra.tokenizer.tokenizer import Tokenizer

WIDER = 1.15
"""How much wider Gaussians are than a still scene's: fewer lie over each other, and gaps would show when enlarged."""


@dataclass(frozen=True)
class Source:
    """What the input video shows, on the grid of the student's Gaussians."""

    depth: Float[Tensor, "time height width"]
    """Z-depth in scene units."""
    moving: Bool[Tensor, "time height width"]
    """Where a frame differs from what the place shows most of the time."""
    still: Bool[Tensor, "height width"]
    """What never changes, in this clip or any other of the same video."""
    cameras: Cameras
    """One a frame."""


def with_times(decoder: GaussianDecoder) -> GaussianDecoder:
    """A decoder of the same weights that takes times, which as yet change nothing."""
    twin = GaussianDecoder(replace(decoder.config, time_conditioning=True))
    missing, unexpected = twin.load_state_dict(decoder.state_dict(), strict=False)
    if unexpected or not all(name.startswith(("source_time", "target_time")) for name in missing):
        raise ValueError(f"weights that do not fit: {missing} {unexpected}")
    return twin.eval()


def at_every_frame(decoder: GaussianDecoder, temporal: int) -> GaussianDecoder:
    """A "cache" decoder of the same weights that places Gaussians at every frame instead of every latent frame.

    Args:
        decoder: Of a still scene.
        temporal: Frames of a latent frame.
    """
    twin = copy.copy(decoder)
    twin.config = replace(decoder.config, splat_frames=temporal, base_scale=WIDER * decoder.config.base_scale)
    return twin


def shrink_source(source: Source, stride: int) -> Source:
    """The source on a grid of every ``stride``-th pixel."""
    if stride == 1:
        return source
    depth = F.avg_pool2d(source.depth[:, None].log(), stride)[:, 0].exp()
    moving = F.max_pool2d(source.moving[:, None].float(), stride)[:, 0] > 0
    still = F.max_pool2d((~source.still[None, None]).float(), stride)[0, 0] == 0
    return Source(depth, moving, still, source.cameras.resized(*depth.shape[1:]))


def aim(
    inputs: StudentInputs,
    targets: Sequence[int],
    shown: Float[Tensor, "target view time height width"],
    tokenizer: Tokenizer,
) -> StudentInputs:
    """The inputs with target times: which Gaussians belong to them, and the times through the tokenizer.

    Args:
        inputs: Of one scene at every frame; the first view is the input video itself.
        targets: Frames.
        shown: From ``show_at`` for the same targets.
        tokenizer: The teacher's.
    """
    base = inputs.base
    if base is None:
        raise ValueError("only a decoder of cache geometry is told what belongs to a moment")
    times = frame_times(base.distance.shape[2])[list(targets)].tolist()
    height, width = (side * tokenizer.spec.spatial for side in inputs.latents.shape[-2:])
    count = base.distance.shape[2]
    return replace(inputs, base=replace(base, shown=shown), times=encode_times(times, count, height, width, tokenizer))


def show_at(
    inputs: StudentInputs, source: Source, targets: Sequence[int], key: int
) -> Float[Tensor, "target view time height width"]:
    """Which Gaussians belong to which moments.

    Args:
        inputs: Of one scene at every frame; the first view is the input video itself.
        source: The input video's, on the grid of the Gaussians.
        targets: Frames.
        key: Every how many frames a trajectory adds to moments other than its own.
    """
    base = inputs.base
    assert base is not None
    added = 1 - base.covered[0]
    frames = added.shape[1]
    still = source.still
    added[0] = (~still).float()
    points = inputs.ray_origins[0] + base.distance[0][..., None] * inputs.ray_directions[0]
    # What may belong to other moments than its own: at some frames, what a trajectory adds, and the input's backdrop.
    lasting = torch.zeros_like(added, dtype=torch.bool)
    lasting[:, ::key] = added[:, ::key] > CONSIDERED
    if not bool(source.moving.all()):
        lasting[0] &= ~source.moving
    places = lasting.nonzero()
    where = tuple(places.T)
    shown = torch.zeros(len(targets), *added.shape)
    for row, target in enumerate(targets):
        hidden = is_hidden(points[where], source.depth[target], source.cameras[target : target + 1])
        shown[row][where] = hidden * added[where]
        shown[row, :, target] = added[:, target]
        shown[row, 0, 0] = torch.where(still, 1.0, shown[row, 0, 0])
        if target == 0:
            shown[row, 0, 0] = 1
    assert frames == len(source.depth)
    return shown


def decode_moments(
    decoder: GaussianDecoder,
    inputs: StudentInputs,
    source: Source,
    tokenizer: Tokenizer,
    seconds: float,
    batch: int = 2,
) -> DynamicGaussians:
    """Gaussians at every frame's time, what hardly changes stored once; see ``decode_series``.

    Args:
        decoder: From ``at_every_frame``.
        inputs: Of one scene at every frame; the first view is the input video itself.
        source: The input video's.
        tokenizer: The teacher's.
        seconds: How long the video lasts.
        batch: Target times of one pass.
    """
    series = decode_series(decoder, inputs, source, tokenizer, batch)
    return separate(series, frame_times(len(source.depth)), seconds)


@torch.no_grad()
def decode_series(
    decoder: GaussianDecoder, inputs: StudentInputs, source: Source, tokenizer: Tokenizer, batch: int = 2
) -> Gaussians:
    """The same Gaussians at every frame's time, which is their leading axis.

    They are pruned by their opacity pooled over all times (its largest), so that none comes and goes by its rank.
    Everything is on the CPU but the decoder, which may be on a GPU.
    """
    device = next(decoder.parameters()).device
    frames = len(source.depth)
    shown = show_at(inputs, source, range(frames), tokenizer.spec.temporal)
    groups = [range(first, min(first + batch, frames)) for first in range(0, frames, batch)]
    candidates = (shown.amax(0) > CONSIDERED).flatten().nonzero()[:, 0]
    parts = [
        decoder.at_cells(
            aim(inputs, group, shown[group.start : group.stop], tokenizer).to(device), candidates.to(device)
        ).to("cpu")
        for group in groups
    ]
    series = Gaussians(**{name: torch.cat([getattr(part, name) for part in parts]) for name in parts[0].tensors()})
    keep = round(decoder.config.keep * count_gaussians(decoder.config, inputs))
    if keep < len(series):
        base, side = inputs.base, decoder.config.underlay
        assert base is not None
        blocks = find_blocks(candidates, base.distance[0], side) if side else candidates.new_empty(0, 1)
        best = keep_most_opaque(series.opacities.amax(0), blocks, keep)
        series = series.map(lambda tensor: tensor[:, best])
    return series
