"""Baselines fitted on a dataset and measured as trained dictionaries are, and how alike they are.

Shape letters: n features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from sparsecode.comparison import mcs_both
from sparsecode.comparison.cosine import chance_mmcs, mean
from sparsecode.science.baselines.kinds import BASELINES, Fit
from sparsecode.science.tables import csv_of
from sparsecode.store import ActivationStream, Dataset
from sparsecode.sweep import Dictionary
from sparsecode.sweep.batches import chunks
from sparsecode.sweep.reconstruction import evaluate, fvu_of_strongest
from sparsecode.watch import UNWATCHED, Watch

_KEPT = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # codes kept, for the curves


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What baselines are fitted and measured on.

    Attributes:
        rows: how many to fit on, drawn from those that are not held out.
        iterative_rows: how many of these for ICA and NMF, whose every iteration reads all of them.
        ica_iterations, nmf_iterations: most iterations.
        curve_rows: held-out rows for the curves of FVU over the number of codes kept.
        threshold: cosine above which a feature counts as found again.
        seed: of the rows, of the random directions and of the fits.
    """

    rows: int
    iterative_rows: int
    ica_iterations: int
    nmf_iterations: int
    curve_rows: int
    threshold: float
    seed: int


@dataclass(frozen=True, eq=False)
class Baselines:
    """Fitted baselines by kind, each with its metrics in `meta`, and their curves of FVU over the codes kept."""

    made: dict[str, Dictionary]
    curves: dict[str, list[dict[str, Any]]]
    fit_rows: int

    def rows(self, threshold: float) -> list[dict[str, Any]]:
        """An entry for each, JSON values."""
        return [
            {"name": kind, "dict_size": own.dict_size, "codes": own.meta["codes"], "fit": own.meta["fit"]}
            | own.meta["metrics"]
            | {"curve": self.curves[kind], "against": against(own, self.made, threshold, leave_out=kind)}
            for kind, own in self.made.items()
        ]

    def chance(self) -> dict[str, float]:
        """MMCS of 512 random directions with each."""
        return {kind: chance_mmcs(512, own.W_dec) for kind, own in self.made.items()}

    def beside(self, trained: Mapping[str, Dictionary], threshold: float) -> list[dict[str, Any]]:
        """An entry for each trained dictionary: how alike it is to each baseline."""
        return [
            ({"kind": own.meta["kind"]} if "kind" in own.meta else {})
            | {key: own.meta.get(key) for key in ("l1", "seed", "metrics")}
            | {"name": name, "dict_size": own.dict_size, "against": against(own, self.made, threshold)}
            for name, own in trained.items()
        ]


def fit_all(
    dataset: Dataset,
    kinds: Sequence[str],
    settings: FitSettings,
    held_out: int,
    watch: Watch = UNWATCHED,
    weights: Mapping[str, Tensor] | None = None,
) -> Baselines:
    """Fits baselines on a dataset, and measures each on its last rows.

    Args:
        dataset: where the rows are.
        kinds: names of `BASELINES`.
        settings: on how many rows, and how long.
        held_out: how many rows at the end are measured on, and not fitted on.
        watch: what it is watched with.
        weights: directions of the model's weights, see `Fit`.
    """
    fit = replace(_fit(dataset, settings, dataset.rows - held_out), weights=weights or {})
    made: dict[str, Dictionary] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    with watch.task("baselines", len(kinds), "baselines") as progress:
        for kind in kinds:
            progress.advance(0, fitting=kind)
            own = made[kind] = BASELINES[kind](fit)
            found = evaluate(own, chunks(dataset, start=dataset.rows - held_out))
            curve = dataset.read(dataset.rows - min(held_out, settings.curve_rows), dataset.rows)
            curves[kind] = fvu_of_strongest(own, curve, _KEPT)
            own.features["density"] = found.density
            own.meta |= {
                "seed": settings.seed,
                "hook_point": str(dataset.provenance.get("hook_point", "")),
                "dataset_fingerprint": dataset.fingerprint,
                "metrics": found.as_json(),
            }
            progress.advance(1)
    return Baselines(made, curves, len(fit.x))


def _fit(dataset: Dataset, settings: FitSettings, train_rows: int) -> Fit:
    rows = min(settings.rows, train_rows)
    with ActivationStream(dataset, batch_size=rows, seed=settings.seed, stop_row=train_rows) as stream:
        x = next(iter(stream)).numpy().astype(np.float64)
    iterative = min(settings.iterative_rows, rows)
    return Fit(x, iterative, settings.ica_iterations, settings.nmf_iterations, settings.seed)


def against(
    own: Dictionary, baselines: Mapping[str, Dictionary], threshold: float, leave_out: str | None = None
) -> dict[str, Any]:
    """MCS with each baseline, both ways: mean, and features above the threshold; live features apart."""
    density = own.features.get("density")
    found = {}
    for kind, other in baselines.items():
        if kind == leave_out:
            continue
        forward, backward = mcs_both(own.W_dec, other.W_dec)
        live = forward.values if density is None else forward.values[density > 0]
        found[kind] = {
            "mmcs": mean(forward.values),
            "above": int((forward.values > threshold).sum()),
            "live_mmcs": mean(live) if len(live) else None,
            "live_above": int((live > threshold).sum()),
            "mmcs_back": mean(backward.values),
            "above_back": int((backward.values > threshold).sum()),
        }
    return found


def measures_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Entries of baselines as CSV."""
    flat = [
        {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        | {f"fvu_top{point['codes']}": point["fvu"] for point in row["curve"]}
        | {f"mmcs_to_{other}": values["mmcs"] for other, values in row["against"].items()}
        for row in rows
    ]
    return csv_of(flat)
