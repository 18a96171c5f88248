"""Training of each part of a model, in a workspace folder.

A workspace holds ``model/`` (the model as far as it is trained), ``worlds/`` and ``clips/`` (data) and one run folder a
part. Parts are trained in this order: tokenizer, depth, denoiser, then ``lyra synthesize``, then decoder.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyra.device.memory import find_device
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.models.convert.imagenet import load_imagenet
from lyra.models.loading import load, save
from lyra.models.model import Model
from lyra.models.recipe import MINI, Recipe, create_model
from lyra.student.moments import with_times
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.production import Produced, produce
from lyra.synthesis.sources import Source, find_inputs
from lyra.synthesis.streaming import DataSet
from lyra.teacher.residual import measure_spread
from lyra.tokenizer.linear import LinearTokenizer, fit_linear_tokenizer
from lyra.training.denoiser import (
    DenoiserObjective,
    channel_weights,
    contact_strip,
    denoiser_loss,
    encode_clips,
)
from lyra.training.depth import (
    FIRST_CLOSE_UP_SEED,
    FIRST_MOVING_VIEW_SEED,
    DepthObjective,
    depth_loss,
    depth_strip,
    freeze_early_stages,
    prepare_frames,
)
from lyra.training.loop import LoopConfig, fit
from lyra.training.losses import LossWeights
from lyra.training.moving_student import MomentObjective, MovingSet, moment_loss
from lyra.training.perceptual import FeatureDistance
from lyra.training.run_checkpoints import has_checkpoint
from lyra.training.signals import tokenizer_signals
from lyra.training.still_student import DecoderObjective, SceneSet, decoder_loss, decoder_strip
from lyra.training.world_clips import (
    FIRST_IMAGE_SEED,
    FIRST_VIDEO_SEED,
    WorldClip,
    load_world_clips,
    prepare_world_clips,
)
from lyra.worlds.input_views import FIRST_TRAINING_SEED

DEPTH_LOOP = LoopConfig(learning_rate=5e-4, ema=0.998, cooldown=2000)
DENOISER_LOOP = LoopConfig(learning_rate=8e-4, ema=0.998)
DECODER_LOOP = LoopConfig(learning_rate=3e-4, ema=0.995)
MOMENTS_LOOP = LoopConfig(learning_rate=3e-4, ema=0.995)
SYNTHESIS = SynthesisOptions(held_out=0.0)
"""All of a workspace's inputs are for training: what it is measured on are other worlds."""
DEPTH_OBJECTIVE, DENOISER_OBJECTIVE = DepthObjective(), DenoiserObjective()
DECODER_OBJECTIVE = DecoderObjective(weights=LossWeights(perceptual=0.02))
MOMENT_OBJECTIVE = MomentObjective()


@dataclass(frozen=True)
class Workspace:
    """Where a model is trained, and how much data it gets."""

    folder: Path
    recipe: Recipe = MINI
    worlds: int = 400
    """Training worlds; each gives two clips."""
    scenes: int = 120
    """Single images that the teacher imagines clips of."""
    views: int = 3000
    """Single views of worlds that the depth network learns from."""
    moving_views: int = 600
    """The same of moving worlds."""
    close_ups: int = 1600
    """The same of one large thing."""
    videos: int = 40
    """Videos of moving worlds that the teacher imagines clips of."""

    device: str = "auto"
    """Where the networks work."""

    @property
    def model_folder(self) -> Path:
        """The model as far as it is trained."""
        return self.folder / "model"

    def __post_init__(self) -> None:
        if self.worlds < 1 or self.scenes < 1:
            raise LyraError("give at least one world and one scene")

    def load_model(self) -> Model:
        """The workspace's model; made with random weights when there is none yet."""
        if not (self.model_folder / "lyra.json").exists():
            save(create_model(self.recipe), self.model_folder)
        model = load(self.model_folder)
        if model.config.name != self.recipe.name:
            raise LyraError(f"{self.folder} holds a {model.config.name!r} model: give another folder with --run")
        teacher = replace(self.recipe.teacher, spread=model.config.teacher.spread)
        return replace(model, config=replace(model.config, teacher=teacher))

    def world_clips(self, worlds: int | None = None) -> list[WorldClip]:
        """Training clips, rendered on first use."""
        teacher = self.recipe.teacher
        seeds = range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + (worlds or self.worlds))
        paths = prepare_world_clips(self.folder / "worlds", seeds, 2, teacher.frames, teacher.height, teacher.width)
        return list(load_world_clips(paths))

    def images(self) -> list[Source]:
        """Worlds that nothing else is trained on: the single images of self-distillation."""
        return find_inputs(f"worlds:{FIRST_IMAGE_SEED}-{FIRST_IMAGE_SEED + self.scenes - 1}")

    def films(self) -> list[Source]:
        """Moving worlds seen by a still camera: the inputs of self-distillation over time."""
        return find_inputs(f"moving_worlds:{FIRST_VIDEO_SEED}-{FIRST_VIDEO_SEED + self.videos - 1}")


@contextmanager
def _on_device(workspace: Workspace, module: nn.Module) -> Iterator[None]:
    """Has a network where the workspace works, and back on the CPU to be saved."""
    module.to(find_device(workspace.device))
    try:
        yield
    finally:
        module.to("cpu")


def _update(workspace: Workspace, **parts) -> None:
    # Loaded again under a lock, since another part may be trained at the same time.
    with (workspace.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        save(replace(workspace.load_model(), **parts), workspace.model_folder)


def train_tokenizer(workspace: Workspace, worlds: int = 100) -> None:
    """Fits the linear tokenizer to clips of worlds and the maps that pass through it."""
    model = workspace.load_model()
    if not isinstance(model.tokenizer, LinearTokenizer):
        raise LyraError("only the linear tokenizer is fitted here")
    clips = workspace.world_clips(min(worlds, workspace.worlds))
    fit_linear_tokenizer(tokenizer_signals(clips, workspace.recipe.teacher), model.tokenizer)
    latents = torch.cat([model.tokenizer.encode(clip.signal()) for clip in clips])
    model.tokenizer.statistics.mean.copy_(latents.mean((0, 3, 4)))
    model.tokenizer.statistics.std.copy_(latents.std((0, 3, 4)).clamp(min=1e-3))
    teacher = workspace.recipe.teacher
    if workspace.recipe.residual:
        unit = (1.0,) * model.tokenizer.spec.channels
        teacher = replace(teacher, spread=(unit, unit))
        encoded = encode_clips(clips, model.tokenizer, teacher)
        suggested = encoded.buffers[:, : model.tokenizer.spec.channels]
        teacher = replace(teacher, spread=measure_spread(encoded.latents, suggested, encoded.covered))
    _update(workspace, tokenizer=model.tokenizer, config=replace(model.config, teacher=teacher))


def train_depth(
    workspace: Workspace, loop: LoopConfig = DEPTH_LOOP, objective: DepthObjective = DEPTH_OBJECTIVE
) -> None:
    """Trains the depth network on views of worlds, from ImageNet's encoder where the size is ImageNet's."""
    model = workspace.load_model()
    if model.depth.config.multiplier == 1.0 and not has_checkpoint(workspace.folder / "depth"):
        load_imagenet(model.depth.encoder)
    freeze_early_stages(model.depth)
    seeds = [
        *range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + workspace.views),
        *range(FIRST_MOVING_VIEW_SEED, FIRST_MOVING_VIEW_SEED + workspace.moving_views),
        *range(FIRST_CLOSE_UP_SEED, FIRST_CLOSE_UP_SEED + workspace.close_ups),
    ]
    frames = prepare_frames(workspace.folder / "views", seeds, round(8 / 7 * model.depth.config.size))
    with _on_device(workspace, model.depth):
        fit(
            model.depth,
            lambda step: depth_loss(model.depth, frames, objective, step),
            workspace.folder / "depth",
            loop,
            lambda: depth_strip(model.depth, frames),
        )
    _update(workspace, depth=model.depth)


def train_denoiser(
    workspace: Workspace,
    loop: LoopConfig = DENOISER_LOOP,
    objective: DenoiserObjective = DENOISER_OBJECTIVE,
) -> None:
    """Trains the teacher's network on clips of worlds."""
    model = workspace.load_model()
    teacher = model.config.teacher
    clips = encode_clips(workspace.world_clips(), model.tokenizer, teacher)
    text, weights = model.text["empty"], channel_weights(model.tokenizer)

    def sample() -> Float[Tensor, "3 height width"]:
        return contact_strip(model.transformer, clips, model.tokenizer, text, teacher, model.scheduler)

    with _on_device(workspace, model.transformer):
        fit(
            model.transformer,
            lambda step: denoiser_loss(model.transformer, clips, text, weights, teacher, objective, step),
            workspace.folder / "denoiser",
            loop,
            sample,
        )
    _update(workspace, transformer=model.transformer)


def synthesize_clips(workspace: Workspace, minutes: float = float("inf")) -> Produced:
    """Runs the workspace's teacher on its single images; begins none after so many minutes."""
    engine = Engine(workspace.load_model(), workspace.device)
    return produce(engine, workspace.images(), workspace.folder / "clips", SYNTHESIS, minutes)


def load_scenes(folder: Path) -> list[SyntheticScene]:
    """All training scenes of a data set, without the clips' depth.

    Raises:
        LyraError: there are none.
    """
    data = DataSet(folder)
    return [replace(data[index].scene, depth=(), backward_depth=()) for index in range(len(data))]


def train_decoder(
    workspace: Workspace,
    loop: LoopConfig = DECODER_LOOP,
    objective: DecoderObjective = DECODER_OBJECTIVE,
) -> None:
    """Trains the student on what ``synthesize_clips`` has made."""
    model = workspace.load_model()
    data = SceneSet(load_scenes(workspace.folder / "clips"), Engine(model, "cpu"))
    features = FeatureDistance() if objective.weights.perceptual else None
    with _on_device(workspace, model.decoder):
        fit(
            model.decoder,
            lambda step: decoder_loss(model.decoder, data, objective, step, features),
            workspace.folder / "decoder",
            loop,
            lambda: decoder_strip(model.decoder, data, range(min(3, len(data.scenes)))),
        )
    _update(workspace, decoder=model.decoder)


def synthesize_moving(workspace: Workspace, minutes: float = float("inf")) -> Produced:
    """Runs the workspace's teacher on its videos; begins none after so many minutes."""
    engine = Engine(workspace.load_model(), workspace.device)
    return produce(engine, workspace.films(), workspace.folder / "videos", SYNTHESIS, minutes)


def train_moments(
    workspace: Workspace,
    loop: LoopConfig = MOMENTS_LOOP,
    objective: MomentObjective = MOMENT_OBJECTIVE,
    still: DecoderObjective = DECODER_OBJECTIVE,
) -> None:
    """Goes on from the student of still scenes with what ``synthesize_moving`` has made.

    Every third step is one of a still scene, so that those are not forgotten.
    """
    model = workspace.load_model()
    if not model.decoder.config.time_conditioning:
        model = replace(model, decoder=with_times(model.decoder))
    engine = Engine(model, "cpu")
    moving = MovingSet(load_scenes(workspace.folder / "videos"), engine)
    scenes = SceneSet(load_scenes(workspace.folder / "clips"), engine)
    features = FeatureDistance() if objective.weights.perceptual or still.weights.perceptual else None

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step % 3 == 2:
            return decoder_loss(model.decoder, scenes, still, step, features)
        return moment_loss(moving.decoder, moving, objective, step, features)

    with _on_device(workspace, model.decoder):
        fit(model.decoder, loss, workspace.folder / "moments", loop)
    _update(workspace, decoder=model.decoder)
