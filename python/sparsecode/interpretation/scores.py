"""How well an explanation predicts the activations of the scoring half. No measure is ever NaN: see each for what it is
where nothing can be measured.

Shape letters: R rows of a half, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from sparsecode.interpretation.atoms import Atoms
from sparsecode.interpretation.rules import Explanation, simulate
from sparsecode.interpretation.sample import Mask, Numbers, Sample

Array = npt.NDArray[np.float64]
GRAM = 5  # tokens that make a context new: the token and the four before it
_SHRINK = 5.0  # rows at the overall mean that each entry of the token table counts in addition
_SEEN = 5  # rows of the fitting half that a token needs to be in "beyond the token"


@dataclass(frozen=True)
class Scores:
    """Measures of one explanation on the scoring half.

    Attributes:
        correlation: of the predicted with the true activations.
        auroc: probability that the prediction is larger for an active row than for another one.
        precision, recall: share of the rows covered by a rule that are active, and of the active rows that are covered.
        unseen_correlation, unseen_auroc, unseen_precision, unseen_recall: on rows whose token and the four before it
            are not in the fitting half.
        token_table: correlation of the mean of each token on the fitting half with the true activations.
        beyond_token: correlation of prediction and truth after each token's mean is taken from both.
        permuted: correlation with the activations of other contexts, which is 0 but for chance.
    """

    correlation: float
    auroc: float
    precision: float
    recall: float
    unseen_correlation: float
    unseen_auroc: float
    unseen_precision: float
    unseen_recall: float
    token_table: float
    beyond_token: float
    permuted: float


@dataclass(frozen=True, eq=False)
class Scorer:
    """What scores of all directions have in common.

    Attributes:
        fitting_ids, scoring_ids: [R] tokens of the halves.
        unseen: [R] rows of the scoring half whose five tokens are new.
        often: [R] rows of the scoring half whose token is often enough in the fitting half.
        counts: [V] how often each token is in the fitting half.
        moved: [R] rows of the scoring half in the order of its contexts, drawn by seed.
    """

    atoms: Atoms
    fitting_ids: Numbers
    scoring_ids: Numbers
    unseen: Mask
    often: Mask
    counts: Numbers
    moved: Numbers

    @classmethod
    def of(cls, sample: Sample, atoms: Atoms, seed: int) -> Scorer:
        """What is the same for every direction of a sample."""
        fitting, scoring = sample.ids[sample.fitting], sample.ids[~sample.fitting]
        counts = np.bincount(fitting, minlength=int(sample.ids.max()) + 1)
        contexts = np.split(np.arange(len(scoring)), np.flatnonzero(np.diff(sample.context[~sample.fitting])) + 1)
        order = np.random.default_rng([seed, 0x6D6F7665]).permutation(len(contexts))  # "move"
        moved = np.concatenate([contexts[i] for i in order])
        return cls(atoms, fitting, scoring, unseen(sample), counts[scoring] >= _SEEN, counts, moved)

    def score(self, explanation: Explanation, fitting: Array, scoring: Array) -> Scores:
        """The measures of an explanation from activations [R] of both halves."""
        predicted, which = simulate(self.atoms, self.atoms.scoring, explanation)
        simulated, _ = simulate(self.atoms, self.atoms.fitting, explanation)
        active, covered, new = scoring > 0, which >= 0, self.unseen
        table = self._table(fitting)[self.scoring_ids]
        own = self._table(simulated)[self.scoring_ids]
        beyond = correlation((predicted - own)[self.often], (scoring - table)[self.often])
        precision, recall = covers(covered, active)
        new_precision, new_recall = covers(covered[new], active[new])
        return Scores(
            correlation=correlation(predicted, scoring),
            auroc=auroc(predicted, active),
            precision=precision,
            recall=recall,
            unseen_correlation=correlation(predicted[new], scoring[new]),
            unseen_auroc=auroc(predicted[new], active[new]),
            unseen_precision=new_precision,
            unseen_recall=new_recall,
            token_table=correlation(table, scoring),
            beyond_token=beyond,
            permuted=correlation(predicted, scoring[self.moved]),
        )

    def _table(self, values: Array) -> Array:
        """[V] the mean of each token on the fitting half, shrunk towards the overall one."""
        sums = np.bincount(self.fitting_ids, values, len(self.counts))
        found: Array = (sums + _SHRINK * values.mean()) / (self.counts + _SHRINK)
        return found


def unseen(sample: Sample) -> Mask:
    """[R of the scoring half] whether a row's token and the four before it in its context are not in the fitting
    half; where a context has no four, its beginning counts as a token of its own.
    """
    grams = np.full((sample.rows, GRAM), -1, np.int64)
    for back in range(GRAM):
        grams[back:, back] = sample.ids[: sample.rows - back]
        grams[sample.place < back, back] = -1
    numbers = np.unique(grams, axis=0, return_inverse=True)[1].reshape(-1)
    found: Mask = ~np.isin(numbers[~sample.fitting], numbers[sample.fitting])
    return found


def correlation(a: Array, b: Array) -> float:
    """Pearson's correlation; 0 where one of the two does not vary, or there is nothing."""
    if not len(a):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    # Of a constant, the mean leaves rounding errors.
    flat = min(float(np.abs(a).max()), float(np.abs(b).max())) < 1e-12
    return 0.0 if flat or size == 0 else float(np.clip((a @ b) / size, -1, 1))


def auroc(predicted: Array, active: Mask) -> float:
    """Area under the ROC curve (Mann and Whitney 1947), ties counted by half; 0.5 where all or no rows are active."""
    positive = int(active.sum())
    negative = len(active) - positive
    if not positive or not negative:
        return 0.5
    ranks = rankdata(predicted)
    return float((ranks[active].sum() - positive * (positive + 1) / 2) / (positive * negative))


def covers(covered: Mask, active: Mask) -> tuple[float, float]:
    """Precision and recall of "active where a rule holds"; 0 where none holds or none is active."""
    both = int((covered & active).sum())
    return both / max(1, int(covered.sum())), both / max(1, int(active.sum()))


def reduced(fitting: Array, scoring: Array, rate: float) -> tuple[Array, Array, float]:
    """Activations above the threshold that the strongest `rate` of the fitting half pass, less that threshold.

    Both halves are divided by the largest of the fitting half, so that no scale is left. A direction that is active on
    fewer rows keeps its own threshold, 0.

    Returns:
        The fitting half, the scoring half, and the threshold in the direction's own units.
    """
    share = float((fitting > 0).mean())
    threshold = float(np.quantile(fitting, 1 - rate)) if share > rate else 0.0
    return *_scaled(np.maximum(fitting - threshold, 0), np.maximum(scoring - threshold, 0)), max(threshold, 0.0)


def native(fitting: Array, scoring: Array) -> tuple[Array, Array]:
    """Activations as they are, divided by the largest of the fitting half."""
    return _scaled(np.maximum(fitting, 0), np.maximum(scoring, 0))


def _scaled(fitting: Array, scoring: Array) -> tuple[Array, Array]:
    top = float(fitting.max(initial=0.0))
    if top <= 0:
        return fitting, scoring
    # Rounded: the last bits depend on the scale that a direction came with, and explanations must not.
    return np.round(fitting / top, 6), np.round(scoring / top, 6)
