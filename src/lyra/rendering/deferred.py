"""Rendering many views for training in the memory of one: no graph is kept, every view is rendered again in backward.

Source: the deferred back-propagation of Zhang et al., "ARF: Artistic Radiance Fields" (2022), section 4.2.
"""

from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.rendering import Rendering, render

_NAMES = tuple(field.name for field in fields(Gaussians) if field.name != "harmonics")


def render_deferred(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | None = None,
    near: float = 0.01,
) -> Rendering:
    """As :func:`lyra.rendering.render`, with the same pictures and gradients, once differentiable.

    Between forward and backward only the pictures and the arguments are kept; in exchange every view is rendered
    twice. Worth it where several views of many Gaussians have one loss.
    """
    if gaussians.harmonics is not None:
        raise ValueError("deferred rendering is for Gaussians without harmonics")
    background = gaussians.means.new_ones(3) if background is None else background
    values = [getattr(gaussians, name) for name in _NAMES]
    return Rendering(*_Deferred.apply(cameras, near, background, *values))


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(ctx, cameras: Cameras, near: float, *values: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(*values)
        ctx.cameras, ctx.near = cameras, near
        views = [_render(cameras[i : i + 1], near, values) for i in range(len(cameras))]
        if not views:
            return _render(cameras, near, values)
        return tuple(torch.cat(pictures) for pictures in zip(*views, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx, *slopes: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = ctx.needs_input_grad[2:]
        values = [value.detach().requires_grad_(want) for value, want in zip(ctx.saved_tensors, wanted, strict=True)]
        for i in range(len(ctx.cameras)):
            with torch.enable_grad():
                pictures = _render(ctx.cameras[i : i + 1], ctx.near, values)
            torch.autograd.backward(pictures, [slope[i : i + 1] for slope in slopes])
        return None, None, *(value.grad for value in values)


def _render(cameras: Cameras, near: float, values) -> tuple[Tensor, Tensor, Tensor]:
    background, *rest = values
    rendering = render(Gaussians(*rest), cameras, background, near)
    return rendering.color, rendering.depth, rendering.alpha
