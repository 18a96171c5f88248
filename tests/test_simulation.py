"""A scene for robots against worlds of closed form: a room of known size, seen and touched."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_harmonics import colorful

from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians
from lyra.simulation.ground import Ground, find_ground
from lyra.simulation.surfaces import Shots, own_cameras
from lyra.simulation.survey import Survey, by_camera_height, by_estimate, by_known_length, survey
from lyra.worlds import sample_world

pytest.importorskip("scipy")
CAMERA = Cameras(torch.eye(4)[None], intrinsics_from_fov(60.0, 96, 96)[None], 96, 96)
TILT = math.radians(20)
UP = np.array([0.0, -math.cos(TILT), -math.sin(TILT)])
"""The camera looks down by 20 degrees at ground 0.5 below it, and a wall that stands 2 in front of it."""


def room_shots() -> Shots:
    """Exact pictures of ground and wall."""
    cameras = own_cameras(CAMERA, 96, 2)
    from lyra.geometry.cameras import pixel_rays, z_depth_factor

    origins, directions = (values.double() for values in pixel_rays(cameras))
    up = torch.tensor(UP)
    ahead = torch.tensor([0.0, -math.sin(TILT), math.cos(TILT)], dtype=torch.float64)

    def meet(normal: torch.Tensor, offset: float) -> torch.Tensor:
        along = (offset - origins @ normal) / (directions @ normal)
        return torch.where(along > 0, along, torch.inf)

    distance = torch.minimum(meet(up, -0.5), meet(ahead, 2.0))
    depth = (distance / z_depth_factor(cameras)).float()
    color = torch.full((len(cameras), 3, 96, 96), 0.25)
    return Shots(cameras, color, depth, depth.isfinite())


def test_ground_and_metres():
    shots = room_shots()
    ground = find_ground(shots)
    assert np.dot(ground.up, UP) > math.cos(math.radians(0.5))
    assert ground.below_camera == pytest.approx(0.5, abs=0.005) and ground.confidence > 0.9
    assert survey(shots).source == "assumed" and survey(shots).uncertainty >= 0.25
    found = by_camera_height(ground, 1.0)
    assert found.metres_per_unit == pytest.approx(2.0, rel=0.01)
    rotation, shift, scale = found.similarity()
    camera, below = shift, scale * rotation @ torch.tensor(-0.5 * UP, dtype=torch.float32) + shift
    torch.testing.assert_close(camera, torch.tensor([0.0, -1.0, 0.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(below, torch.zeros(3), atol=0.01, rtol=0)
    assert Survey.from_json(found.as_json()) == found
    one, other = (shots.points()[0, row, column] for row, column in ((76, 28), (76, 67)))
    length = float((one - other).norm()) * 3.0
    known = by_known_length(found, shots, f"{28.5 / 96},{76.5 / 96}:{67.5 / 96},{76.5 / 96}:{length}m")
    assert known.metres_per_unit == pytest.approx(3.0, rel=0.02) and 0 < known.uncertainty < 0.1
    assert by_estimate(found, shots, shots.depth[0] * 1.7, "x").metres_per_unit == pytest.approx(1.7, rel=1e-4)
    for wrong in ("0,0:1", "0,0:2,0:1m", "0.5,0.5:0.5,0.5:1m", "a,b:0,0:1m"):
        with pytest.raises(LyraError, match="--known"):
            by_known_length(found, shots, wrong)


def test_up_is_found_in_a_traced_world():
    world = sample_world(50_003)
    cameras = own_cameras(CAMERA, 96, 1)
    from lyra.worlds.tracing import world_depth

    depth = world_depth(world, cameras)
    shots = Shots(cameras, torch.zeros(len(cameras), 3, 96, 96), depth, depth < 50)
    up = torch.tensor(find_ground(shots).up).float()
    # World.rotation turns world vectors into the room's, whose y is down.
    true = world.rotation.T @ torch.tensor([0.0, -1.0, 0.0])
    assert float(up @ true) > math.cos(math.radians(4))


def meshed():
    pytest.importorskip("skimage")
    pytest.importorskip("fast_simplification")
    from lyra.simulation.mesh import MeshOptions, mesh_shots

    shots = room_shots()
    return mesh_shots(shots, MeshOptions(triangles=4000), Ground(tuple(UP), -0.5, 1.0, 0.0))


def test_a_mesh_lies_on_the_surfaces(tmp_path):
    mesh = meshed()
    assert 100 < len(mesh.faces) <= 4000
    ahead = np.array([0.0, -math.sin(TILT), math.cos(TILT)])
    to_ground, to_wall = mesh.vertices @ UP + 0.5, mesh.vertices @ ahead - 2.0
    off = np.minimum(np.abs(to_ground), np.abs(to_wall))
    assert np.median(off) < 0.005 and np.quantile(off, 0.9) < 0.03
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = (normals * -corners.mean(1)).sum(1)
    assert (towards > 0).mean() > 0.95  # fronts face the camera
    trimesh = pytest.importorskip("trimesh")
    from lyra.simulation.mesh import save_mesh

    for kind in ("glb", "obj", "ply"):
        save_mesh(mesh, tmp_path / f"mesh.{kind}")
        back = trimesh.load(tmp_path / f"mesh.{kind}", force="mesh", process=False)
        assert len(back.faces) == len(mesh.faces)
        signs = [1, -1, -1] if kind == "glb" else [1, 1, 1]
        np.testing.assert_allclose(
            back.bounds, np.sort(np.array([mesh.vertices.min(0), mesh.vertices.max(0)]) * signs, 0), atol=1e-5
        )
    with pytest.raises(LyraError, match="no format"):
        save_mesh(mesh, tmp_path / "mesh.stl")


@pytest.fixture(scope="module")
def collider():
    from lyra.simulation.collider import Collider, to_world

    found = by_camera_height(Ground(tuple(UP), -0.5, 1.0, 0.0), 1.0)
    return Collider(to_world(meshed(), found))


def test_rays_and_balls_meet_ground_and_wall(collider):
    eye = np.array([[0.0, 0.0, 1.0]])
    rays = np.array([[0.0, 1.0, 0.0], [0.0, 0.6, -0.8]])
    np.testing.assert_allclose(collider.cast(eye.repeat(2, 0), rays), [4.0, 1.25], atol=0.05)
    assert collider.hits_sphere(np.array([0.0, 3.9, 1.0]), 0.15)
    assert not collider.hits_sphere(np.array([0.0, 3.0, 1.0]), 0.15)
    heights, _ = collider.ground_height(np.array([[0.0, 1.5], [0.2, 2.5]]))
    np.testing.assert_allclose(heights, 0, atol=0.03)


def test_a_walker_neither_falls_nor_hangs_and_stops_at_the_wall(collider):
    from lyra.simulation.walker import Walker

    rng = np.random.default_rng(0)
    walker = Walker.at(collider, 0.0, 1.5)
    for _ in range(60):
        walker, _ = walker.moved(collider, rng.uniform(-0.4, 0.4, 2))
        assert abs(walker.foot) < 0.06 and walker.stands(collider)
        assert walker.place[1] < 4.0 - walker.radius + 0.05
    walker, bumped = Walker.at(collider, 0.0, 2.0).moved(collider, np.array([0.0, 5.0]))
    assert bumped and 3.3 < walker.place[1] < 3.95


def test_convex_parts_hold_in_mujoco(collider, tmp_path):
    mujoco = pytest.importorskip("mujoco")
    from lyra.simulation.mujoco_model import camera_of, save_mjcf

    parts = collider.parts()
    path = save_mjcf(parts, tmp_path, robot=(0.0, 1.0))
    model = mujoco.MjModel.from_xml_path(str(path))
    assert model.ngeom == len(parts) + 2
    data = mujoco.MjData(model)
    hit = np.zeros(1, np.int32)
    mujoco.mj_forward(model, data)
    pose = camera_of(data.cam("eye").xpos, data.cam("eye").xmat)
    np.testing.assert_allclose(pose[:3, 2], [0, 1, 0], atol=1e-6)
    distance = mujoco.mj_ray(model, data, np.array([0.0, 1.6, 1.0]), np.array([0.0, 1.0, 0.0]), None, 1, -1, hit, None)
    assert distance == pytest.approx(2.4, abs=0.08)
    data.ctrl[:] = [0, 1.0, 0]
    for _ in range(1200):
        mujoco.mj_step(model, data)
    y = float(data.body("robot").xpos[1])
    assert 3.2 < y < 3.95  # it drove to the wall, and no farther


def sensor(collider):
    from lyra.simulation.sensor import SceneSensor

    # A wall of splats where the collider's is.
    u, z = torch.meshgrid(torch.linspace(-2, 2, 60), torch.linspace(0, 2, 30), indexing="ij")
    means = torch.stack([u.flatten(), torch.full((1800,), 4.0), z.flatten()], -1)
    turn = torch.tensor([1.0, 0, 0, 0]).repeat(1800, 1)
    scales = torch.tensor([0.05, 0.001, 0.05]).repeat(1800, 1)
    return SceneSensor(
        Gaussians(means, scales, turn, torch.full((1800,), 0.95), means.new_full((1800, 3), 0.3)), collider
    )


def test_a_camera_sees_metres(collider):
    from lyra.simulation.sensor import robot_cameras

    cameras = robot_cameras(torch.tensor([[0.0, 1.0, 1.0], [0.5, 2.0, 1.0]]), torch.tensor([0.0, 0.3]), 60, 80)
    seen = sensor(collider).observe(cameras)
    assert seen.color.shape == (2, 3, 60, 80) and bool(seen.valid[0, 30, 40])
    assert float(seen.depth[0, 30, 40]) == pytest.approx(3.0, abs=0.02)
    assert float(seen.depth[1, 30, 40]) == pytest.approx(2.0 / math.cos(0.3), abs=0.05)
    assert not bool(seen.valid[0, 0, 40]) or float(seen.depth[0, 0, 40]) > 0


def test_the_environment_passes_gymnasiums_checker(collider):
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from lyra.simulation.driving import SceneDrive

    drive = SceneDrive(sensor(collider), 24, 32, steps=5)
    check_env(drive, skip_render_check=True)
    first, _ = drive.reset(seed=3)
    again, _ = drive.reset(seed=3)
    assert np.array_equal(first["rgb"], again["rgb"])
    ended, total = False, 0.0
    for _ in range(5):
        turn = np.clip(first["goal"][1] / 0.4, -1, 1)
        first, reward, done, cut, _ = drive.step(np.array([1.0, turn], np.float32))
        total += float(reward)
        ended = ended or done or cut
    assert ended and math.isfinite(total)


def test_usd_has_a_collider(collider, tmp_path):
    Usd, UsdPhysics = (pytest.importorskip(f"pxr.{name}") for name in ("Usd", "UsdPhysics"))
    validation = pytest.importorskip("pxr.UsdValidation")
    from lyra.export.usd import add_collider, add_splats, write_stage

    def fill(stage):
        add_splats(stage, replace(colorful(10), harmonics=None))
        add_collider(stage, collider.mesh.vertices, collider.mesh.faces)

    write_stage(tmp_path / "scene.usda", "usda", fill)
    stage = Usd.Stage.Open(str(tmp_path / "scene.usda"))
    bodies = [prim.GetName() for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)]
    assert bodies == ["Collider", "Ground"]
    found = validation.ValidationContext(validation.ValidationRegistry().GetOrLoadAllValidators()).Validate(stage)
    assert [error.GetMessage() for error in found] == []


@pytest.mark.slow
def test_a_walker_in_the_default_scene(tmp_path):
    from conftest import EXAMPLE

    import lyra
    from lyra.simulation.mesh import MeshOptions
    from lyra.simulation.sensor import SceneSensor
    from lyra.simulation.walker import Walker

    scene = lyra.load("mini").generate(EXAMPLE, tmp_path / "room")
    place = SceneSensor.of(scene, options=MeshOptions(triangles=12_000)).collider
    start = Walker.at(place, 0.0, 1.7)
    assert start.stands(place)
    for seed in range(4):
        rng, walker = np.random.default_rng(seed), start
        for _ in range(40):
            walker, _ = walker.moved(place, rng.uniform(-0.4, 0.4, 2))
            # Neither through the floor nor in the air: what is under it is at its foot.
            height, _ = place.ground_height(walker.place[None], walker.foot + 0.3)
            assert abs(walker.foot - height[0]) < 0.12 and walker.foot > -0.2 and walker.stands(place)
    walker, bumped = start.moved(place, np.array([0.0, 5.0]))
    assert bumped and walker.place[1] < 4.5  # the room's back wall
