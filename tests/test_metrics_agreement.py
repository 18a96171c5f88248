"""Metrics against torchmetrics and the code of ``lpips`` itself; what reads pickles of others."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from captures import COUNT, HEIGHT, WIDTH, film
from torch import nn

from lyra.errors import LyraError
from lyra.evaluation import psnr, ssim
from lyra.evaluation.scores import Scores, TrueViews
from lyra.files import load_tensors
from lyra.files.posed_folders import find_captures, load_views
from lyra.models.convert.lpips_weights import convert_lpips
from lyra.models.convert.real_estate_chunks import convert_chunk
from lyra.training.lpips_distance import BLOCKS, LpipsDistance


def pictures(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    coarse = torch.rand(count, 3, 8, 8)
    truth = nn.functional.interpolate(coarse, size=(48, 64), mode="bicubic").clamp(0, 1)
    return truth, (truth + 0.1 * torch.randn_like(truth)).clamp(0, 1)


def test_psnr_is_torchmetrics_one_picture_at_a_time():
    metrics = pytest.importorskip("torchmetrics.functional.image")
    truth, shown = pictures()
    expected = metrics.peak_signal_noise_ratio(shown, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert [psnr(a, b) for a, b in zip(shown, truth, strict=True)] == pytest.approx(expected.tolist(), abs=1e-4)


def test_ssim_is_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.image")
    truth, shown = pictures()
    _, every = metrics.structural_similarity_index_measure(
        shown.double(), truth.double(), data_range=1.0, reduction="none", return_full_image=True
    )
    # Its own mean counts the mirrored border too; scikit-image's and ours do not.
    expected = every[..., 5:-5, 5:-5].mean((1, 2, 3))
    assert [ssim(a, b) for a, b in zip(shown, truth, strict=True)] == pytest.approx(expected.tolist(), abs=1e-4)


def _vgg16(pretrained: bool = False, **_: object) -> nn.Module:
    """The layers of torchvision's, which is not needed for them."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    return network


def _reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``lpips.LPIPS(net="vgg")`` with a trunk of random weights and its own fitted layers."""
    stub, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    models.vgg16 = _vgg16  # pyright: ignore[reportAttributeAccessIssue]
    stub.models = models  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchvision", stub)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    lpips = pytest.importorskip("lpips")
    return lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)


def test_lpips_is_the_package_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reference = _reference(monkeypatch)
    convolutions = [layer for layer in reference.net.modules() if isinstance(layer, nn.Conv2d)]
    numbers = [number for block in BLOCKS for number in block]
    trunk = {}
    for number, layer in zip(numbers, convolutions, strict=True):
        # He's scale: by torch's own the deep layers of a random network answer next to nothing.
        nn.init.kaiming_normal_(layer.weight)
        assert layer.bias is not None
        trunk |= {f"features.{number}.weight": layer.weight.data, f"features.{number}.bias": layer.bias.data}
    torch.save(trunk | {"classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    with pytest.raises(LyraError, match="download it again"):
        convert_lpips(tmp_path / "vgg16.pth", tmp_path / "lpips.safetensors")
    from lyra.files import sha256_file

    convert_lpips(tmp_path / "vgg16.pth", tmp_path / "lpips.safetensors", sha256_file(tmp_path / "vgg16.pth"))
    ours = LpipsDistance(load_tensors(tmp_path / "lpips.safetensors"))
    truth, shown = pictures()
    with torch.no_grad():
        expected = reference(shown, truth, normalize=True).flatten()
    found = ours.distance(shown, ours.features(truth))
    assert expected.min() > 0.01
    assert torch.allclose(found, expected, atol=1e-4)
    monkeypatch.setenv("LYRA_LPIPS", str(tmp_path / "lpips.safetensors"))
    scores = Scores(None, LpipsDistance.find())
    nothing = torch.zeros(3, 48, 64, dtype=torch.bool)
    scores.add(TrueViews(truth, film().cameras[:3], nothing), {"shown": shown})
    assert scores.rows()[0]["lpips"] == pytest.approx(expected.mean().item(), abs=1e-4)


def test_without_its_weights_there_is_no_lpips(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LYRA_LPIPS", raising=False)
    assert LpipsDistance.find() is None
    monkeypatch.setenv("LYRA_LPIPS", "/none.safetensors")
    with pytest.raises(LyraError):
        LpipsDistance.find()
    with pytest.raises(LyraError, match="convert them again"):
        LpipsDistance({})


def _chunk(path: Path) -> Path:
    """As pixelSplat's ``convert_re10k.py`` writes it."""
    taken, images = film(), []
    path.parent.mkdir(parents=True, exist_ok=True)
    for picture in taken.pictures:
        picture.save(path.with_suffix(".jpg"), quality=95)
        images.append(torch.frombuffer(bytearray(path.with_suffix(".jpg").read_bytes()), dtype=torch.uint8))
    lens = taken.cameras.intrinsics / torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    views = taken.cameras.world_to_camera[:, :3].flatten(1)
    cameras = torch.cat([lens, torch.zeros(COUNT, 2), views], 1)
    times = torch.arange(COUNT) * 33_000
    scene = {
        "url": "https://none",
        "timestamps": times,
        "cameras": cameras,
        "images": images,
        "key": "5aca87f95a9412c6",
    }
    torch.save([scene], path)
    return path


def test_a_chunk_becomes_the_data_set_it_was_made_of(tmp_path: Path):
    assert convert_chunk(_chunk(tmp_path / "chunks/000000.torch"), tmp_path / "test") == ["5aca87f95a9412c6"]
    [capture] = find_captures(tmp_path / "test")
    views = load_views(capture, [0, 2], HEIGHT, WIDTH)
    taken = film()
    expected = taken.cameras[[0, 2]].relative_to(taken.cameras.camera_to_world[0])
    assert torch.allclose(views.cameras.camera_to_world, expected.camera_to_world, atol=1e-5)
    assert torch.allclose(views.cameras.intrinsics, expected.intrinsics, atol=1e-3)
    assert (views.images - taken.color[[0, 2]]).abs().mean() < 0.02


def test_what_is_no_chunk_is_refused(tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.torch")
    with pytest.raises(LyraError, match="no chunk"):
        convert_chunk(tmp_path / "a.torch", tmp_path / "out")
    torch.save([{"key": "../a", "timestamps": [], "cameras": torch.zeros(0, 18), "images": []}], tmp_path / "b.torch")
    with pytest.raises(LyraError, match="none of pixelSplat's"):
        convert_chunk(tmp_path / "b.torch", tmp_path / "out")
    assert not (tmp_path / "a.txt").exists()
