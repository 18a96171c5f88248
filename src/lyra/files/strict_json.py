"""JSON that every parser reads: numbers that are none become null."""

import json
import math
from typing import Any


def to_json(content: Any, **options: Any) -> str:
    """``json.dumps``, with null in place of NaN and infinity, which JSON does not have.

    Args:
        content: What ``json.dumps`` takes.
        options: ``indent``, ``sort_keys`` and so on, for it.
    """
    return json.dumps(_finite(content), allow_nan=False, **options)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
