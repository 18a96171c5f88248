"""`lyra verify`: real pages in a real browser, right and wrong ones."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lyra.cli.main import main
from lyra.errors import LyraError, MissingExtraError
from lyra.files import load_image
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians
from lyra.scene.scene import Scene
from lyra.viewer import verification
from lyra.viewer.page import write_viewer
from lyra.viewer.verification import BACKENDS, Verification, choose_views, enlarge, open_browser, verify_scene

CAMERA = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 64, 96)[None], 64, 96)


def wall(pitch: float, size: float) -> Gaussians:
    """A wall of round Gaussians at depth 1, ``pitch`` pixels of ``CAMERA`` apart and ``size`` pixels large, and some
    long thin ones of other depths before it."""
    focal = float(CAMERA.intrinsics[0, 0])
    ys, xs = torch.meshgrid(torch.arange(-60, 61), torch.arange(-80, 81), indexing="ij")
    means = torch.stack([xs * pitch / focal, ys * pitch / focal, torch.ones(xs.shape)], dim=-1).reshape(-1, 3)
    generator = torch.Generator().manual_seed(0)
    scales = torch.full_like(means, size / focal)
    scales[::97, 0] *= 8
    means[::97, 2] = 0.5 + 0.4 * torch.rand(len(means[::97]), generator=generator)
    return Gaussians(
        means=means,
        scales=scales,
        quaternions=torch.nn.functional.normalize(torch.randn(len(means), 4, generator=generator), dim=-1),
        opacities=0.3 + 0.69 * torch.rand(len(means), generator=generator),
        colors=torch.rand(len(means), 3, generator=generator),
    )


def save_scene(folder: Path, gaussians: Gaussians, shown: Gaussians | None = None) -> Path:
    """A scene folder whose page shows the same Gaussians, or others."""
    Scene(gaussians, CAMERA).save(folder)
    write_viewer(gaussians if shown is None else shown, folder / "index.html", CAMERA)
    return folder


@pytest.fixture
def _browser(monkeypatch) -> None:
    """Skips where there is none, and does not measure for long."""
    pytest.importorskip("playwright", reason="browser tests need playwright")
    try:
        with open_browser():
            pass
    except LyraError as problem:
        pytest.skip(str(problem))
    measure: Any = verification.measure_frames
    monkeypatch.setattr(verification, "measure_frames", lambda *arguments: measure(*arguments[:-1], 0.3))


@pytest.mark.browser
@pytest.mark.usefixtures("_browser")
def test_page_and_renderer_show_the_same(tmp_path, monkeypatch, capsys):
    scene = save_scene(tmp_path / "scene", wall(1.0, 0.7))
    arguments = [
        "lyra",
        "verify",
        str(scene),
        "--views",
        "2",
        "--size",
        "160",
        "--save",
        str(tmp_path / "shots"),
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["agrees"]
    assert numbers["psnr"] > 45
    assert {(row["backend"], row["view"]) for row in numbers["rows"]} == {(b, v) for b in BACKENDS for v in (0, 1)}
    assert numbers["frames_per_second"] > 0
    assert load_image(tmp_path / "shots" / "pairs.png").shape == (3, 320, 480)
    assert len(list((tmp_path / "shots").iterdir())) == 7


@pytest.mark.browser
@pytest.mark.usefixtures("_browser")
def test_a_page_of_other_splats_is_found_out(tmp_path, monkeypatch, capsys):
    gaussians = wall(1.0, 0.7)
    wrong = replace(gaussians, means=gaussians.means + torch.tensor([0.02, 0, 0]))
    scene = save_scene(tmp_path / "scene", gaussians, wrong)
    monkeypatch.setattr(sys, "argv", ["lyra", "verify", str(scene), "--views", "1", "--size", "100"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "the page differs from the renderer" in capsys.readouterr().err


@pytest.mark.browser
@pytest.mark.usefixtures("_browser")
def test_a_ply_gets_a_page_and_an_old_page_is_named(tmp_path):
    scene = save_scene(tmp_path / "scene", wall(2.0, 1.0))
    found = verify_scene(scene / "scene.ply", views=1, size=64, seconds=0.0)
    assert found.agrees
    assert found.frames_per_second is None
    (scene / "index.html").write_text("<title>another viewer</title>")
    with pytest.raises(LyraError, match="generate the scene again"):
        verify_scene(scene, views=1, size=64, seconds=0.0)


def test_nothing_of_a_folders_own_page_is_run_but_its_splats(tmp_path: Path):
    scene = save_scene(tmp_path / "scene", wall(2.0, 1.0))
    written = (scene / "index.html").read_text()
    evil = written.replace("</body>", "<script>document.title = 'run'</script></body>")
    evil = evil.replace('"count"', '"x": "</script><script>run()</script>", "count"'.replace("<", "\\u003c"))
    (scene / "index.html").write_text(evil)
    with verification._page_of(Scene.load(scene), scene) as page:
        assert page.parent != scene
        opened = page.read_text()
    assert "run" in evil and "'run'" not in opened and "<script>run()" not in opened
    assert opened.count("<script") == written.count("<script")
    for part in ("splats", "composite"):
        [same] = re.findall(rf'id="{part}">([^<]+)<', written)
        assert f">{same}<" in opened


def test_enlarging_shows_gaps_where_there_are_some():
    camera = choose_views(CAMERA, 2, 64)
    dense = enlarge(wall(0.7, 1.2), camera)
    sparse = enlarge(wall(1.0, 0.05), camera)
    assert dense[0] > 0.99
    assert dense[1] > 30
    assert sparse[0] < 0.5
    assert sparse[1] < 25
    assert Verification({"webgl": (40.0,)}, None, *dense).enlarges
    assert not Verification({"webgl": (40.0,)}, None, *sparse).enlarges
    assert not Verification({"webgl": (40.0, 34.0)}, None, *dense).agrees


def test_the_views_begin_with_the_input_camera():
    views = choose_views(CAMERA, 3, 128)
    assert (len(views), views.height, views.width) == (3, 128, 192)
    torch.testing.assert_close(views.camera_to_world[0], CAMERA.camera_to_world[0])
    torch.testing.assert_close(views.intrinsics[0], 2 * CAMERA.intrinsics[0])
    assert not torch.allclose(views.camera_to_world[1], views.camera_to_world[2])


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    scene = save_scene(tmp_path / "scene", wall(8.0, 1.0))
    with pytest.raises(LyraError, match="at least 1 view"):
        verify_scene(scene, views=0)
    with pytest.raises(LyraError, match="no finished scene"):
        verify_scene(tmp_path)
    (scene / "index.html").unlink()

    class Driver:
        """Playwright on a machine without a browser."""

        def __init__(self, error: type[Exception]):
            self.chromium, self.error = self, error

        def launch(self, **_: Any) -> None:
            raise self.error("Executable doesn't exist")

        def __enter__(self) -> "Driver":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with monkeypatch.context() as patch:
        patch.setattr(playwright, "sync_playwright", lambda: Driver(playwright.Error))
        patch.setattr(verification.shutil, "which", lambda _: None)
        with pytest.raises(LyraError, match="apt-get install chromium"):
            verify_scene(scene)
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(MissingExtraError, match="playwright"):
        verify_scene(scene)
