"""Deferred backward against the direct one."""

from typing import Any

import pytest
import torch

from lyra.bench.render_cost import random_scene
from lyra.rendering import render
from lyra.rendering.deferred import render_deferred

BACKGROUND = (0.2, 0.5, 0.9)


def gradients_of(renderer, gaussians, cameras, names):
    leaves = gaussians.map(lambda t: t.clone())
    for name in names:
        getattr(leaves, name).requires_grad_()
    background = torch.tensor(BACKGROUND, requires_grad=True)
    rendering = renderer(leaves, cameras, background)
    # Not a sum over views: each view's gradient depends on the others.
    loss = rendering.color.mean(0).square().sum() + (rendering.depth * rendering.alpha.mean(0)).square().sum()
    loss.backward()
    return rendering, [background.grad, *(getattr(leaves, name).grad for name in gaussians.tensors())]


@pytest.mark.parametrize("names", [("means", "scales", "quaternions", "opacities", "colors"), ("colors",)])
def test_pictures_and_gradients_are_those_of_the_direct_way(names):
    gaussians, cameras = random_scene(600, 40, 50, views=3)
    expected, expected_gradients = gradients_of(render, gaussians, cameras, names)
    actual, gradients = gradients_of(render_deferred, gaussians, cameras, names)
    for name in ("color", "depth", "alpha"):
        assert torch.equal(getattr(actual, name), getattr(expected, name))
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        if expected_gradient is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_nothing_is_kept_between_forward_and_backward_but_pictures_and_arguments():
    gaussians, cameras = random_scene(2000, 32, 32, views=8)
    leaves = gaussians.map(lambda t: t.clone().requires_grad_())
    rendering = render_deferred(leaves, cameras)
    node: Any = rendering.color.grad_fn
    assert sum(tensor.numel() for tensor in node.saved_tensors) <= 14 * 2000 + 3
    assert not hasattr(node, "views")


def test_no_views_and_no_graph():
    gaussians, cameras = random_scene(50, 20, 20)
    assert render_deferred(gaussians, cameras[:0]).color.shape == (0, 3, 20, 20)
    assert not render_deferred(gaussians, cameras).color.requires_grad
