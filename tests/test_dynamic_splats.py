"""The files of a scene that moves, read back by ourselves and by the format's own package."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lyra.errors import LyraError, MissingExtraError
from lyra.files import load_dynamic, load_ply, load_tensors, save_4dgs, save_dynamic, save_frames, save_tensors
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians, matrix_from_quaternion


def random_gaussians(count: int, seed: int) -> Gaussians:
    """Also as far away as the sky is."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=generator)
    means[::10] *= 100
    return Gaussians(
        means=means,
        scales=torch.rand(count, 3, generator=generator) * 0.02 + 1e-4,
        quaternions=F.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )


def moving_scene() -> DynamicGaussians:
    """Uneven times, and a moment that adds nothing."""
    moments = tuple(random_gaussians(count, 1 + count) for count in (40, 0, 70, 55))
    return DynamicGaussians(random_gaussians(200, 0), moments, torch.tensor([0.0, 0.2, 0.3, 1.0]), 1.7)


def assert_same(one: Gaussians, other: Gaussians) -> None:
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, getattr(other, name)), name


def test_tensors_come_back_as_they_were(tmp_path):
    scene = moving_scene()
    save_dynamic(scene, tmp_path / "dynamic.safetensors")
    back = load_dynamic(tmp_path / "dynamic.safetensors")
    assert_same(back.static, scene.static)
    assert len(back) == len(scene)
    for one, other in zip(back.moments, scene.moments, strict=True):
        assert_same(one, other)
    assert torch.equal(back.times, scene.times)
    assert back.seconds == scene.seconds
    save_dynamic(back, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "dynamic.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"static.means": None}, "no static.means"),
        ({"times": None}, "no times"),
        ({"moments.colors": torch.zeros(164, 3)}, "moments.colors"),
        ({"static.opacities": torch.zeros(200, 1)}, "static.opacities"),
        ({"static.scales": torch.zeros(200, 3, dtype=torch.int32)}, "static.scales"),
        ({"static.means": torch.full((200, 3), float("nan"))}, "NaN"),
        ({"counts": torch.tensor([40, 0, 70, 56])}, "166"),
        ({"counts": torch.tensor([40, -1, 71, 55])}, "counts"),
        ({"counts": torch.tensor([40.0, 0, 70, 55])}, "counts"),
        ({"counts": torch.tensor([40, 70, 55])}, "times"),
        ({"counts": torch.zeros(0, dtype=torch.int64)}, "counts"),
        ({"times": torch.tensor([0.0, 0.3, 0.2, 1.0])}, "ascend"),
        ({"times": torch.tensor([0.0, 0.2, 0.3, float("nan")])}, "ascend"),
        ({"seconds": torch.tensor(0.0)}, "seconds"),
        ({"seconds": torch.tensor([1.0, 2.0])}, "seconds"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, change, words):
    path = tmp_path / "dynamic.safetensors"
    save_dynamic(moving_scene(), path)
    tensors = load_tensors(path) | change
    save_tensors({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    with pytest.raises(LyraError, match=words) as problem:
        load_dynamic(path)
    assert "\n" not in str(problem.value)


def test_a_file_cut_short_or_of_something_else_is_refused(tmp_path):
    path = tmp_path / "dynamic.safetensors"
    save_dynamic(moving_scene(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LyraError, match="damaged"):
        load_dynamic(path)
    save_tensors({"weight": torch.zeros(3)}, path)
    with pytest.raises(LyraError, match="no moving scene"):
        load_dynamic(path)
    with pytest.raises(LyraError, match="does not exist"):
        load_dynamic(tmp_path / "nothing")


def test_every_moment_is_a_whole_ply(tmp_path):
    scene = moving_scene()
    paths = save_frames(scene, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [f"frames/{i:04d}.ply" for i in range(4)]
    for index, path in enumerate(paths):
        back, whole = load_ply(path), scene.moment(index)
        assert len(back) == len(whole)
        torch.testing.assert_close(back.means, whole.means)
        torch.testing.assert_close(back.colors, whole.colors, atol=1e-5, rtol=0)


def upright(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray]:
    """Means and rotations with y up and z backward, in float64 and another way than the writer's."""
    flip = np.diag([1.0, -1.0, -1.0])
    return gaussians.means.double().numpy() @ flip, flip @ matrix_from_quaternion(
        gaussians.quaternions.double()
    ).numpy()


def assert_within_bounds(content, indices: np.ndarray, expected: Gaussians, bounds: dict[str, str]) -> None:
    """The format sorts its Gaussians by place: each of ours has exactly one of them beside it."""
    means, turns = upright(expected)
    assert len(indices) == len(means)
    positions = content.positions[indices].astype(np.float64)
    off = np.abs(positions[:, None] - means[None]).max(-1)
    matches = off.argmin(0)
    assert len(set(matches.tolist())) == len(matches)
    # Stored in float32: a sky 100 units away is rounded by a few more millionths.
    assert off.min(0).max() <= float(bounds["pos"]) + 2e-5
    found = indices[matches]
    ratios = np.log(content.scales[found] / expected.scales.numpy())
    assert np.abs(ratios).max() <= np.log1p(float(bounds["scale_rel"])) + 1e-6
    colors = np.abs(content.colors[found, :3] - expected.colors.numpy())
    assert colors.max() <= float(bounds["rgb"]) + 1e-6
    assert np.abs(content.colors[found, 3] - expected.opacities.numpy()).max() <= float(bounds["alpha"]) + 1e-6
    rotations = torch.from_numpy(content.rotations[found].astype(np.float64)).roll(1, dims=1)
    assert np.abs(matrix_from_quaternion(rotations).numpy() - turns).max() < 6 * float(bounds["rot"])


def test_a_4dgs_file_passes_its_validator_and_holds_every_moment(tmp_path):
    fourdgs = pytest.importorskip("fourdgs")
    from fourdgs.validate import validate

    scene, path = moving_scene(), tmp_path / "scene.4dgs"
    save_4dgs(scene, path)
    report = validate(path.read_bytes())
    assert report.ok and not report.findings, [str(finding) for finding in report.findings]
    back = fourdgs.read(str(path))
    assert back.gaussians.count == 200 + 165
    assert back.duration_sec == pytest.approx(1.7 * (1 + 0.35))
    for index, time in enumerate(scene.times.tolist()):
        state = back.state_at(time * scene.seconds)
        moment = scene.moment(index)
        assert_within_bounds(back.gaussians, state["indices"], moment, back.quantization.bounds)
        # Nothing fades.
        np.testing.assert_array_equal(state["opacity"], back.gaussians.colors[state["indices"], 3].astype(np.float64))
    counts = [len(back.state_at(t)["indices"]) for t in np.linspace(0, back.duration_sec, 50, endpoint=False)]
    assert set(counts) == {200 + count for count in (40, 0, 70, 55)}
    save_4dgs(scene, tmp_path / "again.4dgs")
    assert (tmp_path / "again.4dgs").read_bytes() == path.read_bytes()


def test_a_4dgs_file_says_which_way_is_up_and_where_to_start(tmp_path):
    fourdgs = pytest.importorskip("fourdgs")
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.1, 0.2, 0.3])
    camera = Cameras(pose[None], intrinsics_from_fov(40.0, 100, 160)[None], 100, 160)
    static, times = random_gaussians(30, 0), torch.zeros(1)
    save_4dgs(DynamicGaussians(static, (random_gaussians(5, 1),), times, 2.0), tmp_path / "one.4dgs", camera)
    back = fourdgs.read(str(tmp_path / "one.4dgs"))
    assert back.duration_sec == 2.0 and len(back.state_at(1.99)["indices"]) == 35
    assert back.header.attributes["coordinate_system"] == "y-up-right-handed"
    frame = back.provenance.frame
    assert (frame.handedness, frame.up_axis, frame.forward_axis) == (1, 1, 5)
    np.testing.assert_allclose(back.camera.position, (0.1, -0.2, -0.3), atol=1e-6)
    np.testing.assert_allclose(back.camera.target, (0.1, -0.2, -1.3), atol=1e-6)
    assert back.camera.fov_y_deg == pytest.approx(40.0, abs=1e-3)


def test_without_its_package_a_4dgs_file_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fourdgs", None)
    with pytest.raises(MissingExtraError, match=r"lyra\[video\]"):
        save_4dgs(moving_scene(), tmp_path / "scene.4dgs")
    assert list(Path(tmp_path).iterdir()) == []
