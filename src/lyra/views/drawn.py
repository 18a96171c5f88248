"""The first picture of a prompt, drawn from the worlds, with its exact depth: text without any further model."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lyra.depth import DepthEstimator, DepthPrediction
from lyra.geometry.sky import MAX_DEPTH
from lyra.worlds.commissions import FOV, draw_commission


@dataclass(frozen=True)
class Drawing:
    """A picture of a prompt; a ``DepthEstimator`` that knows this picture's depth, and asks another of others'."""

    image: Float[Tensor, "3 height width"]
    """sRGB in [0, 1]."""
    depth: Float[Tensor, "height width"]
    """Exact z-depth in scene units; the sky's is ``MAX_DEPTH``."""
    notes: tuple[str, ...]
    """Words that were not understood, and things that are not in sight."""
    further: DepthEstimator
    """Of other pictures."""

    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """The depth that the picture was drawn with, or the other estimator's."""
        # A file holds the picture in 8 bits.
        if image.shape == self.image.shape and bool(((image - self.image).abs() < 1 / 255).all()):
            return DepthPrediction(self.depth, self.depth < MAX_DEPTH, FOV, metric=False)
        return self.further.predict(image)


def draw_prompt(prompt: str, seed: int, height: int, width: int, further: DepthEstimator) -> Drawing:
    """Draws a prompt.

    Args:
        prompt: English: a place, things, their colors and materials, time of day and weather.
        seed: Decides what the words leave open.
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        further: Estimates the depth of other pictures.

    Raises:
        LyraError: no word of the prompt is known.
    """
    commission = draw_commission(prompt, seed, height, width)
    image, depth = commission.render()
    return Drawing(image, depth, tuple(commission.notes()), further)
