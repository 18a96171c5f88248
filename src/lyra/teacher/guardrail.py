"""The guardrail: an explicit hook that refuses prompts and clips, for weights whose licence asks for one."""

from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from lyra.errors import LyraError

GuardrailChoice = Literal["auto", "on", "off"]
"""On for weights whose licence asks for it; always; or never, on the user's own responsibility."""

_ASKING = ("nvidia open model",)
"""What names a licence that ends for who bypasses the guardrail (lower case)."""


@runtime_checkable
class Guardrail(Protocol):
    """Refuses by raising ``LyraError``."""

    def check_text(self, text: str) -> None:
        """Refuses a prompt."""
        ...

    def check_video(self, frames: UInt8[Tensor, "time 3 height width"]) -> None:
        """Refuses a clip."""
        ...


class CosmosGuardrail:
    """NVIDIA's checker from the package ``cosmos-guardrail``, which fetches its own models on first use."""

    def __init__(self, device: str = "cpu"):
        try:
            import cosmos_guardrail
        except ImportError as error:
            raise LyraError(
                "the licence of these weights asks for a guardrail: pip install cosmos-guardrail "
                "(or take the responsibility with --guardrail off)"
            ) from error
        self._checker: Any = cosmos_guardrail.CosmosSafetyChecker()
        self._checker.to(device)

    def check_text(self, text: str) -> None:
        """Refuses a prompt."""
        if not self._checker.check_text_safety(text):
            raise LyraError("the guardrail refuses this prompt: word it otherwise")

    def check_video(self, frames: UInt8[Tensor, "time 3 height width"]) -> None:
        """Refuses a clip. Faces that the checker would blur stay as they are: clips are kept as latents."""
        if self._checker.check_video_safety(frames.permute(0, 2, 3, 1).numpy()) is None:
            raise LyraError("the guardrail refuses a clip of this scene: use another photo or seed")


def licence_asks(licence: str) -> bool:
    """Whether a licence of weights asks for a guardrail."""
    return any(name in licence.lower() for name in _ASKING)


GUARDRAIL_BYTES = 15 << 30
"""Of NVIDIA's checker: a language model of seven billion numbers in two bytes each, and small networks of pictures."""


def needs_guardrail(licence: str, choice: GuardrailChoice) -> bool:
    """Whether a run is looked at by the guardrail."""
    return choice == "on" or (choice == "auto" and licence_asks(licence))


def choose_guardrail(licence: str, choice: GuardrailChoice, device: str = "cpu") -> Guardrail | None:
    """The guardrail of a run, None where none is asked for.

    Raises:
        LyraError: its package is missing.
    """
    return CosmosGuardrail(device) if needs_guardrail(licence, choice) else None
