import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lyra.errors import LyraError
from lyra.worlds.map_views import look, map_views, worth
from lyra.worlds.maps import MapArchive, held_out, read_map
from lyra.worlds.rasterizing import Lens, find_surfaces, stored_light


def quad_map(flags: int = 0, luxels: bytes = bytes(range(24)), entities: str = "") -> bytes:
    """One upright square of 64 x 64 units at x = 128, its texture one texel a unit, 2 x 2 luxels 64 texels apart."""
    corners = np.array([[128, 0, 0], [128, 64, 0], [128, 64, 64], [128, 0, 64]], "<f4")
    texture = struct.pack("<8fII32s", 0, 1, 0, 0, 0, 0, -1, 64, flags, 0, b"tex_base/wall")
    face = struct.pack("<HhihHii", 0, 0, 0, 4, 0, 1, 1)
    lumps = {
        0: entities.encode(),
        2: corners.tobytes(),
        5: texture,
        6: face,
        7: bytes([6]) + luxels,
        8: bytes([6]) + luxels,
        11: struct.pack("<8H", 0, 1, 1, 2, 2, 3, 0, 3),
        12: struct.pack("<4i", 0, 1, 2, -3),
    }
    table, body, at = b"", b"", 8 + 17 * 8
    for index in range(17):
        content = lumps.get(index, b"")
        table += struct.pack("<2i", at + len(body), len(content))
        body += content
    return b"IBSP" + struct.pack("<i", 78) + table + body


@pytest.fixture
def archive(tmp_path: Path) -> MapArchive:
    entities = '{\n"classname" "info_player_start"\n"origin" "0 32 64"\n}\n{\n"classname" "light"\n"origin" "1 2 3"\n}'
    with zipfile.ZipFile(tmp_path / "0maps.pk3", "w") as maps:
        maps.writestr("maps/one.bsp", quad_map(entities=entities))
        maps.writestr("maps/hidden.bsp", quad_map(flags=0x80))
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 100, 50)).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "0textures.pk3", "w") as textures:
        textures.writestr("textures/tex_base/wall.png", picture.getvalue())
    return MapArchive(tmp_path)


def test_a_face_becomes_triangles_in_metres_with_y_down(archive: MapArchive):
    mesh, spawns = archive.load("maps/one.bsp")
    assert len(mesh) == 2
    # The fourth edge runs backwards, from vertex 3 to 0.
    np.testing.assert_allclose(mesh.vertices[0], [[4, 0, 0], [4, 0, 2], [4, -2, 2]])
    np.testing.assert_allclose(mesh.vertices[1], [[4, 0, 0], [4, -2, 2], [4, -2, 0]])
    np.testing.assert_allclose(mesh.uv[0], [[0, 1], [1, 1], [1, 0]])
    np.testing.assert_allclose(spawns, [[0, -2, 1]])


def test_stored_light_lies_where_the_texture_positions_say(archive: MapArchive):
    mesh, _ = archive.load("maps/one.bsp")
    np.testing.assert_array_equal(mesh.light_size, [[2, 2]] * 2)
    lens = Lens(look(np.pi / 2, 0.0, 0.0), np.array([0.0, -1.0, 1.0]), 64.0, 32, 32)
    light = stored_light(mesh, find_surfaces(mesh, lens))
    # Luxels have six bytes, of which the first three are colors: 0, 6, 12 and 18 are red.
    for row, column, red in ((0, 31, 0), (0, 0, 6), (31, 31, 12), (31, 0, 18)):
        assert abs(light[row, column, 0] * 255 - red) < 0.5


def test_what_nobody_sees_is_left_out_and_other_files_are_refused(archive: MapArchive, tmp_path: Path):
    with pytest.raises(LyraError, match="shows nothing"):
        archive.load("maps/hidden.bsp")
    with pytest.raises(LyraError, match="not a map"):
        read_map(b"PNG", "x")
    with pytest.raises(LyraError, match="damaged"):
        read_map(quad_map()[:-3], "x")
    with pytest.raises(LyraError, match="install"):
        MapArchive(tmp_path / "nowhere")


def test_a_tenth_of_the_maps_is_held_out():
    names = [f"maps/{a}_{b}.bsp" for a in "abcdefghij" for b in range(100)]
    assert 0.07 < np.mean([held_out(name) for name in names]) < 0.13


def test_a_camera_before_a_lonely_wall_is_not_worth_a_picture(archive: MapArchive):
    mesh, spawns = archive.load("maps/one.bsp")
    lens = Lens(look(np.pi / 2, 0.0, 0.0), np.array([0.0, -1.0, 1.0]), 20.0, 32, 32)
    assert worth(mesh, find_surfaces(mesh, lens), lens) == 0
    assert list(map_views(mesh, spawns, 1, seed=0, side=32)) == []
