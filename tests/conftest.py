"""Shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

MEDIA = Path(os.environ.get("LYRA_MEDIA", Path(__file__).parents[2] / "shared" / "media"))
_SHARED = Path(__file__).parents[2] / "shared" / "golden"
_SHIPPED = [Path(__file__).parent / "golden", *([_SHARED] if _SHARED.exists() else [])]
GOLDEN_FOLDERS = [Path(os.environ["LYRA_GOLDEN"])] if "LYRA_GOLDEN" in os.environ else _SHIPPED
"""Tensors of the official code: a subset that is shipped, and all of them where they are."""
EXAMPLE = Path(__file__).parents[1] / "examples" / "room.png"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def photo() -> Path:
    """A real photograph where there is one, else the project's own picture."""
    real = MEDIA / "house_indoor.jpg"
    return real if real.exists() else EXAMPLE


FAULTS = Path(os.environ.get("LYRA_FAULTS", Path(__file__).parents[2] / "shared" / "faults"))


@pytest.fixture
def faults() -> Path:
    """A folder of inputs that once were read wrong, made elsewhere; tests of them skip where it is missing."""
    if not FAULTS.is_dir():
        pytest.skip(f"{FAULTS} is missing: set LYRA_FAULTS to the folder of faulty inputs")
    return FAULTS
