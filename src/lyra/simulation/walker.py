"""An upright capsule that walks: on the surface, not through it, and not off it into the air."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from lyra.simulation.collider import Collider


@dataclass(frozen=True)
class Walker:
    """A capsule that stands on the ground."""

    place: Float[np.ndarray, "2"]
    """x, y in metres."""
    foot: float
    """Height of its lowest point."""
    height: float = 0.9
    radius: float = 0.15
    climb: float = 0.6
    """Steepest slope that it goes up or down."""
    step: float = 0.04
    """Metres of an edge that it gets over."""

    @classmethod
    def at(cls, collider: Collider, x: float, y: float, **size: float) -> "Walker":
        """Put on the ground at a place."""
        walker = cls(np.array([x, y]), 0.0, **size)
        return replace(walker, foot=walker._ground(collider, walker.place, 0.0))

    def stands(self, collider: Collider) -> bool:
        """Whether it touches nothing but what it stands on."""
        foot = np.array([*self.place, self.foot])
        return not collider.hits_capsule(foot, self.height, self.radius)

    def moved(self, collider: Collider, by: Float[np.ndarray, "2"]) -> tuple["Walker", bool]:
        """The walker after a way, in steps of its radius, and whether something stopped it."""
        count = max(1, int(np.ceil(np.linalg.norm(by) / self.radius)))
        walker = self
        for _ in range(count):
            place = walker.place + by / count
            foot = walker._ground(collider, place, walker.foot)
            after = replace(walker, place=place, foot=foot)
            steepest = self.step + self.climb * np.linalg.norm(by) / count
            if abs(foot - walker.foot) > steepest or not after.stands(collider):
                return walker, True
            walker = after
        return walker, False

    def _ground(self, collider: Collider, place: Float[np.ndarray, "2"], foot: float) -> float:
        """Mean height of what is under it, no higher than where its round end begins."""
        around = place + self.radius / 2 * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        heights, _ = collider.ground_height(around, foot + 2 * self.radius)
        return float(np.median(heights))
