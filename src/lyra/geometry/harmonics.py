"""Color that depends on where it is seen from: real spherical harmonics of degree 1 to 3.

Degree 0 is a Gaussian's base color. Signs and order are those of 3DGS files.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = {1: 3, 2: 8, 3: 15}
"""Coefficients above degree 0, by the highest degree."""


def harmonic_basis(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch coefficient"]:
    """Values of the harmonics of degree 1 to ``degree`` (at most 3) in unit directions.

    Source: Sloan, "Stupid Spherical Harmonics Tricks" (2008), appendix A2; signs of Kerbl et al. (2023).
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    values = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree > 2:
        values += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(values, dim=-1)


def degree_of(coefficients: int) -> int:
    """The degree that has so many coefficients above 0.

    Raises:
        ValueError: none has.
    """
    for degree, count in COEFFICIENTS.items():
        if count == coefficients:
            return degree
    raise ValueError(f"{coefficients} spherical harmonics: 3, 8 or 15 are degree 1, 2 or 3")


def rotate_harmonics(
    harmonics: Float[Tensor, "*batch coefficient 3"], rotation: Float[Tensor, "3 3"]
) -> Float[Tensor, "*batch coefficient 3"]:
    """Coefficients of the same colors after the scene has been turned by ``rotation``."""
    degree = degree_of(harmonics.shape[-2])
    # Harmonics of a degree turn into such of the same degree: what they must be is read off from enough directions.
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(64, 3, generator=generator, dtype=torch.float64), dim=-1)
    before = harmonic_basis(directions @ rotation.double().cpu(), degree)
    matrix = torch.linalg.lstsq(harmonic_basis(directions, degree), before).solution
    return torch.einsum("jk,...kc->...jc", matrix.to(harmonics), harmonics)
