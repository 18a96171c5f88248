"""LPIPS' weights out of two pickles: torchvision's VGG16 and the fitted layers that ``lpips`` brings."""

import importlib.util
import re
from pathlib import Path

from lyra.errors import LyraError
from lyra.files import save_tensors, sha256_file
from lyra.files.atomic import explain_reading
from lyra.models.convert.checkpoints import load_weights

TRUNK = "397923af"
"""How the SHA-256 of torchvision's ``vgg16-397923af.pth`` begins, by its name."""


def convert_lpips(file: Path, out: Path, sha256: str | None = None, heads: Path | None = None) -> None:
    """Writes one safetensors file for ``LYRA_LPIPS``.

    Args:
        file: torchvision's ``vgg16-397923af.pth``.
        out: The file to write.
        sha256: What its SHA-256 must be; must begin as its name says when None.
        heads: ``vgg.pth`` of ``lpips`` 0.1; the installed package's when None.

    Raises:
        LyraError: a file is missing, another, or no weights.
    """
    with explain_reading(file):
        found = sha256_file(file)
    if not found.startswith(sha256 or TRUNK):
        raise LyraError(f"{file} has SHA-256 {found}, not {sha256 or TRUNK}: download it again")
    trunk, fitted = load_weights(file, legacy=True), load_weights(heads or find_heads(), legacy=True)
    tensors = {name: value for name, value in trunk.items() if re.fullmatch(r"features\.\d+\.(weight|bias)", name)}
    if "features.28.weight" not in tensors:
        raise LyraError(f"{file} holds no VGG16: give torchvision's vgg16-397923af.pth")
    for index in range(5):
        name = f"lin{index}.model.1.weight"
        if name not in fitted:
            raise LyraError(f"the fitted layers lack {name}: give lpips' vgg.pth of version 0.1")
        tensors[f"heads.{index}"] = fitted[name].reshape(-1).contiguous()
    save_tensors(tensors, out)


def find_heads() -> Path:
    """The installed package's file.

    Raises:
        LyraError: it is not installed.
    """
    package = importlib.util.find_spec("lpips")
    if package is None or not package.submodule_search_locations:
        raise LyraError("the fitted layers come with lpips: pip install --no-deps lpips==0.1.4")
    return Path(package.submodule_search_locations[0]) / "weights/v0.1/vgg.pth"
