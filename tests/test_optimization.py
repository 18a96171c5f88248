"""Gaussians optimized on a scene's frames: they start at the cache's points and come nearer to what they are shown."""

import pytest
import torch
from command_line import run_here

from lyra.cache.warp import EdgeFilter, build_cache
from lyra.engine.engine import Engine
from lyra.evaluation.metrics import psnr
from lyra.evaluation.optimization import Optimization, optimize_clips, optimize_gaussians, start_gaussians
from lyra.evaluation.still_worlds import WorldsOptions, evaluate_worlds
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.trajectories import trajectory_cameras
from lyra.models.loading import load
from lyra.rendering import render
from lyra.worlds import render_world, sample_world

SIDE = 48


def test_it_beats_its_start_on_the_frames_it_is_fitted_to():
    world, lens = sample_world(50_000), intrinsics_from_fov(55.0, SIDE, SIDE)
    camera = Cameras(torch.eye(4)[None], lens[None], SIDE, SIDE)
    color, depth = render_world(world, camera)
    paths = [trajectory_cameras(name, 0.3, 5, lens, SIDE, SIDE) for name in ("left", "zoom_out")]
    films = [render_world(world, path)[0] for path in paths]
    cache = build_cache(color * 2 - 1, depth, camera, EdgeFilter(3, 0.2))
    start = start_gaussians(cache, depth[0], camera, [(p[-1:], f[-1]) for p, f in zip(paths, films, strict=True)])

    assert psnr(render(start, camera).color, color) > 20
    ends = concatenate_cameras([path[-1:] for path in paths])
    assert (render(start, ends).alpha > 0.5).float().mean() > 0.95
    assert SIDE**2 < len(start) < 3 * SIDE**2

    cameras, frames = concatenate_cameras(paths), torch.cat(films)
    options = Optimization(steps=40)
    with torch.no_grad():  # as evaluations run
        fitted, losses = optimize_gaussians(start, frames, cameras, options)
    assert len(losses) == 40 and sum(losses[-8:]) < 0.8 * sum(losses[:8])
    before, after = (psnr(render(g, cameras).color, frames) for g in (start, fitted))
    assert after > before + 1
    assert not fitted.means.requires_grad and len(fitted) == len(start)
    again = optimize_clips(cache, depth[0], camera, paths, films, options)
    assert torch.allclose(again.colors, fitted.colors, atol=1e-4)


@pytest.mark.parametrize(("what", "steps"), [("mesh", "3"), ("worlds", "0")])
def test_steps_are_of_worlds_and_counted(what: str, steps: str):
    done = run_here("evaluate", what, "--optimize", steps, "--model", "smoke")
    assert done.returncode == 2 and "counts steps" in done.stderr


def test_a_row_and_its_seconds_are_there():
    result = evaluate_worlds(Engine(load("smoke"), "cpu"), WorldsOptions(scenes=1, stride=2, optimize=2))
    assert result["rows"][-1]["method"] == "optimized" and result["rows"][-1]["psnr"] > 10
    assert set(result["seconds"]) == {"student", "optimized"} and min(result["seconds"].values()) > 0
