"""Rewrites a dictionary without changing what it does: normalisation inside the weights, b_dec subtracted or not.

Computed in float64, since a mean can be far larger than what remains once it is subtracted.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import NotExpressible


def folded(found: Dictionary, *, subtract: bool | None = None) -> Dictionary:
    """A dictionary with the same codes and reconstructions, mean None and scale 1.

    Args:
        found: any dictionary.
        subtract: whether the result must subtract its b_dec from the input; None allows either.

    Raises:
        NotExpressible: rows are normalised one by one after a mean or scale, or a transcoder must subtract b_dec.
    """
    normalized = found.normalized
    if normalized and found.input_norm != "none":
        raise NotExpressible(f"a mean or scale before {found.input_norm} cannot be put into weights")
    if subtract and found.transcoder:
        raise NotExpressible("a transcoder does not subtract b_dec from its input, and this format always does")
    W_enc, W_dec = found.W_enc.double(), found.W_dec.double()
    b_dec = None if found.b_dec is None else found.b_dec.double()
    W_skip = None if found.W_skip is None else found.W_skip.double()
    shift = b_dec if found.apply_b_dec_to_input else None  # what is subtracted from the weights' input
    if normalized:
        mean = found.mean.double() if found.mean is not None else W_enc.new_zeros(found.activation_dim)
        W_enc = W_enc / found.scale
        shift = mean if shift is None else shift * found.scale + mean
        if found.transcoder:  # its output is as it is
            W_skip = None if W_skip is None else W_skip / found.scale
        else:
            W_dec = W_dec * found.scale
            b_dec = mean if b_dec is None else b_dec * found.scale + mean
        if W_skip is not None:
            b_dec = (0 if b_dec is None else b_dec) - W_skip @ mean
        b_dec, shift = _or_none(b_dec), _or_none(shift)
    # shift is b_dec or nothing where the format allows it; otherwise it goes into the biases.
    same = shift is not None and b_dec is not None and not found.transcoder and bool((shift == b_dec).all())
    wanted = same if subtract is None else subtract
    target = b_dec if wanted else None
    moved = (0 if shift is None else shift) - (0 if target is None else target)
    b_enc, activation = found.b_enc, found.activation
    if isinstance(moved, Tensor) and bool(moved.any()):
        by = W_enc @ moved
        b_enc, activation = (b_enc.double() - by).float(), activation.shifted(by)
    return replace(
        found,
        W_enc=W_enc.float(),
        b_enc=b_enc,
        W_dec=W_dec.float(),
        b_dec=None if b_dec is None else b_dec.float(),
        W_skip=None if W_skip is None else W_skip.float(),
        activation=activation,
        mean=None,
        scale=1.0,
        apply_b_dec_to_input=bool(wanted),
    )


def _or_none(value: Tensor | None) -> Tensor | None:
    return value if value is not None and bool(value.any()) else None
