"""Test data stay out of training: what training reads and ships is compared by hash with what is held out."""

import ast
import hashlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MEDIA

import lyra.training.depth
import lyra.training.world_clips
import lyra.worlds.input_views
from lyra.files.held_out import HELD_OUT, find_held_out
from lyra.models.recipe import SMOKE
from lyra.training.denoiser import DenoiserObjective
from lyra.training.depth import FIRST_CLOSE_UP_SEED, FIRST_MOVING_VIEW_SEED, DepthObjective
from lyra.training.loop import LoopConfig
from lyra.training.parts import (
    DecoderObjective,
    Workspace,
    synthesize_clips,
    train_decoder,
    train_denoiser,
    train_depth,
    train_tokenizer,
)
from lyra.training.world_clips import FIRST_IMAGE_SEED, FIRST_VIDEO_SEED
from lyra.worlds.input_views import FIRST_TRAINING_SEED

SOURCE = Path(__file__).parents[1] / "src" / "lyra"
OPENED: list[str] = []
LISTENING = [False]


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if LISTENING[0] and event == "open" and isinstance(arguments[0], str | bytes):
        OPENED.append(str(arguments[0]))


def needs_media() -> None:
    if not MEDIA.is_dir():
        pytest.skip(f"no media at {MEDIA} (set LYRA_MEDIA)")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory):
    """A whole training of every part: the files it opened and made, and the seeds of the worlds it drew."""
    workspace = Workspace(
        tmp_path_factory.mktemp("workspace"), SMOKE, worlds=3, scenes=1, views=6, moving_views=2, close_ups=1
    )
    loop = replace(LoopConfig(learning_rate=1e-3, ema=0.99), steps=1)
    seeds: list[int] = []
    # An audit hook sees every file that Python opens. It cannot be taken away again, only told not to listen.
    sys.addaudithook(_listen)
    with pytest.MonkeyPatch.context() as patch:
        for module in (lyra.training.world_clips, lyra.training.depth, lyra.worlds.input_views):
            original = module.sample_world
            patch.setattr(module, "sample_world", lambda seed, draw=original: [seeds.append(seed), draw(seed)][1])
        LISTENING[0] = True
        try:
            train_tokenizer(workspace, worlds=3)
            train_depth(workspace, loop, DepthObjective(batch=1))
            train_denoiser(workspace, loop, DenoiserObjective(batch=1))
            synthesize_clips(workspace)
            train_decoder(workspace, loop, DecoderObjective(targets=1))
        finally:
            LISTENING[0] = False
    opened = [Path(name) for name in dict.fromkeys(OPENED)]
    return workspace, [path for path in opened if path.is_file()], seeds


def test_the_list_names_all_media():
    needs_media()
    files = [path for path in MEDIA.rglob("*") if path.is_file() and path.name != "README.md"]
    assert find_held_out(files) == {path: f"media/{path.relative_to(MEDIA)}" for path in files}


def test_the_list_names_the_stereo_pair_and_photographs_of_the_installed_package():
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-image is not installed")
    data = Path(spec.origin).parent / "data"
    named = {name: digest for digest, name in HELD_OUT.items() if name.startswith("skimage/")}
    assert {"skimage/data/motorcycle_left.png", "skimage/data/motorcycle_right.png"} <= set(named)
    for name, digest in named.items():
        path = data / Path(name).name
        if path.exists():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, name


def test_copies_are_found_under_any_name(tmp_path: Path):
    needs_media()
    copy = tmp_path / "0100000.safetensors"
    copy.write_bytes((MEDIA / "restaurant.jpg").read_bytes())
    (tmp_path / "other").write_bytes(b"something else")
    assert find_held_out(tmp_path.iterdir()) == {copy: "media/restaurant.jpg"}


def test_training_opens_nothing_that_is_held_out(training):
    _, opened, _ = training
    # The hook worked: it saw the data that training made and read again.
    assert any(path.parent.name == "worlds" for path in opened)
    assert any(path.parent.parent.name == "clips" for path in opened)
    assert find_held_out(opened) == {}


def test_training_opens_pictures_only_of_its_own_making(training):
    workspace, opened, _ = training
    suffixes = {
        ".png",
        ".jpg",
        ".jpeg",
        ".tif",
        ".tiff",
        ".gif",
        ".bmp",
        ".webp",
        ".npz",
        ".npy",
        ".mp4",
        ".hdr",
        ".exr",
    }
    foreign = [path for path in opened if path.suffix.lower() in suffixes and workspace.folder not in path.parents]
    assert foreign == []


def test_training_draws_no_world_of_the_tests(training):
    workspace, _, seeds = training
    assert seeds
    assert min(seeds) >= FIRST_TRAINING_SEED
    # Self-distillation's images come from worlds that nothing else saw, however large the workspace.
    largest = Workspace(workspace.folder)
    assert FIRST_TRAINING_SEED + max(largest.worlds, largest.views) <= FIRST_IMAGE_SEED
    assert [seed for seed in seeds if FIRST_IMAGE_SEED <= seed < FIRST_VIDEO_SEED] == [FIRST_IMAGE_SEED]
    assert largest.scenes + FIRST_IMAGE_SEED <= FIRST_VIDEO_SEED
    assert largest.videos + FIRST_VIDEO_SEED <= FIRST_MOVING_VIEW_SEED
    assert largest.moving_views + FIRST_MOVING_VIEW_SEED <= FIRST_CLOSE_UP_SEED


def test_the_package_ships_nothing_that_is_held_out():
    assert find_held_out(path for path in SOURCE.rglob("*") if path.is_file()) == {}
    assert find_held_out((SOURCE.parents[1] / "examples").rglob("*")) == {}


def test_no_module_of_training_imports_a_package_of_photographs():
    banned = {"skimage", "sklearn", "scipy", "torchvision", "imageio", "kornia"}
    for path in [*SOURCE.glob("training/*.py"), *SOURCE.glob("worlds/*.py"), *SOURCE.glob("synthesis/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not banned & {name.split(".")[0] for name in names}, path
