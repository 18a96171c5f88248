"""The student's progressive stages, each derived from the one before it: the paper's nine, and small ones like them.

Source: ``train.sh`` and ``configs/training`` of Lyra. There, too, steps are counted over all stages.
"""

from dataclasses import dataclass, replace

from lyra.models.recipe import MINI as MINI_MODEL
from lyra.models.recipe import SMOKE as SMOKE_MODEL
from lyra.student.decoder import DecoderConfig
from lyra.training.loop import LoopConfig
from lyra.training.losses import LossWeights
from lyra.training.moving_student import MomentObjective
from lyra.training.still_student import DecoderObjective

GPUS = 8
"""Of the paper's node; its batches are given for one of them."""


@dataclass(frozen=True)
class Stage:
    """What the student sees and is asked for, up to some step."""

    name: str
    until: int
    """Step at which it ends, counted over all stages."""
    size: tuple[int, int]
    """Rows and columns of the clips as they are read."""
    frames: int
    """Of a clip as it is read."""
    gap: tuple[int, int] | None = None
    """Frames from the first that is read to the last, least and most: those between are drawn, brought to ``size`` and
    encoded anew. The clips as they are stored when None."""
    trajectories: tuple[int, ...] = (1,)
    """How many clips are read; drawn from these a sample."""
    targets: int = 9
    """Frames that are compared in each clip that is read; of a moving stage, views of one moment."""
    late: float = 0.0
    """Frames are drawn with weight exp(late * position): late ones are far from the input's camera."""
    prune: bool = False
    """Only the most opaque Gaussians are drawn."""
    moving: bool = False
    """Videos, one moment a sample, also seen from the clips of the video run backward."""
    batch: int = GPUS
    """Samples a step, of all processes together."""
    weights: LossWeights = LossWeights(perceptual=0.5)  # noqa: RUF009  (frozen)
    sizes: tuple[int, ...] = (1,)
    """How much larger than the clips the renderings are; see ``DecoderObjective``."""
    sparing: bool = True
    """Blocks are computed again for the gradient, and views are rendered one by one."""
    learning_rate: float = 1e-4
    warmup: int = 100

    def still_objective(self) -> DecoderObjective:
        """What a sample of a photo is asked."""
        return DecoderObjective(
            views=self.trajectories,
            targets=self.targets,
            late=self.late,
            sizes=self.sizes,
            weights=self.weights,
            novel=False,
            prune=self.prune,
            recompute=self.sparing,
        )

    def moving_objective(self) -> MomentObjective:
        """What a sample of a video is asked."""
        return MomentObjective(
            views=self.trajectories,
            targets=self.targets,
            sizes=self.sizes,
            prune=self.prune,
            weights=self.weights,
            recompute=self.sparing,
        )

    def loop(self, run: LoopConfig) -> LoopConfig:
        """How long and fast it learns, within a run's settings."""
        return replace(run, steps=self.until, learning_rate=self.learning_rate, warmup=self.warmup)


@dataclass(frozen=True)
class Ladder:
    """A student and its stages, those of videos last: they go on from the last stage that draws all Gaussians."""

    decoder: DecoderConfig
    stages: tuple[Stage, ...]

    def unpruned(self) -> "Ladder":
        """The same steps without pruning, and none of its opacity term."""
        stages = (replace(s, prune=False, weights=replace(s.weights, opacity=0.0)) for s in self.stages)
        return Ladder(replace(self.decoder, keep=1.0), tuple(stages))

    def weighed(self, **weights: float) -> "Ladder":
        """The same stages with other weights of the loss's terms."""
        return replace(self, stages=tuple(replace(s, weights=replace(s.weights, **weights)) for s in self.stages))

    def still(self) -> tuple[Stage, ...]:
        """The stages of photos."""
        return tuple(stage for stage in self.stages if not stage.moving)

    def moving(self) -> tuple[Stage, ...]:
        """The stages of videos."""
        return tuple(stage for stage in self.stages if stage.moving)

    def branch(self) -> Stage:
        """The stage of photos that those of videos go on from."""
        return next(stage for stage in reversed(self.still()) if not stage.prune)


def _prune(stage: Stage, name: str, until: int) -> Stage:
    return replace(stage, name=name, until=until, prune=True, weights=replace(stage.weights, opacity=0.1))


_FIRST = Stage("views-17", 10_000, (176, 320), 17, gap=(45, 120), targets=17, batch=4 * GPUS)
_LONGER = replace(_FIRST, name="views-49", until=12_500, frames=49, targets=49)
_LARGER = replace(_LONGER, name="middle", until=15_000, size=(352, 640), batch=2 * GPUS)
_LARGEST = replace(_LARGER, name="large", until=17_500, size=(704, 1280), batch=GPUS)
_WHOLE = replace(_LARGEST, name="whole-clips", until=75_000, frames=121, gap=None, targets=9)
_SEVERAL = replace(_WHOLE, name="six", until=82_000, trajectories=(1, 2, 3, 4, 5, 6), late=3.0)
_MOVING = replace(_SEVERAL, name="moving", until=90_000, moving=True, targets=12)
PAPER = Ladder(
    DecoderConfig(),
    (
        *(_FIRST, _LONGER, _LARGER, _LARGEST, _WHOLE, _SEVERAL),
        _prune(_SEVERAL, "six-pruned", 83_000),
        _MOVING,
        _prune(_MOVING, "moving-pruned", 91_000),
    ),
)
"""Of 704 x 1280 with 121 frames, on one node of eight GPUs."""

_MINI_FIRST = replace(
    _FIRST,
    **{"until": 400, "size": (64, 64), "frames": 5, "gap": (8, 16), "targets": 5, "batch": 4, "sizes": (1, 2, 4)},
    **{"weights": LossWeights(perceptual=0.02), "learning_rate": 3e-4, "sparing": False, "name": "views-5"},
)
_MINI_LONGER = replace(_MINI_FIRST, name="views-9", until=600, frames=9, targets=6)
_MINI_LARGER = replace(_MINI_LONGER, name="middle", until=800, size=(96, 96))
_MINI_LARGEST = replace(_MINI_LARGER, name="large", until=1000, size=(128, 128), batch=2)
_MINI_WHOLE = replace(_MINI_LARGEST, name="whole-clips", until=1600, frames=17, gap=None)
_MINI_SEVERAL = replace(_MINI_WHOLE, name="six", until=2800, trajectories=(1, 2, 3, 4, 5, 6), targets=3, late=1.0)
_MINI_MOVING = replace(_MINI_SEVERAL, name="moving", until=3800, moving=True, trajectories=(1, 2, 3), targets=6)
MINI = Ladder(
    MINI_MODEL.decoder,
    (
        *(_MINI_FIRST, _MINI_LONGER, _MINI_LARGER, _MINI_LARGEST, _MINI_WHOLE, _MINI_SEVERAL),
        _prune(_MINI_SEVERAL, "six-pruned", 3000),
        _MINI_MOVING,
        _prune(_MINI_MOVING, "moving-pruned", 4000),
    ),
)
"""The same shape for ``mini``: 128 x 128 with 17 frames, two cores."""

_DISTILL_FIRST = replace(_MINI_FIRST, until=200, sizes=(1,), learning_rate=1e-3, warmup=20)
_DISTILL_SEVERAL = replace(
    _DISTILL_FIRST,
    **{"name": "six", "until": 280, "frames": 17, "gap": None, "targets": 2, "late": 1.0},
    **{"trajectories": (1, 2, 3, 4, 5, 6)},
)
DISTILL = Ladder(
    replace(
        DecoderConfig(),
        **{"width": 128, "depth": 4, "attention_every": 4, "heads": 4, "state": 32, "latent_channels": 24},
        **{"token_patch": 4, "splats_per_token": 8, "splat_frames": 1, "far": 30.0, "distance_shift": -3.0},
        **{"max_scale": 0.1, "keep": 0.5},
    ),
    (_DISTILL_FIRST, _DISTILL_SEVERAL, _prune(_DISTILL_SEVERAL, "six-pruned", 300)),
)
"""Three stages of a small student in the paper's form, from nothing: ``make distill``."""

_SHORT_FIRST = replace(_DISTILL_FIRST, until=60, batch=2)
_SHORT_SEVERAL = replace(_DISTILL_SEVERAL, until=100, batch=2)
SHORT = Ladder(DISTILL.decoder, (_SHORT_FIRST, _SHORT_SEVERAL, _prune(_SHORT_SEVERAL, "six-pruned", 120)))
"""The same in a minute or two of one core, for ablations, of which each trains several students."""

_SMOKE_FIRST = replace(
    _FIRST,
    **{"until": 2, "size": (16, 16), "frames": 5, "gap": (4, 4), "targets": 2, "batch": 2},
    **{"weights": LossWeights(), "learning_rate": 1e-3, "warmup": 2, "name": "views"},
)
_SMOKE_SEVERAL = replace(
    _SMOKE_FIRST, name="six", until=4, size=(32, 32), gap=None, trajectories=(1, 2, 6), targets=1, late=3.0
)
_SMOKE_MOVING = replace(_SMOKE_SEVERAL, name="moving", until=6, moving=True, trajectories=(1, 2), targets=2)
SMOKE = Ladder(
    SMOKE_MODEL.decoder,
    (
        *(_SMOKE_FIRST, _SMOKE_SEVERAL, _prune(_SMOKE_SEVERAL, "six-pruned", 5)),
        *(_SMOKE_MOVING, _prune(_SMOKE_MOVING, "moving-pruned", 7)),
    ),
)
"""For tests: seconds."""
LADDERS = {"paper": PAPER, "mini": MINI, "distill": DISTILL, "smoke": SMOKE}
"""By the command line's names."""
