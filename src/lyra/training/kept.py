"""What is prepared of a scene is kept as far as memory allows."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor

Prepared = TypeVar("Prepared")
BUDGET = 2 << 30
"""Bytes of prepared scenes that are kept; what was used longest ago goes first."""


def keep_some(prepare: Callable[[int], Prepared], budget: int = BUDGET) -> Callable[[int], Prepared]:
    """A function that remembers what it prepared, up to a number of bytes; at least the last."""
    kept: OrderedDict[int, Prepared] = OrderedDict()

    def get(index: int) -> Prepared:
        if index not in kept:
            kept[index] = prepare(index)
            while len(kept) > 1 and sum(count_bytes(item) for item in kept.values()) > budget:
                kept.popitem(last=False)
        kept.move_to_end(index)
        return kept[index]

    return get


def count_bytes(item: Any) -> int:
    """Of all tensors in a dataclass, tuple or list."""
    if isinstance(item, Tensor):
        return item.numel() * item.element_size()
    if is_dataclass(item):
        return sum(count_bytes(getattr(item, field.name)) for field in fields(item))
    return sum(map(count_bytes, item)) if isinstance(item, tuple | list) else 0
