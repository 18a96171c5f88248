"""The CUDA renderer: gsplat's kernels, set up to draw the same picture as the CPU renderer."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError, MissingExtraError
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.rendering.image import Rendering, over_background
from lyra.rendering.projection import BLUR


def render_cuda(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | None = None,
    near: float = 0.01,
) -> Rendering:
    """Renders as :func:`lyra.rendering.render` does, on the Gaussians' CUDA device in float32.

    Raises:
        ValueError: A field of the Gaussians holds NaN or infinity; the message names it.
        MissingExtraError: gsplat is not installed.
        LyraError: gsplat has no kernels.

    Source: ``gsplat.rasterization`` of gsplat 1.5.3.
    """
    rasterization = load_gsplat()
    with torch.autocast("cuda", enabled=False):
        gaussians = gaussians.to(torch.float32)
        cameras = cameras.to(gaussians.means.device).to(torch.float32)
        for name, values in gaussians.detach().tensors().items():
            if values.numel() and not torch.stack(values.aminmax()).isfinite().all():
                raise ValueError(f"the Gaussians' {name} hold NaN or infinity")
        if len(gaussians) == 0 or len(cameras) == 0:  # gsplat's kernels are not made for nothing.
            image = gaussians.means.new_zeros(len(cameras), 5, cameras.height, cameras.width)
            return over_background(image, background)
        color_depth, alpha, _ = rasterization(
            means=gaussians.means,
            quats=gaussians.quaternions,
            scales=gaussians.scales,
            opacities=gaussians.opacities,
            colors=gaussians.colors,
            viewmats=cameras.world_to_camera,
            Ks=_matrices(cameras.intrinsics),
            width=cameras.width,
            height=cameras.height,
            near_plane=near,
            eps2d=BLUR,
            packed=False,
            # Depth as a sum: its mean and the background are then formed exactly as on the CPU.
            render_mode="RGB+D",
            rasterize_mode="classic",
        )
        return over_background(torch.cat([color_depth, alpha], dim=-1).movedim(-1, 1), background)


@cache
def load_gsplat() -> Callable[..., Any]:
    """The rasterizer of gsplat, its kernels compiled.

    Raises:
        MissingExtraError: gsplat is not installed.
        LyraError: It came without kernels, and there is no compiler that makes them.
    """
    try:
        from gsplat import rasterization  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("gsplat", "cuda", "rendering on CUDA") from error
    reason = "there is no CUDA compiler (nvcc)"
    try:
        # Compiles them where they are not: else the first picture would end in an error about None.
        from gsplat.cuda._backend import _C  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        _C, reason = None, " ".join(str(error).split())[:120]
    if _C is None:
        raise LyraError(
            f"gsplat's kernels are not compiled and cannot be ({reason}): install the CUDA toolkit of torch's version "
            "and a C++ compiler, or a wheel of gsplat that holds them; or render with --device cpu"
        )
    return rasterization


def _matrices(intrinsics: Float[Tensor, "view 4"]) -> Float[Tensor, "view 3 3"]:
    """Calibration matrices of (fx, fy, cx, cy)."""
    fx, fy, cx, cy = intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
