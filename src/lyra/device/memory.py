"""Memory: what a run will take, what there is, and where the parts of a model go so that it fits."""

import gc
import importlib.util
import json
import os
import re
import resource
import shutil
import struct
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import nn

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading

LIBRARIES = 1500 << 20
"""Bytes that Python, torch and the other libraries take, as measured on the CPU."""
TILE = 512
"""Pixels of a tile's side where the tokenizer is tiled."""
_HEADER_LIMIT = 100 << 20
_MB = 1 << 20

Precision = Literal["auto", "float32", "bfloat16"]


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True)
class Placement:
    """Where a model runs and what is done to make it fit; decided by ``plan``."""

    device: str = "cpu"
    """A torch device."""
    offload: bool = False
    """Only the part at work is on the device; the others wait in main memory."""
    tile: int = 0
    """Pixels of the tokenizer's tiles; 0 for the whole picture at once."""
    batch: int = 1
    """Clips imagined at once."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """In which tokenizer and student compute; geometry stays in float32 everywhere."""

    def autocast(self) -> torch.autocast:
        """The context in which tokenizer and student work."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")

    @contextmanager
    def hosting(self, *modules: object) -> Iterator[None]:
        """Has modules on the device inside the block; what is no torch module stays as it is."""
        torch_modules = [module for module in modules if isinstance(module, nn.Module)]
        for module in torch_modules:
            module.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                for module in torch_modules:
                    module.to("cpu")
                gc.collect()
                if self.device.startswith("cuda"):
                    torch.cuda.empty_cache()


@dataclass(frozen=True)
class Stage:
    """One step of the chain: the part it needs, and the bytes it works in beside the weights."""

    part: str
    activations: int
    """For one clip, estimated from sizes."""
    tiles: bool = False
    """Whether tiling divides the activations."""
    batches: bool = False
    """Whether several clips at once multiply them."""


@dataclass(frozen=True)
class Needs:
    """What a model takes."""

    weights: Mapping[str, int]
    """Bytes by part, in the type they are held in."""
    stages: tuple[Stage, ...]
    pixels: int
    """Of one frame."""

    def on_device(self, placement: Placement) -> int:
        """Bytes on the device at the worst moment."""
        share = min(1.0, placement.tile**2 / self.pixels) if placement.tile else 1.0
        moments = []
        for stage in self.stages:
            work = stage.activations * (share if stage.tiles else 1.0) * (placement.batch if stage.batches else 1)
            resident = self.weights.get(stage.part, 0) if placement.offload else sum(self.weights.values())
            moments.append(resident + round(work))
        return max(moments, default=0)


@dataclass(frozen=True)
class Available:
    """What the machine has free, in bytes."""

    main: int
    device: str = "cpu"
    device_free: int = 0
    device_total: int = 0


def autocast_training(device: torch.device) -> torch.autocast:
    """The context in which networks learn: bfloat16 where the device computes with it, else float32.

    A processor without its instructions takes eleven times as long with it as without, as measured.
    """
    fast = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def find_device(name: str = "auto") -> str:
    """The torch device that a user's word means: "cpu", or "cuda:" and a number.

    Raises:
        LyraError: there is no such device.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name != "auto" and not re.fullmatch(r"cuda(:\d+)?", name):
        raise LyraError(f"unknown device {name!r}: give auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise LyraError(f"no CUDA GPU that torch can use: leave out --device {name}, or install torch with CUDA")
    index = int(name.partition(":")[2]) if ":" in name else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise LyraError(f"no {name}: this machine's GPUs are cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    return f"cuda:{index}"


def find_memory(device: str = "auto", held: bool = False) -> Available:
    """Free main memory, and that of the GPU if there is one and it is wanted.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1".
        held: Whether the model is loaded already: what this process holds then counts as free, since the model's
            needs, which it is compared with, are of the whole process.

    Raises:
        LyraError: there is no such device.
    """
    main = psutil.virtual_memory().available + (psutil.Process().memory_info().rss if held else 0)
    place = find_device(device)
    if place == "cpu":
        return Available(main)
    index = int(place.partition(":")[2])
    free, total = torch.cuda.mem_get_info(index)
    # Blocks that torch keeps of earlier work are free for this one's.
    free += torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return Available(main, place, free, total)


@dataclass(frozen=True)
class DeviceOptions:
    """What a user decides about memory and speed; None leaves it to the preflight."""

    device: str = "auto"
    """Where the networks run: auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """In which tokenizer and student compute; bfloat16 on a GPU and float32 on the CPU when auto."""
    offload: bool | None = None
    """Keep only the part at work on the GPU."""
    tile: int | None = None
    """Pixels of the tokenizer's tiles; 0 for the whole picture."""
    batch: int | None = None
    """Trajectories imagined at once."""
    eight_bit: bool = False
    """Hold the teacher's weights in 8 bits (needs torchao)."""
    compile: bool = False
    """Compile the teacher's network (torch.compile): minutes at the start, less a step."""


def plan(needs: Needs, available: Available, wish: DeviceOptions, clips: int = 1) -> Placement:
    """The fastest placement that fits; see ``Placement``.

    The batch fills what is free, so that the plan never needs more than there is; clips of another batch differ by
    rounding.

    Raises:
        LyraError: nothing fits, or a package or a compiler for a wish is missing; the message says what is needed,
            what there is and what helps.
    """
    on_gpu = available.device != "cpu"
    if wish.compile:
        require_compiler(available.device)
    if wish.eight_bit:
        _import_torchao()
    resident = sum(needs.weights.values()) + LIBRARIES
    precision = wish.precision if wish.precision != "auto" else "bfloat16" if on_gpu else "float32"
    offloads = (False, True) if on_gpu else (False,)
    tiles = (0, TILE) if needs.pixels > TILE**2 else (0,)
    candidates = [
        Placement(available.device, offload, tile, wish.batch or 1, precision)
        for offload in (offloads if wish.offload is None else (wish.offload and on_gpu,))
        for tile in (tiles if wish.tile is None else (wish.tile,))
    ]
    budget = available.device_free if on_gpu else available.main - LIBRARIES
    if on_gpu and available.main < resident:
        raise LyraError(_refusal("main memory", resident, available.main, "close other programs or add memory"))
    for candidate in candidates:
        if needs.on_device(candidate) <= budget:
            return candidate if wish.batch or not on_gpu else _fill(needs, candidate, budget, clips)
    least = min(needs.on_device(candidate) for candidate in candidates)
    if on_gpu:
        advice = "leave --batch, --tile and --offload to the program, use --eight-bit, "
        raise LyraError(_refusal("GPU memory", least, budget, f"{advice}a larger GPU or a smaller model"))
    raise LyraError(
        _refusal("memory", least + LIBRARIES, available.main, "close other programs or use a smaller model")
    )


def _fill(needs: Needs, placement: Placement, budget: int, clips: int) -> Placement:
    """The largest batch that fits, with a tenth to spare."""
    while placement.batch < clips:
        larger = replace(placement, batch=placement.batch + 1)
        if needs.on_device(larger) > 0.9 * budget:
            break
        placement = larger
    return placement


def _refusal(what: str, needed: int, there: int, advice: str) -> str:
    return f"not enough {what}: about {max(needed, 0) // _MB} MB needed, {max(there, 0) // _MB} MB free; {advice}"


def describe(needs: Needs, placement: Placement, available: Available) -> str:
    """One line for the user: needed and free, and what is done to fit."""
    gb = 1 << 30
    used = needs.on_device(placement)
    if placement.device == "cpu":
        return f"needs about {(used + LIBRARIES) / gb:.1f} GB of memory; {available.main / gb:.1f} GB are free"
    measures = [
        *(["parts wait in main memory"] if placement.offload else []),
        *([f"tokenizer in tiles of {placement.tile} pixels"] if placement.tile else []),
        *([f"{placement.batch} clips at once"] if placement.batch > 1 else []),
    ]
    return f"needs about {used / gb:.1f} GB of GPU memory; {available.device_free / gb:.1f} GB are free" + (
        f" ({', '.join(measures)})" if measures else ""
    )


@dataclass(frozen=True)
class NetworkSizes:
    """Numbers from which activations are estimated; the defaults fit networks too small to matter."""

    frames: int
    height: int
    width: int
    tokens: int = 0
    """Of one clip in the teacher's network."""
    hidden: int = 0
    """Channels of the teacher's network."""
    element_size: int = 4
    """Bytes of a number in the teacher's network."""
    tokenizer_channels: int = 0
    """Channels of the tokenizer's widest layer at its highest resolution."""
    tokenizer_stride: int = 4
    """Pixels of one cell of that layer."""
    student_tokens: int = 0
    """Of all clips together."""
    student_channels: int = 0
    gaussians: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the weights by part."""


def estimate_needs(sizes: NetworkSizes) -> Needs:
    """What a model takes, estimated.

    Of the teacher's network: residual, normed, query, key, value and attention's output, and the MLP's four-fold
    hidden layer before and after its activation, live at once. Of the tokenizer: four maps of its widest layer and
    the video. Of the student: two dozen maps of its tokens, and the Gaussians.
    """
    video = sizes.frames * sizes.height * sizes.width
    cells = video // sizes.tokenizer_stride**2
    tokenizer = 4 * 4 * cells * sizes.tokenizer_channels + 2 * 12 * video
    teacher = sizes.tokens * sizes.hidden * sizes.element_size * 14
    student = 24 * 4 * sizes.student_tokens * sizes.student_channels + 3 * 14 * 4 * sizes.gaussians
    return Needs(
        weights=sizes.parts,
        stages=(
            Stage("depth", 4 * 256 * sizes.height * sizes.width // 4),
            Stage("vae", tokenizer, tiles=True),
            Stage("transformer", teacher, batches=True),
            Stage("decoder", student),
        ),
        pixels=sizes.height * sizes.width,
    )


def weight_bytes(module: object) -> int:
    """Bytes of a module's parameters and buffers; 0 for anything else."""
    if not isinstance(module, nn.Module):
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def stored_numbers(folder: Path) -> int:
    """Numbers in all safetensors files below a folder, by their headers alone.

    Raises:
        LyraError: a file is damaged.
    """
    return sum(_count(path) for path in sorted(folder.rglob("*.safetensors")))


def _count(path: Path) -> int:
    try:
        with explain_reading(path), path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_LIMIT:
                raise ValueError("header too long")
            header = json.loads(file.read(length))
        return sum(int(torch.Size(entry["shape"]).numel()) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        raise LyraError(f"{path} is damaged or no safetensors file: make or download it again") from None


def quantize(module: nn.Module) -> None:
    """Holds the weights of a network's linear layers in 8 bits, in place; it computes in its own type as before.

    Raises:
        LyraError: torchao is not installed.
    """
    quantize_, config = _import_torchao()
    quantize_(module, config())


def _import_torchao() -> tuple[Any, Any]:
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        raise LyraError("8-bit weights need torchao, which is not installed: pip install torchao") from None
    return quantize_, Int8WeightOnlyConfig


def require_compiler(device: str) -> None:
    """Says before any work what ``torch.compile`` lacks; it would itself fail in the middle of the first clip.

    Raises:
        LyraError: no compiler, no headers of Python, or on a GPU no triton.
    """
    # As torch's own search: on a CPU it compiles C++, on a GPU triton compiles C.
    if device == "cpu":
        standard = "clang++" if sys.platform == "darwin" else "g++"
        compilers = (os.environ.get("CXX", standard),)
    elif importlib.util.find_spec("triton") is None:
        raise LyraError("--compile needs triton on a GPU, which is not installed: pip install triton")
    else:
        compilers = (os.environ["CC"],) if "CC" in os.environ else ("gcc", "clang")
    if not any(shutil.which(compiler) for compiler in compilers):
        raise LyraError(
            f"--compile needs a compiler, and there is no {' or '.join(compilers)}: "
            "install one (apt-get install g++), or leave out --compile"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise LyraError("--compile needs Python's headers: install them (apt-get install python3-dev), or leave it out")
