"""Gaussians and cameras to pictures, by classic EWA splatting on every device."""

from jaxtyping import Float
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.rendering.appearance import draw_each
from lyra.rendering.image import Rendering

__all__ = ["Rendering", "render"]


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | None = None,
    near: float = 0.01,
) -> Rendering:
    """Renders unbatched Gaussians into cameras with one view axis; differentiable in the Gaussians.

    Args:
        gaussians: What to draw; leading axis splat.
        cameras: From where; leading axis view.
        background: sRGB behind the Gaussians, white if none is given.
        near: Gaussians whose centre's z-depth is not above this many scene units are left out; positive.

    Returns:
        Pictures in float32 on the Gaussians' device.

    Raises:
        ValueError: A field of the Gaussians holds NaN or infinity (the message names it), or ``near`` or the
            leading axes are not as above.
        MissingExtraError: The Gaussians are on a CUDA device and gsplat is not installed.

    Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", sections 4 and 6.
    """
    if gaussians.means.ndim != 2:
        raise ValueError(f"Gaussians to render must be unbatched, got means {tuple(gaussians.means.shape)}")
    if cameras.intrinsics.ndim != 2:
        raise ValueError(f"cameras need one view axis, got intrinsics {tuple(cameras.intrinsics.shape)}")
    if not near > 0:
        raise ValueError(f"near must be positive, got {near}")
    if gaussians.harmonics is not None:
        return draw_each(render, gaussians, cameras, background, near)
    if gaussians.means.is_cuda:
        from lyra.rendering.cuda import render_cuda

        return render_cuda(gaussians, cameras, background, near)
    # Late: loading the compiled kernels takes a second that most uses of this package do not need.
    from lyra.rendering.tiled import render_tiled

    return render_tiled(gaussians, cameras, background, near)
