"""A dictionary of which only some features count, to see what these do, or what is missed without them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidArgument


@dataclass(eq=False, repr=False)
class Masked(Dictionary):
    """A dictionary whose codes are 0 but for those of some features.

    Codes are masked after the activation: features that compete, such as TopK's, do so as if all counted.

    Attributes:
        keep: [n] bool, which count; None: all.
    """

    keep: Tensor | None = None

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """See `Dictionary.encode`."""
        codes = super().encode(x)
        return codes if self.keep is None else codes * self.keep


def masked(dictionary: Dictionary, keep: Tensor) -> Masked:
    """The dictionary with the features of `keep` [n] bool alone.

    Raises:
        InvalidArgument: `keep` is of another length.
    """
    if tuple(keep.shape) != (dictionary.dict_size,):
        raise InvalidArgument(f"keep has shape {list(keep.shape)}, not [{dictionary.dict_size}]")
    return Masked(**vars(dictionary), keep=keep)
