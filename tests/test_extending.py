"""A scene that grows: a wall that ends in sight, and what a path past its end adds."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import run_here

import lyra
from lyra.depth.alignment import close_seam
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files import save_cameras
from lyra.generate.extending import choose_path, extend
from lyra.generate.options import ExtendOptions, GenerateOptions
from lyra.generate.pipeline import generate
from lyra.geometry.cameras import Cameras, intrinsics_from_fov, pixel_rays
from lyra.geometry.gaussians import Gaussians, merge
from lyra.scene.scene import Scene
from lyra.views.outlook import Outlook, look_ahead

SIZE, DEPTH, FRAMES = 64, 2.0, 9
CAMERA = Cameras(torch.eye(4)[None], intrinsics_from_fov(60.0, SIZE, SIZE)[None], SIZE, SIZE)
RESULT = ("scene.ply", "scene.mp4", "index.html")


def wall(depth: float = DEPTH, left: float = -4.0, right: float = 1.2) -> Gaussians:
    """Opaque spots on the plane z = ``depth``, red on the left and blue on the right."""
    x, y = torch.meshgrid(torch.arange(left, right, 0.04), torch.arange(-2, 2, 0.04), indexing="ij")
    means = torch.stack([x, y, torch.full_like(x, depth)], dim=-1).flatten(0, 1)
    blue = ((means[:, 0] + 4) / 6).clamp(0, 1)
    return Gaussians(
        means=means,
        scales=torch.tensor([0.03, 0.03, 0.005]).expand(len(means), 3).clone(),
        quaternions=torch.tensor([1.0, 0, 0, 0]).expand(len(means), 4).clone(),
        opacities=torch.full((len(means),), 0.98),
        colors=torch.stack([1 - blue, torch.full_like(blue, 0.3), blue], dim=-1),
    )


def turning(frames: int = FRAMES, degrees: float = 40.0, size: int = SIZE) -> Cameras:
    """From the input view to the right, past the wall's end."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    angle = torch.linspace(0, math.radians(degrees), frames)
    poses[:, 0, 0] = poses[:, 2, 2] = angle.cos()
    poses[:, 0, 2], poses[:, 2, 0] = angle.sin(), -angle.sin()
    lens = intrinsics_from_fov(60.0, size, size).expand(frames, 4).clone()
    return Cameras(poses, lens, size, size)


@pytest.fixture(scope="module")
def outlook() -> Outlook:
    return look_ahead(wall(), turning(), CAMERA)


def test_an_outlook_is_the_scene_in_its_own_unit(outlook: Outlook):
    assert outlook.unit == pytest.approx(DEPTH, rel=1e-3)
    torch.testing.assert_close(outlook.depth[0], torch.ones(SIZE, SIZE), atol=2e-3, rtol=0)
    assert bool((outlook.path.cameras.camera_to_world[0] == torch.eye(4)).all())
    # Where the plane ends, by each pixel's own ray.
    origins, directions = pixel_rays(turning())
    ends = (origins + directions * (DEPTH / directions[..., 2:]))[..., 0]
    solid, inside, outside = outlook.path.solid, ends < 1.0, (ends > 1.3) | (directions[..., 2] <= 0)
    assert bool(solid[inside[...] & (ends.abs() < 1)].float().mean() > 0.97)
    assert not bool(solid[outside].any())
    assert outlook.openness == pytest.approx(float((ends > 1.2).float().mean()), abs=0.05)


def test_its_cache_shows_the_scene_as_it_is(outlook: Outlook):
    from lyra.cache.warp import render_moving_cache

    views = render_moving_cache(outlook.cache(None), outlook.path.cameras)
    solid = outlook.path.solid
    assert bool((views.masks[:, 0][solid] == 1).all())
    error = (views.images[:, 0] / 2 + 0.5 - outlook.path.color).abs().amax(1)[solid]
    assert float(error.mean()) < 5e-3


def test_only_what_fills_a_hole_is_new(outlook: Outlook):
    beyond = wall(left=1.3, right=4.0)
    there = wall(left=-0.6, right=0.6)
    before = wall(depth=1.0, left=-0.2, right=0.2)  # it would hide the wall
    behind = wall(depth=3.0, left=-0.2, right=0.2)  # nothing shows it
    candidates = merge([beyond, there, before, behind])
    scaled = replace(candidates, means=candidates.means / DEPTH, scales=candidates.scales / DEPTH)
    new = outlook.find_new(scaled).split([len(part) for part in (beyond, there, before, behind)])
    # In sight of the last picture.
    x, y = beyond.means[:, 0], beyond.means[:, 1].abs()
    assert bool(new[0][(x < 3) & (y < 1)].all())
    assert not any(bool(part.any()) for part in new[1:])
    placed = outlook.place(scaled)
    torch.testing.assert_close(placed.means, candidates.means)
    torch.testing.assert_close(placed.scales, candidates.scales)


def test_the_sky_stays_where_it_is(outlook: Outlook):
    far = wall()
    far = replace(far, means=far.means * torch.tensor([1.0, 1.0, 50.0]))
    assert float(outlook.place(far).means[:, 2].min()) == pytest.approx(50 * DEPTH)


def test_points_before_what_is_known_are_moved_back(outlook: Outlook):
    from lyra.cache.warp import build_cache

    end = outlook.path.cameras[-1:]
    color = torch.zeros(1, 3, SIZE, SIZE)
    near = outlook.make_room(build_cache(color, torch.full((1, SIZE, SIZE), 0.3), end, None))
    _, wrong = outlook.path.meets(near.points[near.reliable])
    assert not bool(wrong.any())
    assert not bool(near.reliable[outlook.path.solid[-1:]].any())
    # What stands in nobody's way stays.
    aside = build_cache(color, torch.full((1, SIZE, SIZE), 3.0), end, None)
    kept = outlook.make_room(aside)
    torch.testing.assert_close(kept.points[kept.reliable], aside.points[kept.reliable])


def test_a_path_has_to_begin_in_the_scene():
    away = replace(CAMERA, camera_to_world=CAMERA.camera_to_world @ torch.diag(torch.tensor([-1.0, 1, -1, 1])))
    with pytest.raises(LyraError, match="begins where only 0 %"):
        look_ahead(wall(), away, CAMERA)


def test_depth_goes_on_without_a_step():
    truth = torch.linspace(1, 2, 40).expand(30, 40).clone()
    known = torch.zeros(30, 40, dtype=torch.bool)
    known[:, :20] = True
    found = close_seam(truth * 1.1, truth, known)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=0)
    # Another thing beside the seam says nothing about the step.
    torch.testing.assert_close(close_seam(truth * 3, truth, known)[:, 20:], truth[:, 20:] * 3)


@pytest.fixture(scope="module", autouse=True)
def short_films():
    """Six frames: most of the time would go into films."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lyra.scene.film._FILM_SECONDS", (0.25, 0.25))
        yield


@pytest.fixture(scope="module")
def model():
    return lyra.load("smoke")


@pytest.fixture(scope="module")
def original(model, tmp_path_factory) -> Path:
    """A scene folder of the smoke model whose splats are the wall."""
    folder = tmp_path_factory.mktemp("extending") / "scene"
    options = GenerateOptions(trajectories=("left",))
    generate(model, Path(__file__).parents[1] / "examples/room.png", folder, options)
    scene = Scene.load(folder)
    replace(scene, gaussians=wall()).save(folder)
    save_cameras(turning(2, size=scene.input_camera.height), folder.parent / "aside.json")
    save_cameras(turning(2, -5.0, scene.input_camera.height), folder.parent / "within.json")
    return folder


def grown(model, original: Path, folder: Path, seed: int = 0) -> Scene:
    shutil.copytree(original, folder)
    return extend(model, folder, str(original.parent / "aside.json"), ExtendOptions(seed))


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in RESULT]


@pytest.fixture(scope="module")
def extended(model, original: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extended") / "scene"
    grown(model, original, folder)
    return folder


def test_an_extended_scene_is_a_scene(original: Path, extended: Path):
    before, after = Scene.load(original), Scene.load(extended)
    count = len(before.gaussians)
    told = after.provenance["extensions"]
    assert len(told) == 1
    assert len(after.gaussians) == count + told[0]["clips"][0]["added"] > count
    assert after.provenance["gaussians"] == len(after.gaussians)
    for name, tensor in after.gaussians.tensors().items():  # what was there stays as it was
        torch.testing.assert_close(tensor[:count], before.gaussians.tensors()[name], rtol=1e-5, atol=1e-6)
    camera = before.input_camera
    torch.testing.assert_close(after.render(camera).color, before.render(camera).color, atol=0.02, rtol=0)
    assert told[0]["before_sha256"] == hashlib.sha256((original / "scene.ply").read_bytes()).hexdigest()
    assert (extended / "extensions/01/before.ply").read_bytes() == (original / "scene.ply").read_bytes()
    clip = extended / "extensions/01/01_aside"
    assert {path.name for path in clip.iterdir()} == {"clip.safetensors", "video.mp4", "cameras.json"}
    assert not list(extended.rglob("*.tmp*"))
    assert not list(extended.glob(".lyra.lock"))
    assert digests(extended) != digests(original)


def test_the_same_seed_gives_the_same_bytes(model, original: Path, extended: Path, tmp_path: Path):
    grown(model, original, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(extended)
    grown(model, original, tmp_path / "other", seed=1)
    assert digests(tmp_path / "other")[0] != digests(extended)[0]


def test_an_interrupted_extension_goes_on(model, original: Path, extended: Path, tmp_path: Path, monkeypatch):
    folder, path = tmp_path / "scene", str(original.parent / "aside.json")
    shutil.copytree(original, folder)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "decode", fail)
        with pytest.raises(KeyboardInterrupt):
            extend(model, folder, path, ExtendOptions())
    assert digests(folder) == digests(original)
    with pytest.raises(LyraError, match="unfinished extension: go on with --resume"):
        extend(model, folder, path, ExtendOptions())
    with pytest.raises(LyraError, match="another path, model or seed"):
        extend(model, folder, path, ExtendOptions(seed=3, resume=True))
    # The clip is there: the teacher is not asked again.
    monkeypatch.setattr(Engine, "_ask", fail)
    extend(model, folder, path, ExtendOptions(resume=True))
    assert digests(folder) == digests(extended)
    with pytest.raises(LyraError, match="no unfinished extension"):
        extend(model, folder, path, ExtendOptions(resume=True))


def test_a_preset_goes_on_where_the_last_extension_ended(model, extended: Path):
    scene = Scene.load(extended)
    end = torch.tensor(scene.provenance["extensions"][-1]["path"][-1])
    path = choose_path("left", scene, end, model.config.teacher, 0)
    torch.testing.assert_close(path.cameras.camera_to_world[0], end)
    torch.testing.assert_close(path.cameras.intrinsics, scene.input_camera.intrinsics.expand(len(path.cameras), 4))


@pytest.mark.parametrize(
    ("cameras", "wrong"),
    [
        ("sideways", "unknown path 'sideways'"),
        ("within.json", "already shows all that this path sees"),
        ("missing.json", "missing.json"),
    ],
)
def test_what_will_not_do_is_said(original: Path, tmp_path: Path, cameras: str, wrong: str):
    folder = tmp_path / "scene"
    shutil.copytree(original, folder)
    named = original.parent / cameras if cameras.endswith(".json") else cameras
    done = run_here("extend", folder, "--cameras", named, "--model", "smoke")
    assert done.returncode == 2
    assert wrong in done.stderr
    assert "Traceback" not in done.stderr
    assert digests(folder) == digests(original)
    assert not (folder / "extensions").exists() or not list((folder / "extensions").iterdir())


def test_what_is_no_still_scene_is_refused(model, original: Path, extended: Path, tmp_path: Path):
    for wrong in (tmp_path, original / "scene.ply"):
        with pytest.raises(LyraError, match=r"give (a|one)"):
            extend(model, wrong, "left", ExtendOptions())
    photo = Path(__file__).parents[1] / "examples/room.png"
    with pytest.raises(LyraError, match="was extended since"):
        generate(model, photo, extended, GenerateOptions(trajectories=("left",), resume=True))
    small = tmp_path / "small"
    scene = Scene.load(original)
    replace(scene, input_camera=scene.input_camera.resized(40, 40)).save(small)
    with pytest.raises(LyraError, match="40x40 pixels, at which model"):
        extend(model, small, "left", ExtendOptions())
    assert "extensions" not in json.loads((original / "scene.json").read_text())
