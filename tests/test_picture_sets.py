"""Folders of rendered pictures with cameras, read back by COLMAP itself, by plyfile and by our own readers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_here
from plyfile import PlyData
from test_extending import CAMERA, SIZE, turning, wall

from lyra.files import load_cameras
from lyra.files.posed_folders import load_views, open_capture
from lyra.geometry.cameras import project
from lyra.scene.scene import Scene
from lyra.simulation.surfaces import scene_cameras

VIEWS = 2


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """The wall, once extended to the right."""
    folder = tmp_path_factory.mktemp("pictures") / "scene"
    ends = turning(2).camera_to_world.tolist()
    Scene(wall(), CAMERA, {"extensions": [{"path": ends}]}).save(folder)
    return folder


def exported(scene: Path, kind: str) -> Path:
    folder = scene.parent / kind
    if not folder.exists():
        done = run_here("export", scene, "-o", folder, "--what", kind, "--views", VIEWS)
        assert done.returncode == 0, done.stderr
        assert "15 pictures" in done.stderr
    return folder


@pytest.mark.parametrize("kind", ["colmap", "nerfstudio"])
def test_our_readers_find_the_same_pictures(scene: Path, kind: str):
    folder, whole = exported(scene, kind), Scene.load(scene)
    cameras = scene_cameras(whole, SIZE, VIEWS)
    capture = open_capture(folder)
    assert capture.layout == kind
    views = load_views(capture, range(len(capture)), SIZE, SIZE)
    # Ours are relative to the input view, which is first.
    torch.testing.assert_close(views.cameras.camera_to_world, cameras.camera_to_world, atol=1e-5, rtol=0)
    torch.testing.assert_close(views.cameras.intrinsics, cameras.intrinsics, atol=1e-4, rtol=0)
    shown = whole.render(cameras).color.clamp(0, 1)
    torch.testing.assert_close(views.images, shown, atol=0.5 / 255 + 1e-6, rtol=0)


def test_colmap_reads_its_model(scene: Path):
    pycolmap = pytest.importorskip("pycolmap", reason="needs the extra poses")
    folder, whole = exported(scene, "colmap"), Scene.load(scene)
    cameras = scene_cameras(whole, SIZE, VIEWS)
    model = pycolmap.Reconstruction(str(folder / "sparse/0"))
    assert model.num_images() == len(cameras)
    images = sorted(model.images.values(), key=lambda image: image.name)
    place = next(iter(model.points3D.values())).xyz
    for index, image in enumerate(images):
        pose = np.asarray(image.cam_from_world().matrix())
        np.testing.assert_allclose(pose, cameras.world_to_camera[index, :3].numpy(), atol=1e-5)
        assert (folder / "images" / image.name).is_file()
        camera = model.cameras[image.camera_id]
        np.testing.assert_allclose(camera.params, cameras.intrinsics[index].numpy(), rtol=1e-6)
        local = pose @ [*place, 1]
        if local[2] > 0:  # its projection agrees with ours
            u, v, _ = project(torch.tensor(place).float()[None], cameras[index : index + 1])
            np.testing.assert_allclose(camera.img_from_cam(local), [float(u), float(v)], atol=1e-3, rtol=1e-4)
    points = np.array([point.xyz for point in model.points3D.values()])
    assert len(points) == len(whole.gaussians)
    expected = whole.gaussians.means.numpy()
    np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)], atol=1e-4)


def test_nerfstudio_has_z_up(scene: Path):
    folder, whole = exported(scene, "nerfstudio"), Scene.load(scene)
    content = json.loads((folder / "transforms.json").read_text())
    applied = np.array(content["applied_transform"])
    np.testing.assert_allclose(applied @ [0, -1, 0, 0], [0, 0, 1])  # up
    first = np.array(content["frames"][0]["transform_matrix"])
    np.testing.assert_allclose(first[:3, :3] @ [0, 0, -1], [0, 1, 0])  # ahead
    np.testing.assert_allclose(first[:3, :3] @ [0, 1, 0], [0, 0, 1])
    vertices = PlyData.read(str(folder / content["ply_file_path"]))["vertex"]
    places = np.stack([vertices[axis] for axis in "xyz"], axis=-1)
    np.testing.assert_allclose(places, whole.gaussians.means.numpy() @ applied[:, :3].T, atol=1e-6)
    reds = (whole.gaussians.colors[:, 0] * 255).round().numpy()
    np.testing.assert_allclose(vertices["red"], reds, atol=1)
    # A path for films too.
    assert len(load_cameras(folder / "transforms.json", SIZE, SIZE)) == len(content["frames"])


def test_metres_are_kept(scene: Path, tmp_path: Path):
    whole = Scene.load(scene)
    ground = {"up": [0.0, -1.0, 0.0], "height": -0.5, "confidence": 1.0, "deviation": 0.0}
    survey = {"ground": ground, "metres_per_unit": 3.0, "uncertainty": 0.1, "source": "known length"}
    replace(whole, provenance={**whole.provenance, "survey": survey}).save(tmp_path / "scene")
    run_here("export", tmp_path / "scene", "-o", tmp_path / "out", "--what", "colmap", "--views", VIEWS)
    metric = open_capture(tmp_path / "out")
    plain = scene_cameras(whole, SIZE, VIEWS)
    found = load_views(metric, range(len(metric)), SIZE, SIZE).cameras
    torch.testing.assert_close(found.centers, 3 * plain.centers, atol=1e-4, rtol=0)


def test_a_full_folder_is_refused(scene: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run_here("export", scene, "-o", tmp_path, "--what", "colmap")
    assert done.returncode == 2
    assert "is not empty: give another folder" in done.stderr
    done = run_here("export", scene, "-o", tmp_path / "new", "--what", "nerfstudio", "--views", "0")
    assert done.returncode == 2
    assert "give 1 to 500" in done.stderr
    assert not (tmp_path / "new").exists()
