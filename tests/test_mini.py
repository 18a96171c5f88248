"""The bundled model: every Gaussian is the student's, every clip the teacher's."""

from dataclasses import replace

import pytest
import torch

import lyra
from lyra.cache.warp import render_cache
from lyra.depth import scene_depth
from lyra.engine.synthesis import imagine_clip, input_cache
from lyra.evaluation import psnr
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES, trajectory_cameras
from lyra.models.loading import BUNDLED
from lyra.models.model import Model
from lyra.rendering import render
from lyra.student import decode_scene, prepare_student_inputs
from lyra.teacher import TeacherRequest
from lyra.worlds import render_world, sample_world

HELD_OUT_WORLD = 2


@pytest.fixture(scope="module")
def model() -> Model:
    return lyra.load("mini")


def world_view(model: Model, seed: int) -> tuple[torch.Tensor, torch.Tensor, Cameras]:
    """Image in [0, 1], predicted depth and camera of a world that training never saw."""
    height, width = model.config.teacher.height, model.config.teacher.width
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, height, width)[None], height, width)
    image = render_world(sample_world(seed), camera)[0][0].clamp(0, 1)
    return image, scene_depth(model.depth.predict(image)), camera


@pytest.fixture(scope="module")
def view(model: Model):
    return world_view(model, HELD_OUT_WORLD)


@pytest.fixture(scope="module")
def clips(model: Model, view) -> list[Clip]:
    image, depth, camera = view
    return [imagine_clip(model, image, depth, camera.intrinsics[0], name, 0) for name in TRAJECTORY_NAMES]


def frames(model: Model, latents: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.tokenizer.decode(model.tokenizer.denormalize(latents[None]))[0].movedim(1, 0) / 2 + 0.5


def student_psnr(model: Model, view, clips: list[Clip]) -> float:
    image, depth, camera = view
    cache = input_cache(image, depth, camera, model.config.teacher.edges)
    inputs = prepare_student_inputs(clips, model.tokenizer, model.decoder.config, cache)
    return psnr(render(decode_scene(model.decoder, inputs), camera).color[0], image)


def test_the_scene_shows_its_picture(model: Model, view, clips):
    assert student_psnr(model, view, clips) > 18


def test_zeroed_latents_destroy_the_picture(model: Model, view, clips):
    zeroed = [replace(clip, latents=torch.zeros_like(clip.latents)) for clip in clips]
    assert student_psnr(model, view, zeroed) < student_psnr(model, view, clips) - 6


def imagine(model: Model, view, seed: int, cache) -> torch.Tensor:
    image, _, camera = view
    teacher = model.config.teacher
    cameras = trajectory_cameras("left", 0.3, teacher.frames, camera.intrinsics[0], camera.height, camera.width)
    request = TeacherRequest(image * 2 - 1, cache, cameras, seed, "left")
    return frames(model, model.teacher.imagine(request))


def test_another_seed_changes_what_the_photo_does_not_show(model: Model, view):
    image, depth, camera = view
    teacher = model.config.teacher
    cache = input_cache(image, depth, camera, teacher.edges)
    first, second = (imagine(model, view, seed, cache) for seed in (0, 1))
    cameras = trajectory_cameras("left", 0.3, teacher.frames, camera.intrinsics[0], camera.height, camera.width)
    hole = render_cache(cache, cameras).masks[-1, 0] == 0
    difference = (first - second)[-1].abs().mean(0)
    assert difference[hole].mean() > 0.01
    assert difference[hole].mean() > 1.3 * difference[~hole].mean()


def test_the_teacher_listens_to_the_cache(model: Model, view):
    image, depth, camera = view
    edges = model.config.teacher.edges
    cache = input_cache(image, depth, camera, edges)
    right = imagine(model, view, 0, cache)
    empty = imagine(model, view, 0, replace(cache, reliable=torch.zeros_like(cache.reliable)))
    other = world_view(model, HELD_OUT_WORLD + 1)
    wrong = imagine(model, view, 0, input_cache(other[0], other[1], camera, edges))
    for changed in (empty, wrong):
        assert (changed - right)[-1].abs().mean() > 0.05
        # The first frame is given, whatever the cache holds.
        assert (changed - right)[0].abs().mean() < 0.05


def test_the_weights_fit_their_budget(model: Model):
    size = sum(path.stat().st_size for path in (BUNDLED / "mini").rglob("*"))
    assert size <= 40 * 2**20
