"""Metrics against scikit-image and closed forms; the doctor; the report."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lyra.cli import doctor
from lyra.errors import LyraError
from lyra.evaluation import evaluate_scene, psnr, ssim
from lyra.files.clips import Clip, save_clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians
from lyra.models.recipe import SMOKE
from lyra.scene.scene import Scene
from lyra.training.report import print_report
from lyra.views.views import Motion, Views


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=(48, 64), mode="bicubic").clamp(0, 1)[0]
    return base, (base + 0.1 * torch.randn_like(base)).clamp(0, 1)


def test_psnr_is_scikit_images():
    truth, noisy = pictures()
    expected = peak_signal_noise_ratio(truth.numpy(), noisy.numpy(), data_range=1)
    assert psnr(noisy, truth) == pytest.approx(expected, abs=1e-4)


def test_psnr_over_a_mask_counts_its_pixels_only():
    truth, prediction = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    prediction[:, 0] = 0.1
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, 0] = True
    assert psnr(prediction, truth, mask) == pytest.approx(20, abs=1e-4)
    assert math.isnan(psnr(prediction, truth, torch.zeros_like(mask)))


def test_ssim_is_scikit_images():
    truth, noisy = pictures()
    result: Any = structural_similarity(
        truth.double().numpy(),
        noisy.double().numpy(),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    # Ours has no padding: compare where the window lies inside.
    assert ssim(noisy, truth) == pytest.approx(float(np.mean(result[1][:, 5:-5, 5:-5])), abs=1e-4)


def test_a_folder_without_a_scene_is_refused(tmp_path: Path):
    with pytest.raises(LyraError, match="no finished scene"):
        evaluate_scene(tmp_path)


def test_a_video_s_own_clip_counts_for_no_trajectory(tmp_path: Path):
    """A scene that fills the input view, and of which a camera far to the right sees nothing."""
    size, count = 32, 3
    lens = intrinsics_from_fov(55.0, size, size).expand(count, 4)
    still = Cameras(torch.eye(4).repeat(count, 1, 1), lens, size, size)
    away = still.camera_to_world.clone()
    away[:, 0, 3] = 50.0
    place, turn = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    wall = Gaussians(place, torch.tensor([[4.0, 4.0, 0.1]]), turn, torch.tensor([0.99]), torch.full((1, 3), 0.5))
    nothing = wall.select(torch.zeros(1, dtype=torch.bool))
    dynamic = DynamicGaussians(wall, (nothing,) * count, torch.linspace(0, 1, count))
    teacher = json.loads(json.dumps(asdict(SMOKE.teacher)))
    provenance = {"model": {"teacher": teacher}, "timings": {"all": 1.0}, "peak_memory_mb": 1}
    Scene.of_moments(dynamic, still[:1], provenance).save(tmp_path)
    flat, nowhere = torch.full((count, size, size), 2.0), torch.zeros(count, size, size, dtype=torch.bool)
    images = torch.rand(count, 3, size, size)
    views = Views(images, flat, still, Motion(nowhere, ~nowhere[0], images[0], flat[0], 1.0))
    views.save(tmp_path / "clips/input.safetensors")
    latents = torch.zeros(1, 1, 1, 1)
    save_clip(Clip(latents, replace(still, camera_to_world=away)), tmp_path / "clips/right.0/clip.safetensors")
    without = evaluate_scene(tmp_path)
    for name in ("input", "input.0", "input.12"):
        save_clip(Clip(latents, still), tmp_path / "clips" / name / "clip.safetensors")
    assert evaluate_scene(tmp_path) == without
    assert without["coverage"] == 0


def test_the_doctor_finds_this_installation_sound():
    findings = doctor.examine()
    assert [f.text for f in findings if not f.ok] == []
    text = "\n".join(f.text for f in findings)
    for word in ("torch", "numba", "cores", "GB free"):
        assert word in text


def test_the_doctor_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(doctor.PACKAGES, "nothere", "nothing")
    problems = [f.text for f in doctor.examine() if not f.ok]
    assert problems == ["nothere is not installed: nothing"]


def test_the_report_averages_the_log(tmp_path: Path, capsys):
    rows = [{"step": i, "loss": float(i), "seconds": 1.0} for i in range(10)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print_report(tmp_path, 2)
    lines = capsys.readouterr().out.splitlines()
    assert "0..4" in lines[1]
    assert lines[1].split()[1] == "2"
    assert lines[2].split()[1] == "7"
    with pytest.raises(LyraError, match=r"log\.jsonl"):
        print_report(tmp_path / "none", 2)
