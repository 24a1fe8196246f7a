"""What is near each feature: in its own dictionary, in every other one, on the same rows, and among the components.

Shape letters: R rows, D dimensions of a row, F features, k neighbours kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from sparsecode.browser.gather import Rows, codes_of
from sparsecode.comparison.cosine import BestMatches, best_of_all, nearest
from sparsecode.comparison.matching import matched_mcs, turned
from sparsecode.comparison.members import Member
from sparsecode.dictionary import Dictionary

Pairs = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # indices and values, [F, k]
_DENSE = 0.05  # share of codes that are not 0 from which products of full matrices are faster
_VALUES = 1 << 24  # correlations held at a time


@dataclass(frozen=True, eq=False)
class Other:
    """Each feature's nearest atom and its partner one-to-one in another dictionary, -1 and NaN where there is none."""

    nearest: BestMatches
    partner: BestMatches


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest atoms of one dictionary: of its own [F, k], best first, and those in every other one by name."""

    own: tuple[Tensor, Tensor]  # indices, cosines; -1 and NaN where there are fewer
    others: dict[str, Other] = field(default_factory=dict)


def find_neighbours(
    members: Mapping[str, Member], count: int, advance: Callable[[int], Any] = lambda pairs: None
) -> dict[str, Neighbours]:
    """The neighbours of every feature by dictionary. Atoms of other widths are compared with each other only.

    Args:
        members: dictionaries by name.
        count: neighbours in its own dictionary.
        advance: called with the number of pairs of dictionaries matched since the last call.
    """
    found = {name: Neighbours(_own(member, count)) for name, member in members.items()}
    widths: dict[int, dict[str, Member]] = {}
    for name, member in members.items():
        widths.setdefault(member.atoms.shape[1], {})[name] = member
    for group in widths.values():
        if len(group) < 2:
            continue
        cosine, index, _ = best_of_all([member.atoms for member in group.values()])
        best: dict[tuple[str, str], BestMatches] = {}
        sizes = [member.size for member in group.values()]
        for j, other in enumerate(group):
            split = zip(group, torch.split(cosine[j], sizes), torch.split(index[j], sizes), strict=True)
            best |= {(name, other): BestMatches(values, places) for name, values, places in split}
        for a, b in combinations(group, 2):
            matched = matched_mcs(group[a].atoms, group[b].atoms, names=(a, b))
            back = turned(matched, group[b].size)
            for one, two, pair in ((a, b, matched), (b, a, back)):
                found[one].others[two] = Other(
                    _whole(group[one], group[two], best[one, two]), _whole(group[one], group[two], pair)
                )
            advance(1)
    return {name: Neighbours(own.own, {other: own.others[other] for other in members if other in own.others})
            for name, own in found.items()}  # fmt: skip


def _own(member: Member, count: int) -> tuple[Tensor, Tensor]:
    """The nearest atoms of the same dictionary, without the atom itself."""
    (cosine, index), _ = nearest(member.atoms, member.atoms, count + 1)
    itself = index == torch.arange(len(index))[:, None]
    itself[:, -1] |= ~itself.any(1)  # of equal atoms, others may have been kept instead
    width = index.shape[1] - 1
    shape = (len(index), width)
    chosen = _whole(member, member, BestMatches(cosine[~itself].view(shape), index[~itself].view(shape)))
    return chosen.indices, chosen.values


def _whole(member: Member, other: Member, found: BestMatches) -> BestMatches:
    """The matches of all features of both dictionaries, those without a direction included."""
    return BestMatches(
        member.spread(found.values, float("nan")), member.spread(other.numbers(found.indices.long()), -1)
    )


@dataclass(frozen=True, eq=False)
class Together:
    """Pearson correlations of codes on the same rows, largest first; index -1 where there are fewer.

    Attributes:
        features: other features of the dictionary.
        components: of the activations, such as neurons.
    """

    features: Pairs
    components: Pairs


def find_together(dataset: Rows, dictionary: Dictionary, rows: int, features: int, components: int) -> Together:
    """Which features and which components of the activations are active with each feature, on the first rows."""
    rows = min(rows, dataset.rows)
    x = torch.cat([part for part, _ in _chunks(dataset, None, rows)])
    a = scipy.sparse.vstack(
        [scipy.sparse.csr_matrix(codes.numpy()) for _, codes in _chunks(dataset, dictionary, rows)], format="csc"
    )
    count = dictionary.dict_size
    dense = a.toarray() if a.nnz > _DENSE * rows * count and rows * count <= 8 * _VALUES else None
    mean = np.asarray(a.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray(a.multiply(a).mean(axis=0)).ravel() - mean**2, 0))
    centred = (x - x.mean(0)).double().numpy()
    other = np.sqrt((centred**2).mean(axis=0))
    beside = _strongest(np.asarray(a.T @ centred) / rows, spread, other, components)
    found = []
    step = max(1, _VALUES // count)
    for start in range(0, count, step):
        own = slice(start, min(start + step, count))
        product = dense[:, own].T @ dense if dense is not None else (a[:, own].T @ a).toarray()
        covariance = product.astype(np.float64) / rows - mean[own, None] * mean
        covariance[np.arange(own.stop - start), np.arange(start, own.stop)] = -np.inf  # itself
        found.append(_strongest(covariance, spread[own], spread, features))
    return Together((np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])), beside)


def shares(atoms: Tensor, count: int) -> Pairs:
    """The components that atoms [F, D] are made of: the largest shares of an atom's L1 norm, with their sign."""
    part = (atoms / atoms.abs().sum(1, keepdim=True).clamp(min=1e-30)).numpy()
    order = np.argsort(-np.abs(part), axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(part, order, axis=1)


def _chunks(dataset: Rows, dictionary: Dictionary | None, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    step = 4096 if dictionary is None else max(256, min(4096, _VALUES // dictionary.dict_size))
    for start in range(0, rows, step):
        x = dataset.read(start, min(start + step, rows))
        yield x, x if dictionary is None else codes_of(dictionary, x)


def _strongest(
    covariance: npt.NDArray[np.float64], spread: npt.NDArray[Any], other: npt.NDArray[Any], count: int
) -> Pairs:
    """The `count` largest correlations of each row of covariances [n, m], of at most m."""
    scale = spread[:, None] * other
    correlation = np.divide(covariance, scale, out=np.full_like(covariance, -np.inf), where=scale > 0)
    count = min(count, correlation.shape[1])
    order = np.argpartition(-correlation, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(correlation, order, axis=1)
    sort = np.lexsort((order, -values), axis=1)
    order, values = np.take_along_axis(order, sort, axis=1), np.take_along_axis(values, sort, axis=1)
    return np.where(np.isfinite(values), order, -1), values
