"""The bundled model: every Gaussian is the student's, every clip the teacher's."""

from dataclasses import replace

import pytest
import torch

import lyra
from lyra.cache.warp import DepthCache, render_cache
from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.evaluation import psnr
from lyra.files.clips import Clip
from lyra.files.photos import Photo
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.trajectories import trajectory_cameras
from lyra.models.loading import BUNDLED
from lyra.models.model import Model
from lyra.rendering import render
from lyra.teacher import TeacherRequest
from lyra.views.views import Views
from lyra.worlds import render_world, sample_world

HELD_OUT_WORLD = 2


@pytest.fixture(scope="module")
def model() -> Model:
    return lyra.load("mini")


def world_view(model: Model, seed: int) -> Views:
    """A world that training never saw, its depth predicted."""
    height, width = model.config.teacher.height, model.config.teacher.width
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, height, width)[None], height, width)
    image = render_world(sample_world(seed), camera)[0][0].clamp(0, 1)
    return Engine(model, "cpu").views([Photo.of(image)], fov=55.0)[0]


@pytest.fixture(scope="module")
def view(model: Model) -> Views:
    return world_view(model, HELD_OUT_WORLD)


@pytest.fixture(scope="module")
def clips(model: Model, view: Views) -> list[Clip]:
    paths = preset_paths(0, model.config.teacher.frames, *view.images.shape[2:])
    [clips] = Engine(model, "cpu").imagine(view, paths)
    return clips


def frames(model: Model, latents: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.tokenizer.decode(model.tokenizer.denormalize(latents[None]))[0].movedim(1, 0) / 2 + 0.5


def student_psnr(model: Model, view: Views, clips: list[Clip]) -> float:
    gaussians = Engine(model, "cpu").decode([clips], view)
    assert isinstance(gaussians, Gaussians)
    return psnr(render(gaussians, view.cameras).color[0], view.images[0])


def test_the_scene_shows_its_picture(model: Model, view, clips):
    assert student_psnr(model, view, clips) > 18


def test_zeroed_latents_destroy_the_picture(model: Model, view, clips):
    zeroed = [replace(clip, latents=torch.zeros_like(clip.latents)) for clip in clips]
    assert student_psnr(model, view, zeroed) < student_psnr(model, view, clips) - 6


def imagine(model: Model, view, seed: int, cache) -> torch.Tensor:
    image, camera, teacher = view.images[0], view.cameras, model.config.teacher
    cameras = trajectory_cameras("left", 0.3, teacher.frames, camera.intrinsics[0], camera.height, camera.width)
    request = TeacherRequest(image * 2 - 1, cache, cameras, seed, "left")
    return frames(model, model.teacher.imagine(request))


def test_another_seed_changes_what_the_photo_does_not_show(model: Model, view):
    camera, teacher = view.cameras, model.config.teacher
    cache = view.cache(teacher.edges)
    assert isinstance(cache, DepthCache)
    first, second = (imagine(model, view, seed, cache) for seed in (0, 1))
    cameras = trajectory_cameras("left", 0.3, teacher.frames, camera.intrinsics[0], camera.height, camera.width)
    hole = render_cache(cache, cameras).masks[-1, 0] == 0
    difference = (first - second)[-1].abs().mean(0)
    assert difference[hole].mean() > 0.01
    assert difference[hole].mean() > 1.3 * difference[~hole].mean()


def test_the_teacher_listens_to_the_cache(model: Model, view):
    edges = model.config.teacher.edges
    cache = view.cache(edges)
    assert isinstance(cache, DepthCache)
    right = imagine(model, view, 0, cache)
    empty = imagine(model, view, 0, replace(cache, reliable=torch.zeros_like(cache.reliable)))
    other = world_view(model, HELD_OUT_WORLD + 1)
    wrong = imagine(model, view, 0, other.cache(edges))
    for changed in (empty, wrong):
        assert (changed - right)[-1].abs().mean() > 0.05
        # The first frame is given, whatever the cache holds.
        assert (changed - right)[0].abs().mean() < 0.05


def test_the_weights_fit_their_budget(model: Model):
    size = sum(path.stat().st_size for path in (BUNDLED / "mini").rglob("*"))
    assert size <= 40 * 2**20
