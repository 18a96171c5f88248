"""Input views: depth, lens, and the common scale of several posed photos."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lyra.depth import DepthPrediction
from lyra.errors import LyraError
from lyra.files import save_image
from lyra.files.photos import Photo, load_posed_photos
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.views.still import DEFAULT_FOV, estimate_views, find_pose_unit
from lyra.views.views import Views

SIZE, LENS = 64, intrinsics_from_fov(60.0, 64, 64)


def look_at_wall(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Images and depth of a slanted, patterned plane, by the intersection of every pixel's ray with it."""
    normal, level = torch.tensor([0.35, 0.1, -1.0]), -1.1
    v, u = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    fx, fy, cx, cy = cameras.intrinsics[0]
    local = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)], dim=-1)
    images, depths = [], []
    for pose in cameras.camera_to_world:
        direction = local @ pose[:3, :3].T
        depth = (level - pose[:3, 3] @ normal) / (direction @ normal)
        point = pose[:3, 3] + depth[..., None] * direction
        waves = [
            (point * torch.tensor(k)).sum(-1).sin()
            for k in ((9.0, 2.0, 0.0), (-3.0, 11.0, 1.0), (5.0, 6.0, 2.0), (23.0, -4.0, 3.0))
        ]
        red, green, blue = waves[0] + 0.5 * waves[3], waves[1], waves[2]
        images.append(torch.stack([red, green, blue]).clamp(-1, 1) / 2 + 0.5)
        depths.append(depth)
    return torch.stack(images), torch.stack(depths)


def make_cameras(count: int = 3) -> Cameras:
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.linspace(0, 0.25, count)
    poses[:, 1, 3] = torch.linspace(0, -0.1, count)
    return Cameras(poses, LENS.expand(count, 4).clone(), SIZE, SIZE)


class Oracle:
    """Knows the wall's depth by the picture, up to a scale and a shift of its inverse."""

    def __init__(self, images: Tensor, depths: Tensor, fov: float | None = None):
        self.images, self.depths, self.fov = images, depths, fov

    def predict(self, image: Tensor) -> DepthPrediction:
        index = int((self.images - image).abs().mean(dim=(1, 2, 3)).argmin())
        scale = 1.0 + index
        depth = 1 / (scale / self.depths[index] + 0.1 * index)
        return DepthPrediction(depth, torch.ones_like(depth, dtype=torch.bool), self.fov, metric=False)


def make_photo(image: Tensor, fov: float | None = None) -> Photo:
    return Photo(image, fov, (SIZE, SIZE), (0, 0, SIZE, SIZE), "0" * 64, ())


@pytest.mark.parametrize("unit", [0.1, 1.0, 7.3])
def test_the_unit_of_the_poses_is_found(unit: float):
    cameras = make_cameras()
    images, depths = look_at_wall(cameras)
    median = depths[0].median()
    views = Views(images[:1], depths[:1] / median, cameras[:1])
    poses = cameras.camera_to_world[1:].clone()
    poses[:, :3, 3] *= unit
    found = find_pose_unit(views, images[1:], replace(cameras[1:], camera_to_world=poses))
    assert found == pytest.approx(1 / (unit * float(median)), rel=0.12)


def test_views_that_do_not_move_have_any_unit():
    cameras = make_cameras()
    images, depths = look_at_wall(cameras)
    still = replace(cameras[1:], camera_to_world=torch.eye(4).repeat(2, 1, 1))
    assert find_pose_unit(Views(images[:1], depths[:1], cameras[:1]), images[1:], still) == 1.0


def test_posed_photos_come_to_one_scale():
    cameras = make_cameras()
    images, depths = look_at_wall(cameras)
    # Another world, another unit: only relative poses count.
    world = torch.tensor([[0.0, -1, 0, 5], [1, 0, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1]])
    poses = world @ cameras.camera_to_world
    poses[:, :3, 3] = world[:3, 3] + 4.0 * (poses[:, :3, 3] - world[:3, 3])
    given = replace(cameras, camera_to_world=poses)
    views, fov = estimate_views(Oracle(images, depths), [make_photo(i) for i in images], given, None)
    assert fov["source"] == "camera file"
    assert fov["degrees"] == pytest.approx(60.0)
    truth = depths / depths[0].median()
    assert torch.allclose(views.depth[0], truth[0], rtol=1e-4)
    assert torch.allclose(views.depth[1:], truth[1:], rtol=0.15)
    centers = cameras.centers / depths[0].median()
    assert torch.allclose(views.cameras.centers, centers, atol=0.15 * float(centers.norm(dim=-1).max()))


@pytest.mark.parametrize(
    ("option", "exif", "predicted", "expected"),
    [
        (40.0, 50.0, 60.0, (40.0, "option")),
        (None, 50.0, 60.0, (50.0, "exif")),
        (None, None, 60.0, (60.0, "depth estimator")),
        (None, None, None, (DEFAULT_FOV, "default")),
    ],
)
def test_where_the_field_of_view_comes_from(option, exif, predicted, expected):
    images, depths = look_at_wall(make_cameras(1))
    views, fov = estimate_views(Oracle(images, depths, predicted), [make_photo(images[0], exif)], None, option)
    assert (fov["degrees"], fov["source"]) == expected
    assert torch.allclose(views.cameras.intrinsics[0], intrinsics_from_fov(expected[0], SIZE, SIZE))
    assert views.depth.median() == pytest.approx(1.0)


class Blind:
    def predict(self, image: Tensor) -> DepthPrediction:
        depth = torch.ones(image.shape[1:])
        return DepthPrediction(depth, torch.zeros_like(depth, dtype=torch.bool), None, metric=False)


def test_a_photo_of_nothing_but_sky_is_refused():
    images, _ = look_at_wall(make_cameras(1))
    with pytest.raises(LyraError, match="no depth can be found"):
        estimate_views(Blind(), [make_photo(images[0])], None, None)


def test_a_second_photo_of_something_else_is_refused():
    cameras = make_cameras(2)
    images, depths = look_at_wall(cameras)
    poses = cameras.camera_to_world.clone()
    poses[1, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))  # turned right about
    with pytest.raises(LyraError, match="photo 2 shows nothing"):
        estimate_views(
            Oracle(images, depths), [make_photo(i) for i in images], replace(cameras, camera_to_world=poses), None
        )


def test_views_survive_the_disk(tmp_path: Path):
    cameras = make_cameras()
    images, depths = look_at_wall(cameras)
    for count in (1, 3):
        views = Views(images[:count], depths[:count], cameras[:count])
        views.save(tmp_path / "input.safetensors")
        again = Views.load(tmp_path / "input.safetensors")
        assert torch.equal(again.images, views.images)
        assert torch.equal(again.depth, views.depth)
        assert torch.equal(again.cameras.camera_to_world, views.cameras.camera_to_world)
        assert torch.equal(again.cameras.intrinsics, views.cameras.intrinsics)


def test_photos_named_by_a_camera_file_are_read_with_their_cameras(tmp_path: Path):
    images, _ = look_at_wall(make_cameras())
    (tmp_path / "images").mkdir()
    frames = []
    for index, image in enumerate(images):
        save_image(image, tmp_path / f"images/{index}.png")
        pose = torch.eye(4)
        pose[0, 3] = float(index)
        frames.append({"file_path": f"images/{index}.png", "transform_matrix": pose.tolist()})
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({"fl_x": 55.0, "w": SIZE, "h": SIZE, "frames": frames}))
    photos, cameras = load_posed_photos(file, 32, 32)
    assert [tuple(photo.image.shape) for photo in photos] == [(3, 32, 32)] * 3
    assert torch.allclose(cameras.intrinsics[:, 0], torch.full((3,), 27.5))
    assert cameras.centers[:, 0].tolist() == [0.0, 1.0, 2.0]
    frames[1]["file_path"] = "images/none.png"
    file.write_text(json.dumps({"fl_x": 55.0, "w": SIZE, "h": SIZE, "frames": frames}))
    with pytest.raises(LyraError, match=r"none\.png does not exist"):
        load_posed_photos(file, 32, 32)
    del frames[1]["file_path"]
    file.write_text(json.dumps({"fl_x": 55.0, "w": SIZE, "h": SIZE, "frames": frames}))
    with pytest.raises(LyraError, match="frame 1 names no picture"):
        load_posed_photos(file, 32, 32)
