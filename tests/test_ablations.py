"""Ablations: arms differ in what they say, finished worlds are not run again, and verdicts are by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_here

from lyra.errors import LyraError
from lyra.evaluation import ablations
from lyra.evaluation.ablations import ABLATIONS, Ablation, Arm, run_ablation
from lyra.evaluation.lessons import FIRST_LESSON_SEED, Lessons, imagine_data, render_data
from lyra.evaluation.metrics import psnr
from lyra.models.loading import load
from lyra.synthesis.streaming import DataSet
from lyra.tokenizer.tokenizer import decode_frames
from lyra.training.ladders import SMOKE, Ladder
from lyra.worlds import render_world, sample_world


def test_a_stopped_ablation_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of random weights: after the first run one world is lost, and only that one is run again."""
    arms = (Arm("6"), Arm("1", clips=1), Arm("each clip by itself", fused=False), Arm("half", keep=0.5))
    monkeypatch.setitem(ABLATIONS, "fusion", Ablation(arms, "in words", {"1": -1}))
    model = load("smoke")
    first = run_ablation(model, "fusion", tmp_path, scenes=2, seeds=(0,))
    (tmp_path / arms[1].key / "50001-0.json").unlink()
    ran = []
    make = ablations._run_arm
    monkeypatch.setattr(ablations, "_run_arm", lambda *a: ran.append(a[1:4]) or make(*a))
    again = run_ablation(model, "fusion", tmp_path, scenes=2, seeds=(0,))
    assert ran == [(arms[1], 50001, 0)]
    for row, other in zip(first["rows"], again["rows"], strict=True):
        assert row["psnr"] == other["psnr"]
    counts = {row["arm"]: row["gaussians"] for row in again["rows"]}
    assert counts["1"] < counts["6"]
    assert counts["half"] < counts["6"] or model.decoder.config.keep < 0.5
    assert again["rows"][0]["psnr_low"] <= again["rows"][0]["psnr"] <= again["rows"][0]["psnr_high"]
    assert model.decoder.config == load("smoke").decoder.config
    file = tmp_path / arms[0].key / "50000-0.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"of": {"model": "another"}}))
    with pytest.raises(LyraError, match="of another model"):
        run_ablation(model, "fusion", tmp_path, scenes=2, seeds=(0,))


def test_a_verdict_has_the_paper_s_sign_or_none():
    assert ablations._agrees(-1, (-0.5, -0.1), [-0.4, -0.2]) == "yes"
    assert ablations._agrees(-1, (0.1, 0.5), [0.2, 0.4]) == "no"
    assert ablations._agrees(-1, (-0.1, 0.5), [0.2, 0.2]) == "within noise"
    assert ablations._agrees(-1, (-0.5, -0.1), [-0.7, 0.1]) == "within noise"
    assert ablations._agrees(-1, None, [-0.1]) == "within noise"
    assert ablations._agrees(None, (0.1, 0.5), [0.2]) == "paper has no figure"


def test_unknown_ablations_are_refused(tmp_path: Path):
    done = run_here("evaluate", "ablation", "colors", "--model", "smoke", "--run", tmp_path)
    assert done.returncode == 2
    assert "no ablation 'colors'" in done.stderr
    assert run_here("evaluate", "ablation", "--model", "smoke").returncode == 2
    assert run_here("evaluate", "worlds", "--run", tmp_path).returncode == 2


TINY = Lessons(Ladder(SMOKE.decoder, SMOKE.still()), worlds=2, size=32)


def test_arms_of_an_ablation_differ_in_one_field():
    """What is trained, and how it is asked: the first arm's but for one."""
    for name, ablation in ABLATIONS.items():
        base = ablation.arms[0]
        for arm in ablation.arms[1:]:
            changed = {key for key, value in vars(arm).items() if value != getattr(base, key)} - {"name"}
            assert len(changed) == 1, (name, arm.name)
            if arm.lessons is None or base.lessons is None or changed != {"lessons"}:
                continue
            of_lessons = {key for key, value in vars(arm.lessons).items() if value != getattr(base.lessons, key)}
            assert len(of_lessons) == 1, (name, arm.name)
            steps = [[(s.until, s.batch, s.size) for s in one.ladder.stages] for one in (base.lessons, arm.lessons)]
            assert steps[0] == steps[1] and arm.lessons.worlds == base.lessons.worlds


def test_students_of_an_ablation_are_taught_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each by lessons and seed: arms that only ask differently share theirs, and a second run trains nothing."""
    base = Arm("base", lessons=TINY)
    true_views = replace(base, name="true views alone", lessons=replace(TINY, clips="rendered"))
    arms = (base, true_views, replace(base, name="1", clips=1))
    monkeypatch.setitem(ABLATIONS, "multi-view", Ablation(arms, "in words", {"true views alone": -1}))
    model = load("smoke")
    result = run_ablation(model, "multi-view", tmp_path, scenes=1, seeds=(0,))
    students = sorted(path.name for path in (tmp_path / "lessons").glob("student-*"))
    assert len(students) == 2 and len({name.rpartition("-")[0] for name in students}) == 2
    assert [len(row["psnr_by_seed"]) for row in result["rows"]] == [1, 1, 1]
    numbers = [row["psnr"] for row in result["rows"]]
    assert numbers[0] != numbers[1]

    monkeypatch.setattr("lyra.evaluation.lessons.train_student", None)
    for file in tmp_path.glob("*/5*.json"):
        file.unlink()
    again = run_ablation(model, "multi-view", tmp_path, scenes=1, seeds=(0,))
    assert [row["psnr"] for row in again["rows"]] == numbers


def test_true_views_are_the_world_s(tmp_path: Path):
    """The same worlds, cameras and order as the teacher's clips; frames as near as the tokenizer comes."""
    model = load("smoke")
    lessons = replace(TINY, worlds=1)
    imagined = imagine_data(model, lessons, tmp_path / "imagined")
    rendered = DataSet(render_data(model, lessons, imagined, tmp_path / "rendered"))
    assert rendered.ids == DataSet(imagined).ids
    scene, other = rendered[0].scene, DataSet(imagined)[0].scene
    world = sample_world(FIRST_LESSON_SEED)
    for clip, taught, depth in zip(scene.clips, other.clips, scene.depth, strict=True):
        assert (clip.cameras.camera_to_world == taught.cameras.camera_to_world).all()
        color, true = render_world(world, clip.cameras)
        shown = decode_frames(model.tokenizer, clip.latents)
        assert psnr(shown, color) > psnr(decode_frames(model.tokenizer, taught.latents), color) + 1
        assert (depth - true).abs().max() < 0.01 * true.max()
    assert other.depth == ()
