"""A PLY from elsewhere is seen: by its stored camera or one that is placed; what shows nothing is told."""

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lyra.cli.main import main
from lyra.errors import LyraError, LyraWarning
from lyra.files import load_ply, save_ply
from lyra.files.splats import COLUMNS
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians
from lyra.rendering import render
from lyra.scene.film import choose_cameras, film_scene
from lyra.scene.scene import Scene
from lyra.viewer.verification import Verification, choose_views


def cloud(center: tuple[float, float, float], radius: float = 1.0, count: int = 400) -> Gaussians:
    """A ball of colored blobs."""
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = means * torch.rand(count, 1, generator=generator) ** (1 / 3) * radius + torch.tensor(center)
    return Gaussians(
        means,
        torch.full((count, 3), 0.1 * radius),
        torch.tensor([1.0, 0, 0, 0]).expand(count, 4).clone(),
        torch.full((count,), 0.9),
        torch.rand(count, 3, generator=generator),
    )


def coverage(scene: Scene, cameras: Cameras) -> list[float]:
    return [float(render(scene.gaussians, cameras[i : i + 1]).alpha.mean()) for i in range(len(cameras))]


PLACES = {
    "ahead": ((0.0, 0.0, 3.0), 1.0),
    "behind": ((0.0, 0.0, -3.0), 1.0),
    "around": ((0.0, 0.0, 0.0), 1.0),
    "far aside": ((500.0, -80.0, 20.0), 30.0),
    "metres": ((0.0, 0.0, 80.0), 25.0),
    "tiny": ((0.0, 0.0, 0.02), 0.004),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("path", ["fly", "still", "left", "zoom_out"])
def test_every_film_of_a_scene_from_elsewhere_shows_it(tmp_path: Path, name: str, path: str):
    save_ply(cloud(*PLACES[name]), tmp_path / "a.ply")
    scene = Scene.load(tmp_path / "a.ply")
    shown = coverage(scene, choose_cameras(scene, path, 6, 64))
    assert min(shown) > 0.08
    assert max(shown) < 3.5 * min(shown)


@pytest.mark.parametrize("outlier", [1e3, 1e5])
def test_single_far_ones_do_not_push_the_camera_away(tmp_path: Path, outlier: float):
    gaussians = cloud((0, 0, -3))
    gaussians.means[:4] = torch.tensor([outlier, outlier, -outlier])
    save_ply(gaussians, tmp_path / "a.ply")
    scene = Scene.load(tmp_path / "a.ply")
    assert scene.unit < 4 and min(coverage(scene, choose_cameras(scene, "fly", 4, 64))) > 0.1


def test_scenes_of_others(faults: Path):
    for name in ("empty_film/behind.ply", "empty_film/metric8.ply"):
        scene = Scene.load(faults / name)
        assert min(coverage(scene, choose_cameras(scene, "fly", 6, 64))) > 0.3
        # What is seen at the middle is what was before: turned around it, not away from it.
        assert 0.5 < scene.unit < 40
    with pytest.warns(LyraWarning, match="4000 rows of zeros"):
        scene = Scene.load(faults / "zero_rows_ply/zero_rows.ply")
    picture = render(scene.gaussians, scene.input_camera).color[0]
    assert len(scene.gaussians) == 4000 and float(picture.flatten(1).std(1).max()) > 0.02
    with pytest.warns(LyraWarning, match="3 Gaussians with NaN"):
        assert len(load_ply(faults / "zero_rows_ply/nan_rows.ply")) == 497


def change_rows(path: Path, count: int, value: float) -> None:
    header, body = path.read_bytes().split(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(-1, len(COLUMNS)).copy()
    rows[:count] = value
    path.write_bytes(header + b"end_header\n" + rows.tobytes())


def test_rows_that_hold_nothing_are_left_out_and_a_file_of_them_is_refused(tmp_path: Path):
    path = tmp_path / "a.ply"
    save_ply(cloud((0, 0, 3), count=100), path)
    whole = path.read_bytes()
    for count, value, words in (
        (60, 0.0, "60 rows of zeros"),
        (5, np.nan, "5 Gaussians with NaN"),
        (1, np.inf, "1 Gau"),
    ):
        path.write_bytes(whole)
        change_rows(path, count, value)
        with pytest.warns(LyraWarning, match=words):
            assert len(load_ply(path)) == 100 - count
    for count, value, words in ((100, 0.0, "nothing but zeros"), (6, np.nan, "NaN or infinite means")):
        path.write_bytes(whole)
        change_rows(path, count, value)
        with pytest.raises(LyraError, match=words):
            load_ply(path)


def test_the_camera_of_our_own_folder_is_used(tmp_path: Path):
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(80.0, 48, 64)[None], 48, 64)
    Scene(cloud((0, 0, 1)), camera).save(tmp_path)
    scene = Scene.load(tmp_path / "scene.ply")
    assert (scene.input_camera.height, scene.input_camera.width) == (48, 64)
    assert torch.equal(scene.input_camera.intrinsics, camera.intrinsics)


def test_the_camera_of_training_is_used(tmp_path: Path):
    file = tmp_path / "point_cloud/iteration_7000/point_cloud.ply"
    save_ply(cloud((5, 0, 0)), file)
    turn = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # looks along x
    entry = {"id": 0, "img_name": "a", "width": 2000, "height": 1000, "position": [1, 0, 0], "rotation": turn}
    (tmp_path / "cameras.json").write_text(json.dumps([{**entry, "fx": 1000, "fy": 1000}]))
    scene = Scene.load(file)
    assert scene.input_camera.camera_to_world[0, :3, 3].tolist() == [1, 0, 0]
    assert (scene.input_camera.width, scene.input_camera.height) == (512, 256)
    assert scene.unit == pytest.approx(4, abs=0.1)
    assert min(coverage(scene, choose_cameras(scene, "fly", 4, 64))) > 0.02
    (tmp_path / "cameras.json").write_text("[1, 2]")
    with pytest.warns(LyraWarning, match="no camera file"):
        assert Scene.load(file).input_camera.width == 512


def test_the_camera_in_a_file_is_used(tmp_path: Path):
    plyfile = pytest.importorskip("plyfile")
    save_ply(cloud((0, 0, -4)), tmp_path / "a.ply")
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    view = np.diag([-1.0, 1, -1, 1])  # looks along -z
    lens = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])
    extra = [("extrinsic", view.ravel(), "f4"), ("intrinsic", lens.ravel(), "f4"), ("image_size", [640, 480], "u4")]
    elements = [vertex]
    for name, values, kind in extra:
        rows = np.array([(value,) for value in values], dtype=[(name, kind)])
        elements.append(plyfile.PlyElement.describe(rows, name))
    plyfile.PlyData(elements).write(tmp_path / "b.ply")
    scene = Scene.load(tmp_path / "b.ply")
    assert scene.input_camera.camera_to_world[0].diagonal().tolist() == [-1, 1, -1, 1]
    assert (scene.input_camera.width, scene.input_camera.height) == (512, 384)
    assert scene.input_camera.intrinsics[0, 0] == pytest.approx(560)
    assert scene.unit == pytest.approx(4, abs=0.1)


def test_a_cut_keeps_its_unit(tmp_path: Path):
    save_ply(cloud((0, 0, 50), 10), tmp_path / "a.ply")
    scene = Scene.load(tmp_path / "a.ply")
    scene.save(tmp_path / "whole")
    assert Scene.load(tmp_path / "whole").unit == scene.unit == pytest.approx(50, abs=2)
    generated = Scene(cloud((0, 0, 1)), scene.input_camera)
    generated.save(tmp_path / "ours")
    assert "unit" not in (tmp_path / "ours/scene.json").read_text()


def test_a_film_without_the_scene_is_told():
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 32, 32)[None], 32, 32)
    scene = Scene(cloud((0, 0, 3)), camera)
    away = torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    poses = torch.stack([torch.eye(4), away, away])
    cameras = Cameras(poses, camera.intrinsics.expand(3, 4).clone(), 32, 32)
    times = torch.zeros(3)
    with pytest.warns(LyraWarning, match="in sight in 1 of 3 frames"):
        list(film_scene(scene, cameras, times))
    with pytest.warns(LyraWarning, match="in sight in no frame"):
        list(film_scene(scene, cameras[1:], times[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(film_scene(scene, cameras[:1], times[:1]))


def test_pictures_without_content_do_not_agree(monkeypatch: pytest.MonkeyPatch, capsys):
    from lyra.viewer import verification

    same: dict[verification.Backend, tuple[float, ...]] = {"processor": (120.0, 120.0), "webgl": (120.0, 120.0)}
    assert Verification(same, None, 1.0, 60.0).agrees
    blank = Verification(same, None, 1.0, 60.0, (0, 1))
    assert not blank.agrees and blank.as_json()["empty_views"] == [0, 1]
    monkeypatch.setattr(verification, "verify_scene", lambda *_: blank)
    monkeypatch.setattr(sys, "argv", ["lyra", "verify", "scene"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "nothing is to be seen in view 0, 1" in capsys.readouterr().err


@pytest.mark.parametrize("gaussians", ["away", "gray"])
def test_a_blank_scene_is_found_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gaussians: str):
    """Without a browser: the page shows what our renderer does."""
    from contextlib import nullcontext

    from lyra.viewer import verification
    from lyra.viewer.page import write_viewer

    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 64, 64)[None], 64, 64)
    shown = cloud((0, 0, -3))
    if gaussians == "gray":
        shown = cloud((0, 0, 1), 0.01, 5)
        shown = replace(shown, scales=torch.full((5, 3), 100.0), colors=torch.full((5, 3), 0.5))
    Scene(shown, camera).save(tmp_path / "scene")
    write_viewer(shown, tmp_path / "scene/index.html", camera)
    monkeypatch.setattr(verification, "open_browser", lambda: nullcontext(None))
    monkeypatch.setattr(
        verification, "take_shots", lambda browser, page, cameras, name: verification._draw(shown, cameras)
    )
    found = verification.verify_scene(tmp_path / "scene", views=2, size=64, seconds=0.0)
    assert found.empty and not found.agrees and found.as_json()["psnr"] == verification.MOST_PSNR


def test_views_turn_around_the_unit():
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 64, 64)[None], 64, 64)
    near, far = choose_views(camera, 3, 64), choose_views(camera, 3, 64, 8.0)
    torch.testing.assert_close(8 * near.centers, far.centers)
