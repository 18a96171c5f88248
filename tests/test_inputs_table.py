"""Every row of the tables in docs/inputs.md, tried."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import test_foreign_cameras as foreign
from PIL import Image
from test_videos import level_picture, write_video

from lyra.errors import LyraError
from lyra.files import load_cameras, save_cameras, save_video
from lyra.files.films import check_film_name
from lyra.files.lenses import read_distortion
from lyra.files.photos import load_photo, load_posed_photos
from lyra.files.videos import is_video, load_video
from lyra.geometry.cameras import Cameras

DOCUMENT = (Path(__file__).parents[1] / "docs/inputs.md").read_text()


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the table under a first cell's heading, by their first cell."""
    rows: dict[str, list[str]] = {}
    lines = DOCUMENT.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        rows[first.replace("`", "")] = rest
    return rows


PILLOW = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000"}
CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "ffv1", ".webm": "libvpx", ".avi": "mpeg4"}
PHOTO = Image.fromarray(np.linspace(0, 255, 64 * 48 * 3).astype(np.uint8).reshape(48, 64, 3))


def write_input(path: Path) -> None:
    if path.suffix in CODECS:
        write_video(path, [level_picture(20 * i) for i in range(5)], CODECS[path.suffix])
    elif path.suffix == ".heic":
        pytest.importorskip("pillow_heif", reason="needs the extra photos").from_pillow(PHOTO).save(path)
    elif path.suffix == ".dng":
        pytest.skip("no writer of raw photos is at hand; tests/test_file_kinds.py reads one")
    elif path.suffix in (".svg", ".psd", ".pdf", ".mp3"):
        heads = {".svg": b"<svg/>", ".psd": b"8BPS\0\1", ".pdf": b"%PDF-1.7", ".mp3": b"ID3\4"}
        path.write_bytes(heads[path.suffix] + bytes(200))
    else:
        PHOTO.save(path, PILLOW.get(path.suffix))


@pytest.mark.parametrize("suffix", table("input"))
def test_inputs(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    write_input(path)
    assert is_video(path) == (suffix in CODECS)
    if table("input")[suffix][0] == "no":
        with pytest.raises(LyraError, match="no photo that can be read"):
            load_photo(path, 32, 32)
    elif suffix in CODECS:
        assert load_video(path, 32, 48, 3).frames.std() > 0.05
    else:
        assert load_photo(path, 32, 32).image.std() > 0.05


def cameras() -> Cameras:
    import torch

    poses = torch.from_numpy(foreign.poses().astype(np.float32))
    return Cameras(poses, torch.tensor([[500.0, 510, 320, 240]]).repeat(4, 1), 480, 640)


def write_ours(folder: Path) -> Path:
    save_cameras(cameras(), folder / "cameras.json")
    return folder / "cameras.json"


def write_transforms(folder: Path) -> Path:
    frames = []
    for number, pose in enumerate(foreign.poses()):
        PHOTO.resize((640, 480)).save(folder / f"{number}.png")
        frames.append({"file_path": f"{number}.png", "transform_matrix": (pose @ foreign.OPENGL).tolist()})
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 500, "fl_y": 510, "frames": frames}))
    return folder / "transforms.json"


def write_npz(folder: Path) -> Path:
    for name, data in (("pose", foreign.poses()), ("intrinsics", np.tile([500.0, 510, 320, 240], (4, 1)))):
        (folder / name).mkdir()
        np.savez(folder / name / "a.npz", data=data, inds=np.arange(4))
    return folder / "pose/a.npz"


FILES = {
    "lyra cameras.json": write_ours,
    "nerfstudio transforms.json": write_transforms,
    "nerfstudio camera_path.json": foreign.camera_path,
    "3DGS cameras.json": foreign.trained,
    "COLMAP images.txt": lambda folder: foreign.write_model(folder, "txt") / "images.txt",
    "COLMAP images.bin": lambda folder: foreign.write_model(folder, "bin") / "images.bin",
    "RealEstate10K .txt": foreign.real_estate,
    "ViPE .npz": write_npz,
}


@pytest.mark.parametrize("name", table("file"))
@pytest.mark.filterwarnings("ignore::lyra.errors.LyraWarning")
def test_camera_files(tmp_path: Path, name: str):
    path = FILES[name](tmp_path)
    as_input, as_path = table("file")[name][:2]
    assert as_path == "yes" and len(load_cameras(path, 48, 64)) in (3, 4)
    if as_input == "yes":
        assert len(load_posed_photos(path, 48, 64)[0]) == 4
    else:
        with pytest.raises(LyraError):
            load_posed_photos(path, 48, 64)


def test_every_kind_of_camera_file_is_in_the_table():
    assert set(table("file")) == set(FILES)


def test_lenses():
    for names, (done,) in table("lens of posed photos and videos").items():
        for model in re.findall(r"[A-Z_]{3,}", names):
            entry = {"camera_model": model, "k1": 0.1}
            if done == "refused":
                with pytest.raises(LyraError, match=model):
                    read_distortion(entry)
            else:
                assert read_distortion(entry).radial[0] == 0.1


@pytest.mark.parametrize("name", table("name"))
def test_films(tmp_path: Path, name: str):
    if table("name")[name][0] == "no":
        with pytest.raises(LyraError, match="film"):
            check_film_name(tmp_path / name)
        return
    frames = np.stack([level_picture(20 * i).transpose(2, 0, 1) for i in range(3)])
    save_video(frames, tmp_path / name, 12)
    assert len(list(tmp_path.iterdir())) == (3 if "%" in name else 1)
