"""A network's learned positions at another size than it was trained at."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@contextmanager
def stretch_positions(transformer: nn.Module, trained: tuple[int, int], wanted: tuple[int, int]) -> Iterator[None]:
    """Has a ``CosmosTransformer3DModel`` place more or fewer tokens over the picture than it was trained with.

    Learned positions tell where in the picture a token is: those of the trained rows and columns are spread over the
    wanted ones. Rotary positions tell how far two tokens are apart, and go on beyond those that were trained.

    Args:
        transformer: Left as it was found.
        trained: Rows and columns of tokens.
        wanted: The same.
    """
    learned, rope = getattr(transformer, "learnable_pos_embed", None), getattr(transformer, "rope", None)
    if trained == wanted:
        yield
        return
    kept = {}
    if learned is not None:
        for name, before, after in zip(("pos_emb_h", "pos_emb_w"), trained, wanted, strict=True):
            kept[name] = getattr(learned, name)
            setattr(learned, name, nn.Parameter(spread(kept[name][:before], after), requires_grad=False))
    length = rope.max_size if rope is not None else None
    if rope is not None and length is not None:
        rope.max_size = [length[0], max(length[1], wanted[0]), max(length[2], wanted[1])]
    try:
        yield
    finally:
        for name, parameter in kept.items():
            setattr(learned, name, parameter)
        if rope is not None:
            rope.max_size = length


@torch.no_grad()
def spread(table: Float[Tensor, "place channel"], count: int) -> Float[Tensor, "count channel"]:
    """A table of positions at another number of places over the same length, straight in between."""
    stretched = F.interpolate(table.mT[None].float(), size=count, mode="linear", align_corners=False)
    return stretched[0].mT.to(table.dtype)
