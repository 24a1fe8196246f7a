"""How much two dictionaries have in common: the measures of the consistency literature.

Sources: PW-MCC is the pairwise dictionary mean correlation coefficient of Song et al., "Position: Mechanistic
Interpretability Should Prioritize Feature Consistency in SAEs" (arXiv 2505.20254, 2025). The share of features that two
dictionaries share in encoder and decoder follows Paulo and Belrose, "Sparse Autoencoders Trained on the Same Data Learn
Different Features" (arXiv 2501.16615, 2025).

Shapes: n, m atoms of two dictionaries, d dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison.matching import matched_mcs
from sparsecode.comparison.mcs import BestMatches

SHARED = 0.7  # cosine in encoder and decoder above which Paulo and Belrose count a matched feature as the same


def pw_mcc(a: Tensor, b: Tensor, *, absolute: bool = False) -> float:
    """PW-MCC: mean cosine of the one-to-one matching of atoms a [n, d] and b [m, d], over its min(n, m) pairs.

    Song et al. take absolute cosines, since a correlation's sign is arbitrary. The atoms of a ReLU dictionary have a
    sign, so the signed mean is the default here.

    >>> pw_mcc(torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    0.0
    >>> pw_mcc(torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]]), absolute=True)
    1.0
    """
    return matched_mcs(a, b, absolute=absolute).mean


def encoder_cosines(matched: BestMatches, a: Tensor, b: Tensor) -> Tensor:
    """[n] cosines of the encoder rows of matched features; encoders a [n, d], b [m, d].

    NaN for features without a partner; 0 where an encoder row is zero, which has no direction to agree in.
    """
    cosines = torch.full((len(a),), torch.nan)
    has = matched.indices >= 0
    mine, theirs = a[has].double(), b[matched.indices[has]].double()
    norms = mine.norm(dim=1) * theirs.norm(dim=1)
    dots = (mine * theirs).sum(dim=1)
    cosines[has] = torch.where(norms > 0, dots / norms.clamp(min=1e-300), 0.0).clamp(-1, 1).float()
    return cosines


def shared(matched: BestMatches, encoders: Tensor, threshold: float = SHARED) -> Tensor:
    """[n] whether a feature's match is above `threshold` in decoder and encoder; `encoders` from `encoder_cosines`.

    A feature without a partner is not shared.
    """
    return (matched.values > threshold) & (encoders > threshold)


def consistency(matched: BestMatches, pw_mcc: float, pw_mcc_absolute: float, encoders: Tensor | None) -> dict[str, Any]:
    """The JSON record of a matched pair.

    It has the number of matched `pairs`, `pw_mcc` and `pw_mcc_absolute`, the number of pairs that are `shared` (see
    there) and their share (None if an encoder is unknown).
    """
    pairs = int((matched.indices >= 0).sum())
    both = None if encoders is None else int(shared(matched, encoders).sum())
    return {
        "pairs": pairs,
        "pw_mcc": pw_mcc,
        "pw_mcc_absolute": pw_mcc_absolute,
        "shared_threshold": SHARED,
        "shared": both,
        "share_shared": None if both is None else both / pairs,
    }
