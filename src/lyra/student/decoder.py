"""The paper's 3DGS decoder: video latents, Plücker maps and times in, pixel-aligned Gaussians out, in one pass.

Source: ``LatentRecon`` of Lyra (sections "3DGS decoder" of paper and fact sheet); golden ``lyra_decoder_static``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lyra.geometry.gaussians import Gaussians, merge, multiply_quaternions, prune
from lyra.student.attention import AttentionBlock
from lyra.student.mamba2 import MambaBlock
from lyra.student.smoothing import smooth_corrections
from lyra.student.surface import lie_on_surface
from lyra.student.underlay import find_blocks, lay_under

RAW_CHANNELS = 12
"""distance 1, color 3, scale 3, rotation 4, opacity 1."""


CONSIDERED = 0.05
"""Least ``BaseSurface.novel`` for which a Gaussian of a decoder with novelty is considered at all."""
PRUNED_VIEWS = 6
"""Clips of a scene that the share of Gaussians is meant for that pruning keeps."""


@dataclass(frozen=True)
class DecoderConfig:
    """Size and geometry of a decoder. The defaults are the paper's."""

    width: int = 512
    depth: int = 16
    attention_every: int = 8
    """Every how many blocks one is attention; the others are Mamba-2."""
    heads: int = 8
    state: int = 256
    latent_channels: int = 16
    token_patch: int = 2
    """Latent cells of one token's side."""
    splats_per_token: int = 2
    """Gaussians of one token's side."""
    splat_frames: int = 8
    """Frames of Gaussians for each latent frame after the first; a power of two."""
    time_conditioning: bool = False
    """Take source and target times (dynamic scenes). A "cache" decoder then does without them in still scenes."""
    geometry: Literal["ray", "cache"] = "ray"
    """What the raw channels correct. "ray" is the paper's: distance between near and far. "cache" is the variant for
    small students: distance relative to the cache's depth, color relative to the tokenizer's own decode."""
    near: float = 0.1
    far: float = 500.0
    distance_shift: float = -1.65
    max_scale: float = 0.3
    opacity_shift: float = -2.0
    base_scale: float = 0.3
    """Of a "cache" decoder: standard deviation of an uncorrected Gaussian in its cell's footprints."""
    max_stretch: float = 3.0
    """Of a "cache" decoder: how many times longer at most an uncorrected Gaussian is along its surface's slope."""
    novelty: float = 0.0
    """Of a "cache" decoder: added to the opacity's logit of a Gaussian that shows what none before it shows, and taken
    from the others'."""
    keep: float = 0.2
    """Share of the Gaussians that opacity pruning keeps."""
    smooth: int = 0
    """Of a "cache" decoder: radius in Gaussians within which corrections of place and shape are smooth on a surface."""
    most: int = 0
    """How many it keeps at most, of a still scene; no bound when 0."""
    underlay: int = 0
    """Of a "cache" decoder: side in Gaussians of the blocks of the layer behind its surfaces; no layer when 0."""
    least_scale: float = -8.0
    """Of a "cache" decoder: least correction of a Gaussian's scale, a logarithm."""

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far:
            raise ValueError(f"near {self.near} and far {self.far} must be positive and in order")
        if self.max_stretch < 1:
            raise ValueError(f"max_stretch must be at least 1, got {self.max_stretch}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {self.keep}")


@dataclass(frozen=True)
class BaseSurface:
    """What a "cache" decoder corrects, on the grid of its Gaussians."""

    distance: Float[Tensor, "batch view time height width"]
    """Ray distance of the cache's depth, holes filled."""
    covered: Float[Tensor, "batch view time height width"]
    """1 where the cache has a point, 0 where the distance was filled in."""
    color: Float[Tensor, "batch view time height width 3"]
    """The tokenizer's decode of the teacher's latents."""
    normals: Float[Tensor, "batch view time height width 3"]
    """Unit normals of either sign, zero where unknown."""
    fresh: Float[Tensor, "batch view time height width"]
    """Of a still scene: 1 where a Gaussian shows what none before it shows, that is what no picture shows and, on a
    picture's own frame, what no picture before it does."""
    shown: Float[Tensor, "target view time height width"] | None = None
    """Of a dynamic scene: 1 where a Gaussian belongs to the scene at a target time, else 0."""

    def map(self, function: Callable[[Tensor], Tensor]) -> "BaseSurface":
        """Applies ``function`` to every tensor that is there."""
        mapped: dict[str, Any] = {name: None if part is None else function(part) for name, part in vars(self).items()}
        return BaseSurface(**mapped)

    def to(self, device: torch.device | str) -> "BaseSurface":
        """The same on another device."""
        return self.map(lambda tensor: tensor.to(device))

    @property
    def novel(self) -> Float[Tensor, "batch view time height width"]:
        """1 where a Gaussian shows what none before it shows: ``fresh``, in a dynamic scene ``shown``."""
        return self.fresh if self.shown is None else self.shown


@dataclass(frozen=True)
class StudentInputs:
    """Everything a decoder reads of a scene's clips; see ``prepare_student_inputs``."""

    latents: Float[Tensor, "batch view channel latent_time latent_height latent_width"]
    """Raw latents."""
    plucker: Float[Tensor, "batch view plucker_channel latent_time latent_height latent_width"]
    """Both halves of the Plücker map through the tokenizer."""
    ray_origins: Float[Tensor, "batch view time height width 3"]
    """Rays on the grid of the Gaussians."""
    ray_directions: Float[Tensor, "batch view time height width 3"]
    """Unit length."""
    pixel_angle: Float[Tensor, "batch view time"]
    """Side of one Gaussian's cell at distance 1."""
    base: BaseSurface | None = None
    times: Float[Tensor, "target channel latent_time_plus_one latent_height latent_width"] | None = None
    """Source times and, last, the target time through the tokenizer; shared by all views. A batch of one scene may
    have several target times, which then are the batch of its Gaussians."""

    def to(self, device: torch.device | str) -> "StudentInputs":
        """The same on another device."""
        moved: dict[str, Any] = {name: None if part is None else part.to(device) for name, part in vars(self).items()}
        return StudentInputs(**moved)


class PatchEmbed(nn.Module):
    """Patches to normalised tokens."""

    def __init__(self, channels: int, width: int, patch: int, zero: bool = False):
        super().__init__()
        self.proj = nn.Conv3d(channels, width, (1, patch, patch), stride=(1, patch, patch))
        self.norm = nn.LayerNorm(width)
        if zero:
            for parameter in self.proj.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "batch channel time height width"]) -> Float[Tensor, "batch token dim"]:
        """Tokens in the order time, row, column."""
        return self.norm(self.proj(x).flatten(2).mT)


class GaussianDecoder(nn.Module):
    """Latent tokens of all trajectories, one sequence, to Gaussians."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        c, width, patch = config.latent_channels, config.width, config.token_patch
        self.latent_embed = PatchEmbed(c, width, patch)
        self.plucker_embed = PatchEmbed(2 * c, width, patch, zero=True)
        if config.time_conditioning:
            # Times are constant over a picture: a small student reads one cell of it instead of a patch.
            time_patch = patch if config.geometry == "ray" else 1
            self.source_time_embed = PatchEmbed(c, width, time_patch, zero=True)
            self.target_time_embed = PatchEmbed(c, width, time_patch, zero=True)
        if config.geometry == "cache":
            self.depth_embed = PatchEmbed(2, width, config.splats_per_token, zero=True)
        self.blocks = nn.ModuleList(
            AttentionBlock(width, config.heads)
            if (index + 1) % config.attention_every == 0
            else MambaBlock(width, config.state)
            for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        # A "cache" head reads tokens that are interpolated in time, so that it serves any number of frames.
        frames, side = config.splat_frames if config.geometry == "ray" else 1, config.splats_per_token
        half = frames // 2
        self.head = nn.ConvTranspose3d(
            width, RAW_CHANNELS, (2 * half + 1, side, side), stride=(frames, side, side), padding=(half, 0, 0)
        )
        if config.geometry == "cache":
            # Start at the base surface: the first steps correct it instead of finding it.
            with torch.no_grad():
                for parameter in self.head.parameters():
                    parameter.mul_(0.03)

    def embed(self, inputs: StudentInputs) -> Float[Tensor, "batch token width"]:
        """Sum of the embeddings, trajectories one after another."""
        tokens = self.latent_embed(inputs.latents.flatten(0, 1)) + self.plucker_embed(inputs.plucker.flatten(0, 1))
        if self.config.geometry == "cache":
            tokens = tokens + self._embed_base(inputs)
        tokens = tokens.unflatten(0, inputs.latents.shape[:2])
        if self.config.time_conditioning and not (inputs.times is None and self.config.geometry == "cache"):
            tokens = tokens + self._embed_times(inputs, tokens.shape[2])[:, None]
        # The residual stream keeps the parameters' precision, also under autocast.
        return tokens.flatten(1, 2).to(self.norm.weight.dtype)

    def _embed_times(self, inputs: StudentInputs, tokens: int) -> Float[Tensor, "target token dim"]:
        times = inputs.times
        if times is None:
            raise ValueError("this decoder is conditioned on time, but the inputs have no times")
        if self.config.geometry == "cache":
            times = times.mean((-2, -1), keepdim=True)
        source = self.source_time_embed(times[:, :, :-1])
        target = self.target_time_embed(times[:, :, -1:])
        both = source + target.repeat(1, source.shape[1] // target.shape[1], 1)
        return both.repeat_interleave(tokens // both.shape[1], dim=1)

    def _embed_base(self, inputs: StudentInputs) -> Tensor:
        if inputs.base is None:
            raise ValueError("this decoder corrects the cache's depth, but the inputs have no base surface")
        maps = torch.stack([inputs.base.distance.log(), inputs.base.covered], dim=2)
        maps = maps[:, :, :, :: self.config.splat_frames]
        return self.depth_embed(maps.flatten(0, 1))

    def mix(self, inputs: StudentInputs, recompute: bool = False) -> Float[Tensor, "batch token width"]:
        """Tokens after all blocks; see ``forward``."""
        tokens = self.embed(inputs)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return tokens

    def raw_gaussians(self, inputs: StudentInputs) -> Float[Tensor, "batch view time height width 12"]:
        """The head's output before activation, on the grid of the Gaussians."""
        return self._head(self.mix(inputs), inputs)

    def _head(
        self, tokens: Float[Tensor, "batch token dim"], inputs: StudentInputs
    ) -> Float[Tensor, "batch view time height width 12"]:
        _, views, _, frames, height, width = inputs.latents.shape
        rows, columns = height // self.config.token_patch, width // self.config.token_patch
        grid = rearrange(
            self.norm(tokens),
            "b (v t h w) d -> (b v) d t h w",
            **{"v": views, "t": frames, "h": rows, "w": columns},
        )
        if self.config.geometry == "cache" and self.config.splat_frames > 1:
            size = (1 + self.config.splat_frames * (frames - 1), rows, columns)
            grid = F.interpolate(grid, size=size, mode="trilinear", align_corners=True)
        raw = rearrange(self.head(grid), "(b v) c t h w -> b v t h w c", v=views)
        if self.config.smooth and inputs.base is not None:
            raw = smooth_corrections(raw, inputs.base.distance, self.config.smooth)
        return raw

    def forward(self, inputs: StudentInputs, recompute: bool = False) -> Gaussians:
        """All Gaussians of a scene, unpruned, in the order view, time, row, column; geometry in float32.

        A "cache" decoder with novelty gives those alone that show something new, and then the layer behind them.

        Args:
            inputs: From ``prepare_student_inputs``.
            recompute: In training, keep only the tokens between blocks and compute the rest again for the gradient.
        """
        tokens = self.mix(inputs, recompute)
        if recompute:
            return cast(Gaussians, checkpoint(self._gaussians, tokens, inputs, use_reentrant=False))
        return self._gaussians(tokens, inputs)

    def stream(self, inputs: StudentInputs) -> Iterator[Gaussians]:
        """The same Gaussians, those of one view after another, without a gradient.

        A "cache" decoder, whose scenes are small, gives all at once.
        """
        with torch.no_grad():
            tokens = self.mix(inputs)
            views = inputs.latents.shape[1]
            if self.config.geometry == "cache" or views == 1:
                yield self._gaussians(tokens, inputs)
                return
            for view, part in enumerate(tokens.chunk(views, dim=1)):
                yield self._gaussians(part, select_views(inputs, [view]))

    def _gaussians(self, tokens: Float[Tensor, "batch token width"], inputs: StudentInputs) -> Gaussians:
        raw = self._head(tokens, inputs)
        base = inputs.base
        if self.config.geometry == "ray" or base is None:
            raw = raw.float() if raw.dtype in (torch.bfloat16, torch.float16) else raw
            gaussians = activate_ray(raw, inputs.ray_origins, inputs.ray_directions, self.config)
            return gaussians.map(lambda tensor: tensor.flatten(1, 4))
        novel = base.novel.amax(0)
        considered = novel > (CONSIDERED if self.config.novelty else -1)
        return self._at_cells(raw, inputs, considered.flatten().nonzero()[:, 0])

    def at_cells(self, inputs: StudentInputs, cells: Int[Tensor, "splat"]) -> Gaussians:
        """The Gaussians of some cells of the grid of a "cache" decoder, [target splat], and the layer behind them.

        Args:
            inputs: Of one scene, with or without target times.
            cells: Their numbers in the order view, time, row, column, ascending.
        """
        return self._at_cells(self.raw_gaussians(inputs), inputs, cells)

    def _at_cells(
        self,
        raw: Float[Tensor, "answer view time height width 12"],
        inputs: StudentInputs,
        cells: Int[Tensor, "splat"],
    ) -> Gaussians:
        base = inputs.base
        assert base is not None
        picked = pick_cells(inputs, cells)
        # A decoder that takes no times answers once, whatever the targets.
        targets = len(base.fresh) if base.shown is None else len(base.shown)
        answer = raw.flatten(1, 4)[:, cells, None, None, None]
        answer = answer.float() if answer.dtype in (torch.bfloat16, torch.float16) else answer
        gaussians = activate_cache(answer.expand(max(targets, len(raw)), *answer.shape[1:]), picked, self.config)
        gaussians = gaussians.map(lambda tensor: tensor[:, :, 0, 0, 0])
        if not self.config.underlay:
            return gaussians
        members = find_blocks(cells, base.distance[0], self.config.underlay)
        origins, normals = (part.flatten(1, 4)[0, cells] for part in (inputs.ray_origins, base.normals))
        angle = picked.pixel_angle[0, :, 0]
        return merge([gaussians, lay_under(gaussians, origins, normals, angle, members, self.config.max_stretch)])


def select_views(inputs: StudentInputs, views: Sequence[int]) -> StudentInputs:
    """The inputs of some trajectories, in the given order."""
    picked = list(views)
    base = inputs.base
    if base is not None:
        base = base.map(lambda tensor: tensor[:, picked])
    return replace(
        inputs,
        latents=inputs.latents[:, picked],
        plucker=inputs.plucker[:, picked],
        ray_origins=inputs.ray_origins[:, picked],
        ray_directions=inputs.ray_directions[:, picked],
        pixel_angle=inputs.pixel_angle[:, picked],
        base=base,
    )


def pick_cells(inputs: StudentInputs, cells: Int[Tensor, "splat"]) -> StudentInputs:
    """Some cells of the grid, each as a view of a single cell."""
    base = inputs.base
    assert base is not None

    def pick(tensor: Tensor) -> Tensor:
        return tensor.flatten(1, 4)[:, cells][:, :, None, None, None]

    def repeat(tensor: Tensor) -> Tensor:
        """Something of as many views, which is not looked at."""
        return tensor[:, :1].expand(-1, len(cells), *tensor.shape[2:])

    angle = inputs.pixel_angle[..., None, None].expand(-1, *base.distance.shape[1:])
    return replace(
        inputs,
        latents=repeat(inputs.latents),
        plucker=repeat(inputs.plucker),
        ray_origins=pick(inputs.ray_origins),
        ray_directions=pick(inputs.ray_directions),
        pixel_angle=pick(angle)[..., 0, 0],
        base=base.map(pick),
    )


def _split(raw: Tensor) -> tuple[Tensor, ...]:
    return raw.split([1, 3, 3, 4, 1], dim=-1)


def activate_ray(
    raw: Float[Tensor, "*batch splat 12"],
    origins: Float[Tensor, "*batch splat 3"],
    directions: Float[Tensor, "*batch splat 3"],
    config: DecoderConfig,
) -> Gaussians:
    """The paper's activation: distance between near and far along the ray, absolute scale and color.

    Source: ``gaussian_processing``; golden ``gaussian_activation``.
    """
    distance, color, scale, rotation, opacity = _split(raw)
    weight = torch.sigmoid(distance + config.distance_shift)
    reach = config.near * (1 - weight) + config.far * weight
    # exp overflows long before the cap matters; the cap is applied in the exponent.
    cap = torch.log(torch.tensor(config.max_scale, dtype=torch.float64)).item()
    return Gaussians(
        means=origins + reach * directions,
        scales=torch.exp((scale - (1 - cap)).clamp(max=cap)),
        quaternions=F.normalize(rotation, dim=-1),
        opacities=torch.sigmoid(opacity[..., 0] + config.opacity_shift),
        colors=0.5 * torch.tanh(color) + 0.5,
    )


def activate_cache(
    raw: Float[Tensor, "batch view time height width 12"], inputs: StudentInputs, config: DecoderConfig
) -> Gaussians:
    """The small student's activation: corrections of the base surface.

    Distance is the base's times exp(x), between near and far; scale is a share of the cell's footprint times exp(x),
    at most 4 footprints, along the surface's slope longer by what the slope hides from the ray; rotation turns about
    the surface's own axes; color is the base's plus x; zero raw channels are the base surface itself.
    """
    base = inputs.base
    if base is None:
        raise ValueError("this decoder corrects the cache's depth, but the inputs have no base surface")
    distance, color, scale, rotation, opacity = _split(raw)
    reach = (base.distance[..., None].log() + distance).exp().clamp(config.near, config.far)
    footprint = reach * inputs.pixel_angle[..., None, None, None]
    axes, cosine = lie_on_surface(base.normals, inputs.ray_directions)
    stretch = 1 / cosine.clamp(min=1 / config.max_stretch)
    lying = torch.stack([stretch, torch.ones_like(stretch), torch.ones_like(stretch)], dim=-1)
    upright = rotation.new_tensor([1.0, 0.0, 0.0, 0.0])
    turn = F.normalize(rotation + upright, dim=-1)
    opacities = torch.sigmoid(opacity[..., 0] + config.opacity_shift + config.novelty * (2 * base.novel - 1))
    if base.shown is not None:  # what does not belong to a moment is not there
        opacities = opacities * base.shown
    return Gaussians(
        means=inputs.ray_origins + reach * inputs.ray_directions,
        scales=footprint * lying * (config.base_scale * scale.clamp(config.least_scale, 8).exp()).clamp(max=4),
        quaternions=multiply_quaternions(axes.expand_as(turn), turn),
        opacities=opacities,
        colors=(base.color + color).clamp(0, 1),
    )


@torch.no_grad()
def decode_scene(decoder: GaussianDecoder, inputs: StudentInputs) -> Gaussians:
    """One pass over all trajectories of one scene; the Gaussians that pruning keeps, the most opaque first.

    Gaussians are made view by view and pruned at once, so that no more than one view's are there unpruned.
    """
    config = decoder.config
    keep, count = share_kept(config, inputs.latents.shape[1]), count_gaussians(config, inputs)
    best: Gaussians | None = None
    for gaussians in decoder.stream(inputs):
        gaussians = gaussians.map(lambda tensor: tensor[0])
        best = gaussians if best is None else merge([best, gaussians])
        # What is not among the best so far is not among the best of all; the order of equals is kept.
        if keep < 1:
            best = prune(best, min(round(keep * count), config.most or count))
    assert best is not None
    return best


def share_kept(config: DecoderConfig, views: int) -> float:
    """The share of its Gaussians that a scene of some clips keeps.

    Those of "cache" geometry learn what to leave out from ``PRUNED_VIEWS`` clips, of which most show the same: fewer
    keep as many as those would, or the picture has holes.
    """
    if config.geometry != "cache":
        return config.keep
    return min(1.0, config.keep * max(1.0, PRUNED_VIEWS / views))


def count_gaussians(config: DecoderConfig, inputs: StudentInputs) -> int:
    """Gaussians that a decoder makes of one scene, before pruning."""
    _, views, _, frames, height, width = inputs.latents.shape
    cells = (height // config.token_patch) * (width // config.token_patch)
    return views * (1 + config.splat_frames * (frames - 1)) * cells * config.splats_per_token**2
