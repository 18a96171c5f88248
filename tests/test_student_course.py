"""The student's course by stages: the paper's numbers, what a stage reads, and whole runs of the smoke ladder."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lyra.cache.warp import render_cache
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files.photos import Photo
from lyra.files.videos import Video
from lyra.models.model import Model
from lyra.models.smoke import build_smoke_model
from lyra.synthesis.imagined import SyntheticScene, imagine_scene
from lyra.synthesis.samples import Sample, Split, encode_sample
from lyra.synthesis.shards import pack_files, write_shard
from lyra.synthesis.streaming import DataSet
from lyra.training.ladders import DISTILL, MINI, PAPER, SMOKE, Ladder
from lyra.training.loop import LOG, LoopConfig
from lyra.training.run_checkpoints import find_checkpoint
from lyra.training.staged_scenes import DataSetScenes, cut_scene
from lyra.training.still_student import SceneSet
from lyra.training.student_course import Course, make_student, train_student
from lyra.training.validation import read_validation
from lyra.views.posed_video import PosedVideo

PAPER_FORM = Ladder(
    replace(
        SMOKE.decoder,
        geometry="ray",
        time_conditioning=False,
        splat_frames=4,
        splats_per_token=2,
        distance_shift=-4.0,
        max_scale=0.1,
    ),
    SMOKE.stages,
)


@pytest.fixture(scope="module")
def model() -> Model:
    return build_smoke_model()


def smooth_pictures(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


def imagine(engine: Engine, pictures: Tensor, seed: int) -> SyntheticScene:
    moving = len(pictures) > 1
    # Pictures of chance do not tell whether their camera stands.
    video = PosedVideo.standing(Video.of(pictures, (len(pictures) - 1) / engine.config.fps))
    return imagine_scene(engine, engine.views(video if moving else [Photo.of(pictures[0])], fov=55.0)[0], seed)


def write_data(folder: Path, split: Split, scenes: list[SyntheticScene]) -> None:
    pieces = {}
    for number, scene in enumerate(scenes):
        names = [f"c{i}" for i in range(len(scene.clips))] + [f"c{i}.backward" for i in range(len(scene.backward))]
        sample = Sample(f"{split[0]}{number:04d}", "0" * 64, split, "", scene, dict.fromkeys(names, "x"), {})
        pieces[sample.id] = folder / f"{sample.id}.piece"
        pieces[sample.id].parent.mkdir(parents=True, exist_ok=True)
        pieces[sample.id].write_bytes(pack_files(sample.id, encode_sample(sample)))
    write_shard(folder / "shards" / f"{split}-00000.tar", pieces)


@pytest.fixture(scope="module")
def data(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of photos and one of videos."""
    folder, generator = tmp_path_factory.mktemp("data"), torch.Generator().manual_seed(0)
    size = (model.config.teacher.height, model.config.teacher.width)
    engine = Engine(model, "cpu")

    def imagined(pictures: int, seed: int) -> SyntheticScene:
        return imagine(engine, smooth_pictures(pictures, size, generator), seed)

    for name, pictures in (("photos", 1), ("videos", model.config.teacher.frames)):
        write_data(folder / name, "train", [imagined(pictures, seed) for seed in range(1 if pictures > 1 else 2)])
        write_data(folder / name, "held-out", [imagined(pictures, 9)])
    return folder / "photos", folder / "videos"


def test_the_papers_stages_are_the_papers():
    rows = [(s.until, s.size, s.frames, s.targets, s.batch // 8, s.prune, s.moving) for s in PAPER.stages]
    small, middle, large = (176, 320), (352, 640), (704, 1280)
    assert rows == [
        (10_000, small, 17, 17, 4, False, False),
        (12_500, small, 49, 49, 4, False, False),
        (15_000, middle, 49, 49, 2, False, False),
        (17_500, large, 49, 49, 1, False, False),
        (75_000, large, 121, 9, 1, False, False),
        (82_000, large, 121, 9, 1, False, False),
        (83_000, large, 121, 9, 1, True, False),
        (90_000, large, 121, 12, 1, False, True),
        (91_000, large, 121, 12, 1, True, True),
    ]
    assert [s.trajectories for s in PAPER.stages] == [(1,)] * 5 + [(1, 2, 3, 4, 5, 6)] * 4
    assert [s.late for s in PAPER.stages] == [0.0] * 5 + [3.0] * 4
    assert [s.weights.opacity for s in PAPER.stages] == [0.0] * 6 + [0.1, 0.0, 0.1]
    assert all((s.weights.color, s.weights.perceptual, s.weights.depth) == (1.0, 0.5, 0.05) for s in PAPER.stages)
    assert all((s.learning_rate, s.warmup, s.sparing) == (1e-4, 100, True) for s in PAPER.stages)
    loop = PAPER.stages[0].loop(LoopConfig())
    assert (loop.betas, loop.weight_decay, loop.clip) == ((0.9, 0.999), 1e-2, 1.0)
    assert PAPER.branch().name == "six"


@pytest.mark.parametrize("ladder", [MINI, DISTILL, SMOKE])
def test_the_small_ladders_rise_as_the_papers_does(ladder: Ladder):
    stages = ladder.stages
    assert all(a.until < b.until for a, b in pairwise(stages))
    assert all(a.size <= b.size and a.frames <= b.frames for a, b in pairwise(stages))
    assert all(bool(stage.weights.opacity) == stage.prune for stage in stages)
    assert [stage.moving for stage in stages] == sorted(stage.moving for stage in stages)
    if ladder is MINI:
        shape = [(s.gap is None, len(s.trajectories) > 1, s.prune, s.moving) for s in PAPER.stages]
        assert [(s.gap is None, len(s.trajectories) > 1, s.prune, s.moving) for s in stages] == shape


def test_a_cut_scene_is_the_scene_with_less(model: Model):
    """Its pictures are those of its cameras: what the scene's points show there is what the cut's show."""
    config = replace(model.config.teacher, frames=9)
    picture = smooth_pictures(1, (32, 32), torch.Generator().manual_seed(1))
    made = imagine(Engine(model, "cpu", config=config), picture, 1)
    decoder = make_student(PAPER_FORM)
    scenes = SceneSet([made], Engine(replace(model, decoder=decoder), "cpu", config=config))
    stage = replace(SMOKE.stages[0], size=(32, 32), frames=5, gap=(4, 7), trajectories=(2,))
    starts = set()
    for draw in range(5):
        cut = cut_scene(scenes, 0, stage, torch.Generator().manual_seed(draw))
        [scene] = cut.scenes
        assert len(scene.clips) == 2 and len(scene.clips[0].cameras) == 5
        assert torch.allclose(scene.clips[0].cameras.camera_to_world[0], torch.eye(4), atol=1e-6)
        for clip in range(2):
            path, frames = find_frames(scenes, cut.video(0, clip))
            assert frames == sorted(set(frames)) and 4 <= frames[-1] - frames[0] <= 7
            seen = render_cache(cut.cache(0), scene.clips[clip].cameras)
            expected = render_cache(scenes.cache(0), made.clips[path].cameras[frames])
            # But for single pixels that rounding puts beside an edge.
            assert ((seen.depth - expected.depth).abs() > 1e-3).float().mean() < 0.01
            starts.add(frames[0])
    assert len(starts) > 1


def find_frames(scenes: SceneSet, pictures: Tensor) -> tuple[int, list[int]]:
    """Of which clip's frames pictures are."""
    for path in range(len(scenes.scenes[0].clips)):
        differences = (pictures[:, None] - scenes.video(0, path)[None]).abs().amax((2, 3, 4))
        if bool((differences.amin(1) < 1e-6).all()):
            return path, differences.argmin(1).tolist()
    raise AssertionError("pictures of no clip")


def test_a_stage_that_reads_more_than_clips_have_is_refused(model: Model, data: tuple[Path, Path]):
    scenes = SceneSet(DataSetScenes(DataSet(data[0])), Engine(model, "cpu"))
    with pytest.raises(LyraError, match="reads frames 45 apart, clips have 5"):
        cut_scene(scenes, 0, PAPER.stages[0], torch.Generator())


@pytest.mark.parametrize("form", ["cache", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_student_climbs_all_stages_and_goes_on_when_killed(
    form: str, model: Model, data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ladder = SMOKE if form == "cache" else PAPER_FORM
    every = LoopConfig(checkpoint_every=1, sample_every=2)
    course = Course(tmp_path / "whole", data[0], ladder, data[1], device="cpu", loop=every)
    student = train_student(model, course)
    assert len(read_rows(tmp_path / "whole/student")) == 5 and len(read_rows(tmp_path / "whole/moving")) == 3
    assert [row["step"] for row in read_validation(tmp_path / "whole/student")] == [2, 4, 5]
    assert all(sum(row["opacities"]) >= row["gaussians"] for row in read_validation(tmp_path / "whole/student"))
    kept = [row["gaussians"] for row in read_rows(tmp_path / "whole/student")]
    # A "cache" student considers what is new alone, which may be less than pruning would keep.
    assert kept[-1] < max(kept[2:4]) or (form == "cache" and kept[-1] == max(kept[2:4]))
    assert any(not torch.equal(a, b) for a, b in zip(student.parameters(), make_student(ladder).parameters()))  # noqa: B905
    assert student.config.time_conditioning

    if form == "ray":
        return
    killed = replace(course, run=tmp_path / "killed")
    kill_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train_student(model, killed)
    monkeypatch.undo()
    train_student(model, killed)
    for part in ("student", "moving"):
        assert read_rows(killed.run / part) == read_rows(course.run / part)
    with pytest.raises(LyraError, match="other stages, seed or tokenizer"):
        train_student(model, replace(course, seed=1))


def read_rows(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    for row in rows:
        del row["seconds"]
    return rows


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    from lyra.training import loop

    advance = loop.Run.advance

    def dying(run: loop.Run, loss: Tensor) -> float:
        if run.step == step:
            raise KeyboardInterrupt
        return advance(run, loss)

    monkeypatch.setattr(loop.Run, "advance", dying)


def test_no_time_leaves_a_run_that_goes_on(model: Model, data: tuple[Path, Path], tmp_path: Path):
    course = Course(tmp_path, data[0], SMOKE, data[1], device="cpu", minutes=0.0)
    train_student(model, course)
    stored = find_checkpoint(tmp_path / "student")
    assert stored is not None and stored.step == 0 and not (tmp_path / "moving").exists()
    assert (tmp_path / "model/lyra.json").exists()


def test_deferred_and_recomputed_is_the_same(model: Model, data: tuple[Path, Path], tmp_path: Path):
    stage = replace(SMOKE.stages[1], until=2)
    losses = []
    for sparing in (False, True):
        ladder = Ladder(PAPER_FORM.decoder, (replace(stage, sparing=sparing),))
        train_student(model, Course(tmp_path / str(sparing), data[0], ladder, device="cpu"))
        losses.append([row["loss"] for row in read_rows(tmp_path / str(sparing) / "student")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_tensorboard_reads_what_was_written(model: Model, data: tuple[Path, Path], tmp_path: Path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    ladder = Ladder(SMOKE.decoder, SMOKE.stages[:1])
    train_student(model, Course(tmp_path, data[0], ladder, device="cpu", tensorboard=True))
    read = events.EventAccumulator(str(tmp_path / "student/tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    tags = read.Tags()
    assert {"training/loss", "training/gradient_norm", "training/gaussians", "steps a second"} <= set(tags["scalars"])
    logged = [row["loss"] for row in read_rows(tmp_path / "student")]
    assert [event.value for event in read.Scalars("training/loss")] == pytest.approx(logged)
    assert tags["images"] == ["validation/teacher and student"] and tags["histograms"] == ["validation/opacities"]


def test_the_lpips_term_is_taken_where_its_weights_are(monkeypatch: pytest.MonkeyPatch):
    from lyra.training.losses import LossWeights
    from lyra.training.perceptual import FeatureDistance, choose_distance

    monkeypatch.delenv("LYRA_LPIPS", raising=False)
    assert choose_distance(LossWeights()) == (None, LossWeights())
    distance, weights = choose_distance(LossWeights(perceptual=0.5))
    assert isinstance(distance, FeatureDistance) and weights.perceptual == 0.02


CLUSTER = Path(__file__).parents[1] / "examples/cluster"
SRUN = """#!/usr/bin/env bash
# Two nodes on one machine: what srun would start on each.
for _ in 1 2; do "$0.node" "${@:2}" & jobs+=($!); done
for job in "${jobs[@]}"; do wait "$job"; done
"""


def run_script(name: str, *arguments: str, **environment: str) -> None:
    fixed = {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [str(CLUSTER / name), *arguments]
    known = {**os.environ, **fixed, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, env=known, cwd=CLUSTER.parents[1])
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_examples_are_scripts():
    for path in CLUSTER.iterdir():
        subprocess.run(["bash", "-n", str(path)], check=True)
        assert os.access(path, os.X_OK)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["one_node.sh", "each_node.sh", "slurm.sbatch"])
def test_the_examples_train_as_one_process_does(script: str, data: tuple[Path, Path], model: Model, tmp_path: Path):
    """On loopback: two processes of one node, or of two nodes with an agent each, by hand or as Slurm starts them."""
    ladder = ("--data", str(data[0]), "--stages", "smoke", "--model", "smoke", "--device", "cpu")
    train_student(model, Course(tmp_path / "alone", data[0], SMOKE, device="cpu"))
    arguments = (*ladder, "--run", str(tmp_path / "run"))
    if script == "one_node.sh":
        run_script(script, *arguments, PROCESSES="2")
    else:
        tools = tmp_path / "tools"
        tools.mkdir()
        for name, text in (
            ("srun", SRUN),
            ("srun.node", '#!/usr/bin/env bash\nexec "$@"\n'),
            ("scontrol", "#!/usr/bin/env bash\necho localhost\n"),
        ):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        port = str(29500 + os.getpid() % 400)
        slurm = {"SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7", "PORT": port}
        known = {"PATH": f"{tools}:{os.environ['PATH']}", "PROCESSES": "1", **slurm}
        if script == "slurm.sbatch":
            run_script(script, *arguments, **known)
        else:
            known |= {"HEAD": f"localhost:{port}", "NODES": "2"}
            both = [threading.Thread(target=run_script, args=(script, *arguments), kwargs=known) for _ in range(2)]
            for one in both:
                one.start()
            for one in both:
                one.join()
    ours, theirs = (read_rows(tmp_path / name / "student") for name in ("run", "alone"))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-3)
