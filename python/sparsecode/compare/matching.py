"""One-to-one matching of two dictionaries' atoms (Hungarian): what the seed's code calls MMCS with larger."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparsecode.compare.mcs import BestMatches, require_same_width, unit_rows


def matched_mcs(a: Tensor, b: Tensor, *, names: tuple[str, str] = ("a", "b")) -> BestMatches:
    """Cosines of the one-to-one matching of atoms a [n, d] and b [m, d] whose sum of cosines is largest.

    Where n > m some atoms of a stay without a partner: their value is NaN and their index -1. Needs the n x m matrix
    of cosines (float32, and scipy's float64 copy): about 12 n m bytes.

    Raises:
        ZeroAtom, DictionaryInvalid: as `mcs_both`.
    """
    require_same_width(a, b, names)
    cosines = (unit_rows(a, names[0]) @ unit_rows(b, names[1]).T).numpy()
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    values = np.full(len(cosines), np.nan, dtype=np.float32)
    indices = np.full(len(cosines), -1, dtype=np.int64)
    values[rows] = np.minimum(cosines[rows, columns], 1.0)
    indices[rows] = columns
    return BestMatches(torch.from_numpy(values), torch.from_numpy(indices))
