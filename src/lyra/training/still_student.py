"""The student learns from the teacher's clips alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.cache.warp import DepthCache, render_cache
from lyra.device.memory import autocast_training
from lyra.engine.engine import Engine
from lyra.geometry.cameras import concatenate_cameras
from lyra.geometry.gaussians import prune
from lyra.geometry.trajectories import noise_generator
from lyra.rendering import render
from lyra.student import GaussianDecoder, StudentInputs, decode_scene
from lyra.student.decoder import select_views
from lyra.synthesis.imagined import SyntheticScene
from lyra.training.kept import keep_some
from lyra.training.losses import LossWeights, depth_loss
from lyra.training.perceptual import FeatureDistance


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
    prune: bool = True
    """Render only the Gaussians that pruning keeps, as the paper's last stage does."""
    seed: int = 0


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

    def video(self, index: int, clip: int) -> Float[Tensor, "time 3 height width"]:
        """The teacher's frames in [0, 1]."""
        return self.engine.frames(self.scenes[index].clips[clip])


def decoder_loss(
    decoder: GaussianDecoder,
    data: SceneSet,
    objective: DecoderObjective,
    step: int,
    features: FeatureDistance | None = None,
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
    device = next(decoder.parameters()).device
    scene, inputs = data.scenes[index], data.inputs(index)
    count = objective.views[int(torch.randint(len(objective.views), (), generator=generator))]
    order = torch.randperm(len(scene.clips), generator=generator)[:count].tolist()
    with autocast_training(device):
        gaussians = decoder(select_views(inputs, order).to(device))
    gaussians = gaussians.map(lambda tensor: tensor[0].float())
    opacity = gaussians.opacities.mean()
    if objective.prune:
        gaussians = prune(gaussians, round(decoder.config.keep * len(gaussians)))

    frames = len(scene.clips[0].cameras)
    position = torch.arange(frames) / (frames - 1)
    picks = torch.multinomial(
        (objective.late * position).exp(), objective.targets, replacement=True, generator=generator
    )
    paths = torch.randint(len(scene.clips), (objective.targets,), generator=generator).tolist()
    truth = torch.stack([data.video(index, p)[f] for p, f in zip(paths, picks.tolist(), strict=True)]).to(device)
    cameras = concatenate_cameras(
        [scene.clips[p].cameras[f : f + 1] for p, f in zip(paths, picks.tolist(), strict=True)]
    )
    # A random background keeps the student from painting white where it should be opaque.
    background = torch.rand(3, generator=generator).to(device)
    size = objective.sizes[int(torch.randint(len(objective.sizes), (), generator=generator))]
    enlarged = cameras.resized(size * cameras.height, size * cameras.width).to(device)
    rendering = render(gaussians, enlarged, background)
    views = render_cache(data.cache(index), cameras)
    shown = F.avg_pool2d(rendering.color, size)
    color = (shown - truth).square().mean()
    covered = (views.masks[:, 0] > 0).to(device)
    depth = depth_loss(F.avg_pool2d(rendering.depth, size), views.depth[:, 0].to(device), covered)
    weights = objective.weights
    loss = weights.color * color + weights.depth * depth + weights.opacity * opacity
    if features is not None and weights.perceptual:
        loss = loss + weights.perceptual * features(shown, truth)
    return loss, {
        "psnr": -10 * color.log10().item(),
        "depth": depth.item(),
        "opacity": opacity.item(),
        "alpha": rendering.alpha.mean().item(),
        "size": float(size),
    }


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
