"""The course of a run in TensorBoard: what the log and the validation hold, while it runs."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lyra.errors import MissingExtraError


class Curves:
    """Writes scalars, pictures and histograms by step into a folder for ``tensorboard --logdir``."""

    def __init__(self, folder: Path):
        """Opens the folder.

        Raises:
            MissingExtraError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard") from None
        self._writer = SummaryWriter(str(folder))

    def listen(self, row: dict[str, float | int]) -> None:
        """A line of the log: losses, gradient norm, Gaussians that are drawn, steps a second."""
        step = int(row["step"])
        for name, value in row.items():
            if name == "seconds":
                self._writer.add_scalar("steps a second", 1 / max(value, 1e-9), step)
            elif name != "step" and value is not None:
                self._writer.add_scalar(f"training/{name}", value, step)

    def show(
        self,
        step: int,
        picture: Float[Tensor, "3 height width"],
        opacities: Float[Tensor, "splat"],
        numbers: dict[str, float],
    ) -> None:
        """What the fixed scenes look like, the teacher's frames beside the student's, and how opaque Gaussians are."""
        self._writer.add_image("validation/teacher and student", picture, step)
        self._writer.add_histogram("validation/opacities", opacities, step)
        for name, value in numbers.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
        self._writer.flush()
