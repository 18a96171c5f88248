"""The preflight: estimates, plans, refusals, and moving parts."""

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from lyra.device.memory import (
    LIBRARIES,
    TILE,
    Available,
    DeviceOptions,
    Needs,
    NetworkSizes,
    Placement,
    Stage,
    describe,
    estimate_needs,
    find_memory,
    peak_memory_mb,
    plan,
    quantize,
    stored_numbers,
    weight_bytes,
)
from lyra.errors import LyraError
from lyra.files import save_tensors
from lyra.models.loading import save
from lyra.models.preflight import check_folder, halve_teacher, load_checked, needs_of_folder, needs_of_model
from lyra.models.smoke import build_smoke_model

GB = 1 << 30
GEN3C = estimate_needs(
    NetworkSizes(
        frames=121,
        height=704,
        width=1280,
        tokens=56_320,
        hidden=4096,
        element_size=2,
        tokenizer_channels=256,
        tokenizer_stride=4,
        student_tokens=337_920,
        student_channels=512,
        gaussians=10_222_080,
        parts={"vae": 423 << 20, "transformer": 14_474_514_432, "decoder": 131 << 20},
    )
)
"""The published model's shape."""


def gpu(gigabytes: int, main: int = 64) -> Available:
    return Available(main * GB, "cuda:0", int(0.97 * gigabytes * GB), gigabytes * GB)


def test_the_published_model_is_planned_onto_24_gb():
    placement = plan(GEN3C, gpu(24), DeviceOptions(), clips=6)
    assert placement == Placement("cuda:0", offload=True, tile=TILE, batch=1, precision="bfloat16")
    text = describe(GEN3C, placement, gpu(24))
    assert "parts wait in main memory" in text
    assert "tiles of 512" in text


def test_a_larger_gpu_gives_up_less():
    placements = [plan(GEN3C, gpu(size), DeviceOptions(), clips=6) for size in (24, 48, 80, 141)]
    assert [p.offload for p in placements] == [True, False, False, False]
    assert [bool(p.tile) for p in placements][2:] == [False, False]
    batches = [p.batch for p in placements]
    assert batches == sorted(batches)
    assert batches[-1] == 6


def test_eight_bit_weights_fit_a_smaller_one():
    with pytest.raises(LyraError, match=r"not enough GPU memory.*--eight-bit"):
        plan(GEN3C, gpu(20), DeviceOptions(), clips=6)
    assert plan(halve_teacher(GEN3C), gpu(20), DeviceOptions(), clips=6).offload


@pytest.mark.parametrize("free", [24, 30, 45, 60, 70, 79])
def test_a_plan_never_needs_more_than_is_free(free: int):
    available = replace(gpu(80), device_free=free * GB)
    placement = plan(GEN3C, available, DeviceOptions(), clips=6)
    assert GEN3C.on_device(placement) <= available.device_free


def test_what_the_user_decides_stays():
    wish = DeviceOptions(offload=True, tile=256, batch=2)
    assert plan(GEN3C, gpu(80), wish, clips=6) == Placement("cuda:0", True, 256, 2, "bfloat16")
    assert plan(GEN3C, gpu(80), DeviceOptions(offload=False, tile=0), clips=1) == Placement(
        "cuda:0", False, 0, 1, "bfloat16"
    )
    with pytest.raises(LyraError, match="not enough GPU memory"):
        plan(GEN3C, gpu(24), DeviceOptions(batch=6), clips=6)


def test_too_little_main_memory_is_told_first():
    with pytest.raises(LyraError, match=r"not enough main memory: about \d+ MB needed, 8192 MB free"):
        plan(GEN3C, gpu(80, main=8), DeviceOptions(), clips=6)


def test_on_the_cpu_one_clip_at_a_time_or_a_refusal():
    assert plan(GEN3C, Available(200 * GB), DeviceOptions(), clips=6) == Placement("cpu", batch=1)
    with pytest.raises(LyraError, match=r"not enough memory: about .* smaller model"):
        plan(GEN3C, Available(8 * GB), DeviceOptions(), clips=6)


def test_offloading_needs_the_largest_part_alone():
    needs = Needs({"vae": 3, "transformer": 20}, (Stage("vae", 10), Stage("transformer", 5, batches=True)), 100)
    assert needs.on_device(Placement()) == 33
    assert needs.on_device(Placement(offload=True)) == 25
    assert needs.on_device(Placement(offload=True, batch=3)) == 35
    tiled = Needs({}, (Stage("vae", 100, tiles=True),), 100)
    assert tiled.on_device(Placement(tile=5)) == 25
    assert tiled.on_device(Placement(tile=50)) == 100


def test_headers_alone_tell_the_numbers_of_a_folder(tmp_path: Path):
    save_tensors({"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)}, tmp_path / "x/1.safetensors")
    save_tensors({"c": torch.zeros(())}, tmp_path / "x/y/2.safetensors")
    assert stored_numbers(tmp_path) == 3 * 5 + 7 + 1
    (tmp_path / "z.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(LyraError, match=r"z\.safetensors is damaged"):
        stored_numbers(tmp_path)


def test_a_folder_is_measured_as_the_model_that_it_holds(tmp_path: Path):
    model = build_smoke_model()
    save(model, tmp_path / "model")
    by_parts, by_folder = needs_of_model(model, 6), needs_of_folder(tmp_path / "model", 6)
    assert by_folder.stages == by_parts.stages
    for part, size in by_parts.weights.items():
        # Buffers that are not stored make up the rest.
        assert by_folder.weights[part] == pytest.approx(size, rel=0.1)
    assert check_folder(tmp_path / "model", DeviceOptions(device="cpu"), 6) == Placement()
    assert load_checked(str(tmp_path / "model"), DeviceOptions(device="cpu"), 6).config.name == "smoke"


def test_a_model_that_will_not_fit_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(build_smoke_model(), tmp_path / "model")
    config = tmp_path / "model/transformer/config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "num_attention_heads": 10**9}))
    monkeypatch.setattr("lyra.models.preflight.load", lambda name: pytest.fail("loaded"))
    with pytest.raises(LyraError, match="not enough memory"):
        load_checked(str(tmp_path / "model"), DeviceOptions(device="cpu"), 6)


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_memory("auto").device == "cpu"
    with pytest.raises(LyraError, match="no CUDA GPU"):
        find_memory("cuda")


class Traveler(nn.Module):
    def __init__(self):
        super().__init__()
        self.places: list[str] = []

    def to(self, device):  # pyright: ignore[reportIncompatibleMethodOverride]
        self.places.append(str(device))
        return self


def test_offloaded_parts_go_home_even_after_an_error():
    part, other = Traveler(), Traveler()
    with pytest.raises(RuntimeError), Placement("meta", offload=True).hosting(part, "no module"):
        assert part.places == ["meta"]
        raise RuntimeError
    assert part.places == ["meta", "cpu"]
    with Placement("meta").hosting(other):
        pass
    assert other.places == ["meta"]


def test_weights_are_counted_in_bytes():
    assert weight_bytes(nn.Linear(3, 5)) == 4 * (15 + 5)
    assert weight_bytes(nn.Linear(3, 5).half()) == 2 * (15 + 5)
    assert weight_bytes("nothing") == 0


def test_eight_bits_without_the_package_say_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(LyraError, match="pip install torchao"):
        quantize(nn.Linear(2, 2))


def test_eight_bits_are_asked_of_the_package(monkeypatch: pytest.MonkeyPatch):
    asked = []
    stand_in = ModuleType("torchao.quantization")
    stand_in.Int8WeightOnlyConfig = lambda: "int8"  # pyright: ignore[reportAttributeAccessIssue]
    stand_in.quantize_ = lambda module, config: asked.append((module, config))  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", stand_in)
    module = nn.Linear(2, 2)
    quantize(module)
    assert asked == [(module, "int8")]


def test_peak_memory_is_that_of_the_process():
    assert LIBRARIES / 10 < peak_memory_mb() << 20 < 200 * GB


def test_what_compiling_needs_is_said_in_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wish = DeviceOptions(compile=True)
    (tmp_path / "compiler").write_text("#!/bin/sh\n")
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(LyraError, match="needs a compiler"):
        plan(GEN3C, Available(200 * GB), wish)
    monkeypatch.setenv("CXX", "compiler")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(LyraError, match="Python's headers"):
        plan(GEN3C, Available(200 * GB), wish)
    (tmp_path / "Python.h").touch()
    assert plan(GEN3C, Available(200 * GB), wish) == Placement("cpu", batch=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LyraError, match="needs triton"):
        plan(GEN3C, gpu(80), wish)


def test_a_missing_package_for_8_bits_is_said_in_the_plan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(LyraError, match="pip install torchao"):
        plan(GEN3C, gpu(80), DeviceOptions(eight_bit=True))
