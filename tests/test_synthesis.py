"""Data sets made by one process: what is in them, what decides it, and what becomes of inputs that will not do."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLE, MEDIA
from PIL import Image

from lyra.cli.main import app
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files import save_video
from lyra.files.held_out import HELD_OUT
from lyra.generate.run_folder import FolderLock
from lyra.models.smoke import build_smoke_model
from lyra.synthesis import backlog, making, production, runs
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.manifest import MANIFEST, read_manifest, verify
from lyra.synthesis.planning import Maker, plan_samples
from lyra.synthesis.production import Produced, produce
from lyra.synthesis.sources import Source, find_inputs
from lyra.synthesis.streaming import DataSet
from lyra.tokenizer.tokenizer import decode_frames

QUICK = SynthesisOptions(trajectories=("left", "clockwise"), held_out=0.4, per_shard=2)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(build_smoke_model(), "cpu")


def paint(folder: Path, count: int = 4) -> Path:
    """Photos of smooth noise, with captions for two of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((48, 40)).save(folder / f"photo{number}.png")
    (folder / "photo0.txt").write_text("smooth\nnoise")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("photos") / "inputs")


@pytest.fixture(scope="module")
def data(engine: Engine, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    assert produce(engine, find_inputs(str(photos)), folder, QUICK) == Produced(4, 4, 0, True)
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("log.jsonl", "quarantine.jsonl")
    }


def test_names_places_and_order_of_the_inputs_change_nothing(engine: Engine, photos: Path, data: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere" / "deeper"
    moved.mkdir(parents=True)
    for number, path in enumerate(sorted(photos.glob("*.png"), reverse=True)):
        shutil.copy(path, moved / f"a{number}.PNG")
    shutil.copy(photos / "photo2.png", moved / "again.png")  # and none is taken twice
    (moved / "a3.txt").write_text("smooth noise")
    produce(engine, find_inputs(str(tmp_path / "elsewhere")), tmp_path / "set", QUICK)
    assert content_of(tmp_path / "set") == content_of(data)
    assert verify(data) == {"shards": len(list(data.glob("shards/*.tar"))), "samples": 4, "missing": 0}


def test_a_sample_says_what_it_is_of(engine: Engine, photos: Path, data: Path):
    by_split = {split: DataSet(data, split) for split in ("train", "held-out")}
    samples = [data[index] for data in by_split.values() for index in range(len(data))]
    sources = {source.content: source for source in find_inputs(str(photos))}
    assert {sample.content for sample in samples} == set(sources)
    assert sorted(sample.caption for sample in samples) == ["", "", "", "smooth noise"]
    assert len({clip for sample in samples for clip in sample.clips.values()}) == 8
    for sample in samples:
        assert sample.provenance["model"] == "smoke" and sample.provenance["checksums"]
        assert list(sample.clips) == ["left", "clockwise"]
        assert sample.split == sources[sample.content].split(QUICK.held_out)
        first = decode_frames(engine.tokenizer, sample.scene.clips[0].latents)[0]
        assert (first - sample.scene.views.images[0]).square().mean() < 0.02
    assert len({float(sample.scene.clips[0].cameras.centers[-1].norm()) for sample in samples}) == 4
    assert "/" not in json.dumps([sample.provenance["source"] for sample in samples])


def test_the_split_depends_on_the_input_alone(engine: Engine, photos: Path):
    sources = find_inputs("worlds:200000-200999")
    maker = Maker.of(engine.model)
    for options in (QUICK, replace(QUICK, seed=5, per_shard=7, trajectories=("up",))):
        sides = {item.source.content: item.split for item in plan_samples(sources, maker, options)}
        assert sides == {source.content: source.split(0.4) for source in sources}
    held = {source.content for source in sources if source.split(0.1) == "held-out"}
    assert 70 < len(held) < 130
    # A larger share holds out all that a smaller one did, and what comes later moves nobody.
    assert held < {source.content for source in sources if source.split(0.2) == "held-out"}
    assert all(source.split(0.0) == "train" for source in sources)


def test_what_tests_look_at_is_never_for_training(tmp_path: Path):
    assert all(source.split(0.0) == "held-out" for source in find_inputs("worlds:50000-50009"))
    assert all(source.split(0.0) == "held-out" for source in find_inputs("moving_worlds:60000-60009"))
    digest = next(iter(HELD_OUT))
    assert Source("photo", "any/name.png", digest).split(0.0) == "held-out"
    if MEDIA.is_dir():
        shutil.copy(MEDIA / "restaurant.jpg", tmp_path / "mine.jpg")
        [source] = find_inputs(str(tmp_path))
        assert source.split(0.0) == "held-out"


def test_no_stream_of_training_gives_a_held_out_scene(data: Path, photos: Path):
    held = {source.content for source in find_inputs(str(photos)) if source.split(0.4) == "held-out"}
    training, other = DataSet(data), DataSet(data, "held-out")
    assert held and {other[index].content for index in range(len(other))} == held
    assert not held & {training[index].content for index in range(len(training))}


def test_ids_follow_model_seed_and_trajectory(engine: Engine, photos: Path):
    [source, *_] = find_inputs(str(photos))
    maker = Maker.of(engine.model)
    changed = [
        (maker, QUICK),
        (maker, replace(QUICK, seed=1)),
        (maker, replace(QUICK, trajectories=("left",))),
        (replace(maker, checksums={"weights": "other"}), QUICK),
        (replace(maker, teacher=replace(maker.teacher, steps=9)), QUICK),
    ]
    names = [plan_samples([source], made, options)[0].id for made, options in changed]
    assert len(set(names)) == len(names)
    again = plan_samples([replace(source, place="somewhere/else", caption="other words")], maker, QUICK)
    assert again[0].id == names[0]
    # A clip of the same making has the same id in a data set of other trajectories.
    one = making.clip_ids(source, maker, QUICK, ["left"])
    assert one == making.clip_ids(source, maker, replace(QUICK, trajectories=("left", "up")), ["left"])


def test_a_finished_set_is_left_alone_and_another_is_refused(engine: Engine, photos: Path, data: Path, tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file() and path.name != MANIFEST}
    produce(engine, find_inputs(str(photos)), data, QUICK)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(LyraError, match=r"holds another data set \(of other seed, inputs\)"):
        produce(engine, find_inputs(str(photos)), data, replace(QUICK, seed=3))
    with pytest.raises(LyraError, match="of other inputs"):
        produce(engine, find_inputs("worlds:200000-200003"), data, QUICK)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LyraError, match="holds something else than a data set"):
        produce(engine, find_inputs(str(photos)), tmp_path, QUICK)
    with FolderLock(data) as lock:
        lock.take()
        with pytest.raises(LyraError, match="in use by another run") as caught:
            produce(engine, find_inputs(str(photos)), data, QUICK)
    assert "\n" not in str(caught.value)


def test_an_input_that_fails_three_times_is_set_aside_and_the_rest_is_made(
    engine: Engine, photos: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inputs = shutil.copytree(photos, tmp_path / "inputs")
    (inputs / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    tries: list[str] = []
    real = production.make_sample

    def counted(engine, planned, *arguments):
        tries.append(planned.source.place)
        return real(engine, planned, *arguments)

    monkeypatch.setattr(production, "make_sample", counted)
    made = produce(engine, find_inputs(str(inputs)), tmp_path / "set", QUICK)
    assert made == Produced(4, 5, 1, True)
    broken = str(inputs / "broken.png")
    assert tries.count(broken) == 3 and len(tries) == 7 and tries[-1] == broken
    [row] = [json.loads(line) for line in (tmp_path / "set/quarantine.jsonl").read_text().splitlines()]
    assert row["place"] == broken and "broken.png" in row["error"]
    assert read_manifest(tmp_path / "set")["missing"] == [row["id"]]
    assert not (tmp_path / "set/work").exists()
    # Mended under its name it is another input; put right by the list's removal, all is made that can be.
    produce(engine, find_inputs(str(inputs)), tmp_path / "set", QUICK)
    assert len(tries) == 7
    produce(engine, find_inputs(str(inputs)), tmp_path / "set", QUICK, repair=True)
    assert len(tries) == 10 and verify(tmp_path / "set")["missing"] == 1


def test_an_error_that_passes_costs_nothing(
    engine: Engine, photos: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    failed: list[str] = []
    real = production.make_sample

    def flaky(engine, planned, *arguments):
        if failed.count(planned.id) < 2:
            failed.append(planned.id)
            raise RuntimeError("a moment's trouble")
        return real(engine, planned, *arguments)

    monkeypatch.setattr(production, "make_sample", flaky)
    assert produce(engine, find_inputs(str(photos)), tmp_path / "set", QUICK).complete
    assert content_of(tmp_path / "set") == content_of(data) and len(failed) == 8


def test_an_input_that_ends_its_process_each_time_is_set_aside(engine: Engine, photos: Path, tmp_path: Path):
    planned = plan_samples(find_inputs(str(photos)), Maker.of(engine.model), QUICK)
    poison = planned[0].id
    for _ in range(backlog.DEATHS):
        left = backlog.Backlog(tmp_path, planned)
        taken = []
        while (item := left.take()) is not None and item.id != poison:
            taken.append(item.id)
            left._attempts[item.id].begun = 0  # as if it had been finished but for its file
            left._note(item.id)
        assert item is not None
    left = backlog.Backlog(tmp_path, planned)
    while (item := left.take()) is not None:
        assert item.id != poison
    assert "its worker ended 12 times" in left.quarantined[poison].error


def test_a_damaged_shard_is_named_counted_and_made_again(engine: Engine, photos: Path, data: Path, tmp_path: Path):
    copy = shutil.copytree(data, tmp_path / "set")
    shard = sorted(copy.glob("shards/*.tar"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    with pytest.raises(LyraError, match=rf"{shard.name} is damaged: 1 of \d samples .*--repair"):
        verify(copy)
    produce(engine, find_inputs(str(photos)), copy, QUICK, repair=True)
    assert content_of(copy) == content_of(data)
    shard.with_suffix(".json").write_text("{}")
    with pytest.raises(LyraError, match="json is missing or damaged"):
        verify(copy)
    with pytest.raises(LyraError, match=r"has no manifest.json: it is no data set, or not finished"):
        verify(photos)


def test_all_kinds_of_inputs_in_one_list(engine: Engine, photos: Path, tmp_path: Path):
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    frames = np.broadcast_to(ramp, (6, 3, 40, 48)).copy()
    frames[np.arange(6), 0, 10:20, 5 * np.arange(6)] = 255
    save_video(frames, tmp_path / "walk.mp4", 8)
    rows = [
        {"photo": str(photos / "photo1.png"), "caption": "given"},
        {"video": "walk.mp4"},
        {"prompt": "a red chair in a room"},
        {"world": 200007},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    options = replace(QUICK, held_out=0.0, trajectories=("right",), per_shard=8)
    assert produce(engine, find_inputs(str(tmp_path / "list.jsonl")), tmp_path / "set", options).complete
    data = DataSet(tmp_path / "set")
    samples = {sample.provenance["source"]["kind"]: sample for sample in (data[index] for index in range(4))}
    assert samples["photo"].caption == "given" and samples["prompt"].caption == "a red chair in a room"
    assert [kind for kind, sample in samples.items() if sample.moving] == ["video"]
    assert list(samples["video"].clips) == ["input", "right", "right.backward"]
    assert {name: len(sample.scene.depth) for name, sample in samples.items()} == {
        **dict.fromkeys(("photo", "prompt", "world"), 1),
        "video": 2,
    }
    drawn = samples["prompt"].scene
    assert torch.equal(drawn.depth[0][0], drawn.views.depth[0])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"photo": "x.png", "color": 1}', "line 1: an object with some of"),
        ("a.jsonl", '\n{"prompt": "x", "world": 2}', "line 2: names 2 inputs"),
        ("a.jsonl", '{"photo": "missing.png"}', "missing.png does not exist"),
        ("a.txt", "# nothing\n\n", "holds no inputs: give a folder"),
        ("a.csv", "", "names no inputs: give a folder"),
        (".", "", "holds no inputs"),
    ],
)
def test_lists_that_name_nothing_are_refused_in_one_line(tmp_path: Path, name: str, content: str, said: str):
    if name != ".":
        (tmp_path / name).write_text(content)
    with pytest.raises(LyraError, match=said) as caught:
        find_inputs(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_prompts_are_taken_line_by_line(tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("# mine\na red sofa\n\n  a blue chair \na red sofa\n")
    sources = find_inputs(str(tmp_path / "prompts.txt"))
    assert {source.place for source in sources} == {"a red sofa", "a blue chair"}
    assert all(source.caption == source.place for source in sources)


def test_poses_of_vipe_s_folders_are_part_of_a_video(tmp_path: Path):
    (tmp_path / "rgb").mkdir()
    shutil.copy(EXAMPLE.parent / "walk.mp4", tmp_path / "rgb/walk.mp4")
    [still] = find_inputs(str(tmp_path))
    (tmp_path / "pose").mkdir()
    np.savez(tmp_path / "pose/walk.npz", data=np.eye(4)[None], inds=np.arange(1))
    [posed] = find_inputs(str(tmp_path))
    assert posed.cameras == str(tmp_path / "pose/walk.npz") and posed.posed
    assert posed.content == still.content and posed.split(0.5) == still.split(0.5)


def test_the_command_line_reads_all_it_takes(data: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    called = []
    monkeypatch.setattr(runs, "synthesize_data", lambda *given: called.append(given))
    for line in ("in -o out --ray --workers 2", "in -o out --ray auto --trajectories up left --size 64 96 --repair"):
        app.cli(prog="lyra", args=["synthesize", *line.split()])
    (_, _, _, _, _, here, _), (spec, out, model, size, options, how, pickle) = called
    assert here.ray == () and here.workers == 2
    assert (spec, out, model, size, pickle) == ("in", Path("out"), "mini", (64, 96), False)
    assert how.ray == ("auto",) and how.repair and options.trajectories == ("up", "left")
    app.cli(prog="lyra", args=["synthesize", "--verify", str(data)])
    assert "is whole: 4 scenes" in capsys.readouterr().err
    for wrong, said in ((["in"], "give inputs and, by -o"), (["in", "--verify", str(data)], "leave out the inputs")):
        with pytest.raises(LyraError, match=said):
            app.cli(prog="lyra", args=["synthesize", *wrong])
