"""What a user decides about a scene."""

from dataclasses import dataclass, field

from lyra.device.memory import DeviceOptions
from lyra.engine.paths import Look
from lyra.errors import LyraError
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.teacher.diffusion import Sampler
from lyra.teacher.guardrail import GuardrailChoice


@dataclass(frozen=True)
class TextOptions:
    """What a user decides about text."""

    prompt: str = ""
    """What the scene shows. Without a photo the first image is made from it; where the model reads no text and no
    pipeline is named it is drawn from the worlds, by English words for places, things, colors, materials, time of day
    and weather."""
    text_encoder: str | None = None
    """Folder or owner/name@commit with text_encoder/ and tokenizer/ of T5, for models that read text."""
    text_to_image: str | None = None
    """Folder or owner/name@commit of the diffusers pipeline that makes the first image; Z-Image-Turbo when None."""


MOST_PHOTOS = 64
"""That are given at once without their cameras."""
MOST_CHUNKS = 4
"""Of a long video, unless a user wants more; it is sampled more coarsely then."""


STILL = "still"
"""In place of a video's camera file: its camera stands."""


@dataclass(frozen=True)
class VideoOptions:
    """What a user decides about a video input."""

    cameras: str | None = None
    """File with one camera a frame: our JSON, a ``transforms.json`` or an NPZ of poses; or "still", where the camera is
    to be taken as standing. Poses in ViPE's folders beside the video are found without it; else they are found in the
    video itself, which takes pycolmap where its camera moves."""
    chunks: int | None = None
    """How many clips of the model's length the video is cut into, each beginning with the frame at which the one
    before it ends; more show more moments. As many as bring it nearest to the model's frame rate, at most
    ``MOST_CHUNKS``, when None."""

    def __post_init__(self) -> None:
        if self.chunks is not None and not 1 <= self.chunks <= 64:
            raise LyraError(f"{self.chunks} chunks of a video: give 1 to 64")


@dataclass(frozen=True)
class GenerateOptions:
    """What a user decides about a scene."""

    seed: int = 0
    """The same seed gives the same scene on the same machine."""
    trajectories: tuple[str, ...] = TRAJECTORY_NAMES
    """Camera movements that the teacher imagines: names of presets, and files of cameras (docs/inputs.md); longer files
    become several clips."""
    size: int | None = None
    """Pixels of the longer side at which the scene is made; the model's own choice when left out (mini takes 128 to
    768, and 512 of a photo and 256 of a video)."""
    movement: float = 1.0
    """Factor on the paper's camera movements and on those of files."""
    look: Look = "path"
    """Cameras look as their path says, always at the scene's centre, or always forward."""
    fov: float | None = None
    """Field of view of the photo's shorter side in degrees; from EXIF, the depth estimator or 55 when left out."""
    depth: str = "auto"
    """The model's own network ("model"), "depth-anything", or a folder or owner/name@commit of Depth Anything, Depth
    Pro or MoGe."""
    teacher: str | None = None
    """Folder or owner/name@commit of Wan VACE, in place of the model's own teacher."""
    sampler: Sampler | None = None
    """How the teacher is sampled; the model's own way when left out."""
    steps: int | None = None
    """Of sampling; the model's own number when left out."""
    text: TextOptions = field(default_factory=TextOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    guardrail: GuardrailChoice = "auto"
    """"auto" is on for weights whose licence asks for it."""
    device: DeviceOptions = field(default_factory=DeviceOptions)
    resume: bool = False
    """Go on with what the output folder holds of the same run."""
    spread: bool = False
    """Under ``torchrun``: all processes work on this one scene and share its trajectories."""

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise LyraError(f"no trajectories: name at least one of {', '.join(TRAJECTORY_NAMES)}")
        if self.fov is not None and not 5 <= self.fov <= 150:
            raise LyraError(f"a field of view of {self.fov} degrees is not possible: give 5 to 150")
        if not 0 < self.movement <= 2.5:
            raise LyraError(f"a movement factor of {self.movement} is not possible: give more than 0, at most 2.5")
        if len(set(self.trajectories)) < len(self.trajectories):
            raise LyraError("a trajectory is named twice: name each once")


@dataclass(frozen=True)
class ExtendOptions:
    """What a user decides about an extension."""

    seed: int = 0
    """The same seed gives the same extension on the same machine."""
    depth: str = "auto"
    """The model's own network ("model"), "depth-anything", or a folder or owner/name@commit of Depth Anything, Depth
    Pro or MoGe."""
    guardrail: GuardrailChoice = "auto"
    """"auto" is on for weights whose licence asks for it."""
    device: DeviceOptions = field(default_factory=DeviceOptions)
    resume: bool = False
    """Go on with the extension that was interrupted."""
