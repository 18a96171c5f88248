"""From a cache and a camera path to a clip's latents."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from diffusers import EDMEulerScheduler
from jaxtyping import Float
from torch import Tensor, nn

from lyra.cache import PUBLISHED_WARP, CacheViews, DepthCache, EdgeFilter, WarpSettings, render_cache
from lyra.cameras import Cameras
from lyra.occlusion import mask_occluded
from lyra.teacher.conditioning import Condition, condition_network, encode_buffers, encode_first_frame
from lyra.teacher.sampling import guide, precondition, sample_euler, schedule_sigmas
from lyra.tokenizer import Tokenizer
from lyra.trajectories import noise_generator

_PUBLISHED_AUGMENT_SEED = 1


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
    """Erase what the cache's dropped edges would hide; see ``lyra.occlusion``."""
    published_warp: bool = False
    """Splat the cache with the published model's pixel centres and normalisation."""

    @property
    def edges(self) -> EdgeFilter:
        """Which pixels the cache drops."""
        return EdgeFilter(self.edge_window, self.edge_threshold)

    @property
    def warp(self) -> WarpSettings:
        """How the cache is lifted and splatted."""
        return PUBLISHED_WARP if self.published_warp else WarpSettings()

    def view_cache(self, cache: DepthCache, cameras: Cameras) -> CacheViews:
        """What the teacher is shown of a cache along a path, in training and in sampling alike."""
        views = render_cache(cache, cameras, self.warp)
        return mask_occluded(cache, views, cameras, self.warp) if self.foreground_masking else views


@dataclass(frozen=True)
class TeacherRequest:
    """One clip to imagine."""

    image: Float[Tensor, "3 height width"]
    """The input view in [-1, 1]; the clip's first frame."""
    cache: DepthCache
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
        scheduler: EDMEulerScheduler,
        text: Float[Tensor, "text_token text_channel"],
        negative_text: Float[Tensor, "text_token text_channel"],
        config: TeacherConfig,
    ):
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self.text = text
        self.negative_text = negative_text
        self.config = config

    def condition(self, image: Float[Tensor, "3 height width"], views: CacheViews) -> Condition:
        """Conditioning of one clip from the input image (in [-1, 1]) and the cache's views of its path."""
        latent_frames = self.tokenizer.spec.latent_frames(len(views.images))
        return Condition(
            encode_first_frame(self.tokenizer, image, latent_frames),
            encode_buffers(self.tokenizer, views, self.config.max_buffers),
            self.text[None],
        )

    @torch.no_grad()
    def imagine(self, request: TeacherRequest) -> Float[Tensor, "channel latent_time latent_height latent_width"]:
        """Normalized latents of the clip, in float32."""
        views = self.config.view_cache(request.cache, request.cameras)
        condition = self.condition(request.image, views)
        network = guide(
            condition_network(self.transformer, condition, self.config.fps),
            condition_network(self.transformer, condition.without_camera(self.negative_text[None]), self.config.fps),
            self.config.guidance,
        )
        shape = condition.first_frame.shape
        noise = torch.randn(shape, generator=noise_generator(request.seed, f"teacher/{request.name}"))
        # The published sampler draws this noise once, by numpy with a fixed seed, for every clip.
        augment = np.random.RandomState(_PUBLISHED_AUGMENT_SEED).standard_normal(tuple(shape))
        latents = sample_euler(
            precondition(network),
            noise.to(condition.first_frame),
            schedule_sigmas(self.scheduler, self.config.steps),
            condition.first_frame,
            torch.from_numpy(augment).to(condition.first_frame),
        )
        return latents[0].float()
