"""Camera files of other programs as paths and for films: COLMAP, 3DGS, nerfstudio's paths, RealEstate10K."""

import base64
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lyra.engine.paths import choose_paths
from lyra.errors import LyraError, LyraWarning
from lyra.files import load_cameras
from lyra.scene.film import choose_cameras
from lyra.scene.scene import Scene

# Written by pycolmap 4.2.1: three pictures, whose names are not in the order of their numbers.
IMAGES_TXT = """# Image list with two lines of data per image:
#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME
#   POINTS2D[] as (X, Y, POINT3D_ID)
# Number of images: 3, mean observations per image: 0
1 0.97940421374878361 0 0.19588084274975673 0.048970210687439182 1 0 0 3 b.png

2 0.97474035765715861 0.097474035765715866 0.19494807153143173 0.048737017882857933 0.1 0.2 0.3 3 a b.png

3 0.9611386626644256 0.19222773253288511 0.19222773253288511 0.048056933133221277 0 0 2 3 c.png

"""
CAMERAS_TXT = "# Number of cameras: 1\n3 OPENCV 640 480 500 510 320 240 -0.2 0.05 0.001 -0.002\n"
IMAGES_BIN = zlib.decompress(
    base64.b64decode(
        "eNpjZoAARiBW31zc6B7+3h4qxLDz66FZ84VO2kPolVDxD3B5GGAG4iS9grx0uAgTEC8POr5ByPC9fduKS5/5vuyA0ieg9Ar7WTNBYCeUPmlvDA"
        "aX7UGmJSqgmgcS6xBOurf04Dt7tjI/idezTqDRKzBcBQUOIL3JKKYBAGgvQTI="
    )
)
CAMERAS_BIN = zlib.decompress(
    base64.b64decode("eNpjZIAAZiBmAeIGJgj/ASMDAjjUO0AEoTRDCZTOc5g1EwRO7ofQK+3/rPx4yTcpAEon7AcAca8Y5g==")
)
# pycolmap's own inverse of cam_from_world, in the order of the names.
CAMERA_TO_WORLD = np.array(
    [
        *([0.91924, 0.13302, -0.37055, -0.00736], [-0.05701, 0.97625, 0.20903, -0.25226]),
        *([0.38955, -0.17102, 0.90499, -0.27625], [0.91847, 0.09592, -0.38369, -0.91847]),
        *([-0.09592, 0.9952, 0.01918, 0.09592], [0.38369, 0.01918, 0.92326, -0.38369]),
        *([0.92148, 0.16628, -0.35104, 0.70208], [-0.01848, 0.92148, 0.38799, -0.77598]),
        [0.38799, -0.35104, 0.85219, -1.70439],
    ]
).reshape(3, 3, 4)


def write_model(folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "txt":
        (folder / "images.txt").write_text(IMAGES_TXT)
        (folder / "cameras.txt").write_text(CAMERAS_TXT)
    else:
        (folder / "images.bin").write_bytes(IMAGES_BIN)
        (folder / "cameras.bin").write_bytes(CAMERAS_BIN)
    return folder


@pytest.mark.parametrize("kind", ["txt", "bin"])
@pytest.mark.parametrize("name", [".", "images", "cameras"])
def test_colmaps_models_are_read_in_the_order_of_their_pictures(tmp_path: Path, kind: str, name: str):
    folder = write_model(tmp_path / "sparse/0", kind)
    path = folder if name == "." else folder / f"{name}.{kind}"
    with pytest.warns(LyraWarning, match="distortion"):
        cameras = load_cameras(path, 240, 320)
    np.testing.assert_allclose(cameras.camera_to_world[:, :3], CAMERA_TO_WORLD, atol=1e-5)
    assert cameras.intrinsics[0].tolist() == pytest.approx([250, 255, 160, 120])


def test_colmaps_points_and_other_models(tmp_path: Path):
    folder = write_model(tmp_path, "txt")
    lines = IMAGES_TXT.splitlines()
    lines[5] = "10.5 20.5 -1 30.5 40.5 7"
    lines[4] = lines[4].replace(" 3 b.png", " 4 b.png")
    (folder / "images.txt").write_text("\n".join(lines))
    (folder / "cameras.txt").write_text("3 SIMPLE_PINHOLE 640 480 500 320 240\n4 PINHOLE 320 240 250 255 160 120\n")
    cameras = load_cameras(folder, 240, 320)
    assert cameras.intrinsics.tolist() == [[250, 250, 160, 120], [250, 255, 160, 120], [250, 250, 160, 120]]
    (folder / "cameras.txt").write_text("3 FOV 640 480 500 500 320 240 0.1\n4 PINHOLE 320 240 250 255 160 120\n")
    with pytest.raises(LyraError, match=r"picture a b\.png .*FOV"):
        load_cameras(folder, 240, 320)


@pytest.mark.parametrize("kind", ["txt", "bin"])
def test_a_damaged_model_is_one_line(tmp_path: Path, kind: str):
    folder = write_model(tmp_path, kind)
    images = folder / f"images.{kind}"
    whole = images.read_bytes()
    for data in (whole[: len(whole) // 2], whole.replace(b" 3 ", b" 9 ") if kind == "txt" else b"\xff" * 40, b"\x07"):
        images.write_bytes(data)
        with pytest.raises(LyraError, match=r"COLMAP model|holds no cameras") as caught:
            load_cameras(folder, 48, 64)
        assert "\n" not in str(caught.value)
    images.write_bytes(whole)
    (folder / f"cameras.{kind}").unlink()
    with pytest.raises(LyraError, match=r"cameras.* does not exist"):
        load_cameras(folder, 48, 64)


def poses(count: int = 4) -> np.ndarray:
    """Camera-to-world in OpenCV axes that turn and move."""
    result = np.tile(np.eye(4), (count, 1, 1))
    for i in range(count):
        angle = 0.1 * i
        result[i, :3, :3] = [
            [math.cos(angle), 0, math.sin(angle)],
            [0, 1, 0],
            [-math.sin(angle), 0, math.cos(angle)],
        ]
        result[i, :3, 3] = [0.1 * i, -0.05 * i, 0.02 * i]
    return result


OPENGL = np.diag([1.0, -1, -1, 1])


def trained(folder: Path) -> Path:
    """As 3DGS training writes ``cameras.json``."""
    entries = [
        {
            "id": i,
            "img_name": f"{i:03d}.jpg",
            "width": 640,
            "height": 480,
            "position": pose[:3, 3].tolist(),
            "rotation": [row.tolist() for row in pose[:3, :3]],
            "fy": 510.0,
            "fx": 500.0,
        }
        for i, pose in enumerate(poses())
    ]
    (folder / "cameras.json").write_text(json.dumps(entries))
    return folder / "cameras.json"


def camera_path(folder: Path) -> Path:
    """As nerfstudio's viewer exports a path: vertical fields of view, flat matrices in OpenGL's axes."""
    fov = math.degrees(2 * math.atan(240 / 510))
    shots = [{"camera_to_world": (pose @ OPENGL).ravel().tolist(), "fov": fov, "aspect": 4 / 3} for pose in poses()]
    content = {"camera_type": "perspective", "render_height": 480, "render_width": 640, "camera_path": shots}
    (folder / "path.json").write_text(json.dumps({**content, "fps": 24, "seconds": 4, "keyframes": []}))
    return folder / "path.json"


def real_estate(folder: Path) -> Path:
    """As RealEstate10K lists a film's cameras."""
    lines = ["https://www.youtube.com/watch?v=0"]
    for i, pose in enumerate(poses()):
        view = np.linalg.inv(pose)[:3]
        numbers = [510 / 640, 510 / 480, 0.5, 0.5, 0.0, 0.0, *view.ravel()]
        lines.append(" ".join([str(33366 * i), *(f"{number:.9f}" for number in numbers)]))
    (folder / "0a1b2c.txt").write_text("\n".join(lines) + "\n")
    return folder / "0a1b2c.txt"


@pytest.mark.parametrize("write", [trained, camera_path, real_estate])
def test_other_programs_cameras_are_read(tmp_path: Path, write):
    cameras = load_cameras(write(tmp_path), 240, 320)
    np.testing.assert_allclose(cameras.camera_to_world, poses(), atol=1e-6)
    fx = 250 if write is trained else 255
    assert cameras.intrinsics[0].tolist() == pytest.approx([fx, 255, 160, 120], abs=1e-3)
    # A square is the middle of the picture.
    assert load_cameras(tmp_path / write(tmp_path).name, 240, 240).intrinsics[0].tolist() == pytest.approx(
        [fx, 255, 120, 120], abs=1e-3
    )


@pytest.mark.parametrize("write", [trained, camera_path, real_estate, lambda folder: write_model(folder / "m", "bin")])
@pytest.mark.filterwarnings("ignore::lyra.errors.LyraWarning")
def test_they_are_taken_as_paths_and_for_films(tmp_path: Path, write):
    file = write(tmp_path)
    (path,) = choose_paths([str(file)], 0, 1.0, "path", 9, 32, 32)
    assert len(path.cameras) == 9 and torch.equal(path.cameras.camera_to_world[0], torch.eye(4))
    scene = Scene.load(_scene(tmp_path / "scene"))
    cameras = choose_cameras(scene, str(file), 4, 64)
    assert cameras.height == 64 and len(cameras) in (3, 4)


def _scene(folder: Path) -> Path:
    from test_verification import CAMERA, wall

    Scene(wall(8.0, 1.0), CAMERA).save(folder)
    return folder


def test_what_is_odd_in_them_is_one_line(tmp_path: Path):
    (tmp_path / "words.txt").write_text("these are words\nand more\n")
    (tmp_path / "empty.txt").write_text("https://example.org\n")
    entries = json.loads(trained(tmp_path).read_text())
    (tmp_path / "bad.json").write_text(json.dumps([{**entries[0], "position": [1, 2]}]))
    path = json.loads(camera_path(tmp_path).read_text())
    (tmp_path / "fish.json").write_text(json.dumps({**path, "camera_type": "fisheye"}))
    (tmp_path / "shot.json").write_text(json.dumps({**path, "camera_path": [{"fov": 50}]}))
    for name, words in [
        ("words.txt", "no text of cameras"),
        ("empty.txt", "holds no cameras"),
        ("bad.json", "camera 0 has no rotation"),
        ("fish.json", "fisheye cameras: export it as perspective"),
        ("shot.json", "camera 0 has no camera_to_world"),
    ]:
        with pytest.raises(LyraError, match=words) as caught:
            load_cameras(tmp_path / name, 32, 32)
        assert name in str(caught.value) and "\n" not in str(caught.value)
