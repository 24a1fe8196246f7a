"""The same dictionary in other words: normalisation inside the weights, b_dec subtracted or not.

Computed in float64, since a mean can be far larger than what is left after it is subtracted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from sparsecode.errors import NotExpressible
from sparsecode.sweep.dictionary import Dictionary


def folded(found: Dictionary, *, subtract: bool | None = None) -> Dictionary:
    """A dictionary with the same codes and reconstructions, mean None and scale 1.

    Args:
        found: any dictionary.
        subtract: whether the result must subtract its b_dec from the input; None leaves that open.

    Raises:
        NotExpressible: rows are normalised one by one after a mean or scale, or a transcoder must subtract b_dec.
    """
    normalized = found.mean is not None or found.scale != 1
    if normalized and found.input_norm != "none":
        raise NotExpressible(f"a mean or scale before {found.input_norm} cannot be put into weights")
    if normalized and found.transcoder:
        raise NotExpressible("a transcoder's mean or scale cannot be put into weights of this format")
    if subtract and found.transcoder:
        raise NotExpressible("a transcoder does not subtract b_dec from its input, and this format always does")
    W_enc, b_dec = found.W_enc.double(), None if found.b_dec is None else found.b_dec.double()
    W_skip = None if found.W_skip is None else found.W_skip.double()
    subtracts = b_dec is not None and found.apply_b_dec_to_input
    shift = b_dec.clone() if subtracts and b_dec is not None else None  # what the weights' input has subtracted
    if normalized:
        mean = found.mean.double() if found.mean is not None else W_enc.new_zeros(found.activation_dim)
        shift = mean if shift is None else shift * found.scale + mean
        b_dec = mean.clone() if b_dec is None else b_dec * found.scale + mean
        W_enc = W_enc / found.scale
        if W_skip is not None:
            b_dec = b_dec - W_skip @ mean
        if not bool(b_dec.any()):
            b_dec = None
        if shift is not None and not bool(shift.any()):
            shift = None
    # shift is b_dec or nothing, wherever the words allow it; otherwise it goes into the biases.
    wanted = (
        subtract if subtract is not None else shift is not None and b_dec is not None and bool((shift == b_dec).all())
    )
    target = b_dec if wanted else None
    moved = (0 if shift is None else shift) - (0 if target is None else target)
    biases = _moved_biases(found, W_enc, moved if isinstance(moved, Tensor) else None)
    return dataclasses.replace(
        found,
        W_enc=W_enc.float(),
        W_dec=(found.W_dec.double() * found.scale).float(),
        b_dec=None if b_dec is None else b_dec.float(),
        W_skip=None if W_skip is None else W_skip.float(),
        mean=None,
        scale=1.0,
        apply_b_dec_to_input=bool(wanted),
        **biases,
    )


def _moved_biases(found: Dictionary, W_enc: Tensor, moved: Tensor | None) -> dict[str, Any]:
    """Encoder biases once `moved` [d] is no longer subtracted from the input."""
    if moved is None or not bool(moved.any()):
        return {}
    by = W_enc @ moved
    biases = {"b_enc": (found.b_enc.double() - by).float()}
    if found.r_mag is not None and found.b_mag is not None:
        biases["b_mag"] = (found.b_mag.double() - by * found.r_mag.double().exp()).float()
    return biases
