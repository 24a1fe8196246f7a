"""The claims of a fake run, judged in a second, and records of toy models whose verdict is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sparsecode
from fake_run import FakeDataset, fake_sweeps
from sparsecode import store
from sparsecode.pipeline import sweeps
from sparsecode.pipeline.claims import load_claims
from sparsecode.pipeline.run import Run

SMALL: dict[str, Any] = {"starts": False, "directions": 8, "contexts": 6, "features": 4, "shown": 3, "draws": 100}


def claims_of(run: Run, dataset: FakeDataset, tilt: float = 0.1, **settings: Any) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: dataset)
        patch.setattr(sweeps, "train_both", lambda run, *_, **__: fake_sweeps(run, tilt=tilt))
        sparsecode.compare_dicts(run, quiet=True)
        sparsecode.check_claims(run, quiet=True, **(SMALL | settings))
    written, found = json.loads(run.claims_path.read_text()), load_claims(run)
    assert found is not None and found.as_json(written["settings"]) == written, "read as it was written"
    return dict(written["claims"])


Rows = dict[tuple[int, float], tuple[float, float | None]]  # (size, l1) -> (MMCS with the truth, with larger)

GOOD: Rows = {
    (64, 0.1): (0.2, 0.99), (64, 0.2): (0.3, 0.5),  # too small to hold the truth: the choice there does not count
    (512, 0.1): (0.9, 0.95), (512, 0.2): (0.5, 0.6),
    (1024, 0.1): (0.98, 0.8), (1024, 0.2): (0.4, 0.3),
    (2048, 0.1): (0.97, None), (2048, 0.2): (0.3, None),
}  # fmt: skip


def record(rows: Rows, width: float = 0.01) -> dict[str, Any]:
    return {
        "settings": {"true_features": 512},
        "dictionaries": [
            {
                "name": f"n{size}", "dict_size": size, "l1": l1, "seed": 0, "mmcs_truth": truth, "recovered": 1,
                "mmcs_truth_interval": [truth - width, truth + width], "mmcs_truth_start": 0.2,
                "matched_mmcs_larger": larger,
            }
            for (size, l1), (truth, larger) in rows.items()
        ],
    }  # fmt: skip
