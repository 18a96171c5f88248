"""Parts of scenes, and how time runs in their films."""

import errno
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lyra.errors import LyraError
from lyra.files import load_ply
from lyra.generate.cutting import cut_scene
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians
from lyra.scene.film import film_path, film_scene, render_video, write_bullet, write_fly_through
from lyra.scene.scene import Scene
from lyra.scene.times import TimeOptions


def spot(x: float, color: tuple[float, float, float]) -> Gaussians:
    return Gaussians(
        means=torch.tensor([[x, 0.0, 2.0]]),
        scales=torch.full((1, 3), 0.2),
        quaternions=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        opacities=torch.tensor([0.95]),
        colors=torch.tensor([color]),
    )


@pytest.fixture
def scene() -> Scene:
    """A gray spot that stays, and one that wanders to the right while it turns from red to blue."""
    times = torch.linspace(0, 1, 5)
    moments = tuple(spot(-0.5 + t, (1 - t, 0.0, t)) for t in times.tolist())
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(60.0, 32, 32)[None], 32, 32)
    return Scene.of_moments(DynamicGaussians(spot(0.0, (0.5, 0.5, 0.5)), moments, times, 2.0), camera)


def test_a_time_range_begins_and_ends_where_it_is_told(scene: Scene, tmp_path: Path):
    scene.save(tmp_path / "whole")
    part = cut_scene(tmp_path / "whole", tmp_path / "part", times=(0.25, 0.75))
    again = Scene.load(tmp_path / "part")
    assert part.dynamic is not None
    assert again.dynamic is not None
    assert again.dynamic.times.tolist() == [0.0, 0.5, 1.0]
    assert again.dynamic.seconds == pytest.approx(1.0)
    torch.testing.assert_close(again.at(0.0).gaussians.means, scene.at(0.25).gaussians.means)
    assert (tmp_path / "part/index.html").is_file()
    assert (tmp_path / "part/scene.4dgs").is_file()


def test_one_time_gives_a_still_scene(scene: Scene, tmp_path: Path):
    scene.save(tmp_path / "whole")
    cut_scene(tmp_path / "whole", tmp_path / "still", times=(1.0, 1.0))
    still = Scene.load(tmp_path / "still")
    assert still.dynamic is None
    torch.testing.assert_close(still.gaussians.means[:, 0], torch.tensor([0.0, 0.5]))
    assert not (tmp_path / "still/frames").exists()


def test_a_box_keeps_what_is_in_it_at_every_time(scene: Scene, tmp_path: Path):
    scene.save(tmp_path / "whole")
    part = cut_scene(tmp_path / "whole", tmp_path / "part", box=(-0.3, -1.0, 0.0, 1.0, 1.0, 3.0))
    assert part.dynamic is not None
    assert [len(part.dynamic.moment(i)) for i in range(5)] == [1, 2, 2, 2, 2]


def test_a_box_keeps_what_enters_it_only_later(scene: Scene, tmp_path: Path):
    scene = replace(scene, provenance={"gaussians": {"static": 1, "moments": [1] * 5}, "input": {"seconds": 2.0}})
    scene.save(tmp_path / "whole")
    part = cut_scene(tmp_path / "whole", tmp_path / "part", times=(0.0, 0.75), box=(0.1, -1.0, 0.0, 1.0, 1.0, 3.0))
    again = Scene.load(tmp_path / "part")
    assert again.dynamic is not None
    assert [len(again.dynamic.moment(i)) for i in range(4)] == [0, 0, 0, 1]
    assert again.provenance == part.provenance
    assert again.provenance["gaussians"] == {"static": 0, "moments": [0, 0, 0, 1]}
    assert again.provenance["input"] == {"seconds": pytest.approx(1.5), "frames": 4}
    # What other viewers open shows something, and ours can show nothing.
    torch.testing.assert_close(load_ply(tmp_path / "part/scene.ply").means, again.dynamic.moment(3).means)
    assert again.render(again.input_camera, time=0.0).alpha.max() == 0


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("problem", ["fourdgs", "no space"])
def test_a_cut_that_fails_leaves_nothing_and_can_be_repeated(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, there: bool
):
    scene.save(tmp_path / "whole")
    part = tmp_path / "part"
    if there:
        part.mkdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        if problem == "fourdgs":
            patch.setitem(sys.modules, "fourdgs", None)
            patch.setattr("lyra.generate.cutting.write_viewer", lambda *_: pytest.fail("it is known before any work"))
        else:
            patch.setattr("lyra.generate.cutting.save_4dgs", full)
        with pytest.raises(LyraError, match=problem):
            cut_scene(tmp_path / "whole", part)
    assert [path.name for path in tmp_path.iterdir() if path.name != "whole"] == ["part"] * there
    assert not there or not list(part.iterdir())
    cut_scene(tmp_path / "whole", part)
    names = ["dynamic.safetensors", "frames", "index.html", "scene.4dgs", "scene.json", "scene.ply"]
    assert sorted(path.name for path in part.iterdir()) == names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box": (5.0, 5.0, 5.0, 6.0, 6.0, 6.0)}, "nothing of the scene"),
        ({"box": (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)}, "is empty"),
        ({"times": (0.3, 0.4)}, "no moment"),
        ({"times": (2.0, 2.0)}, "outside"),
    ],
)
def test_a_part_that_cannot_be_leaves_nothing_behind(scene: Scene, tmp_path: Path, options, words):
    scene.save(tmp_path / "whole")
    with pytest.raises(LyraError, match=words):
        cut_scene(tmp_path / "whole", tmp_path / "part", **options)
    assert not (tmp_path / "part").exists()


def test_a_saved_scene_replaces_the_one_before_it(scene: Scene, tmp_path: Path):
    scene.save(tmp_path)
    (tmp_path / "scene.4dgs").write_bytes(b"of the whole scene")
    (tmp_path / "frames/notes.txt").write_text("mine")
    scene.between(0.0, 0.5).save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "frames").glob("*.ply")) == ["0000.ply", "0001.ply", "0002.ply"]
    scene.at(1.0).save(tmp_path)
    again = Scene.load(tmp_path)
    assert again.dynamic is None
    torch.testing.assert_close(again.gaussians.means, scene.at(1.0).gaussians.means)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "scene.json", "scene.ply"]
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["notes.txt"]


def test_times_of_a_still_scene_are_refused(scene: Scene, tmp_path: Path):
    scene.at(0.5).save(tmp_path / "still")
    with pytest.raises(LyraError, match="is still"):
        cut_scene(tmp_path / "still", tmp_path / "part", times=(0.0, 1.0))


def test_time_runs_as_told():
    assert TimeOptions().over(5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert TimeOptions(0.8, 0.2).over(3).tolist() == pytest.approx([0.8, 0.5, 0.2])
    assert TimeOptions(0.5, 0.5).over(4).tolist() == [0.5] * 4
    assert TimeOptions(loops=2).over(5).tolist() == [0, 0.5, 0, 0.5, 1]
    for wrong in ({"start": -0.1}, {"end": 1.5}, {"loops": 0}):
        with pytest.raises(LyraError):
            TimeOptions(**wrong)  # pyright: ignore[reportArgumentType]


def test_a_film_shows_each_moment_at_its_time(scene: Scene):
    cameras = scene.input_camera[[0] * 3]
    frames = list(film_scene(scene, cameras, torch.tensor([0.0, 0.5, 1.0])))
    for frame, time in zip(frames, (0.0, 0.5, 1.0), strict=True):
        torch.testing.assert_close(frame, scene.at(time).render(scene.input_camera).color[0].clamp(0, 1))
    red = [float(frame[0, 16, 8] - frame[2, 16, 8]) for frame in frames]
    assert red[0] > 0.2 > abs(red[2])


def test_a_film_is_written_while_it_is_drawn(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import av

    scene.save(tmp_path / "whole")
    order: list[str] = []
    draw, encode = Scene.render, av.VideoFrame.from_ndarray
    monkeypatch.setattr(Scene, "render", lambda *given: order.append("drawn") or draw(*given))
    monkeypatch.setattr("av.VideoFrame", SimpleNamespace(from_ndarray=note_encoding(order, encode)))
    render_video(tmp_path / "whole", tmp_path / "film.mp4", "still", frames=3, size=32)
    assert order == ["drawn", "encoded"] * 3


def note_encoding(order: list[str], encode: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*given: Any, **options: Any) -> Any:
        order.append("encoded")
        return encode(*given, **options)

    return noted


@pytest.mark.parametrize("fps", [0, -1])
def test_a_film_without_a_frame_rate_is_refused_before_any_work(tmp_path: Path, fps: int):
    with pytest.raises(LyraError, match="frames a second"):
        render_video(tmp_path / "not looked at", tmp_path / "film.mp4", "fly", frames=3, size=32, fps=fps)


def test_films_of_a_scene_that_moves(scene: Scene, tmp_path: Path):
    import av

    write_fly_through(scene, tmp_path / "scene.mp4")
    write_bullet(scene, tmp_path / "bullet.mp4")
    change = {}
    for name in ("scene.mp4", "bullet.mp4"):
        with av.open(str(tmp_path / name)) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert len(frames) == 72
        change[name] = abs(frames[0].astype(float) - frames[-1]).mean()
    # The path is nearly closed: what differs much between the first and the last frame is time's doing.
    assert change["scene.mp4"] > 3 * change["bullet.mp4"]


def test_a_film_does_not_go_through_what_moves(scene: Scene):
    start = film_path(scene, 24, 1e-3).centers[0]
    seen = [scene.at(time).render(scene.input_camera) for time in (0.0, 0.5, 1.0)]
    nearest = min(float(one.depth[one.alpha > 0.5].quantile(0.02)) for one in seen)
    forward = (film_path(scene, 24, 50.0).centers - start)[:, 2]
    assert 0.3 * nearest < float(forward.max()) < 0.8 * nearest
