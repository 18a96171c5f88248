"""Evaluation on captures: which frames, which way, which unit, and what comes out of one in every layout."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from captures import COUNT, film, write_7_scenes, write_nerfstudio, write_real_estate
from command_line import run_here

from lyra.errors import LyraError
from lyra.evaluation.captured_scenes import find_unit, search_frame, see_visible, view_baselines, warp_views
from lyra.evaluation.itinerary import indexed_itinerary, lay_path, plan_itinerary, read_index
from lyra.evaluation.posed_sets import PosedOptions, evaluate_posed
from lyra.evaluation.scores import Scores, TrueViews, baselines, visible_from
from lyra.files.photos import Photo
from lyra.files.posed_folders import CapturedViews, load_views, open_capture
from lyra.geometry.cameras import Cameras
from lyra.models.loading import load
from lyra.views.views import Views


def true_views() -> tuple[Views, CapturedViews]:
    """The film's first picture with its true depth at unit median, and all of it in its own unit."""
    taken = film()
    cameras = taken.cameras.relative_to(taken.cameras.camera_to_world[0])
    photos = tuple(Photo.of(image) for image in taken.color)
    depth = torch.where(taken.depth > 0, taken.depth, 200.0)
    depth = depth / taken.depth[0][taken.depth[0] > 0].median()
    return Views(taken.color[:1], depth[:1], cameras[:1]), CapturedViews(photos, cameras, taken.depth)


def test_the_way_goes_on_and_back_from_the_input():
    plan = plan_itinerary(10, (4,), None, 100)
    assert plan.targets == (0, 1, 2, 3, 5, 6, 7, 8, 9)
    assert plan.ways == (("ahead", (4, 5, 6, 7, 8, 9)), ("back", (4, 3, 2, 1, 0)))


def test_few_frames_are_spread_over_all_of_the_capture():
    plan = plan_itinerary(100, (0,), None, 24)
    assert plan.targets == tuple(range(5, 100, 5))
    assert plan_itinerary(100, (0,), 1, 24).targets == tuple(range(1, 25))
    assert plan_itinerary(100, (2,), 1, 24).targets == (0, 1, *range(3, 25))
    assert plan_itinerary(100, (50,), 1, 24).targets == (*range(38, 50), *range(51, 63))


def test_further_input_frames_are_passed_but_not_asked_for():
    plan = plan_itinerary(6, (0, 3), None, 24)
    assert plan.targets == (1, 2, 4, 5)
    assert plan.ways == (("ahead", (0, 1, 2, 3, 4, 5)),)


def test_impossible_frames_are_refused():
    with pytest.raises(LyraError, match="frames 0 to 5"):
        plan_itinerary(6, (6,), None, 24)
    with pytest.raises(LyraError, match="twice"):
        plan_itinerary(6, (1, 1), None, 24)
    with pytest.raises(LyraError, match="twice"):
        indexed_itinerary(60, (10, 50), (20, 50), 16)


def test_an_index_says_what_is_given_and_asked(tmp_path: Path):
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"a": {"context": [10, 58], "target": [20, 31, 57]}, "b": None}))
    index = read_index(path)
    assert index == {"a": ((10, 58), (20, 31, 57))}
    plan = indexed_itinerary(100, *index["a"], steps=16)
    assert plan.inputs == (10, 58)
    assert plan.targets == (20, 31, 57)
    [(_, way)] = plan.ways
    assert {10, 20, 31, 57, 58} <= set(way)
    assert max(b - a for a, b in pairwise(way)) <= 3
    path.write_text("[1]")
    with pytest.raises(LyraError, match="no evaluation index"):
        read_index(path)


def test_a_path_goes_through_the_true_cameras_in_whole_clips():
    cameras = film().cameras
    start = cameras.relative_to(cameras.camera_to_world[0])
    path, places = lay_path("ahead", start[[0, 1, 2, 5]], 9)
    assert len(path.cameras) == 9
    assert places[0] == 0
    assert places[-1] == 8
    assert torch.equal(path.cameras.camera_to_world[places], start.camera_to_world[[0, 1, 2, 5]])
    # The long stretch is given the cameras between.
    assert places == [0, 2, 3, 8] or places == [0, 1, 3, 8] or places == [0, 2, 4, 8]
    assert len(lay_path("ahead", start, 3)[0].cameras) == 7


def test_the_unit_is_found_by_depth_and_by_search():
    views, loaded = true_views()
    place = {i: i for i in range(COUNT)}
    solid = loaded.depth[0][loaded.depth[0] > 0] if loaded.depth is not None else None
    assert solid is not None
    right = 1 / solid.median().item()
    by_depth = find_unit(views, loaded, 1, 4, place)
    assert by_depth.source == "depth"
    assert by_depth.value == pytest.approx(right, rel=0.01)
    searched = find_unit(views, CapturedViews(loaded.photos, loaded.cameras, None), 1, 4, place)
    assert (searched.source, searched.frame) == ("search", 4)
    assert searched.value == pytest.approx(right, rel=0.1)


def test_the_unit_is_searched_before_the_camera_turns_away(tmp_path: Path):
    """Frame 1 is turned by 0.06, 2 by 0.12, and so on; after a frame that looks elsewhere none is asked."""
    taken = film()
    capture = open_capture(write_nerfstudio(taken, tmp_path / "a"))
    poses = taken.cameras.camera_to_world.double()
    angles = [math.acos(((poses[0, :3, :3] * pose[:3, :3]).sum().item() - 1) / 2) for pose in poses[1:]]
    assert search_frame(capture, 0) == max(i + 1 for i, angle in enumerate(angles) if angle < 0.12)
    poses[1, :3, :3] = poses[1, :3, :3] @ torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]).double()
    turned = type(taken)(taken.color, taken.depth, Cameras(poses.float(), taken.cameras.intrinsics, 48, 64))
    assert search_frame(open_capture(write_nerfstudio(turned, tmp_path / "b")), 0) == 1


def test_one_view_s_baselines_are_those_of_worlds():
    views, loaded = true_views()
    cameras = loaded.cameras[1:]
    expected = baselines(views.images[0], views.depth[0], views.cameras, cameras)
    found = view_baselines(views, cameras)
    assert {name: torch.allclose(found[name], expected[name]) for name in expected} == dict.fromkeys(expected, True)


def test_visible_is_by_measured_depth_and_else_by_where_pixels_land():
    views, loaded = true_views()
    assert loaded.depth is not None
    unit = (views.depth[0] / loaded.depth[0]).median().item()
    poses = loaded.cameras.camera_to_world.clone()
    poses[:, :3, 3] *= unit
    cameras = Cameras(poses, loaded.cameras.intrinsics, 48, 64)
    seen = see_visible(views, cameras[3:], loaded, 0, [3, 4, 5], unit)
    known = loaded.depth[3:] > 0
    depth = loaded.depth * unit
    expected = visible_from(torch.where(depth[0] > 0, depth[0], 100.0), cameras[:1], depth[3:], cameras[3:])
    assert torch.equal(seen[known], expected[known])
    _, landed = warp_views(views, cameras[3:])
    without = see_visible(views, cameras[3:], CapturedViews(loaded.photos, loaded.cameras, None), 0, [3, 4, 5], unit)
    assert torch.equal(without, landed)


def test_a_missing_frame_is_no_black_one():
    views, loaded = true_views()
    nothing = torch.zeros(2, 48, 64, dtype=torch.bool)
    truth = TrueViews(loaded.images[:2], loaded.cameras[:2], nothing)
    with pytest.raises(LyraError, match="1 of 2 frames"):
        Scores(None).add(truth, {"repeat": views.images})


def test_an_rgbd_capture_gives_every_row_and_depth(tmp_path: Path):
    """By the command, with a model of random weights."""
    folder = write_7_scenes(film(), tmp_path / "kitchen")
    done = run_here("evaluate", "posed", folder, "--input-frame", 1, "--model", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["frames"] == COUNT - 1
    assert {row["method"] for row in result["rows"]} == {
        "student", "teacher", "cache", "cache-nearest", "plane", "repeat",
    }  # fmt: skip
    assert set(result["rows"][0]) == {"method", "psnr", "ssim", "perceptual", "psnr_visible", "psnr_holes"}
    assert set(result["depth"]) >= {"absrel", "within_1_25"}
    assert result["depth"]["absrel_affine"] < 1
    assert sum(part["frames"] for part in result["by_baseline"]) == COUNT - 1
    assert result["captures"][0]["unit"]["source"] == "depth"


def test_rows_are_of_the_frames_that_were_asked(tmp_path: Path):
    """The repeated input's row by hand; the searched frame is left out."""
    capture = write_nerfstudio(film(), tmp_path / "room")
    result, values, shown = evaluate_posed(load("smoke"), capture, PosedOptions())
    left_out = result["captures"][0]["unit"]["frame"]
    assert set(shown[0].targets) == set(range(1, COUNT)) - {left_out}
    model = load("smoke").config.teacher
    views = load_views(open_capture(capture), range(COUNT), model.height, model.width)
    error = (views.images[list(shown[0].targets)] - views.images[:1]).square().mean((1, 2, 3))
    expected = (-10 * error.log10()).mean().item()
    [row] = [row for row in result["rows"] if row["method"] == "repeat"]
    assert row["psnr"] == pytest.approx(expected, abs=1e-3)
    assert len(values["repeat"]["psnr"][0]) == COUNT - 2
    assert all(math.isfinite(value) for scene in values["student"]["psnr"] for value in scene)


def test_an_index_evaluates_its_scenes_alone(tmp_path: Path):
    for name in ("a", "b"):
        write_real_estate(film(), tmp_path / "test", name)
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"b": {"context": [0, 5], "target": [2, 3]}, "a": None}))
    result, _, _ = evaluate_posed(load("smoke"), tmp_path / "test", PosedOptions(index=index))
    assert [one["name"] for one in result["captures"]] == ["b"]
    assert result["frames"] == 2
    assert result["captures"][0]["unit"]["source"] == "frames"
    index.write_text(json.dumps({"c": {"context": [0, 5], "target": [2, 3]}}))
    with pytest.raises(LyraError, match="names none"):
        evaluate_posed(load("smoke"), tmp_path / "test", PosedOptions(index=index))


def test_a_path_that_leaves_the_scene_ends_there(tmp_path: Path):
    """Turned about, nothing that is known is in sight: the teacher's last picture stands for the rest."""
    taken = film()
    poses = taken.cameras.camera_to_world.clone()
    poses[3:, :3, :3] = poses[3:, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    turned = type(taken)(taken.color, taken.depth, Cameras(poses, taken.cameras.intrinsics, 48, 64))
    model = load("smoke")
    frames = model.config.teacher.frames
    many = [i % COUNT for i in range(2 * frames)]
    long = type(taken)(turned.color[many], turned.depth[many], turned.cameras[sorted(many)])
    result, _, _ = evaluate_posed(model, write_7_scenes(long, tmp_path / "room"), PosedOptions(stride=1, most=100))
    assert result["frames"] == len(many) - 1
    assert result["captures"][0]["lost_frames"] > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("posed",), "give the folder"),
        (("posed", "FOLDER", "--input-frame", "9"), "frames 0 to 5"),
        (("posed", "FOLDER", "--scenes", "3"), "leave out --scenes"),
        (("worlds", "--stride", "3"), "--stride: of captures alone"),
        (("posed", "FOLDER", "--stride", "0"), "at least 1"),
        (("posed", "FOLDER", "--size", "9"), "size"),
    ],
)
def test_impossible_requests_are_one_line(arguments: tuple[str, ...], text: str, tmp_path: Path):
    folder = write_nerfstudio(film(), tmp_path / "room")
    done = run_here("evaluate", *(folder if word == "FOLDER" else word for word in arguments), "--model", "smoke")
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
