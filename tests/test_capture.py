"""Photos without cameras: found in a rendered world, whose own cameras are the truth."""

import math
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from lyra.capture import Capture, find_cameras
from lyra.depth import DepthPrediction, scene_depth
from lyra.depth.anchoring import fit_to_anchors
from lyra.engine.shots import walk_between
from lyra.errors import LyraError, MissingExtraError
from lyra.evaluation.camera_scores import fit_similarity, score_cameras
from lyra.files import save_image
from lyra.files.photos import Photo, find_sources
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.sky import is_sky
from lyra.views.posing import pose_photos
from lyra.views.still import lift_posed
from lyra.worlds import render_world, sample_world

HEIGHT, WIDTH, COUNT = 192, 256, 5


def arc(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH) -> Cameras:
    """Cameras to the right of each other, turned to what is before them."""
    poses = torch.eye(4).repeat(count, 1, 1)
    for index in range(count):
        angle = -0.09 * index
        poses[index, 0, 0] = poses[index, 2, 2] = math.cos(angle)
        poses[index, 0, 2], poses[index, 2, 0] = math.sin(angle), -math.sin(angle)
        poses[index, :3, 3] = torch.tensor([0.1 * index, 0.03 * (index % 2), 0.0])
    return Cameras(poses, intrinsics_from_fov(55.0, height, width).expand(count, 4), height, width)


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, Tensor, Cameras]:
    """Pictures, true depth and true cameras."""
    pytest.importorskip("pycolmap", reason="needs the extra poses")
    cameras = arc()
    color, depth = render_world(sample_world(50_000), cameras)
    return (color * 255).round() / 255, depth, cameras


@pytest.fixture(scope="module")
def found(world) -> Capture:
    capture = find_cameras(list(world[0]))
    assert capture is not None
    return capture


def test_cameras_are_those_that_rendered_the_world(world, found: Capture):
    assert found.placed == tuple(range(COUNT))
    errors = score_cameras(found.cameras, world[2])
    assert errors.position < 0.01 and errors.rotation < 0.5
    assert abs(float(found.cameras.intrinsics[0, 0] / world[2].intrinsics[0, 0]) - 1) < 0.03


def test_points_lie_on_the_true_surface(world, found: Capture):
    """Their depth in each picture is the rendered one, up to one unit for all."""
    photos = [Photo.of(image) for image in world[0]]
    anchors = pose_photos(photos, None).anchors
    ratios = [
        world[1][view][place[:, 1].long(), place[:, 0].long()] / depth
        for view, (place, depth) in enumerate(zip(anchors.places, anchors.depths, strict=True))
    ]
    assert torch.equal(found.cameras.camera_to_world[0], torch.eye(4))
    medians = torch.stack([ratio.median() for ratio in ratios])
    assert (medians / medians.mean() - 1).abs().max() < 0.02
    every = torch.cat(ratios) / medians.mean()
    assert ((every - 1).abs() < 0.05).float().mean() > 0.9


def test_the_same_pictures_have_the_same_cameras(world, found: Capture):
    again = find_cameras(list(world[0]))
    assert again is not None
    assert torch.equal(again.cameras.camera_to_world, found.cameras.camera_to_world)
    assert torch.equal(again.points, found.points)


class Bent:
    """Knows the true depth but for a scale of each picture's own and a slow bend."""

    def __init__(self, images: Tensor, depth: Tensor):
        self.images, self.depth = images, depth

    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """Depth that is right in its order alone."""
        best = int((self.images - image).abs().mean((1, 2, 3)).argmin())
        bend = torch.linspace(-0.3, 0.4, image.shape[2]) * (1 if best % 2 else -1)
        depth = self.depth[best] ** 1.3 * bend.exp() * (2.0 + best)
        return DepthPrediction(depth, ~is_sky(self.depth[best]), None, False)


def test_depth_of_all_photos_is_brought_to_their_points(world):
    images, depth, cameras = world
    posed = pose_photos([Photo.of(image) for image in images], None)
    estimator = Bent(images, depth)
    views, lens = lift_posed(estimator, posed)
    assert lens["source"] == "photos" and lens["degrees"] == pytest.approx(55, abs=2)
    assert views.depth[0].median() == pytest.approx(1, rel=1e-3)
    to_true = fit_similarity(views.cameras, cameras)
    for index in range(COUNT):
        before = scene_depth(estimator.predict(images[index]))
        before = before * (depth[index] / before).median()
        after = to_true.scale * views.depth[index]
        error, was = (((x - depth[index]).abs() / depth[index]).mean() for x in (after, before))
        assert error < 0.06 and error < 0.5 * was


def test_photos_of_nothing_in_common_say_so(world):
    noise = torch.rand(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    with pytest.raises(LyraError, match="3 photos cannot be posed, they have too little in common: take photos"):
        pose_photos([Photo.of(image) for image in noise], None)
    with pytest.raises(LyraError, match=r"the first photo.*too little.*photos 2, 3, 4"):
        pose_photos([Photo.of(image) for image in (noise[0], *world[0][:3])], None)
    posed = pose_photos([Photo.of(image) for image in (*world[0][:3], noise[0])], None)
    assert len(posed.photos) == 3 and posed.notes[1] == "photo 4 shares too little with the others and was left out"


def test_a_given_field_of_view_is_kept(world):
    posed = pose_photos([Photo.of(image) for image in world[0][:3]], 60.0)
    expected = 0.5 * HEIGHT / math.tan(math.radians(30))
    assert posed.cameras.intrinsics[:, 0].tolist() == pytest.approx([expected] * 3)


def test_without_colmap_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lyra\[poses\]'"):
        find_cameras([torch.rand(3, 32, 32)] * 2)


def test_depth_between_anchors_bends_smoothly_and_wrong_ones_do_no_harm():
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 60), torch.linspace(0, 1, 90), indexing="ij")
    true = 1.5 + torch.sin(7 * columns) * 0.4 + rows
    places = torch.rand(200, 2, generator=generator) * torch.tensor([90.0, 60.0])
    wanted = true[places[:, 1].long(), places[:, 0].long()].clone()
    wanted[:30] *= 1 + 2 * torch.rand(30, generator=generator)
    estimate = 7 * true**1.4 * (0.3 * columns - 0.2 * rows).exp()
    fitted = fit_to_anchors(estimate, places, wanted)
    assert ((fitted / true - 1).abs()).mean() < 0.02
    with pytest.raises(ValueError, match="too few"):
        fit_to_anchors(estimate, places[:7], wanted[:7])


def test_every_further_photo_begins_a_clip_to_the_nearest_before_it():
    cameras = arc(4)
    shots = walk_between(cameras, 5)
    assert [list(shot) for shot in shots] == [["photo_02"], ["photo_03"], ["photo_04"]]
    for index, shot in enumerate(shots):
        path = next(iter(shot.values()))
        assert len(path) == 5
        assert torch.equal(path.camera_to_world[0], cameras.camera_to_world[index + 1])
        assert torch.allclose(path.camera_to_world[-1], cameras.camera_to_world[index], atol=1e-6)
    assert len(walk_between(arc(30), 5)) == 12


def test_a_folder_gives_its_pictures_by_number(tmp_path: Path):
    for name in ("b10.png", "b9.png", "a.JPG"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    assert [path.name for path in find_sources([tmp_path])] == ["a.JPG", "b9.png", "b10.png"]
    (tmp_path / "transforms.json").write_text("{}")
    assert find_sources([tmp_path]) == [tmp_path / "transforms.json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LyraError, match="holds no pictures"):
        find_sources([tmp_path / "empty"])


def test_several_photos_make_one_scene(world, tmp_path: Path):
    from lyra.generate.generator import Generator

    for index in (0, 1, 2):
        save_image(world[0][index], tmp_path / f"{index}.png")
    model = Generator.load("smoke")
    scene = model.generate([tmp_path / f"{index}.png" for index in (0, 1, 2)], tmp_path / "out", trajectories=("left",))
    told = scene.provenance
    assert told["input"]["photos"] == 3 and told["fov"]["source"] == "photos"
    assert any("cameras of 3 photos" in note for note in told["input"]["notes"])
    assert {"left", "photo_02", "photo_03"} <= {path.name for path in (tmp_path / "out/clips").iterdir()}
    with pytest.raises(LyraError, match="named twice"):
        model.generate([tmp_path / "0.png", tmp_path / "0.png"], tmp_path / "other")
