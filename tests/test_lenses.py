"""Lenses that bend lines: against OpenCV's numbers, on pictures drawn through them, and those that are refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from lyra.errors import LyraError
from lyra.files.lenses import Distortion, Lens, distortion_of, straighten, straighten_picture
from lyra.files.photos import load_posed_photos

POINTS = np.array([[0.1, -0.2], [0.45, 0.3], [-0.5, 0.05]])
COEFFICIENTS = {"k1": -0.2, "k2": 0.05, "p1": 0.001, "p2": -0.002, "k3": 0.01}
# cv2.projectPoints and cv2.fisheye.distortPoints (OpenCV 5.0) with fx 500, fy 510, cx 320, cy 240.
OPENCV = [
    ("OPENCV", COEFFICIENTS, [[369.416312, 139.114222], [532.293815, 384.707869], [81.010301, 264.479969]]),
    (
        "FULL_OPENCV",
        {**COEFFICIENTS, "k4": 0.02, "k5": -0.03, "k6": 0.004},
        [[369.370537, 139.207605], [531.576062, 384.219797], [81.770552, 264.402424]],
    ),
    (
        "OPENCV_FISHEYE",
        {"k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": -0.0005},
        [[369.261083, 139.50739], [527.658049, 381.207473], [86.932668, 263.772868]],
    ),
]


@pytest.mark.parametrize(("model", "values", "expected"), OPENCV)
def test_bent_points_are_opencvs(model: str, values: dict[str, float], expected: list[list[float]]):
    x, y = distortion_of(model, values).bend(*POINTS.T)
    np.testing.assert_allclose(np.stack([500 * x + 320, 510 * y + 240], axis=1), expected, atol=2e-6)


LENSES = {
    "barrel": Distortion((-0.25, 0.06)),
    "pincushion": Distortion((0.2,)),
    "tangential": Distortion((-0.1,), (0.01, -0.02)),
    "rational": Distortion((0.1, 0.02, 0.0), (0.0, 0.0), (0.3, 0.05, 0.0)),
    "fisheye": Distortion((0.02, -0.003), fisheye=True),
    "wide fisheye": Distortion(fisheye=True),
}


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth colors by the direction of a ray."""
    return np.stack([0.5 + 0.4 * np.sin(9 * x), 0.5 + 0.4 * np.cos(8 * y), 0.5 + 0.4 * np.sin(6 * (x + y))], axis=-1)


def unbend(distortion: Distortion, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By fixed-point steps: an inverse that does not share the code under test's own direction."""
    u, v = x.copy(), y.copy()
    for _ in range(400):
        bent = distortion.bend(u, v)
        u, v = u + 0.5 * (x - bent[0]), v + 0.5 * (y - bent[1])
    return u, v


def picture_through(lens: Lens) -> Image.Image:
    """What a lens takes of the scene."""
    fx, fy, cx, cy = lens.intrinsics
    v, u = np.mgrid[: int(lens.height), : int(lens.width)] + 0.5
    return Image.fromarray(
        np.rint(255 * scene(*unbend(lens.distortion, (u - cx) / fx, (v - cy) / fy))).astype(np.uint8)
    )


@pytest.mark.parametrize("name", LENSES)
def test_a_straightened_picture_is_a_pinholes(name: str):
    lens = Lens(160, 120, np.array([130.0, 128.0, 83.0, 57.0]), LENSES[name])
    straight = straighten(lens)
    assert straight.distortion.straight
    found = np.asarray(straighten_picture(picture_through(lens), lens), dtype=np.float64)
    fx, fy, cx, cy = straight.intrinsics
    v, u = np.mgrid[:120, :160] + 0.5
    expected = 255 * scene((u - cx) / fx, (v - cy) / fy)
    # Everywhere, the corners too: nothing of it is empty.
    assert np.abs(found - expected).mean() < 1.0
    assert np.abs(found - expected).max() < 12


def test_a_pinhole_stays_as_it_is_and_a_lens_that_bends_back_is_refused():
    plain = Lens(160, 120, np.array([130.0, 130.0, 80.0, 60.0]))
    assert straighten(plain) is plain
    with pytest.raises(LyraError, match="cannot be undone"):
        straighten(Lens(160, 120, np.array([130.0, 130.0, 80.0, 60.0]), Distortion((-40.0,))))


def write_posed(folder: Path, pictures: list[Image.Image], **settings) -> Path:
    frames = []
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
        pose = np.eye(4)
        pose[0, 3] = number / 10
        frames.append({"file_path": f"{number}.png", "transform_matrix": pose.tolist()})
    path = folder / "transforms.json"
    path.write_text(json.dumps({**settings, "frames": frames}))
    return path


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
def test_posed_photos_are_straightened_with_their_cameras(tmp_path: Path, model: str):
    distortion = distortion_of(model, {"k1": -0.2, "k2": 0.03})
    lens = Lens(160, 120, np.array([130.0, 130.0, 80.0, 60.0]), distortion)
    path = write_posed(
        tmp_path, [picture_through(lens)] * 2, camera_model=model, k1=-0.2, k2=0.03, fl_x=130, fl_y=130, cx=80, cy=60
    )
    photos, cameras = load_posed_photos(path, 120, 160)
    fx, fy, cx, cy = cameras.intrinsics[0].double().tolist()
    v, u = np.mgrid[:120, :160] + 0.5
    expected = scene((u - cx) / fx, (v - cy) / fy)
    assert np.abs(photos[0].image.permute(1, 2, 0).numpy() - expected).mean() < 0.005
    assert "its lens distortion was undone" in photos[0].notes


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        ({"camera_model": "OMNIDIRECTIONALSTEREO_L"}, "OMNIDIRECTIONALSTEREO_L"),
        ({"camera_model": "THIN_PRISM_FISHEYE"}, "THIN_PRISM_FISHEYE"),
        ({"camera_model": "something new"}, "SOMETHING NEW"),
        ({"ftheta_p0": 1.0}, "FTHETA"),
        ({"k1": "strong"}, "no numbers"),
        ({"k1": -40.0}, "cannot be undone"),
    ],
)
def test_what_cannot_be_undone_is_refused_by_name(tmp_path: Path, settings: dict, word: str):
    path = write_posed(tmp_path, [Image.new("RGB", (64, 48), "gray")], fl_x=60.0, **settings)
    with pytest.raises(LyraError, match=rf"frame 0 \(0\.png\) .*{word}") as caught:
        load_posed_photos(path, 32, 32)
    assert "\n" not in str(caught.value)


def test_coefficients_may_stand_in_a_frame_a_list_or_be_zero(tmp_path: Path):
    blank = Image.new("RGB", (64, 48), "gray")
    plain = load_posed_photos(write_posed(tmp_path, [blank], fl_x=60.0, k1=0, k2=0.0, p1=0.0), 48, 64)
    assert plain[1].intrinsics[0, 0] == 60 and "its lens distortion was undone" not in plain[0][0].notes
    listed = write_posed(tmp_path, [blank], fl_x=60.0, distortion_params=[0.2, 0, 0, 0, 0, 0])
    content = json.loads(listed.read_text())
    found = load_posed_photos(listed, 48, 64)[1].intrinsics[0, 0]
    content["frames"][0]["k1"] = 0.2
    del content["distortion_params"]
    listed.write_text(json.dumps(content))
    assert found == load_posed_photos(listed, 48, 64)[1].intrinsics[0, 0] and found > 60


def turned_file(folder: Path, number: int, **settings) -> tuple[Path, Image.Image]:
    """A picture of 64 x 48 stored pixels with an EXIF orientation, and its camera."""
    generator = np.random.default_rng(0)
    stored = Image.fromarray(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    stored.save(folder / "a.png", exif=exif)
    pose = np.eye(4)
    pose[:3, :3] = [[1, 0, 0], [0, math.cos(0.3), -math.sin(0.3)], [0, math.sin(0.3), math.cos(0.3)]]
    frame = {"file_path": "a.png", "transform_matrix": pose.tolist()}
    path = folder / "t.json"
    path.write_text(json.dumps({"fl_x": 70.0, "fl_y": 75.0, "cx": 30.0, "cy": 25.0, **settings, "frames": [frame]}))
    return path, stored


@pytest.mark.parametrize("number", [3, 6, 8])
@pytest.mark.parametrize("sized", [True, False])
def test_a_camera_turns_with_its_photo(tmp_path: Path, number: int, sized: bool):
    path, _ = turned_file(tmp_path, number, **({"w": 64, "h": 48} if sized else {}))
    (photo,), cameras = load_posed_photos(path, 48, 48)
    assert photo.source_size == ((64, 48) if number == 3 else (48, 64))
    fx, fy = cameras.intrinsics[0, :2].tolist()
    assert (fx, fy) == ((70, 75) if number == 3 else (75, 70))
    # The stored picture's right is the shown one's left, down or up; y is up in the file, and turned by 0.3 radians.
    right = cameras.camera_to_world[0, :3, 0].double().numpy()
    down = np.array([0, -math.cos(0.3), -math.sin(0.3)])
    expected = {3: np.array([-1.0, 0, 0]), 6: -down, 8: down}[number]
    np.testing.assert_allclose(right, expected, atol=1e-6)


def test_a_camera_of_the_upright_photo_stays_and_a_mirrored_one_is_refused(tmp_path: Path):
    path, _ = turned_file(tmp_path, 6, w=48, h=64, cx=24, cy=32)
    cameras = load_posed_photos(path, 48, 48)[1]
    assert cameras.intrinsics[0].tolist() == [70, 75, 24, 24]
    np.testing.assert_allclose(cameras.camera_to_world[0, :3, 0], [1, 0, 0], atol=1e-6)
    for number in (2, 4, 5, 7):
        path, _ = turned_file(tmp_path, number, w=64, h=48)
        with pytest.raises(LyraError, match="mirrors"):
            load_posed_photos(path, 48, 48)


def test_a_turned_photo_of_others(faults: Path):
    photos, cameras = load_posed_photos(faults / "posed_exif6/exif6.json", 32, 32)
    assert photos[0].source_size == (480, 640)
    # Its axes were the identity in OpenGL's; turned clockwise, right is where up was stored.
    np.testing.assert_allclose(cameras.camera_to_world[0, :3, 0], [0, 1, 0], atol=1e-6)
    shorter = 2 * math.degrees(math.atan(16 / float(cameras.intrinsics[0, 0])))
    assert shorter == pytest.approx(38.56, abs=0.05)
