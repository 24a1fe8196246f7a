"""Whether features that point the same way behave the same: closed forms over the codes of the same rows.

Everything about a pair of features a and b follows from eight sums over rows: on how many each fires and both do, sums
of codes, of their squares and of their product. Codes are in units of what they add to activations, so that members
with other scales compare. Letters: R rows, n features, K members, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.comparison import Comparison
from sparsecode.consensus.records import Behaviour, Functional
from sparsecode.consensus.voters import Voter

LEAST = 50  # rows on which a feature must fire: Jaccard of ten rows is noise
QUARTILES = 4
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums over rows for pairs of features, [P] float64 each.

    Attributes:
        rows: R.
        cosine: of the two atoms.
        n_a, n_b, n_ab: rows on which a, b and both fire.
        s_a, s_b, s_aa, s_bb, s_ab: sums of codes, of their squares and of their product.
    """

    rows: int
    cosine: Tensor
    n_a: Tensor
    n_b: Tensor
    n_ab: Tensor
    s_a: Tensor
    s_b: Tensor
    s_aa: Tensor
    s_bb: Tensor
    s_ab: Tensor

    @property
    def jaccard(self) -> Tensor:
        """Both fire / either fires; NaN where neither does."""
        return self.n_ab / (self.n_a + self.n_b - self.n_ab)

    @property
    def correlation(self) -> Tensor:
        """Pearson's, of the codes; NaN where one does not vary."""
        R = self.rows
        spread = (R * self.s_aa - self.s_a.square()) * (R * self.s_bb - self.s_b.square())
        return (R * self.s_ab - self.s_a * self.s_b) / spread.clamp(min=0).sqrt()

    @property
    def similarity(self) -> Tensor:
        """2 (a.b) E[z_a z_b] / (E z_a^2 + E z_b^2): 1 if the two add the same vector to every row."""
        return 2 * self.cosine * self.s_ab / (self.s_aa + self.s_bb)

    @property
    def substitution(self) -> Tensor:
        """E|z_b b - z_a a|^2 / E|z_a a|^2: 0 where they are interchangeable, 1 as bad as leaving a out."""
        return 1 + (self.s_bb - 2 * self.cosine * self.s_ab) / self.s_aa


def codes(voter: Voter, x: Tensor) -> Tensor:
    """[R, n] codes of raw rows, in units of what they add to them."""
    found: Tensor = voter.dictionary.encode(x) * (voter.dictionary.W_dec.norm(dim=1) * voter.scale)
    return found


def energy(voter: Voter, rows: Tensor) -> Tensor:
    """[n] float64: sum over rows [R, d] of the squares of each feature's codes."""
    chunks = torch.split(rows, _CHUNK)
    return torch.stack([codes(voter, x).square().sum(0, dtype=torch.float64) for x in chunks]).sum(0)


def pair_sums(one: Voter, other: Voter, a: Tensor, b: Tensor, rows: Tensor) -> PairSums:
    """The sums of pairs of features a [P] of one dictionary and b [P] of another over rows [R, d]."""
    total = torch.zeros(8, len(a), dtype=torch.float64)
    for x in torch.split(rows, _CHUNK):
        z_a, z_b = codes(one, x)[:, a], codes(other, x)[:, b]
        on_a, on_b = (z_a != 0).float(), (z_b != 0).float()
        parts = (on_a, on_b, on_a * on_b, z_a, z_b, z_a * z_a, z_b * z_b, z_a * z_b)
        total += torch.stack([part.sum(0, dtype=torch.float64) for part in parts])
    cosine = (one.atoms[a].double() * other.atoms[b].double()).sum(1)
    return PairSums(len(rows), cosine, *total)


def nearest_by_codes(one: Voter, other: Voter, rows: Tensor) -> Tensor:
    """[n] for every feature the one of another dictionary whose codes correlate most with its own."""
    n, m = len(one.atoms), len(other.atoms)
    product, sums = torch.zeros(n, m, dtype=torch.float64), torch.zeros(2, max(n, m), dtype=torch.float64)
    squares = torch.zeros(m, dtype=torch.float64)
    for x in torch.split(rows, _CHUNK):
        z_a, z_b = codes(one, x), codes(other, x)
        product += z_a.T @ z_b
        sums[0, :n] += z_a.sum(0, dtype=torch.float64)
        sums[1, :m] += z_b.sum(0, dtype=torch.float64)
        squares += z_b.square().sum(0, dtype=torch.float64)
    R = len(rows)
    covariance = R * product - sums[0, :n, None] * sums[1, None, :m]
    spread = (R * squares - sums[1, :m].square()).clamp(min=0).sqrt()
    return torch.where(spread > 0, covariance / spread, -torch.inf).argmax(1)


def functional(comparison: Comparison, members: Sequence[Voter], threshold: float, rows: Tensor) -> Functional:
    """How each member's features behave beside their nearest ones in the next member.

    Those that are found above `threshold`, those that are not, and, as a control, pairs of features that fire about as
    often: all, and by quartile of how often they fire.
    """
    kinds: list[Tensor] = []
    tables: list[Tensor] = []
    silent = 0
    for one, other in zip(members, [*members[1:], members[0]], strict=True):
        near = comparison.index(one.name, other.name).long()
        a = torch.nonzero(one.live & (near >= 0)).flatten()
        matched = pair_sums(one, other, a, near[a], rows)
        tested = torch.nonzero(matched.n_a >= LEAST).flatten()
        silent += len(a) - len(tested)
        found = comparison.cosine(one.name, other.name)[a[tested]] > threshold
        partner = _alike(one, other, a[tested], rows)
        control = pair_sums(one, other, a[tested], partner, rows)
        for sums, at, kind in ((matched, tested, found.long()), (control, slice(None), torch.full_like(tested, 2))):
            columns = (sums.n_a, sums.jaccard, sums.correlation, sums.similarity, sums.substitution)
            tables.append(torch.stack([column[at] for column in columns]))
            kinds.append(kind)
    kind, table = torch.cat(kinds), torch.cat(tables, dim=1)
    one, other = members[0], members[1 % len(members)]
    by_codes = nearest_by_codes(one, other, rows)
    fired = table[0][kind != 2]
    edges = torch.quantile(fired, torch.linspace(0, 1, QUARTILES + 1, dtype=torch.float64)) if len(fired) else None
    parts = []
    for name, number in (("found", 1), ("not found", 0), ("as frequent, at random", 2)):
        own = table[:, kind == number]
        parts.append(_behaviour(name, None, own))
        if edges is not None:
            quarter = torch.bucketize(own[0], edges[1:-1])
            parts += [_behaviour(name, q + 1, own[:, quarter == q]) for q in range(QUARTILES)]
    live = one.live & (comparison.index(one.name, other.name) >= 0)
    agree = (by_codes == comparison.index(one.name, other.name).long())[live]
    return Functional(
        rows=len(rows),
        least=LEAST,
        tested=int((kind != 2).sum()),
        not_tested=silent,
        agree=float(agree.double().mean()) if len(agree) else None,
        agree_chance=1 / max(1, int(other.live.sum())),
        parts=parts,
    )


def _alike(one: Voter, other: Voter, a: Tensor, rows: Tensor) -> Tensor:
    """[P] features of another dictionary that fire about as often as each of a [P].

    The first that fires at least as often; where that is the nearest by cosine, the one beside it.
    """
    counts = []
    for voter in (one, other):
        fired = torch.zeros(len(voter.atoms), dtype=torch.int64)
        for x in torch.split(rows, _CHUNK):
            fired += (voter.dictionary.encode(x) != 0).sum(0)
        counts.append(fired)
    order = torch.argsort(counts[1], stable=True)
    place = torch.searchsorted(counts[1][order], counts[0][a]).clamp(max=len(order) - 1)
    chosen = order[place]
    nearest = (one.atoms[a] @ other.atoms.T).argmax(1)
    beside = order[torch.where(place + 1 < len(order), place + 1, place - 1).clamp(min=0)]
    return torch.where(chosen == nearest, beside, chosen)


def _behaviour(name: str, quartile: int | None, table: Tensor) -> Behaviour:
    def middle(values: Tensor) -> float | None:
        known = values[~torch.isnan(values)]
        return float(known.median()) if len(known) else None

    return Behaviour(name, quartile, table.shape[1], *(middle(column) for column in table[1:]))
