"""The metrics of an evaluation, under the project's names and under those of other libraries.

Definitions are those of docs/definitions.md; losses and divergences are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.evaluation.sums import DensityHistogram, Predictions, Sums
from sparsecode.sweep.metrics import explained_variance

_ATOMS = 4096  # atoms compared with all others at once


@dataclass(frozen=True)
class Shared:
    """The model, its predictions unchanged and ablated: shared by all dictionaries of a hook point."""

    model: str
    hook: str
    clean: Predictions
    zero: Predictions
    mean: Predictions


@dataclass(frozen=True)
class Evaluation:
    """How good one dictionary is, in itself and inside its model.

    Attributes:
        name, model, hook_point: what was evaluated.
        dict_size, rows: numbers of features and of evaluated positions.
        predictions: number of scored predictions; 0 if the model makes none, and then all losses are NaN.
        loss_clean, loss_spliced, loss_zero_ablated, loss_mean_ablated: cross-entropy in nats per token of the unchanged
            model, and with the values replaced by reconstructions, by zeros, and by the mean over the rows.
        loss_recovered, loss_recovered_from_mean: share of the cross-entropy lost by zero and mean ablation that
            reconstructions recover: (ablated - spliced) / (ablated - clean).
        kl_spliced, kl_zero_ablated, kl_mean_ablated: KL(clean || changed) in nats per position.
        mse: squared error per row and dimension, in the activations' own units.
        explained_variance: 1 - sum of squared residuals / sum of squared deviations from the mean over the rows.
        l0, l1: active codes and sum of the codes' absolute values, mean over rows.
        cosine: cosine of x_hat with x, mean over rows; 0 where either is zero.
        l2_ratio: |x_hat| / |x|, mean over rows.
        norm_in, norm_out: |x| and |x_hat|, means over rows.
        relative_reconstruction_bias: mean |x_hat|^2 / mean x . x_hat; below 1 it shrinks (Rajamanoharan et al. 2024,
            formula 10).
        alive: share of the features that fire on any of the rows.
        density: histogram of the features' densities.
        feature_density, max_decoder_cosine: per feature [F]: share of rows on which it fires, and the largest cosine of
            its atom with another atom of the dictionary.
    """

    name: str
    model: str
    hook_point: str
    dict_size: int
    rows: int
    predictions: int
    loss_clean: float
    loss_spliced: float
    loss_zero_ablated: float
    loss_mean_ablated: float
    loss_recovered: float
    loss_recovered_from_mean: float
    kl_spliced: float
    kl_zero_ablated: float
    kl_mean_ablated: float
    mse: float
    explained_variance: float
    l0: float
    l1: float
    cosine: float
    l2_ratio: float
    norm_in: float
    norm_out: float
    relative_reconstruction_bias: float
    alive: float
    density: DensityHistogram
    feature_density: list[float]
    max_decoder_cosine: list[float]
    squared_error_per_row: float

    @classmethod
    def of(cls, name: str, dictionary: Dictionary, shared: Shared, sums: Sums) -> Evaluation:
        """The evaluation from its sums."""
        found, spliced = sums.reconstruction, sums.spliced
        rows = max(found.rows, 1)
        clean, zero, mean = shared.clean.cross_entropy, shared.zero.cross_entropy, shared.mean.cross_entropy
        fired = found.fired if found.fired is not None else torch.zeros(dictionary.dict_size)
        return cls(
            name=name,
            model=shared.model,
            hook_point=shared.hook,
            dict_size=dictionary.dict_size,
            rows=found.rows,
            predictions=shared.clean.scored,
            loss_clean=clean,
            loss_spliced=spliced.cross_entropy,
            loss_zero_ablated=zero,
            loss_mean_ablated=mean,
            loss_recovered=_ratio(zero - spliced.cross_entropy, zero - clean),
            loss_recovered_from_mean=_ratio(mean - spliced.cross_entropy, mean - clean),
            kl_spliced=spliced.kl,
            kl_zero_ablated=shared.zero.kl,
            kl_mean_ablated=shared.mean.kl,
            mse=found.squared_error / (rows * max(found.dimensions, 1)),
            explained_variance=explained_variance(found.squared_error, found.spread.total if found.spread else 0.0),
            l0=found.l0 / rows,
            l1=found.l1 / rows,
            cosine=found.cosine / rows,
            l2_ratio=found.l2_ratio / rows,
            norm_in=found.norm_in / rows,
            norm_out=found.norm_out / rows,
            relative_reconstruction_bias=_ratio(found.norm_out_squared, found.product),
            alive=float((fired > 0).double().mean()),
            density=DensityHistogram.of(fired, found.rows),
            feature_density=(fired.double() / rows).tolist(),
            max_decoder_cosine=max_decoder_cosine(dictionary.W_dec).tolist(),
            squared_error_per_row=found.squared_error / rows,
        )

    def as_json(self) -> dict[str, Any]:
        """All metrics, also under other libraries' names; NaN becomes null when it is written."""
        own = asdict(self)
        density, cosine = own.pop("feature_density"), own.pop("max_decoder_cosine")
        own.pop("squared_error_per_row")
        return own | {
            "saelens": self.as_saelens() | {"feature_density": density, "max_decoder_cosine_sim": cosine},
            "dictionary_learning": self.as_dictionary_learning(),
            "sparsify": {"fvu": 1 - self.explained_variance, "dead_pct": 1 - self.alive},
        }

    def as_saelens(self) -> dict[str, float]:
        """The metrics under the names of SAELens and SAEBench; their mse is summed over dimensions."""
        density = torch.tensor(self.feature_density, dtype=torch.float64)
        return {
            "ce_loss_score": self.loss_recovered,
            "ce_loss_with_sae": self.loss_spliced,
            "ce_loss_without_sae": self.loss_clean,
            "ce_loss_with_ablation": self.loss_zero_ablated,
            "kl_div_score": _ratio(self.kl_zero_ablated - self.kl_spliced, self.kl_zero_ablated),
            "kl_div_with_sae": self.kl_spliced,
            "kl_div_with_ablation": self.kl_zero_ablated,
            "mse": self.squared_error_per_row,
            "explained_variance": self.explained_variance,
            "cossim": self.cosine,
            "l2_norm_in": self.norm_in,
            "l2_norm_out": self.norm_out,
            "l2_ratio": self.l2_ratio,
            "relative_reconstruction_bias": self.relative_reconstruction_bias,
            "l0": self.l0,
            "l1": self.l1,
            "frac_alive": self.alive,
            "freq_over_1_percent": float((density > 0.01).double().mean()),
            "freq_over_10_percent": float((density > 0.1).double().mean()),
        }

    def as_dictionary_learning(self) -> dict[str, float]:
        """The metrics under the names of dictionary_learning's `evaluate`, without l2_loss (the residual's norm)."""
        return {
            "l1_loss": self.l1,
            "l0": self.l0,
            "frac_variance_explained": self.explained_variance,
            "cossim": self.cosine,
            "l2_ratio": self.l2_ratio,
            "relative_reconstruction_bias": self.relative_reconstruction_bias,
            "loss_original": self.loss_clean,
            "loss_reconstructed": self.loss_spliced,
            "loss_zero": self.loss_zero_ablated,
            "frac_recovered": self.loss_recovered,
            "frac_alive": self.alive,
        }


def max_decoder_cosine(atoms: Tensor) -> Tensor:
    """[F] largest cosine of each atom [F,D] with another atom; -1 for a single atom."""
    unit = torch.nn.functional.normalize(atoms.detach().float().cpu(), dim=1)
    found = torch.full((len(unit),), -1.0)
    for first in range(0, len(unit), _ATOMS):
        cosines = unit[first : first + _ATOMS] @ unit.T
        rows = torch.arange(len(cosines))
        cosines[rows, rows + first] = -1.0
        found[first : first + _ATOMS] = cosines.amax(1)
    return found


def table(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows): the main metrics, one line per dictionary."""
    header = ["dictionary", "features", "L0", "explained", "cosine", "CE", "loss recovered", "KL", "alive"]
    rows = [
        [one.name, one.dict_size, one.l0, one.explained_variance, one.cosine, one.loss_spliced, one.loss_recovered,
         one.kl_spliced, one.alive]
        for one in evaluations
    ]  # fmt: skip
    return header, rows


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan
