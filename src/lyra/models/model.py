"""A model: the parts that turn a photo into Gaussians, and the folder that holds them.

The folder is laid out as diffusers lays out a pipeline; ``lyra.json`` names frames, resolution, sampling and licence
and holds a checksum of every other file. It may hold only some of the parts::

    lyra.json  vae/  transformer/  scheduler/  text/  depth/  decoder/
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Never, NoReturn

from diffusers import CosmosTransformer3DModel, EDMEulerScheduler
from jaxtyping import Float
from torch import Tensor

from lyra.depth import DepthNet
from lyra.models.folder import PART_COMMANDS, ModelConfig, missing_part_error
from lyra.student.decoder import GaussianDecoder
from lyra.teacher import DiffusionTeacher
from lyra.tokenizer.cosmos import CosmosTokenizer
from lyra.tokenizer.linear import LinearTokenizer

FIELDS = {part: "tokenizer" if part == "vae" else part for part in PART_COMMANDS}
"""Names of a model's parts in its folder, and here."""


class MissingPart:
    """Stands where a model has no such part; any use of it raises the LyraError that says how to make it."""

    def __init__(self, part: str, model: str):
        self._part, self._model = part, model

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise missing_part_error(self._part, self._model)

    __call__ = __getitem__ = __iter__ = __len__ = __contains__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        # Python itself asks for special names, and takes this error for an answer.
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()


# Type checkers need not know: whoever uses a part that is not there gets the error, and no value.
if TYPE_CHECKING:
    Missing = Never
else:
    Missing = MissingPart


@dataclass
class Model:
    """All parts of a model, on one device; a part that the folder does not hold is a ``MissingPart``."""

    config: ModelConfig
    tokenizer: LinearTokenizer | CosmosTokenizer | Missing
    transformer: CosmosTransformer3DModel | Missing
    scheduler: EDMEulerScheduler | Missing
    text: dict[str, Float[Tensor, "text_token text_channel"]] | Missing
    """Embeddings "empty" and "negative"."""
    depth: DepthNet | Missing
    decoder: GaussianDecoder | Missing

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that are there: of vae, transformer, scheduler, text, depth and decoder."""
        return tuple(part for part, name in FIELDS.items() if not isinstance(getattr(self, name), MissingPart))

    def require(self, *parts: str) -> None:
        """Checks before any work that some parts are there.

        Raises:
            LyraError: one is not; the message names it and the command that makes it.
        """
        for part in parts:
            if part not in self.parts:
                raise missing_part_error(part, self.config.name)

    @property
    def teacher(self) -> DiffusionTeacher:
        """The parts that imagine clips, as one teacher."""
        self.require("vae", "transformer", "scheduler", "text")
        return DiffusionTeacher(
            self.transformer,
            self.tokenizer,
            self.scheduler,
            self.text["empty"],
            self.text["negative"],
            self.config.teacher,
        )
