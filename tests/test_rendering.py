"""The renderers against each other and against what is known in closed form."""

import math
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F

from lyra.errors import LyraError, MissingExtraError
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians, matrix_from_quaternion
from lyra.rendering import Rendering, render, tiled
from lyra.rendering.cuda import load_gsplat, render_cuda
from lyra.rendering.oracle import render_oracle

BACKGROUND = torch.tensor([0.2, 0.5, 0.9])
NAMES = [f.name for f in fields(Gaussians) if f.name != "harmonics"]


def make_cameras(height: int = 70, width: int = 90, views: int = 1, shift: float = 0.0) -> Cameras:
    """Cameras side by side that look along z; ``shift`` moves the principal point in widths."""
    pose = torch.eye(4).repeat(views, 1, 1)
    pose[:, 0, 3] = 0.2 * torch.arange(views)
    intrinsics = intrinsics_from_fov(60.0, height, width) + torch.tensor([0.0, 0, shift * width, 0])
    return Cameras(pose, intrinsics.expand(views, 4), height, width)


def make_gaussians(count: int, seed: int = 0, size: float = 0.02) -> Gaussians:
    """A cloud that fills the view of :func:`make_cameras`."""
    generator = torch.Generator().manual_seed(seed)
    z = 1 + 2 * torch.rand(count, 1, generator=generator)
    xy = (torch.rand(count, 2, generator=generator) - 0.5) * 1.6 * z
    return Gaussians(
        means=torch.cat([xy, z], dim=-1),
        scales=size * torch.randn(count, 3, generator=generator).exp(),
        quaternions=F.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )


def one(position=(0.0, 0.0, 2.0), scale=0.1, opacity=0.8, color=(1.0, 0.0, 0.0)) -> Gaussians:
    return Gaussians(
        means=torch.tensor([position]),
        scales=torch.full((1, 3), scale),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.tensor([opacity]),
        colors=torch.tensor([color]),
    )


def loss_of(rendering: Rendering) -> torch.Tensor:
    """A scalar to which every pixel of every output contributes differently."""
    generator = torch.Generator().manual_seed(7)
    outputs = (rendering.color, rendering.depth, rendering.alpha)
    terms = [o.double() * torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs]
    return torch.stack([t.sum() for t in terms]).sum()


def with_gradients(renderer, gaussians: Gaussians, cameras: Cameras) -> tuple[Rendering, dict[str, torch.Tensor]]:
    leaves = gaussians.map(lambda t: t.clone().requires_grad_())
    rendering = renderer(leaves, cameras, BACKGROUND)
    loss_of(rendering).backward()
    return rendering, {name: getattr(leaves, name).grad for name in NAMES}


def assert_same_picture(actual: Rendering, expected: Rendering) -> None:
    for name in ("color", "alpha", "depth"):
        difference = (getattr(actual, name).double() - getattr(expected, name)).abs()
        if name == "depth":  # Relative to the scene's size; the mean over few faint splats is ill-conditioned.
            difference = difference / getattr(expected, name).clamp(min=1) * expected.alpha
        assert (difference <= 1e-4).double().mean() >= 0.9999, name
        # A contribution that is skipped here and not there.
        assert difference.max() < 1 / 255 + 1e-4, name


def assert_same_gradients(actual: dict, expected: dict, tolerance: float) -> None:
    for name in NAMES:
        assert actual[name].isfinite().all(), name
        error = (actual[name].double() - expected[name]).norm()
        assert error <= tolerance * expected[name].norm() + 1e-6, f"{name}: {error / expected[name].norm():.2e}"


def nasty(name: str) -> Gaussians:
    cloud = make_gaussians(60, seed=3)
    rows = torch.arange(60)
    means, scales, opacities = cloud.means.clone(), cloud.scales.clone(), cloud.opacities.clone()
    if name == "behind":
        means[rows % 2 == 0, 2] *= -1
    elif name == "near plane":
        means[:, 2] = torch.where(rows % 2 == 0, 0.01 + 1e-4 * rows, -0.01 + 4e-4 * rows)
        means[:, :2] *= 0.01
        scales *= 0.02
    elif name == "needles":
        scales = torch.tensor([1.0, 1e-4, 1e-6]).expand(60, 3)
    elif name == "huge":
        scales = scales * 10.0 ** (rows[:, None] % 5)
    elif name == "points":
        scales = torch.zeros_like(scales)
    elif name == "opacity 0 and 1":
        opacities = (rows % 2).float()
    elif name == "one pixel":
        cloud = make_gaussians(3000, seed=3)
        rows = torch.arange(3000)
        means = torch.tensor([0.003, 0.004, 1.0]) + torch.tensor([0, 0, 0.001]) * rows[:, None]
        scales, opacities = cloud.scales * 0.1, 0.3 * cloud.opacities
    elif name == "beside the image":
        means[:, 0] *= 4
        scales *= 4
    elif name == "absurd":
        # Beyond what float32 can project: left out, with zero gradients.
        means[0::4] = torch.tensor([1e30, -1e30, 0.02])
        scales[1::4] = 1e25
    return replace(cloud, means=means, scales=scales.clone(), opacities=opacities)


@pytest.mark.parametrize("count, size", [(1500, 0.02), (300, 0.2), (3000, 0.003)])
def test_random_scenes_agree_with_the_oracle(count, size):
    gaussians, cameras = make_gaussians(count, seed=count, size=size), make_cameras(40, 56, views=2, shift=0.1)
    actual, actual_gradients = with_gradients(render, gaussians, cameras)
    expected, expected_gradients = with_gradients(render_oracle, gaussians.to(torch.float64), cameras)
    assert_same_picture(actual, expected)
    assert_same_gradients(actual_gradients, expected_gradients, 1e-3)


@pytest.mark.parametrize(
    "name",
    [
        *("behind", "near plane", "needles", "huge", "points", "opacity 0 and 1", "one pixel"),
        *("beside the image", "absurd"),
    ],
)
def test_nasty_scenes_agree_with_the_oracle(name):
    gaussians, cameras = nasty(name), make_cameras(height=33, width=50)
    actual, actual_gradients = with_gradients(render, gaussians, cameras)
    expected, expected_gradients = with_gradients(render_oracle, gaussians.to(torch.float64), cameras)
    assert_same_picture(actual, expected)
    assert_same_gradients(actual_gradients, expected_gradients, 5e-3)


def test_oracle_gradient_is_that_of_finite_differences():
    gaussians = make_gaussians(12, seed=5, size=0.1).to(torch.float64)
    cameras = make_cameras(height=8, width=8).to(torch.float64)
    _, gradients = with_gradients(render_oracle, gaussians, cameras)
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        value = getattr(gaussians, name)
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        moved = [
            loss_of(render_oracle(replace(gaussians, **{name: value + step * direction}), cameras, BACKGROUND))
            for step in (-1e-7, 1e-7)
        ]
        slope = float(moved[1] - moved[0]) / 2e-7
        assert slope == pytest.approx(float((gradients[name] * direction).sum()), rel=1e-4), name


def test_one_gaussian_on_the_axis_has_its_closed_form():
    cameras = make_cameras(height=65, width=65)  # Odd, so that the axis meets a pixel centre.
    rendering = render(one(), cameras)
    focal = float(cameras.intrinsics[0, 0])
    variance = (focal * 0.1 / 2) ** 2 + 0.3
    offsets = torch.arange(65) - 32.0
    expected = 0.8 * torch.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2) / variance)
    expected = torch.where(expected < 1 / 255, 0, expected)
    torch.testing.assert_close(rendering.alpha[0], expected, atol=1e-5, rtol=0)
    assert rendering.alpha[0, 32, 32] == pytest.approx(0.8, abs=1e-6)
    assert rendering.depth[0, 32, 32] == pytest.approx(2, abs=1e-5)
    assert rendering.depth[0, 0, 0] == 0
    torch.testing.assert_close(rendering.color[0, 1], 1 - expected, atol=1e-5, rtol=0)
    variance_seen = float((rendering.alpha[0].sum(0) * offsets**2).sum() / rendering.alpha[0].sum())
    assert variance_seen == pytest.approx(variance, rel=0.05)  # The faint rim is cut off.


def test_pixel_centres_are_at_one_half():
    cameras = replace(make_cameras(16, 16), intrinsics=torch.tensor([[10.0, 10, 4.5, 7.5]]))
    alpha = render(one(scale=1e-4), cameras).alpha[0]
    assert divmod(int(alpha.argmax()), 16) == (7, 4)
    torch.testing.assert_close(alpha[7, 3], alpha[7, 5])


def test_nearer_hides_farther_whatever_the_order():
    red, blue = one((0, 0, 1.0), 0.2, 1.0), one((0, 0, 3.0), 0.6, 1.0, (0.0, 0, 1.0))
    for pair in ((red, blue), (blue, red)):
        gaussians = Gaussians(**{n: torch.cat([getattr(p, n) for p in pair]) for n in NAMES})
        assert render(gaussians, make_cameras(65, 65)).color[0, 0, 32, 32] > 0.99


def test_nothing_is_white_and_has_zero_gradients():
    cameras = make_cameras(20, 30, views=3)
    empty = make_gaussians(0)
    beside = one((50.0, 0, 2))
    behind = one((0.0, 0, -2))
    for gaussians in (empty, beside, behind):
        rendering, gradients = with_gradients(lambda g, c, _: render(g, c), gaussians, cameras)
        assert rendering.color.shape == (3, 3, 20, 30)
        assert (rendering.color == 1).all()
        assert (rendering.alpha == 0).all()
        assert (rendering.depth == 0).all()
        assert all((gradients[name] == 0).all() for name in NAMES)
    assert render(empty, cameras[:0]).color.shape == (0, 3, 20, 30)


def test_views_are_independent():
    gaussians, cameras = make_gaussians(500), make_cameras(views=3)
    together = render(gaussians, cameras)
    for view in range(3):
        alone = render(gaussians, cameras[view : view + 1])
        assert torch.equal(together.color[view], alone.color[0])


def test_bytes_do_not_depend_on_the_run_or_the_threads():
    gaussians, cameras = make_gaussians(4000), make_cameras(views=2)
    expected, expected_gradients = with_gradients(render, gaussians, cameras)
    threads = torch.get_num_threads()
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            actual, gradients = with_gradients(render, gaussians, cameras)
            assert torch.equal(actual.color, expected.color)
            assert torch.equal(actual.depth, expected.depth)
            assert all(torch.equal(gradients[n], expected_gradients[n]) for n in NAMES)
    finally:
        torch.set_num_threads(threads)


def test_bytes_do_not_depend_on_how_much_is_done_at_once(monkeypatch):
    """Runs of tiles down to single ones, some of them larger than what is allowed."""
    gaussians, cameras = make_gaussians(2000, size=0.05), make_cameras(views=2)
    expected, expected_gradients = with_gradients(render, gaussians, cameras)
    for pairs in (1, 700, 5000):
        monkeypatch.setattr(tiled, "PAIRS_AT_ONCE", pairs)
        actual, gradients = with_gradients(render, gaussians, cameras)
        assert torch.equal(actual.color, expected.color)
        assert torch.equal(actual.depth, expected.depth)
        assert all(torch.equal(gradients[n], expected_gradients[n]) for n in NAMES)


def test_memory_is_bounded_where_everything_covers_everything(monkeypatch):
    monkeypatch.setattr(tiled, "PAIRS_AT_ONCE", 5_000)
    lengths = []
    place = tiled._View.sort

    def watch(*arguments):
        members, starts = place(*arguments)
        lengths.append(len(members))
        return members, starts

    monkeypatch.setattr(tiled._View, "sort", watch)
    fog = replace(make_gaussians(1000), scales=torch.full((1000, 3), 3.0))
    render(fog, make_cameras(192, 192))
    assert sum(lengths) > 30_000
    assert max(lengths) <= 5_000


def test_equal_depths_keep_their_order():
    blue = one(scale=0.2, opacity=1.0, color=(0.0, 0, 1))
    pair = Gaussians(**{n: torch.cat([getattr(blue, n), getattr(one(scale=0.2, opacity=1.0), n)]) for n in NAMES})
    assert render(pair, make_cameras(65, 65)).color[0, 2, 32, 32] > 0.99


def test_autocast_does_not_reach_the_geometry():
    gaussians, cameras = make_gaussians(500), make_cameras()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(render(gaussians, cameras).color, render(gaussians, cameras).color)
        inside = render(gaussians, cameras).color
    assert torch.equal(inside, render(gaussians, cameras).color)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_named(name, value):
    gaussians = make_gaussians(10)
    broken = getattr(gaussians, name).clone()
    broken.view(-1)[3] = value
    with pytest.raises(ValueError, match=name):
        render(replace(gaussians, **{name: broken}), make_cameras())


def test_batches_are_refused():
    with pytest.raises(ValueError, match="unbatched"):
        render(make_gaussians(10).map(lambda t: t[None]), make_cameras())


@pytest.mark.parametrize("failure", [None, OSError("CUDA_HOME environment variable\n is not set"), RuntimeError("x")])
def test_gsplat_without_kernels_is_said_in_one_line(failure: Exception | None, monkeypatch: pytest.MonkeyPatch):
    """Without a CUDA compiler it can be imported, and its kernels are None."""

    class Backend(types.ModuleType):
        def __getattr__(self, name: str) -> None:
            if name == "_C" and failure is not None:
                raise failure
            if name != "_C":
                raise AttributeError(name)

    package, cuda = types.ModuleType("gsplat"), types.ModuleType("gsplat.cuda")
    package.rasterization = lambda **_: None  # pyright: ignore[reportAttributeAccessIssue]
    for module in (package, cuda, Backend("gsplat.cuda._backend")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    load_gsplat.cache_clear()
    with pytest.raises(LyraError, match="kernels are not compiled") as caught:
        load_gsplat()
    assert "\n" not in str(caught.value)
    assert ("nvcc" if failure is None else str(failure).split()[0]) in str(caught.value)


def test_missing_gsplat_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", None)
    load_gsplat.cache_clear()
    with pytest.raises(MissingExtraError, match=r"gsplat.*lyra\[cuda\]"):
        render_cuda(make_gaussians(3), make_cameras())


def test_two_threads_may_render_at_once():
    gaussians, cameras = make_gaussians(2000), make_cameras()
    expected = render(gaussians, cameras).color
    with ThreadPoolExecutor(4) as pool:
        for rendering in pool.map(lambda _: render(gaussians, cameras), range(8)):
            assert torch.equal(rendering.color, expected)


def fuzzed(seed: int) -> tuple[Gaussians, Cameras]:
    """A scene and a camera of which everything is drawn: counts, sizes, shapes, places, focal lengths, pose."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    count = int(torch.randint(1, 150, (), generator=generator))
    height, width = (int(n) for n in torch.randint(1, 40, (2,), generator=generator))
    spread = 10 ** uniform(-1, 0.5, 1)
    gaussians = Gaussians(
        means=spread * torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0, 1]),
        scales=10 ** (uniform(-3, 0, 1) + uniform(-1, 0.5, count, 3)),
        quaternions=torch.randn(count, 4, generator=generator),
        opacities=uniform(-0.1, 1.1, count).clamp(0, 1),
        colors=uniform(0, 1, count, 3),
    )
    pose = torch.eye(4)
    turn = torch.tensor([1.0, 0, 0, 0]) + uniform(-0.3, 0.3, 4)
    pose[:3, :3] = matrix_from_quaternion(turn)
    pose[:3, 3] = uniform(-0.5, 0.5, 3)
    size = torch.tensor([width, height, width, height])
    intrinsics = torch.cat([uniform(0.3, 3, 2), uniform(-0.2, 1.2, 2)]) * size
    return gaussians, Cameras(pose[None], intrinsics[None], height, width)


def check_fuzzed(seeds: range) -> None:
    close = pixels = 0
    for seed in seeds:
        gaussians, cameras = fuzzed(seed)
        actual, actual_gradients = with_gradients(render, gaussians, cameras)
        expected, expected_gradients = with_gradients(render_oracle, gaussians.to(torch.float64), cameras)
        difference = (actual.color.double() - expected.color).abs().amax(1)
        close += int((difference <= 1e-4).sum())
        pixels += difference.numel()
        assert difference.max() < 1 / 255 + 1e-4, seed
        if difference.max() <= 1e-4:  # Where a contribution is skipped on one side alone, so is its gradient.
            for name in NAMES:
                error = (actual_gradients[name].double() - expected_gradients[name]).norm()
                assert error <= 1e-2 * expected_gradients[name].norm() + 1e-4, (seed, name)
    assert close >= 0.9999 * pixels


def test_fuzzed_scenes_agree_with_the_oracle():
    check_fuzzed(range(60))


@pytest.mark.slow
def test_a_thousand_fuzzed_scenes_agree_with_the_oracle():
    check_fuzzed(range(1000, 2000))


@pytest.mark.cuda
def test_cuda_draws_the_same_picture():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("gsplat", reason="gsplat is not installed")
    gaussians, cameras = make_gaussians(3000), make_cameras(views=2, shift=0.1)
    expected, expected_gradients = with_gradients(render, gaussians, cameras)

    def on_cuda(g, c, background):
        rendering = render(g.to("cuda"), c, background)
        return Rendering(rendering.color.cpu(), rendering.depth.cpu(), rendering.alpha.cpu())

    actual, gradients = with_gradients(on_cuda, gaussians, cameras)
    assert_same_picture(actual, expected)
    assert_same_gradients(gradients, {n: g.double() for n, g in expected_gradients.items()}, 1e-2)
