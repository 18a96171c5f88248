"""Rows that others published, each with its source; they stand apart from what was run."""

import json
from importlib import resources
from typing import Any


def quoted_rows() -> dict[str, Any]:
    """``rows`` with method, set, protocol, psnr, ssim, lpips, source and date; ``note``, ``read`` and ``missing``."""
    return json.loads(resources.files("lyra.evaluation").joinpath("quoted_rows.json").read_text(encoding="utf-8"))
