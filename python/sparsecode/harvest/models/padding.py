"""Batches padded on the left: the values of a text must be the same as without padding.

A model that counts positions from the start of a row counts the padding too. Most models accept `position_ids` to
prevent that; some number the tokens by themselves, from the mask or from the padding token; some can do neither. The
values show which: in the first batch padded on the left, one row is read again without its padding.

Shapes: B rows, T positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecode.errors import InvalidArgument

Given = dict[str, Any]
Way = Callable[[Given], Given]
# Other shapes round differently in the last bits; a position that is off by one changes values by their own size.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_TOLERANCE_OF_HALVES = 0.05


@dataclass
class LeftPadding:
    """How positions follow the mask in one model; found out when it is first needed.

    Attributes:
        name: the model's name in an error.
        module: the model.
    """

    name: str
    module: nn.Module
    _way: Way | None = None

    def follow(self, given: Given, values: Callable[[Given], Iterable[Tensor]]) -> Given:
        """A batch with the arguments that make its positions follow its mask.

        Args:
            given: `input_ids` and `attention_mask` [B,T] by name, among others.
            values: reads the values of a batch.

        Raises:
            InvalidArgument: the model's values cannot be those of the text without padding.
        """
        mask = given.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 2 or "position_ids" in given or bool(mask[:, 0].all()):
            return given
        if self._way is None:
            self._way = self._found(given, mask.bool(), values)
        return self._way(given)

    def _found(self, given: Given, mask: Tensor, values: Callable[[Given], Iterable[Tensor]]) -> Way:
        rows = torch.nonzero(~mask[:, 0] & mask.any(dim=1)).flatten().tolist()
        if not rows:
            return dict  # only padding: nothing is kept
        row = max(rows, key=lambda one: int(mask[one].int().argmax()))
        places = torch.nonzero(mask[row]).flatten()
        start, stop = int(places[0]), int(places[-1]) + 1
        padded = _part(given, mask.shape, row, slice(None))
        alone = values(_part(given, mask.shape, row, slice(start, stop)))
        expected = [_within(value, stop - start, 0, stop - start) for value in alone]
        for way in (numbered, dict) if "position_ids" in (accepted(self.module) or ()) else (dict,):
            found = [_within(value, mask.shape[1], start, stop) for value in values(way(padded))]
            if all(_same(one, other) for one, other in zip(found, expected, strict=True)):
                return way
        raise InvalidArgument(
            f"{self.name}: padded on the left its values are not those of the text without padding, and no "
            "position_ids mend that; pad on the right, or give position_ids of your own"
        )


def numbered(given: Given) -> Given:
    """A batch with positions that count the tokens of each row from 0, without padding."""
    return given | {"position_ids": (given["attention_mask"].long().cumsum(dim=1) - 1).clamp(min=0)}


def accepted(module: nn.Module) -> set[str] | None:
    """Names of the arguments of a module's forward; None where it takes any."""
    parameters = inspect.signature(module.forward).parameters
    named = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    return named if "input_ids" in named else None


def _part(given: Given, shape: torch.Size, row: int, places: slice) -> Given:
    """One row of a batch, or a stretch of it."""

    def part(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != shape[0]:
            return value
        return value[row : row + 1, places] if value.shape[:2] == shape else value[row : row + 1]

    return {name: part(value) for name, value in given.items()}


def _within(value: Tensor, length: int, start: int, stop: int) -> Tensor:
    """The part of a single row's value for a stretch of it; the whole value if it is not per token."""
    if value.shape[:2] == (1, length):
        return value[0, start:stop]
    return value[start:stop] if value.shape[0] == length else value[0]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(other.abs().max()) if other.numel() else 0.0
    return bool((one - other).abs().max() <= _TOLERANCE.get(other.dtype, _TOLERANCE_OF_HALVES) * scale)
