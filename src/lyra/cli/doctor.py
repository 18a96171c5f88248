"""What this machine and installation can do."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from lyra.cli.bounds import PRINTED, declared, misfit
from lyra.errors import LyraError
from lyra.generate.decisions import needed_memory_mb
from lyra.models.loading import BUNDLED, load

PACKAGES = {
    "torch": "the networks",
    "diffusers": "the teacher",
    "numba": "the CPU renderer",
    "av": "videos (extra: video)",
    "viser": "the live viewer (extra: viewer)",
    "rawpy": "raw photos (extra: photos)",
    "pillow_heif": "HEIC photos (extra: photos)",
    "gsplat": "rendering on CUDA GPUs (extra: cuda)",
}
OPTIONAL = ("gsplat", "viser", "rawpy", "pillow_heif")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    ok: bool
    text: str


def examine() -> list[Finding]:
    """Checks packages, models, memory, disk and accelerators; changes nothing."""
    findings = [_package(name, purpose) for name, purpose in PACKAGES.items()]
    findings += [Finding(False, text) for text in map(misfit, declared((*PRINTED, "cuda"))) if text is not None]
    memory = psutil.virtual_memory()
    findings.append(
        Finding(
            True,
            f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads, "
            f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GB memory free",
        )
    )
    free = shutil.disk_usage(".").free / 2**30
    findings.append(Finding(free > 1, f"{free:.1f} GB free on this disk"))
    if torch.cuda.is_available():
        findings.append(Finding(True, f"CUDA GPU: {torch.cuda.get_device_name()}"))
    else:
        findings.append(Finding(True, "no CUDA GPU: everything runs on the CPU"))
    findings += [_model(name) for name in sorted({"mini", *(p.parent.name for p in BUNDLED.glob("*/lyra.json"))})]
    return findings


def _package(name: str, purpose: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(name in OPTIONAL, f"{name} is not installed: {purpose}")
    try:
        return Finding(True, f"{name} {version(name)}: {purpose}")
    except PackageNotFoundError:
        return Finding(True, f"{name}: {purpose}")


def _model(name: str) -> Finding:
    try:
        model = load(name)
    except LyraError as error:
        return Finding(False, str(error))
    count = sum(p.numel() for m in (model.transformer, model.depth, model.decoder) for p in m.parameters())
    teacher, needed = model.config.teacher, needed_memory_mb(model) / 1024
    return Finding(
        True,
        f"model {name}: {count / 1e6:.1f} M parameters, {teacher.frames} frames of {teacher.height}x{teacher.width}, "
        f"needs about {needed:.1f} GB",
    )
