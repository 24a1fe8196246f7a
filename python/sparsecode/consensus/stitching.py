"""Stitching: which features of a larger dictionary a smaller one lacks, and dictionaries between the two.

After Leask et al. (arXiv 2502.04878, 2025). A feature of the larger one is *novel* to the smaller if inserting it
lowers the error. Where features do not compete, all of that follows from one pass: with the smaller one's residual r,
inserting b changes the squared error by the sum of z_b^2 - 2 z_b (r.b), leaving out a by that of z_a^2 + 2 z_a (r.a).
Letters: R rows, d dimensions, n features of the smaller dictionary, m of the larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata
from torch import Tensor

from sparsecode.comparison.cosine import best_both
from sparsecode.consensus.functional import codes
from sparsecode.consensus.voters import Voter
from sparsecode.dictionary import Activation, Dictionary, Gated, JumpRelu, Relu
from sparsecode.errors import InvalidSetting
from sparsecode.sweep import metrics

POINTS = 32  # at which a path is measured
_CHUNK = 2048


@dataclass(frozen=True)
class Point:
    """A dictionary on the path: how many groups are swapped and features inserted, and how it reconstructs."""

    swapped: int
    inserted: int
    features: int
    fvu: float
    l0: float


@dataclass(frozen=True, eq=False)
class Stitched:
    """What a larger dictionary adds to a smaller one.

    Attributes:
        novelty: [m] float64, by how much inserting a feature lowers the squared error, over that error; novel above 0.
        missed: [n] float64, by how much leaving out a feature of the smaller one raises it, over that error.
        cosine: [m] of the larger one's features with their nearest in the smaller.
        auc: how well a low cosine tells novel features from others; None where all are one.
        best_cosine: the one that tells them apart best: those at or below it are called novel; None where `auc` is.
        steps: of the path: features of the smaller one that leave, and of the larger that come.
        path: at some of these steps.
    """

    novelty: Tensor
    missed: Tensor
    cosine: Tensor
    auc: float | None
    best_cosine: float | None
    steps: list[tuple[Tensor, Tensor]]
    path: list[Point]

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        novel = int((self.novelty > 0).sum())
        return {
            "features": len(self.novelty),
            "novel": novel,
            "share_novel": novel / len(self.novelty),
            "auc": self.auc,
            "best_cosine": self.best_cosine,
            "path": [vars(point) for point in self.path],
        }


def stitch(small: Voter, large: Voter, rows: Tensor, threshold: float = 0.7) -> Stitched:
    """Compares, and walks from the one to the other.

    The path swaps groups of features, connected by cosines above `threshold`, those with the nearest pairs first, and
    then inserts the rest of the larger dictionary, the most novel first. L0 rises with every insertion, so points are
    compared at equal L0 alone.

    Args:
        small, large: of the same activations.
        rows: [R, d] raw.
        threshold: see above.

    Raises:
        InvalidSetting: features of one of the two compete, so that single ones cannot be told apart.
    """
    for one in (small, large):
        if not isinstance(one.dictionary.activation, Relu | JumpRelu | Gated):
            raise InvalidSetting(
                f"{one.name}: the codes of a {one.dictionary.activation.name} depend on its other features; stitching "
                "takes dictionaries whose codes do not"
            )
    gain, loss, error = _changes(small, large, rows)
    cosine = best_both(large.atoms, small.atoms)[0].values
    auc, best = _predicted(cosine, gain > 0)
    steps = _steps(small, large, gain, threshold)
    return Stitched(gain / error, loss / error, cosine, auc, best, steps, _path(small, large, steps, rows))


def stitched(small: Voter, large: Voter, steps: list[tuple[Tensor, Tensor]]) -> Dictionary:
    """The dictionary after some steps of a path, for raw activations.

    Raises:
        InvalidSetting: one of the two is gated.
    """
    kept, taken = _after(small, large, steps)
    parts = ((small, kept), (large, taken))
    thresholds = [
        one.threshold if one.threshold is not None else torch.zeros(len(one.atoms), dtype=torch.float64)
        for one, _ in parts
    ]
    if any(isinstance(one.dictionary.activation, Gated) for one, _ in parts):
        raise InvalidSetting("features of gated dictionaries cannot be written among others'")
    activation: Activation = Relu()
    if any(one.threshold is not None for one, _ in parts):
        own = [values[keep] for values, (_, keep) in zip(thresholds, parts, strict=True)]
        activation = JumpRelu(torch.cat(own).float())
    encoder = torch.cat([one.encoder[keep] for one, keep in parts])
    return Dictionary(
        encoder.float(),
        (torch.cat([one.bias[keep] for one, keep in parts]) + encoder @ small.offset).float(),
        torch.cat([one.atoms[keep] for one, keep in parts]),
        b_dec=small.offset.float(),
        activation=activation,
        meta={"kind": "stitched", "small": small.name, "large": large.name},
    )


def _changes(small: Voter, large: Voter, rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """What inserting each of the larger one's features gains, what leaving out the smaller's costs, and its error."""
    gain = torch.zeros(len(large.atoms), dtype=torch.float64)
    cost, error = torch.zeros(len(small.atoms), dtype=torch.float64), 0.0
    for x in torch.split(rows, _CHUNK):
        r = x - small.dictionary.reconstruct(x)
        error += float(r.double().square().sum())
        inserted, present = codes(large, x), codes(small, x)
        gain += (inserted * (2 * (r @ large.atoms.T) - inserted)).sum(0, dtype=torch.float64)
        cost += (present * (2 * (r @ small.atoms.T) + present)).sum(0, dtype=torch.float64)
    return gain, cost, error


def _predicted(cosine: Tensor, novel: Tensor) -> tuple[float | None, float | None]:
    positive, negative = int(novel.sum()), int((~novel).sum())
    if not positive or not negative:
        return None, None
    ranks = rankdata(-cosine.numpy())
    auc = (float(ranks[novel.numpy()].sum()) - positive * (positive + 1) / 2) / (positive * negative)
    order = torch.argsort(cosine, stable=True)
    right = novel[order].long().cumsum(0) + negative - (~novel[order]).long().cumsum(0)
    return auc, float(cosine[order[int(right.argmax())]])


def _steps(small: Voter, large: Voter, gain: Tensor, threshold: float) -> list[tuple[Tensor, Tensor]]:
    n, m = len(small.atoms), len(large.atoms)
    links = []
    for first in range(0, n, _CHUNK):
        cosine = small.atoms[first : first + _CHUNK] @ large.atoms.T
        a, b = torch.nonzero(cosine > threshold, as_tuple=True)
        links.append(torch.stack([(a + first).double(), b.double(), cosine[a, b].double()]))
    a, b, cosine = torch.cat(links, dim=1)
    graph = coo_array((cosine.numpy(), (a.numpy().astype(int), n + b.numpy().astype(int))), shape=(n + m, n + m))
    count, label = connected_components(graph, directed=False)
    label = torch.from_numpy(label).long()
    nearest = torch.full((count,), -torch.inf, dtype=torch.float64)
    nearest.scatter_reduce_(0, label[a.long()], cosine, "amax")
    groups = torch.argsort(-nearest, stable=True)
    swapped = [group for group in groups.tolist() if nearest[group] > threshold]
    steps = [
        (torch.nonzero(label[:n] == group).flatten(), torch.nonzero(label[n:] == group).flatten()) for group in swapped
    ]
    alone = torch.nonzero(torch.isinf(nearest[label[n:]])).flatten()
    nothing = torch.empty(0, dtype=torch.int64)
    return steps + [(nothing, one[None]) for one in alone[torch.argsort(-gain[alone], stable=True)]]


def _after(small: Voter, large: Voter, steps: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Which features of the two make up the dictionary after some steps: [n] and [m] bool."""
    kept = torch.ones(len(small.atoms), dtype=torch.bool)
    taken = torch.zeros(len(large.atoms), dtype=torch.bool)
    for leaving, coming in steps:
        kept[leaving], taken[coming] = False, True
    return kept, taken


def _path(small: Voter, large: Voter, steps: list[tuple[Tensor, Tensor]], rows: Tensor) -> list[Point]:
    at = sorted({round(i * len(steps) / (POINTS - 1)) for i in range(POINTS)})
    masks = [_after(small, large, steps[:stop]) for stop in at]
    error, active = torch.zeros(len(at), dtype=torch.float64), torch.zeros(len(at), dtype=torch.float64)
    offset = small.offset.float()
    for x in torch.split(rows, _CHUNK):
        one, other = codes(small, x), codes(large, x)
        for i, (kept, taken) in enumerate(masks):
            mine, theirs = one * kept, other * taken
            found = mine @ small.atoms + theirs @ large.atoms + offset
            error[i] += (found - x).double().square().sum()
            active[i] += (mine != 0).sum() + (theirs != 0).sum()
    spread = metrics.Deviations.of(rows).total
    swaps = sum(len(leaving) > 0 for leaving, _ in steps)
    return [
        Point(
            swapped=min(stop, swaps),
            inserted=max(0, stop - swaps),
            features=int(kept.sum() + taken.sum()),
            fvu=metrics.fvu(float(error[i]), spread),
            l0=float(active[i]) / len(rows),
        )
        for i, (stop, (kept, taken)) in enumerate(zip(at, masks, strict=True))
    ]
