"""Pictures for a report: of each scene the views at which the student is best, middling and worst."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lyra.evaluation.metrics import psnr

LONGER = 384
"""Pixels of a picture's longer side in a report, at most."""


@dataclass(frozen=True)
class Exhibit:
    """One view of one scene."""

    scene: str
    label: str
    numbers: Mapping[str, float]
    """PSNR by method, dB."""
    pictures: Mapping[str, str]
    """Data URLs by method; "truth" is what was filmed, "input" what was given."""


@dataclass
class Gallery:
    """Views of scenes in the order in which they were added."""

    exhibits: list[Exhibit] = field(default_factory=list)
    judged_by: str = "student"
    """The method whose errors choose the views."""

    def add(
        self,
        scene: str,
        given: Float[Tensor, "3 height width"] | None,
        truth: Float[Tensor, "view 3 height width"],
        methods: Mapping[str, Float[Tensor, "view 3 height width"]],
        labels: list[str],
    ) -> None:
        """Keeps a scene's best, middle and worst view."""
        judged = methods.get(self.judged_by, next(iter(methods.values())))
        order = sorted(range(len(truth)), key=lambda i: -psnr(judged[i], truth[i]))
        for index in dict.fromkeys([order[0], order[len(order) // 2], order[-1]]):
            pictures = {} if given is None else {"input": given}
            pictures |= {"truth": truth[index]} | {name: shown[index] for name, shown in methods.items()}
            self.exhibits.append(
                Exhibit(
                    scene,
                    labels[index],
                    {name: psnr(shown[index], truth[index]) for name, shown in methods.items()},
                    {name: data_url(picture) for name, picture in pictures.items()},
                )
            )

    def scenes(self) -> list[tuple[str, list[Exhibit]]]:
        """Exhibits by scene, the scene that is shown best first."""
        names = dict.fromkeys(exhibit.scene for exhibit in self.exhibits)
        grouped = [(name, [e for e in self.exhibits if e.scene == name]) for name in names]
        return sorted(grouped, key=lambda pair: -sum(self._judged(e) for e in pair[1]) / len(pair[1]))

    def _judged(self, exhibit: Exhibit) -> float:
        return exhibit.numbers.get(self.judged_by, max(exhibit.numbers.values()))


def data_url(image: Float[Tensor, "3 height width"], longer: int = LONGER) -> str:
    """A JPEG that stands in a page itself, of so many pixels at most."""
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu()
    picture = Image.fromarray(np.asarray(levels))
    picture.thumbnail((longer, longer))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
