"""3D Gaussians after activation: what is rendered, merged, moved, pruned and written to files.

A 4D scene is the same class with a leading time axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from lyra.geometry.harmonics import rotate_harmonics


@dataclass(frozen=True)
class Gaussians:
    """Gaussians in world space, scene units."""

    means: Float[Tensor, "*batch splat 3"]
    """Centres."""
    scales: Float[Tensor, "*batch splat 3"]
    """Standard deviations along the principal axes, positive."""
    quaternions: Float[Tensor, "*batch splat 4"]
    """Unit rotations (w, x, y, z) from the principal axes to the world."""
    opacities: Float[Tensor, "*batch splat"]
    """In [0, 1]."""
    colors: Float[Tensor, "*batch splat 3"]
    """Display-referred sRGB in [0, 1]; with ``harmonics`` what they are added to, in any range."""
    harmonics: Float[Tensor, "*batch splat coefficient 3"] | None = None
    """Of files from elsewhere: spherical harmonics of degree 1 to 3 (3, 8 or 15), see ``geometry/harmonics.py``."""

    def __len__(self) -> int:
        return self.means.shape[-2]

    def map(self, function: Callable[[Shaped[Tensor, "..."]], Shaped[Tensor, "..."]]) -> "Gaussians":
        """Applies ``function`` to every tensor."""
        return Gaussians(**{name: function(tensor) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Shaped[Tensor, "..."]]:
        """Every tensor that is there, by the name of its field."""
        return {f.name: tensor for f in fields(self) if (tensor := getattr(self, f.name)) is not None}

    def to(self, target: torch.device | torch.dtype | str) -> "Gaussians":
        """Moves the tensors to a device or dtype."""
        return self.map(lambda tensor: tensor.to(target))

    def detach(self) -> "Gaussians":
        """The same Gaussians outside the graph."""
        return self.map(torch.Tensor.detach)

    def select(self, index: Shaped[Tensor, "kept"]) -> "Gaussians":
        """Gaussians of an unbatched set by index or boolean mask, in the order of ``index``."""
        return self.map(lambda tensor: tensor[index])


def merge(parts: Sequence[Gaussians]) -> Gaussians:
    """Joins sets along the splat axis; harmonics that some lack are zero there."""
    most = max((0 if part.harmonics is None else part.harmonics.shape[-2] for part in parts), default=0)
    if most:
        parts = [_with_harmonics(part, most) for part in parts]
    axes = {"opacities": -1, "harmonics": -3}
    return Gaussians(
        **{name: torch.cat([p.tensors()[name] for p in parts], dim=axes.get(name, -2)) for name in parts[0].tensors()}
    )


def _with_harmonics(gaussians: Gaussians, coefficients: int) -> Gaussians:
    """The same Gaussians with so many coefficients, the further ones zero."""
    there = gaussians.harmonics
    if there is None:
        there = gaussians.colors.new_zeros(*gaussians.colors.shape[:-1], 0, 3)
    return replace(gaussians, harmonics=F.pad(there, (0, 0, 0, coefficients - there.shape[-2])))


def prune(gaussians: Gaussians, keep: int) -> Gaussians:
    """The ``keep`` most opaque Gaussians in descending order of opacity (ties by index).

    Source: Lyra keeps the top 20 % (section "opacity-based pruning"); its count ``int(N * (1 - 0.8))`` is one short
    of N / 5 by rounding, which callers here do not repeat.
    """
    order = torch.argsort(gaussians.opacities, dim=-1, descending=True, stable=True)[..., :keep]

    def pick(tensor: Tensor) -> Tensor:
        if tensor.ndim == order.ndim:
            return tensor.gather(-1, order)
        inner = tensor.shape[order.ndim :]
        return tensor.gather(
            order.ndim - 1, order.reshape(*order.shape, *[1] * len(inner)).expand(*order.shape, *inner)
        )

    return gaussians.map(pick)


def transform(
    gaussians: Gaussians,
    rotation: Float[Tensor, "3 3"],
    translation: Float[Tensor, "3"],
    scale: float = 1.0,
) -> Gaussians:
    """Applies the similarity ``x -> scale * rotation @ x + translation``."""
    if scale <= 0:
        raise ValueError(f"a similarity needs a positive scale, got {scale}")
    turn = quaternion_from_matrix(rotation).expand_as(gaussians.quaternions)
    turned = None if gaussians.harmonics is None else rotate_harmonics(gaussians.harmonics, rotation)
    return Gaussians(
        means=scale * gaussians.means @ rotation.mT + translation,
        scales=scale * gaussians.scales,
        quaternions=multiply_quaternions(turn, gaussians.quaternions),
        opacities=gaussians.opacities,
        colors=gaussians.colors,
        harmonics=turned,
    )


def covariances(gaussians: Gaussians) -> Float[Tensor, "*batch splat 3 3"]:
    """World-space covariance matrices R S S^T R^T."""
    axes = matrix_from_quaternion(gaussians.quaternions) * gaussians.scales[..., None, :]
    return axes @ axes.mT


def matrix_from_quaternion(quaternions: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), which are normalised first."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quaternion_from_matrix(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (w, x, y, z), w >= 0, of proper rotations.

    The largest of the four components is taken from the diagonal, so no division is by a small number.
    """
    m = rotation.flatten(-2)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m.unbind(-1)
    outer = torch.stack(
        [
            *(1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01),
            *(m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20),
            *(m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12),
            *(m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22),
        ],
        dim=-1,
    ).unflatten(-1, (4, 4))
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    row = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    row = F.normalize(row, dim=-1)
    return torch.where(row[..., :1] < 0, -row, row)


def multiply_quaternions(
    left: Float[Tensor, "*batch 4"], right: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Hamilton product: the rotation ``right`` followed by ``left``."""
    a, b, c, d = left.unbind(-1)
    w, x, y, z = right.unbind(-1)
    return torch.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        dim=-1,
    )
