"""Clips on disk: order, batches, long paths, several processes."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lyra.cache.warp import DepthCache, EdgeFilter, build_cache
from lyra.depth import DepthPrediction
from lyra.device.memory import Placement
from lyra.engine.engine import Engine, choose_buffers
from lyra.engine.paths import CameraPath, preset_path, resample_cameras
from lyra.engine.shots import Shelf, batch_shots
from lyra.errors import LyraError
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.models.smoke import build_smoke_model
from lyra.teacher import DiffusionTeacher, TeacherConfig, TeacherRequest
from lyra.views.views import Views

MODEL = build_smoke_model()
CONFIG = MODEL.config.teacher
LENS = intrinsics_from_fov(55.0, 32, 32)


class FlatDepth:
    """Everything is as far as the input view's median."""

    def predict(self, image: Tensor) -> DepthPrediction:
        depth = torch.full(image.shape[1:], 3.0)
        return DepthPrediction(depth, torch.ones_like(depth, dtype=torch.bool), None, metric=False)


class Recorder:
    """Imagines the input image over and over, and keeps what it was asked."""

    def __init__(self):
        self.requests: list[TeacherRequest] = []

    def imagine(self, request: TeacherRequest) -> Tensor:
        self.requests.append(request)
        still = request.image[None, :, None].expand(-1, -1, CONFIG.frames, -1, -1)
        return MODEL.tokenizer.normalize(MODEL.tokenizer.encode(still))[0]


def make_views(count: int = 1) -> Views:
    image = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.linspace(0, 0.3, count)
    return Views(image, torch.ones(count, 32, 32), Cameras(poses, LENS.expand(count, 4).clone(), 32, 32))


def make_engine(teacher=None, batch: int = 1, guardrail=None) -> Engine:
    teacher = teacher or MODEL.teacher
    return Engine(MODEL, placement=Placement(batch=batch), teacher=teacher, depth=FlatDepth(), guardrail=guardrail)


def imagine(engine: Engine, folder: Path, views: Views, paths: list[CameraPath]) -> list[Clip]:
    [clips] = engine.imagine(views, paths, 7, Shelf(folder, CONFIG.fps))
    return clips


def still_cache(request: TeacherRequest) -> DepthCache:
    assert isinstance(request.cache, DepthCache)
    return request.cache


def long_path(clips: int, distance: float = 0.4) -> CameraPath:
    path = preset_path("left", distance, 9, 32, 32)
    return CameraPath("walk", resample_cameras(path.cameras, clips * (CONFIG.frames - 1) + 1))


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def test_each_clip_of_a_long_path_begins_where_the_last_one_ended(tmp_path: Path):
    teacher = Recorder()
    clips = imagine(make_engine(teacher), tmp_path, make_views(), [long_path(4)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk_01", "walk_02", "walk_03", "walk_04"]
    assert len(clips) == len(teacher.requests) == 4
    seed_points = still_cache(teacher.requests[0]).points[0]
    for index, request in enumerate(teacher.requests):
        assert request.name == f"walk_{index + 1:02d}"
        assert torch.equal(request.cameras.camera_to_world, clips[index].cameras.camera_to_world)
        # The newest frame first, the input view last, and never more than the teacher takes.
        assert len(still_cache(request).points) == min(2, index + 1)
        assert torch.equal(still_cache(request).points[-1], seed_points)
    second = teacher.requests[1]
    video = MODEL.tokenizer.decode(MODEL.tokenizer.denormalize(clips[0].latents[None]))[0]
    assert torch.allclose(second.image, video[:, -1].clamp(-1, 1), atol=1e-5)
    assert torch.allclose(still_cache(second).colors[0], second.image, atol=1e-5)
    # The wall stays where it was: the new frame's points lie on the plane z = 1 of the input view.
    reliable = still_cache(second).reliable[0]
    assert torch.allclose(still_cache(second).points[0][reliable][:, 2], torch.ones(int(reliable.sum())), atol=0.05)


def test_a_long_path_resumes_to_the_same_bytes_from_any_clip(tmp_path: Path):
    imagine(make_engine(), tmp_path / "whole", make_views(), [long_path(3)])
    expected = digests(tmp_path / "whole")
    for lost in (["walk_03"], ["walk_02", "walk_03"]):
        imagine(make_engine(), tmp_path / "again", make_views(), [long_path(3)])
        for name in lost:
            (tmp_path / "again" / name / "clip.safetensors").unlink()
        imagine(make_engine(), tmp_path / "again", make_views(), [long_path(3)])
        assert digests(tmp_path / "again") == expected


def test_a_path_that_leaves_the_scene_is_told(tmp_path: Path):
    path = long_path(2)
    poses = path.cameras.camera_to_world.clone()
    poses[3:, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    turned = CameraPath("turn", replace(path.cameras, camera_to_world=poses))
    with pytest.raises(LyraError, match=r"leaves the scene.*'turn_01'"):
        imagine(make_engine(Recorder()), tmp_path, make_views(), [turned])
    assert (tmp_path / "turn_01/clip.safetensors").exists()


def test_single_clips_go_in_batches_and_long_ones_alone():
    one = make_views().cameras
    shots = [{"a": one}, {"b": one}, {"c_1": one, "c_2": one}, {"d": one}, {"e": one}, {"f": one}]

    def names(batch: int) -> list[list[str]]:
        return [[name for shot in group for name in shot] for group in batch_shots(shots, batch)]

    assert names(1) == [["a"], ["b"], ["c_1", "c_2"], ["d"], ["e"], ["f"]]
    assert names(2) == [["a", "b"], ["c_1", "c_2"], ["d", "e"], ["f"]]
    assert names(9) == [["a", "b"], ["c_1", "c_2"], ["d", "e", "f"]]


def presets() -> list[CameraPath]:
    return [preset_path(name, 0.3, CONFIG.frames, 32, 32) for name in ("left", "right", "up")]


def test_a_batch_is_the_clips_up_to_rounding_and_is_run_again_whole(tmp_path: Path):
    alone = imagine(make_engine(), tmp_path / "alone", make_views(), presets())
    together = imagine(make_engine(batch=2), tmp_path / "together", make_views(), presets())
    for a, b in zip(alone, together, strict=True):
        assert torch.allclose(a.latents, b.latents, atol=1e-4)
    expected = digests(tmp_path / "together")
    (tmp_path / "together/right/clip.safetensors").unlink()
    sizes = []

    class Counting(DiffusionTeacher):
        def imagine_batch(self, requests):
            sizes.append(len(requests))
            return super().imagine_batch(requests)

    own = MODEL.teacher
    teacher = Counting(own.transformer, own.tokenizer, own.scheduler, own.text, own.negative_text, own.config)
    imagine(make_engine(teacher, batch=2), tmp_path / "together", make_views(), presets())
    assert sizes == [2]
    assert digests(tmp_path / "together") == expected


def test_of_many_posed_photos_those_that_cover_the_path_are_shown():
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[1, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    poses[2, 0, 3] = 0.2
    cameras = Cameras(poses, LENS.expand(3, 4).clone(), 32, 32)
    cache: DepthCache = build_cache(torch.rand(3, 3, 32, 32), torch.ones(3, 32, 32), cameras, EdgeFilter(3, 0.5))
    path = preset_path("right", 0.3, 5, 32, 32).through(LENS)
    shown = choose_buffers(cache, path, TeacherConfig(max_buffers=2))
    assert torch.equal(shown.points, cache.points[[0, 2]])
    assert choose_buffers(cache, path, TeacherConfig(max_buffers=3)) is cache


def test_several_posed_photos_fill_the_buffers(tmp_path: Path):
    teacher = Recorder()
    imagine(make_engine(teacher), tmp_path, make_views(2), presets()[:1])
    assert len(still_cache(teacher.requests[0]).points) == 2


def test_the_students_base_is_of_all_posed_photos_and_of_the_ends_of_long_paths():
    """What only the second photo shows, or only a path's middle, lies at the depth that is known there."""
    views = make_views(2)
    poses = views.cameras.camera_to_world.clone()
    poses[1, 0, 3] = 2.0  # so far aside that the first photo shows nothing of what it sees
    depth = torch.stack([torch.ones(32, 32), torch.full((32, 32), 2.5)])
    views = replace(views, depth=depth, cameras=replace(views.cameras, camera_to_world=poses))
    aside = replace(views.cameras, camera_to_world=poses[[0, *[1] * (CONFIG.frames - 1)]], intrinsics=LENS.expand(5, 4))
    engine = make_engine(Recorder())
    clip = Clip(torch.zeros(engine.tokenizer.spec.channels, 2, 8, 8), aside)
    alone = Views(views.images[:1], views.depth[:1], views.cameras[:1])
    first, both = (engine.inputs([clip], part).base for part in (alone, views))
    assert first is not None and both is not None
    assert both.distance[0, 0, -1].min() > 2.4
    assert first.distance[0, 0, -1].max() < 2.4

    path = long_path(2, distance=1.5).through(LENS)
    clips = [Clip(clip.latents, path[start : start + CONFIG.frames]) for start in (0, CONFIG.frames - 1)]
    known = alone.cache(CONFIG.edges)
    assert isinstance(known, DepthCache)
    [lifted] = engine._lift_ends(clips, alone, known)
    place = path.camera_to_world[CONFIG.frames - 1, :3]
    local = (lifted.points[0] - place[:, 3]) @ place[:, :3]
    assert (local[..., 2] > 0).all() and (local[16, 16, :2].abs() < 0.1).all()


def test_values_that_are_not_finite_are_never_stored(tmp_path: Path):
    class Broken(Recorder):
        def imagine(self, request: TeacherRequest) -> Tensor:
            return super().imagine(request) * float("nan")

    with pytest.raises(LyraError, match="not finite in clip 'left'"):
        imagine(make_engine(Broken()), tmp_path, make_views(), presets()[:1])
    assert not list(tmp_path.rglob("*.*"))


def test_what_the_guardrail_refuses_is_not_stored(tmp_path: Path):
    class Strict:
        frames: tuple[int, ...] = ()

        def check_text(self, text: str) -> None:
            raise AssertionError

        def check_video(self, frames: Tensor) -> None:
            self.frames = tuple(frames.shape)
            raise LyraError("refused")

    guardrail = Strict()
    engine = make_engine(Recorder(), guardrail=guardrail)
    with pytest.raises(LyraError, match="refused"):
        imagine(engine, tmp_path, make_views(), presets()[:1])
    assert guardrail.frames == (CONFIG.frames, 3, 32, 32)
    assert not list(tmp_path.rglob("*.*"))


SCRIPT = """
import sys
from pathlib import Path
import lyra
from lyra.generate.options import GenerateOptions
scene = lyra.load("smoke").generate(sys.argv[1], sys.argv[2], trajectories=("left", "right"), spread=True)
print(len(scene.gaussians))
"""


def test_two_processes_share_the_trajectories(tmp_path: Path):
    example = Path(__file__).parents[1] / "examples/room.png"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    alone = [sys.executable, str(script), str(example), str(tmp_path / "alone")]
    spread = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *alone[1:-1]]
    for command in (alone, [*spread, str(tmp_path / "spread")]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "spread/clips") == digests(tmp_path / "alone/clips")
    for name in ("scene.ply", "scene.mp4"):
        assert (tmp_path / "spread" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
