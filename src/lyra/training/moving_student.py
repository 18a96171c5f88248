"""The student learns moments: one target time a step, seen from the trajectories of forward and backward clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from lyra.cache.warp import view_cache
from lyra.device.memory import autocast_training
from lyra.engine.engine import Engine
from lyra.geometry.cameras import Cameras, concatenate_cameras
from lyra.geometry.gaussians import prune
from lyra.geometry.trajectories import noise_generator
from lyra.rendering import render
from lyra.student import GaussianDecoder, StudentInputs, prepare_student_inputs
from lyra.student.decoder import CONSIDERED, count_gaussians, select_views
from lyra.student.moments import Source, aim, at_every_frame, show_at
from lyra.synthesis.imagined import SyntheticScene
from lyra.training.kept import keep_some
from lyra.training.losses import LossWeights, Terms, sum_depth_errors
from lyra.training.still_student import Distance, Draw, make_precise
from lyra.views.views import Views

_BELIEVED = 0.3
"""Weight of the input video's own frame, which is sharper than the teacher's, beside those of the trajectories."""


@dataclass(frozen=True)
class MomentObjective:
    """What the loss is made of."""

    views: tuple[int, ...] = (2,)
    """How many trajectories enter beside the input video; drawn from these a step."""
    targets: int = 4
    """Rendered views of the moment a step."""
    backward: bool = True
    """Whether the backward clips' views are among them: the paper's augmentation."""
    sizes: tuple[int, ...] = (1, 2, 4)
    """How much larger than the clips the renderings are; see ``DecoderObjective``."""
    prune: bool = False
    """Render only the Gaussians that pruning keeps, as the paper's last stage does."""
    weights: LossWeights = LossWeights(perceptual=0.02)  # noqa: RUF009  (frozen)
    recompute: bool = False
    """As in ``DecoderObjective``; in the paper's form alone."""
    seed: int = 0


class MovingSet:
    """Moving scenes with their inputs prepared once each."""

    def __init__(self, scenes: Sequence[SyntheticScene], engine: Engine):
        self.scenes, self.engine = scenes, engine
        self.decoder = at_every_frame(engine.model.decoder, engine.tokenizer.spec.temporal)
        self._prepared = keep_some(self._prepare)

    def inputs(self, index: int) -> StudentInputs:
        """Inputs of the input video and all trajectories of a scene."""
        return self._prepared(index)[0]

    def source(self, index: int) -> Source:
        """What the input video of a scene shows, on the grid of the Gaussians."""
        return self._prepared(index)[1]

    def _prepare(self, index: int) -> tuple[StudentInputs, Source]:
        scene = self.scenes[index]
        return self.engine.moving_inputs(scene.clips, scene.views, self.decoder)

    def seen(self, index: int, moment: int, backward: bool) -> tuple[Float[Tensor, "view 3 height width"], Cameras]:
        """Pictures and cameras of a moment from all trajectories, in the order forward, backward."""
        scene = self.scenes[index]
        count = len(scene.views)
        chosen = [(clip, moment) for clip in scene.clips[1:]]
        # A backward clip's frame i shows the moment i before the end.
        chosen += [(clip, count - 1 - moment) for clip in scene.backward] if backward else []
        frames, cameras = [], []
        for clip, frame in chosen:
            frames.append(self.engine.frames(clip)[frame])
            cameras.append(clip.cameras[frame : frame + 1])
        return torch.stack(frames), concatenate_cameras(cameras)


def moment_loss(
    decoder: GaussianDecoder,
    data: MovingSet,
    objective: MomentObjective,
    step: int,
    features: Distance | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Renders one moment of a scene from several trajectories and compares it with the teacher's pictures.

    Args:
        decoder: What learns; of the settings of ``data``.
        data: The scenes.
        objective: What the loss is made of.
        step: Decides what is drawn.
        features: For the perceptual term; needed where it has weight.
    """
    generator = noise_generator(objective.seed, f"moment/{step}")
    index = int(torch.randint(len(data.scenes), (), generator=generator))
    terms = ask_moment(decoder, data, objective, index, generator, features)
    told = {name: -10 * terms.mean(term).log10().item() for name, term in (("psnr", "novel"), ("input_psnr", "input"))}
    told |= {name: terms.mean(name).item() for name in ("depth", "gaussians")}
    return terms.weigh(objective.weights), told


def ask_moment(
    decoder: GaussianDecoder,
    data: MovingSet,
    objective: MomentObjective,
    index: int,
    generator: Generator,
    features: Distance | None = None,
    draw: Draw = render,
) -> Terms:
    """The terms of one moment's loss, and numbers that are logged alone; see ``ask_decoder``."""

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    device = next(decoder.parameters()).device
    scene, source = data.scenes[index], data.source(index)
    moment = pick(len(scene.views))
    count = objective.views[0] if len(objective.views) == 1 else objective.views[pick(len(objective.views))]
    paths = 1 + torch.randperm(len(scene.clips) - 1, generator=generator)[:count]
    inputs = select_views(data.inputs(index), [0, *paths.tolist()])
    shown = show_at(inputs, source, [moment], data.engine.tokenizer.spec.temporal)
    candidates = (shown[0] > CONSIDERED).flatten().nonzero()[:, 0]
    with autocast_training(device):
        aimed = aim(inputs, [moment], shown, data.engine.tokenizer).to(device)
        gaussians = decoder.at_cells(aimed, candidates.to(device))
    gaussians = gaussians.map(lambda tensor: make_precise(tensor[0]))
    opacity = gaussians.opacities
    if objective.prune:
        gaussians = prune(gaussians, round(decoder.config.keep * count_gaussians(decoder.config, inputs)))

    truth, cameras = data.seen(index, moment, objective.backward)
    picks = torch.randperm(len(truth), generator=generator)[: objective.targets].tolist()
    truth = torch.cat([scene.views.images[moment][None], truth[picks]]).to(device)
    cameras = concatenate_cameras([scene.views.cameras[moment : moment + 1], cameras[picks]])
    size = objective.sizes[pick(len(objective.sizes))]
    background = torch.rand(3, generator=generator).to(device)
    enlarged = cameras.resized(size * cameras.height, size * cameras.width).to(device)
    rendering = draw(gaussians, enlarged, background)
    shown_color = F.avg_pool2d(rendering.color, size)
    error = (shown_color - truth).square().mean((1, 2, 3))
    weight = torch.ones_like(error)
    weight[0] = _BELIEVED * (len(error) - 1)
    at = slice(moment, moment + 1)
    points = Views(scene.views.images[at], scene.views.depth[at], scene.views.cameras[at])
    known = view_cache(points.cache(data.engine.config.edges), cameras)
    covered = (known.masks[:, 0] > 0).to(device)
    depth, pixels = sum_depth_errors(F.avg_pool2d(rendering.depth, size), known.depth[:, 0].to(device), covered)
    parts = {
        "color": ((weight * error).sum(), float(weight.sum())),
        "depth": (depth, pixels),
        "opacity": (opacity.sum(), len(opacity)),
        "novel": (error[1:].detach().sum(), len(error) - 1),
        "input": (error[0].detach(), 1),
        "gaussians": (error.new_tensor(float(len(gaussians))), 1),
    }
    if features is not None and objective.weights.perceptual:
        parts["perceptual"] = (len(truth) * features(shown_color, truth), len(truth))
    return Terms.of(parts)


def ask_paper_moment(
    decoder: GaussianDecoder,
    data: MovingSet,
    objective: MomentObjective,
    index: int,
    generator: Generator,
    features: Distance | None = None,
    draw: Draw = render,
) -> Terms:
    """The same in the paper's form: some trajectories and a target time in, the moment seen from all trajectories.

    Depth is compared with that of the video's frame where it shows.
    """
    device = next(decoder.parameters()).device
    scene, engine = data.scenes[index], data.engine
    moment = int(torch.randint(len(scene.views), (), generator=generator))
    count = objective.views[int(torch.randint(len(objective.views), (), generator=generator))]
    paths = (1 + torch.randperm(len(scene.clips) - 1, generator=generator)[:count]).tolist()
    clips = [scene.clips[path] for path in paths]
    times = [moment / max(1, len(scene.views) - 1)]
    inputs = prepare_student_inputs(clips, engine.exact_tokenizer, decoder.config, times=times)
    with autocast_training(device):
        gaussians = decoder(inputs.to(device), recompute=objective.recompute)
    gaussians = gaussians.map(lambda tensor: make_precise(tensor[0]))
    opacity = gaussians.opacities
    if objective.prune:
        gaussians = prune(gaussians, round(decoder.config.keep * len(gaussians)))

    truth, cameras = data.seen(index, moment, objective.backward)
    picks = torch.randperm(len(truth), generator=generator)[: objective.targets].tolist()
    truth, cameras = truth[picks].to(device), cameras[picks]
    background = torch.rand(3, generator=generator).to(device)
    rendering = draw(gaussians, cameras.to(device), background)
    error = (rendering.color - truth).square()
    at = slice(moment, moment + 1)
    points = Views(scene.views.images[at], scene.views.depth[at], scene.views.cameras[at])
    known = view_cache(points.cache(engine.config.edges), cameras)
    covered = (known.masks[:, 0] > 0).to(device)
    depth, pixels = sum_depth_errors(rendering.depth, known.depth[:, 0].to(device), covered)
    parts = {
        "color": (error.sum(), error.numel()),
        "depth": (depth, pixels),
        "opacity": (opacity.sum(), len(opacity)),
        "gaussians": (error.new_tensor(float(len(gaussians))), 1),
    }
    if features is not None and objective.weights.perceptual:
        parts["perceptual"] = (len(truth) * features(rendering.color, truth), len(truth))
    return Terms.of(parts)
