import numpy as np
import pytest

from lyra.worlds.interiors import box_triangles
from lyra.worlds.map_views import look
from lyra.worlds.meshes import Mesh, build_textures, mip_chain, unlit_mesh
from lyra.worlds.rasterizing import NOTHING, Lens, find_surfaces, surface_colors, triangle_normals

WHITE = np.full((4, 4, 4), 255, np.uint8)


def mesh_of(vertices, uv=None, image=WHITE) -> Mesh:
    count = len(vertices)
    uv = np.zeros((count, 3, 2)) if uv is None else uv
    zeros = np.zeros(count, int)
    return unlit_mesh(
        np.asarray(vertices, float), uv, zeros, np.ones((count, 3)), zeros, build_textures([mip_chain(image)])
    )


def rays(lens: Lens) -> np.ndarray:
    x = (np.arange(lens.width) + 0.5 - lens.width / 2) / lens.focal
    y = (np.arange(lens.height) + 0.5 - lens.height / 2) / lens.focal
    return np.stack([*np.meshgrid(x, y), np.ones((lens.height, lens.width))], -1)


def test_a_floor_that_runs_under_the_camera_has_its_closed_form_depth():
    floor = [[[-50, 1.5, -50], [50, 1.5, -50], [50, 1.5, 50]], [[-50, 1.5, -50], [50, 1.5, 50], [-50, 1.5, 50]]]
    lens = Lens(look(0.4, 0.5, 0.1), np.array([0.2, 0.0, -0.3]), 60.0, 48, 64)
    surfaces = find_surfaces(mesh_of(floor), lens)
    down = rays(lens) @ lens.rotation[:, 1]
    expected = np.where(down > 0, 1.5 / np.where(down > 0, down, 1), np.inf)
    near = expected < 30
    assert near.mean() > 0.8
    np.testing.assert_allclose(surfaces.depth[near], expected[near], rtol=1e-5)
    np.testing.assert_allclose(triangle_normals(mesh_of(floor), lens)[0], -lens.rotation[:, 1], atol=1e-6)


def test_a_box_hides_what_is_behind_it_and_leaves_no_cracks():
    faces, _ = box_triangles((0.5, 0.5, 0.5), 1.0)
    wall = [[[-9, -9, 5], [9, -9, 5], [9, 9, 5]], [[-9, -9, 5], [9, 9, 5], [-9, 9, 5]]]
    lens = Lens(np.eye(3), np.array([0.0, 0.0, -2.0]), 50.0, 40, 40)
    depth = find_surfaces(mesh_of(np.concatenate([faces, wall])), lens).depth
    # The front face of the box is 1.5 away and reaches a third of that to every side.
    inside = (np.abs(rays(lens)[..., :2]) < 1 / 3).all(-1)
    np.testing.assert_allclose(depth[inside], 1.5, rtol=1e-6)
    np.testing.assert_allclose(depth[~inside], 7.0, rtol=1e-6)


def test_textures_are_perspective_correct_and_averaged_far_away():
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 4))
    ramp[..., 3] = 255
    quad = np.array([[-1, 1, 2], [1, 1, 2], [1, 1, 10], [-1, 1, 10]], float)
    places = np.array([[0.25, 0], [0.75, 0], [0.75, 1], [0.25, 1]])
    fans = [[0, 1, 2], [0, 2, 3]]
    mesh = mesh_of(quad[fans], places[fans], ramp)
    lens = Lens(np.eye(3), np.zeros(3), 64.0, 96, 64)
    surfaces = find_surfaces(mesh, lens)
    color = surface_colors(mesh, lens, surfaces)[..., 0]
    x = rays(lens)[..., 0] * surfaces.depth
    seen = (surfaces.triangle != NOTHING) & (np.abs(x) < 0.8)
    np.testing.assert_allclose(color[seen], (0.5 + x / 4)[seen], atol=0.04)
    checks = np.kron(np.indices((32, 32)).sum(0) % 2 * 255, np.ones((2, 2))).astype(np.uint8)
    checks = np.dstack([checks, checks, checks, np.full_like(checks, 255)])
    wall = np.array([[-4, -4, 30], [4, -4, 30], [4, 4, 30], [-4, 4, 30]], float)
    mesh = mesh_of(wall[fans], np.array([[0, 0], [8, 0], [8, 8], [0, 8]], float)[fans], checks)
    surfaces = find_surfaces(mesh, lens)
    far = surface_colors(mesh, lens, surfaces)[surfaces.triangle != NOTHING]
    assert abs(far.mean() - 0.5) < 0.05 and far.std() < 0.15


@pytest.mark.parametrize("opaque", [True, False])
def test_holes_of_a_texture_let_the_ray_through(opaque: bool):
    image = np.full((8, 8, 4), 255, np.uint8)
    image[:, :4, 3] = 255 if opaque else 0
    quad = np.array([[-1, -1, 2], [1, -1, 2], [1, 1, 2], [-1, 1, 2]], float)
    places = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    fans = [[0, 1, 2], [0, 2, 3]]
    triangle = find_surfaces(
        mesh_of(quad[fans], places[fans], image), Lens(np.eye(3), np.zeros(3), 20.0, 16, 16)
    ).triangle
    assert (triangle[:, :8] != NOTHING).all() == opaque
    assert (triangle[:, 8:] != NOTHING).all()
