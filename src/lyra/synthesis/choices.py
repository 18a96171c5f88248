"""What a user can decide of a data set."""

from dataclasses import dataclass

from lyra.errors import LyraError
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName

FORMS = (
    "a folder of photos and videos, a .txt of prompts, a .jsonl that names inputs, worlds:FIRST-LAST, "
    "moving_worlds:FIRST-LAST, or the published data set's folder"
)


@dataclass(frozen=True)
class SynthesisOptions:
    """What decides a data set beside its inputs and the model."""

    seed: int = 0
    """Of noise and distances; each input draws its own from it."""
    trajectories: tuple[TrajectoryName, ...] = TRAJECTORY_NAMES
    movement: float = 1.0
    """Factor on the trajectories' distances."""
    depth: bool = True
    """Store the depth of every clip."""
    held_out: float = 0.05
    """Share of inputs that no training reads, by what they are; the project's test files and worlds always are."""
    per_shard: int = 16
    """Inputs of one shard."""

    def __post_init__(self) -> None:
        if self.per_shard < 1 or not 0 <= self.held_out <= 1 or not self.trajectories:
            raise LyraError("give --per-shard 1 or more, --held-out from 0 to 1, and at least one trajectory")


@dataclass(frozen=True)
class SynthesisRun:
    """How a data set is made."""

    minutes: float | None = None
    """Begin no input after this time; the same command goes on."""
    repair: bool = False
    """Look through what is finished first: make what is damaged anew, and try again what was set aside."""
    device: str = "auto"
    """Where the networks work: auto, cpu, cuda or cuda:N."""
    estimator: str = "auto"
    """Of depth: the model's own, else Depth Anything, when "auto"; or one of lyra generate --depth."""
    ray: tuple[str, ...] | None = None
    """Many workers by Ray: of this machine, or of the cluster at an address ("auto", or host:port)."""
    workers: int | None = None
    """How many; one a GPU, or a core where there are none, when left out."""
