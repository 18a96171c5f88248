"""What passes through the tokenizer, as training data for it: clips, windows moving over pictures, and the maps that
teacher and student send through it (Plücker halves, masks, times).

All signals are [1 3 time height width] in [-1, 1].
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Generator, Tensor

from lyra.cache.warp import build_cache
from lyra.geometry.cameras import plucker_map
from lyra.geometry.trajectories import noise_generator
from lyra.student.inputs import encode_time
from lyra.teacher import TeacherConfig
from lyra.training.world_clips import WorldClip

Signal = Float[Tensor, "1 3 time height width"]


def moving_window(
    image: Float[Tensor, "3 image_height image_width"],
    size: int,
    frames: int,
    velocity: tuple[float, float] = (0.0, 0.0),
    zoom: float = 1.0,
) -> Signal:
    """A square window of an image in [-1, 1], at the image's middle halfway through.

    Args:
        image: At least ``size`` pixels at the shorter side, and as much more as the window moves.
        size: Window side in pixels.
        frames: Length.
        velocity: Right and down, pixels a frame.
        zoom: Factor on the window's side from the first frame to the last.
    """
    height, width = image.shape[1:]
    step = torch.arange(frames) - (frames - 1) / 2
    side = size * zoom ** (step / max(frames - 1, 1))
    offsets = (torch.arange(size) + 0.5) / size - 0.5
    x = width / 2 + velocity[0] * step[:, None] + side[:, None] * offsets
    y = height / 2 + velocity[1] * step[:, None] + side[:, None] * offsets
    grid = torch.stack(
        [
            (2 * x / width - 1)[:, None, :].expand(-1, size, -1),
            (2 * y / height - 1)[:, :, None].expand(-1, -1, size),
        ],
        dim=-1,
    )
    window = F.grid_sample(
        image.expand(frames, -1, -1, -1), grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return window.clamp(-1, 1).movedim(0, 1)[None]


def random_window(image: Float[Tensor, "3 height width"], frames: int, generator: Generator) -> Signal:
    """A pan of up to 3 pixels a frame, or a zoom, over an image at 1.6 times its size."""
    size = image.shape[-1]
    large = F.interpolate(image[None], scale_factor=1.6, mode="bicubic", align_corners=False)[0].clamp(-1, 1)
    right, down, zoom, kind = torch.rand(4, generator=generator).tolist()
    if kind < 0.3:
        return moving_window(large, size, frames, zoom=0.7 + 0.6 * zoom)
    return moving_window(large, size, frames, velocity=(6 * right - 3, 6 * down - 3))


def plucker_signals(clip: WorldClip) -> list[Signal]:
    """Both halves of a clip's Plücker map."""
    maps = plucker_map(clip.cameras)
    return [maps[:, half].movedim(0, 1)[None] for half in (slice(0, 3), slice(3, 6))]


def mask_signal(clip: WorldClip, teacher: TeacherConfig) -> Signal:
    """Where the cache of a clip's first frame has points along its path: -1 hole, 1 covered."""
    cache = build_cache(clip.signal()[:, :, 0], clip.depth[:1], clip.cameras[:1], teacher.edges, teacher.warp)
    masks = teacher.view_cache(cache, clip.cameras).masks[:, 0]
    return repeat(masks * 2 - 1, "t h w -> 1 3 t h w")


def time_signal(times: Float[Tensor, "time"], height: int, width: int) -> Signal:
    """A time map as the dynamic student is given it."""
    return repeat(encode_time(times) * 2 - 1, "t c -> 1 c t h w", h=height, w=width)


def tokenizer_signals(clips: list[WorldClip], teacher: TeacherConfig, seed: int = 0) -> Iterator[Signal]:
    """What the tokenizer is fitted to: every clip, a window moving over every second clip's first frame, and, one
    signal in seven, a map.
    """
    generator = noise_generator(seed, "tokenizer signals")
    for index, clip in enumerate(clips):
        video = clip.signal()
        yield video
        if index % 2 == 0:
            yield random_window(video[0, :, 0], teacher.frames, generator)
        if index % 8 == 0:
            yield from plucker_signals(clip)
        if index % 16 == 4:
            yield mask_signal(clip, teacher)
        if index % 16 == 12:
            # A time map runs forward or backward, or stands still.
            start, end = torch.rand(2, generator=generator).tolist()
            end = end if index % 32 == 12 else start
            yield time_signal(torch.linspace(start, end, teacher.frames), teacher.height, teacher.width)
