"""Token ids without an embedding in the model: replaced where a mask hides them, refused where they would be read.

A tokenizer can have more tokens than its model: a padding token, or words added without resizing the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparsecode.errors import TokensUnknown

_LOOKED_AT = 1 << 24  # tokens at once
_NEXT = "resize its embedding, or take the tokenizer that it was trained with"


def embedded(name: str, ids: Tensor, size: int, mask: Tensor | None = None) -> Tensor:
    """Ids for a model with `size` embeddings; those that the mask hides may be replaced.

    Args:
        name: the model's name in an error.
        ids: a tensor of any shape.
        size: number of embeddings.
        mask: 0 where an id is hidden; a mask of another shape hides nothing.

    Raises:
        TokensUnknown: an id that is not hidden has no embedding.
    """
    outside = (ids < 0) | (ids >= size)
    if not bool(outside.any()):
        return ids
    if mask is not None and mask.shape == ids.shape:
        ids = torch.where(outside & (mask == 0), torch.zeros_like(ids), ids)
        outside &= mask != 0
    if bool(outside.any()):
        first = int(ids[outside][0])
        raise TokensUnknown(f"{name}: no embedding for token {first}, it has {size}; {_NEXT}")
    return ids


def check_text(
    name: str, tokens: npt.NDArray[np.integer[Any]], size: int, except_: int, spell: Callable[[int], str]
) -> None:
    """Refuses a text that holds a token without embedding.

    Args:
        name: the model's name in an error.
        tokens: [n].
        size: number of embeddings.
        except_: a token that the model is never given.
        spell: a token as text, for the error.

    Raises:
        TokensUnknown: there is one; the message names the first.
    """
    for first in range(0, len(tokens), _LOOKED_AT):
        part = np.asarray(tokens[first : first + _LOOKED_AT])
        outside = np.flatnonzero((part >= size) & (part != except_))
        if len(outside):
            token = int(part[outside[0]])
            raise TokensUnknown(
                f"{name}: no embedding for the token {spell(token)!r} ({token}), it has {size}; {_NEXT}"
            )


def embeddings(module: nn.Module) -> int | None:
    """The number of a module's embeddings; None if it does not say."""
    get = getattr(module, "get_input_embeddings", None)
    try:
        table = get() if callable(get) else None
    except (AttributeError, NotImplementedError):
        return None
    weight = getattr(table, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) and weight.ndim == 2 else None
