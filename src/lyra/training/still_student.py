"""The student learns from the teacher's clips alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from lyra.cache.warp import DepthCache, render_cache
from lyra.device.memory import autocast_training
from lyra.engine.engine import Engine
from lyra.geometry.cameras import Cameras, concatenate_cameras
from lyra.geometry.gaussians import Gaussians, prune
from lyra.geometry.sky import is_sky
from lyra.geometry.trajectories import noise_generator
from lyra.rendering import Rendering, render
from lyra.student import GaussianDecoder, StudentInputs, decode_scene
from lyra.student.decoder import count_gaussians, select_views
from lyra.synthesis.imagined import SyntheticScene
from lyra.training.kept import keep_some
from lyra.training.losses import LossWeights, Terms, sum_depth_errors


@dataclass(frozen=True)
class DecoderObjective:
    """What the decoder's loss is made of."""

    views: tuple[int, ...] = (2, 4, 6, 6)
    """How many trajectories enter; drawn from these a step."""
    targets: int = 6
    """Rendered frames a step, from any of the scene's trajectories."""
    late: float = 1.0
    """Frames are drawn with weight exp(late * position); 3 in the paper, whose clips are long."""
    sizes: tuple[int, ...] = (1, 2, 4)
    """How much larger than the clips the renderings are, drawn from these a step; they are averaged down before they
    are compared. Trained at size 1 alone, Gaussians rely on the renderer's dilation of 0.3 pixels, and gaps open
    between them in any larger picture."""
    weights: LossWeights = LossWeights()  # noqa: RUF009  (frozen)
    novel: bool = True
    """Compared are any trajectories of the scene; else, as in the paper, the same frames of each that is read."""
    prune: bool = True
    """Render only the Gaussians that pruning keeps, as the paper's last stage does."""
    recompute: bool = False
    """Keep only the tokens between the blocks, and compute the rest again for the gradient."""
    seed: int = 0


Distance = Callable[[Tensor, Tensor], Tensor]
"""The perceptual term: mean over pictures of the distance of two batches in [0, 1]."""
Draw = Callable[[Gaussians, Cameras, Tensor], Rendering]
"""Gaussians, cameras and background to pictures."""


class SceneSet:
    """Synthetic scenes with their inputs prepared once each."""

    def __init__(self, scenes: Sequence[SyntheticScene], engine: Engine):
        self.scenes, self.engine = scenes, engine
        self.inputs = keep_some(self._prepare)

    def _prepare(self, index: int) -> StudentInputs:
        """Inputs of all trajectories of a scene."""
        scene = self.scenes[index]
        return self.engine.inputs(scene.clips, scene.views)

    def cache(self, index: int) -> DepthCache:
        """A scene's points, from which its clips were conditioned."""
        cache = self.scenes[index].views.cache(self.engine.config.edges)
        assert isinstance(cache, DepthCache)
        return cache

    def depth(
        self, index: int, seen: Sequence[tuple[int, int]], cameras: Cameras
    ) -> tuple[Float[Tensor, "view height width"], Bool[Tensor, "view height width"]]:
        """Z-depth of some frames and where it is known: what is stored with the clips, else the cache's points."""
        stored = self.scenes[index].depth
        if stored:
            size = (cameras.height, cameras.width)
            maps = torch.stack([stored[clip][frame] for clip, frame in seen])
            maps = F.interpolate(maps[:, None], size, mode="nearest-exact")[:, 0]
            return maps, ~is_sky(maps)
        views = render_cache(self.cache(index), cameras)
        return views.depth[:, 0], views.masks[:, 0] > 0

    def video(self, index: int, clip: int) -> Float[Tensor, "time 3 height width"]:
        """The teacher's frames in [0, 1]."""
        return self.engine.frames(self.scenes[index].clips[clip])


def decoder_loss(
    decoder: GaussianDecoder,
    data: SceneSet,
    objective: DecoderObjective,
    step: int,
    features: Distance | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Renders the decoder's Gaussians at frames of the scene's clips and compares them with the teacher's.

    Depth is compared with the cache's where it has points.

    Args:
        decoder: What learns.
        data: The scenes.
        objective: What the loss is made of.
        step: Decides what is drawn.
        features: For the perceptual term; needed where it has weight.
    """
    generator = noise_generator(objective.seed, f"decoder/{step}")
    index = int(torch.randint(len(data.scenes), (), generator=generator))
    terms = ask_decoder(decoder, data, objective, index, generator, features)
    psnr = -10 * terms.mean("color").log10().item()
    told = {name: terms.mean(name).item() for name in ("depth", "opacity", "alpha", "size")}
    return terms.weigh(objective.weights), {"psnr": psnr, **told}


def ask_decoder(
    decoder: GaussianDecoder,
    data: SceneSet,
    objective: DecoderObjective,
    index: int,
    generator: Generator,
    features: Distance | None = None,
    draw: Draw = render,
) -> Terms:
    """The terms of one scene's loss, and numbers that are logged alone.

    Args:
        decoder: What learns.
        data: The scenes.
        objective: What the loss is made of.
        index: Of the scene.
        generator: Draws what is read and what is shown.
        features: For the perceptual term; needed where it has weight.
        draw: What renders.
    """
    device = next(decoder.parameters()).device
    scene, inputs = data.scenes[index], data.inputs(index)
    count = objective.views[int(torch.randint(len(objective.views), (), generator=generator))]
    order = torch.randperm(len(scene.clips), generator=generator)[:count].tolist()
    chosen = select_views(inputs, order)
    every = count_gaussians(decoder.config, chosen)
    with autocast_training(device):
        gaussians = decoder(chosen.to(device), recompute=objective.recompute)
    gaussians = gaussians.map(lambda tensor: make_precise(tensor[0]))
    opacity = gaussians.opacities
    if objective.prune:
        gaussians = prune(gaussians, round(decoder.config.keep * every))

    seen = pick_targets(objective, order, len(scene.clips), len(scene.clips[0].cameras), generator)
    truth = torch.stack([data.video(index, path)[frame] for path, frame in seen]).to(device)
    cameras = concatenate_cameras([scene.clips[path].cameras[frame : frame + 1] for path, frame in seen])
    # A random background keeps the student from painting white where it should be opaque.
    background = torch.rand(3, generator=generator).to(device)
    size = objective.sizes[int(torch.randint(len(objective.sizes), (), generator=generator))]
    enlarged = cameras.resized(size * cameras.height, size * cameras.width).to(device)
    rendering = draw(gaussians, enlarged, background)
    shown = F.avg_pool2d(rendering.color, size)
    known, covered = data.depth(index, seen, cameras)
    depth, pixels = sum_depth_errors(F.avg_pool2d(rendering.depth, size), known.to(device), covered.to(device))
    parts = {
        "color": ((shown - truth).square().sum(), truth.numel()),
        "depth": (depth, pixels),
        "opacity": (opacity.sum(), len(opacity)),
        "alpha": (rendering.alpha.detach().mean(), 1),
        "size": (shown.new_tensor(float(size)), 1),
        "gaussians": (shown.new_tensor(float(len(gaussians))), 1),
    }
    if features is not None and objective.weights.perceptual:
        parts["perceptual"] = (len(truth) * features(shown, truth), len(truth))
    return Terms.of(parts)


def pick_targets(
    objective: DecoderObjective, read: Sequence[int], paths: int, frames: int, generator: Generator
) -> list[tuple[int, int]]:
    """Trajectory and frame of every picture that is compared."""
    weight = (objective.late * torch.linspace(0, 1, frames)).exp()
    if objective.novel:
        picks = torch.multinomial(weight, objective.targets, replacement=True, generator=generator).tolist()
        chosen = torch.randint(paths, (objective.targets,), generator=generator).tolist()
        return list(zip(chosen, picks, strict=True))
    count = min(objective.targets, frames)
    times = torch.multinomial(weight, count, generator=generator).sort().values.tolist()
    return [(path, frame) for path in read for frame in times]


def make_precise(tensor: Tensor) -> Tensor:
    """In float32 at least: geometry never is bfloat16."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@torch.no_grad()
def decoder_strip(decoder: GaussianDecoder, data: SceneSet, scenes: Sequence[int]) -> Float[Tensor, "3 h w"]:
    """For some scenes a row: the teacher's last frames of three clips, and the student's, and one depth."""
    rows = []
    for index in scenes:
        gaussians = decode_scene(decoder, data.inputs(index).to(next(decoder.parameters()).device)).to("cpu")
        scene = data.scenes[index]
        cells = []
        for clip in (0, 3, 4):
            rendering = render(gaussians, scene.clips[clip].cameras[-1:])
            cells += [data.video(index, clip)[-1], rendering.color[0]]
        inverse = 0.5 / rendering.depth[0].clamp(min=0.2)
        rows.append(torch.cat([*cells, inverse.expand(3, -1, -1)], dim=-1))
    return torch.cat(rows, dim=-2).clamp(0, 1)
