"""COLMAP's sparse models, text and binary: poses in the order of their pictures' names.

Source: COLMAP's documentation of its output format; ``camera models`` of its ``src/colmap/sensor/models.h``.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading
from lyra.files.camera_frames import Frame
from lyra.files.lenses import Distortion, distortion_of

MODELS = (
    ("SIMPLE_PINHOLE", ("f", "cx", "cy")),
    ("PINHOLE", ("fx", "fy", "cx", "cy")),
    ("SIMPLE_RADIAL", ("f", "cx", "cy", "k1")),
    ("RADIAL", ("f", "cx", "cy", "k1", "k2")),
    ("OPENCV", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")),
    ("OPENCV_FISHEYE", ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4")),
    ("FULL_OPENCV", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    ("FOV", ("fx", "fy", "cx", "cy", "omega")),
    ("SIMPLE_RADIAL_FISHEYE", ("f", "cx", "cy", "k1")),
    ("RADIAL_FISHEYE", ("f", "cx", "cy", "k1", "k2")),
    ("THIN_PRISM_FISHEYE", ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1")),
)
"""Names and parameters, in the order of the numbers that binary files hold."""
_NOT_UNDONE = ("FOV", "THIN_PRISM_FISHEYE")
_LARGEST_FILE = 4 << 30


@dataclass(frozen=True)
class _Camera:
    model: str
    width: int
    height: int
    values: dict[str, float]

    @property
    def intrinsics(self) -> list[float]:
        values = self.values
        return [
            values.get("fx", values.get("f", 0.0)),
            values.get("fy", values.get("f", 0.0)),
            values["cx"],
            values["cy"],
        ]


@dataclass(frozen=True)
class _Image:
    name: str
    camera: int
    quaternion: tuple[float, ...]
    """w, x, y, z of world_to_camera."""
    translation: tuple[float, ...]


def is_model(path: Path) -> bool:
    """Whether a path is a sparse model: its folder, or one of the files of cameras and pictures in it."""
    if path.is_dir():
        return any((path / f"images.{kind}").is_file() for kind in ("bin", "txt"))
    return path.name in ("images.bin", "images.txt", "cameras.bin", "cameras.txt")


def read_model(path: Path) -> list[Frame]:
    """The frames of a sparse model, in the order of their pictures' names.

    Args:
        path: Its folder, or one of its files: binary before text where there are both.

    Raises:
        LyraError: a file of it is missing or damaged, or has a lens that is not known.
    """
    folder = path if path.is_dir() else path.parent
    kind = path.suffix[1:] if path.is_file() else next(k for k in ("bin", "txt") if (folder / f"images.{k}").is_file())
    cameras_file, images_file = (folder / f"{name}.{kind}" for name in ("cameras", "images"))
    readers = (_binary_cameras, _binary_images) if kind == "bin" else (_text_cameras, _text_images)
    try:
        cameras = dict(readers[0](_read(cameras_file)))
        images = sorted(readers[1](_read(images_file)), key=lambda image: image.name)
        return [_frame(images_file, image, cameras[image.camera]) for image in images]
    except (ValueError, KeyError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise LyraError(f"{folder} holds a damaged COLMAP model ({images_file.name}): export it again") from error


def _read(path: Path) -> bytes:
    with explain_reading(path):
        if path.stat().st_size > _LARGEST_FILE:
            raise LyraError(f"{path} is too large for a model's cameras: give another")
        return path.read_bytes()


def _frame(path: Path, image: _Image, camera: _Camera) -> Frame:
    name = f"picture {image.name}"
    if camera.model in _NOT_UNDONE:
        raise LyraError(f"{path}: {name} has a lens of the model {camera.model}: run colmap image_undistorter first")
    pose = np.eye(4)
    rotation = _matrix(np.array(image.quaternion))
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ np.array(image.translation)
    distortion: Distortion = distortion_of(camera.model, camera.values)
    return Frame(name, pose, camera.intrinsics, camera.height, camera.width, distortion)


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation of w, x, y, z."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _text_cameras(data: bytes) -> Iterator[tuple[int, _Camera]]:
    names = dict(MODELS)
    for line in data.decode().splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            values = dict(zip(names[words[1]], map(float, words[4:]), strict=True))
            yield int(words[0]), _Camera(words[1], int(words[2]), int(words[3]), values)


def _text_images(data: bytes) -> Iterator[_Image]:
    """Two lines a picture; the second, its points, may be empty."""
    lines = [line for line in data.decode().splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    for line in lines[::2]:
        if line.strip():
            words = line.split(maxsplit=9)
            numbers = tuple(map(float, words[1:8]))
            yield _Image(words[9].strip(), int(words[8]), numbers[:4], numbers[4:])


def _binary_cameras(data: bytes) -> Iterator[tuple[int, _Camera]]:
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, kind, width, height = struct.unpack_from("<iiQQ", data, at)
        model, names = MODELS[kind]
        values = struct.unpack_from(f"<{len(names)}d", data, at + 24)
        at += 24 + 8 * len(names)
        yield number, _Camera(model, width, height, dict(zip(names, values, strict=True)))


def _binary_images(data: bytes) -> Iterator[_Image]:
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        numbers = struct.unpack_from("<7d", data, at + 4)
        (camera,) = struct.unpack_from("<i", data, at + 60)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode()
        (points,) = struct.unpack_from("<Q", data, end + 1)
        # Each point: x, y and the number of its track.
        at = end + 9 + 24 * points
        yield _Image(name, camera, numbers[:4], numbers[4:])
