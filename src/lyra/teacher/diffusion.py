"""From a cache and a camera path to a clip's latents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra.cache.occlusion import mask_occluded
from lyra.cache.warp import (
    PUBLISHED_WARP,
    CacheViews,
    DepthCache,
    EdgeFilter,
    MovingCache,
    WarpSettings,
    fill_views,
    render_cache,
    render_moving_cache,
)
from lyra.device.memory import Placement
from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras
from lyra.geometry.trajectories import noise_generator
from lyra.teacher.conditioning import (
    Condition,
    condition_network,
    encode_buffers,
    encode_first_frame,
    stack_conditions,
)
from lyra.teacher.positions import stretch_positions
from lyra.teacher.residual import Spread, coverage, residual_space
from lyra.teacher.sampling import (
    Denoise,
    Scheduler,
    guide,
    precondition,
    sample_euler,
    sample_heun,
    sample_multistep,
    sample_renoised,
    schedule_sigmas,
)
from lyra.tokenizer.tiling import place_tokenizer
from lyra.tokenizer.tokenizer import Tokenizer

_PUBLISHED_AUGMENT_SEED = 1
_LEAST_EDGE = 0.05
"""The published threshold, of 704 rows: no size has a lower one."""

Sampler = Literal["euler", "heun", "multistep", "few_step"]


@dataclass(frozen=True)
class TeacherConfig:
    """How a teacher is sampled."""

    frames: int = 121
    height: int = 704
    width: int = 1280
    fps: float = 24.0
    steps: int = 35
    guidance: float = 1.0
    """Added weight of conditional over unconditional; 1 is the published value, 0 takes one pass."""
    max_buffers: int = 2
    edge_window: int = 5
    edge_threshold: float = 0.05
    """Which pixels the cache drops; see ``EdgeFilter``."""
    foreground_masking: bool = True
    """Erase what the cache's dropped edges would hide; see ``lyra.cache.occlusion``."""
    published_warp: bool = False
    """Splat the cache with the published model's pixel centres and normalisation."""
    sampler: Sampler = "euler"
    """The published one; second order with two passes or one a step; or for networks distilled to few steps."""
    spread: Spread | None = None
    """The small teacher's units; see ``lyra.teacher.residual``. The published teacher has none."""

    def __post_init__(self) -> None:
        if self.sampler not in get_args(Sampler):
            raise LyraError(f"unknown sampler {self.sampler!r}: give one of {', '.join(get_args(Sampler))}")
        if self.steps < 1:
            raise LyraError(f"{self.steps} sampling steps: give at least 1")

    @staticmethod
    def from_json(content: dict[str, Any]) -> "TeacherConfig":
        """The config that ``asdict`` was written of; JSON has lists for tuples."""
        if content.get("spread") is not None:
            known, unknown = content["spread"]
            content = content | {"spread": (tuple(known), tuple(unknown))}
        return TeacherConfig(**content)

    def at_size(self, height: int, width: int) -> "TeacherConfig":
        """The same at another size: from one pixel to the next depth changes less, the more there are."""
        if (height, width) == (self.height, self.width):
            return self
        share = max(self.height, self.width) / max(height, width)
        threshold = max(_LEAST_EDGE, self.edge_threshold * share)
        return replace(self, height=height, width=width, edge_threshold=threshold)

    @property
    def edges(self) -> EdgeFilter:
        """Which pixels the cache drops."""
        return EdgeFilter(self.edge_window, self.edge_threshold)

    @property
    def warp(self) -> WarpSettings:
        """How the cache is lifted and splatted."""
        return PUBLISHED_WARP if self.published_warp else WarpSettings()

    def view_cache(self, cache: DepthCache | MovingCache, cameras: Cameras) -> CacheViews:
        """What the teacher is shown of a cache along a path, in training and in sampling alike."""
        if isinstance(cache, MovingCache):
            views = render_moving_cache(cache, cameras, self._look)
        else:
            views = self._look(cache, cameras)
        return views if self.spread is None else fill_views(views)

    def _look(self, cache: DepthCache, cameras: Cameras) -> CacheViews:
        views = render_cache(cache, cameras, self.warp)
        return mask_occluded(cache, views, cameras, self.warp) if self.foreground_masking else views


@dataclass(frozen=True)
class TeacherRequest:
    """One clip to imagine."""

    image: Float[Tensor, "3 height width"]
    """The input view in [-1, 1]; the clip's first frame."""
    cache: DepthCache | MovingCache
    """Built with the teacher's edges and warp settings."""
    cameras: Cameras
    """One view a frame, the first at the input view."""
    seed: int
    name: str
    """Names the clip's noise: the same seed and name give the same clip."""


@runtime_checkable
class VideoTeacher(Protocol):
    """A model that turns a request into a clip's normalized latents."""

    def imagine(self, request: TeacherRequest) -> Float[Tensor, "channel latent_time latent_height latent_width"]:
        """Normalized latents of the clip."""
        ...


class DiffusionTeacher:
    """GEN3C's form: a diffusion transformer that is conditioned on renders of the 3D cache."""

    def __init__(
        self,
        transformer: nn.Module,
        tokenizer: Tokenizer,
        scheduler: Scheduler,
        text: Float[Tensor, "text_token text_channel"],
        negative_text: Float[Tensor, "text_token text_channel"],
        config: TeacherConfig,
        placement: Placement | None = None,
    ):
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self.text = text
        self.negative_text = negative_text
        self.config = config
        self.trained = (config.height, config.width)
        """Pixels of the size that the network's positions are of."""
        self.placement = placement or Placement()

    def condition(self, image: Float[Tensor, "3 height width"], views: CacheViews) -> Condition:
        """Conditioning of one clip from the input image (in [-1, 1]) and the cache's views of its path."""
        tokenizer = place_tokenizer(self.tokenizer, self.placement)
        latent_frames = tokenizer.spec.latent_frames(len(views.images))
        buffers = encode_buffers(tokenizer, views, self.config.max_buffers)
        space = None
        if self.config.spread is not None:
            space = residual_space(buffers, coverage(views.masks[:, 0], tokenizer.spec), self.config.spread)
        return Condition(encode_first_frame(tokenizer, image, latent_frames), buffers, self.text[None], space)

    def imagine(self, request: TeacherRequest) -> Float[Tensor, "channel latent_time latent_height latent_width"]:
        """Normalized latents of the clip, in float32."""
        return self.imagine_batch([request])[0]

    @torch.no_grad()
    def imagine_batch(
        self, requests: Sequence[TeacherRequest]
    ) -> Float[Tensor, "clip channel latent_time latent_height latent_width"]:
        """Normalized latents of several clips at once, in float32, on the CPU.

        The noise of each depends on its own seed and name; sums in another order make a clip differ by rounding from
        the same one imagined alone.
        """
        condition = stack_conditions(
            [self.condition(r.image, self.config.view_cache(r.cache, r.cameras)) for r in requests]
        ).to(self.placement.device)
        shape = (1, *condition.first_frame.shape[1:])
        noise = torch.cat(
            [torch.randn(shape, generator=noise_generator(r.seed, f"teacher/{r.name}")) for r in requests]
        )
        # The published sampler draws this noise once, by numpy with a fixed seed, for every clip.
        augment = torch.from_numpy(np.random.RandomState(_PUBLISHED_AUGMENT_SEED).standard_normal(shape))
        augment = augment.to(condition.first_frame).expand_as(condition.first_frame)
        negative = self.negative_text.to(condition.text).expand(len(requests), *self.negative_text.shape)
        network = guide(
            condition_network(self.transformer, condition, self.config.fps),
            condition_network(self.transformer, condition.without_camera(negative), self.config.fps),
            self.config.guidance,
        )
        with self.placement.hosting(self.transformer), stretch_positions(self.transformer, *self._cells()):
            latents = self._sample(
                precondition(network), noise.to(condition.first_frame), condition.first_frame, augment, requests
            )
        if condition.space is not None:
            latents = condition.space.restore(latents)
        return latents.float().cpu()

    def _cells(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Tokens along both sides: those that the network was trained with, and those of this size."""
        _, rows, columns = getattr(self.transformer, "config", {}).get("patch_size", (1, 1, 1))
        cell = self.tokenizer.spec.spatial
        trained = (self.trained[0] // cell // rows, self.trained[1] // cell // columns)
        return trained, (self.config.height // cell // rows, self.config.width // cell // columns)

    def _sample(
        self,
        denoise: Denoise,
        noise: Tensor,
        first_frame: Tensor,
        augment: Tensor,
        requests: Sequence[TeacherRequest],
    ) -> Tensor:
        sigmas = schedule_sigmas(self.scheduler, self.config.steps).to(noise.device)
        match self.config.sampler:
            case "euler":
                return sample_euler(denoise, noise, sigmas, first_frame, augment)
            case "heun":
                return sample_heun(denoise, noise, sigmas, first_frame, augment)
            case "multistep":
                return sample_multistep(denoise, noise, sigmas, first_frame, augment)
            case "few_step":

                def draw(step: int) -> Tensor:
                    streams = [noise_generator(r.seed, f"teacher/{r.name}/{step}") for r in requests]
                    return torch.cat([torch.randn((1, *noise.shape[1:]), generator=s) for s in streams]).to(noise)

                return sample_renoised(denoise, noise, sigmas, first_frame, augment, draw)
