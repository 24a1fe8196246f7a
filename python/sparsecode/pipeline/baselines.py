"""The baselines stage: neurons, PCA, ICA and others on the data of the trained dictionaries, and how alike they are.

RUN/baselines/NAME.safetensors + .json    a dictionary each (NAME is its kind), its metrics on the held-out rows
RUN/baselines/baselines.json              all metrics, curves and similarities
RUN/baselines/measures.csv                a line per baseline
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sparsecode import store
from sparsecode.checkpoint import write_json, write_text
from sparsecode.comparison import fingerprint_of, mcs_both
from sparsecode.comparison.loading import check_memory
from sparsecode.comparison.statistics import chance_mmcs, mean
from sparsecode.errors import DatasetUnfit, InvalidSetting
from sparsecode.machine import versions
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import BaselinesConfig, TrainDictsConfig
from sparsecode.pipeline.plan import SEEDS, find_dataset
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.records import load_record
from sparsecode.pipeline.run import DEFAULT_RUN, Run, Stage
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import dictionaries_of, require
from sparsecode.science.baselines import BASELINES, Fit
from sparsecode.science.records import csv_of
from sparsecode.sweep import Dictionary
from sparsecode.sweep.reconstruction import evaluate, fvu_of_strongest
from sparsecode.watch import Watch

KEY = "baselines"
FORMAT = 1
_BATCH = 4096  # rows of a forward pass
_KEPT = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # codes kept, for the curves
_FIT_BYTES = 3 * 8  # a value of the rows that are fitted on: float64, centred, and a decomposition's
_FITTED, _ITERATIVE = ("pca", "ica", "nmf"), ("ica", "nmf")  # kinds that read rows, and those that read iterative_rows
_LEAST_ROWS = 2  # per dimension: fewer cannot be told from noise


@advised
def fit_baselines(
    run: str | Path | Run = DEFAULT_RUN,
    config: BaselinesConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Fits baselines on a run's activations, measures them as trained dictionaries are, and writes `RUN/baselines`.

    Args:
        run: the run folder, after `harvest_activations`; dictionaries that were trained there are compared with them.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`kinds="pca,ica"`).
        force: do it again where it was done with other settings, or before the dictionaries were trained.
        quiet: no progress.

    Returns:
        {"baselines": names, "eval_rows", "fit_rows", "dataset_fingerprint", "hook_point", "fvu": name -> value,
        "l0": name -> value}.

    Raises:
        StageMissing: nothing was harvested.
        InvalidSetting: a setting that cannot be used.
        DatasetUnfit: too few rows.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    home, chosen = called(run, BaselinesConfig, config, settings)
    kinds = _checked(chosen)
    chosen = _located(home, chosen)
    dataset = store.Dataset(find_dataset(home, TrainDictsConfig(hook=chosen.hook, dataset=chosen.dataset)))
    if chosen.dataset is None:
        chosen = chosen.changed(hook=dataset.path.name)
    paths = _trained(home, dataset)
    read = ["train-dicts"] if paths else []
    require(home, read if chosen.dataset is not None else [f"harvest/{chosen.hook}", *read], own=KEY)
    if force or not home.is_done(KEY):
        check_memory(KEY, paths.values(), _FIT_BYTES * min(chosen.rows, dataset.rows) * dataset.activation_dim)
    trained = {name: Dictionary.load(path) for name, path in paths.items()}
    eval_rows = _eval_rows(home, chosen, dataset, trained)
    _check_rows(chosen, kinds, dataset)
    sweep = dictionaries_of(home.config()["stages"], dataset.fingerprint) or ""
    fingerprint = fingerprint_of(paths.values()) if paths else ""
    inputs = {"dataset": dataset.fingerprint, "dictionaries": fingerprint, "sweep": sweep}
    folder = home.path / KEY
    needs = [folder / name for name in ("baselines.json", "measures.csv")]
    needs += [folder / f"{kind}{suffix}" for kind in kinds for suffix in (".safetensors", ".json")]

    def do(_: Stage) -> dict[str, Any]:
        return _make(chosen, kinds, dataset, trained, eval_rows, folder, watching(quiet))

    return run_stage(home, KEY, chosen, do, inputs=inputs, outputs=[folder], needs=needs, force=force, quiet=quiet)


def _make(
    config: BaselinesConfig,
    kinds: list[str],
    dataset: store.Dataset,
    trained: dict[str, Dictionary],
    eval_rows: int,
    folder: Path,
    watch: Watch,
) -> dict[str, Any]:
    """Fits and measures the baselines, and writes them and what was found into `folder`."""
    fit = _fit(config, dataset, dataset.rows - eval_rows)
    made: dict[str, Dictionary] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    with watch.task(KEY, len(kinds), "baselines") as progress:
        for kind in kinds:
            progress.advance(0, fitting=kind)
            made[kind] = BASELINES[kind](fit)
            found = evaluate(made[kind], _batches(dataset, eval_rows))
            curve = dataset.read(dataset.rows - min(eval_rows, config.curve_rows), dataset.rows)
            curves[kind] = fvu_of_strongest(made[kind], curve, _KEPT)
            made[kind].features["density"] = found.density
            made[kind].meta |= {
                "seed": config.seed,
                "hook_point": str(dataset.provenance.get("hook_point", "")),
                "dataset_fingerprint": dataset.fingerprint,
                "metrics": found.as_json(),
            }
            made[kind].save(folder / kind)
            progress.advance(1)
    record = _record(config, dataset, made, curves, trained)
    write_text(folder / "measures.csv", _csv(record["baselines"]))
    write_json(folder / "baselines.json", record)
    return {
        "baselines": kinds,
        "eval_rows": eval_rows,
        "fit_rows": len(fit.x),
        "dataset_fingerprint": dataset.fingerprint,
        "hook_point": record["hook_point"],
        "fvu": {row["name"]: row["fvu"] for row in record["baselines"]},
        "l0": {row["name"]: row["l0"] for row in record["baselines"]},
    }


def load_baselines(run: Run) -> dict[str, Any] | None:
    """What baselines.json holds; None where the run has no finished baselines stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.path / KEY / "baselines.json", FORMAT, "baselines")


def _checked(config: BaselinesConfig) -> list[str]:
    """The kinds asked for, in the order of `BASELINES`."""
    asked = [kind.strip() for kind in config.kinds.split(",") if kind.strip()]
    unknown = [kind for kind in asked if kind not in BASELINES]
    if unknown or not asked:
        raise InvalidSetting(f"baselines: --kinds '{config.kinds}': known are {', '.join(BASELINES)}")
    for name in ("rows", "iterative_rows", "ica_iterations", "nmf_iterations", "eval_rows", "curve_rows"):
        if getattr(config, name) < 1:
            raise InvalidSetting(f"baselines: --{name.replace('_', '-')} must be at least 1")
    if not 0 < config.threshold < 1:
        raise InvalidSetting(f"baselines: --threshold must be between 0 and 1, not {config.threshold}")
    if config.seed >= SEEDS:
        raise InvalidSetting(f"baselines: --seed must be below 2^64, not {config.seed}")
    return [kind for kind in BASELINES if kind in asked]


def _located(run: Run, config: BaselinesConfig) -> BaselinesConfig:
    """With the data that the run's dictionaries were trained on, where the settings name none."""
    told = run.config()["stages"].get("train-dicts", {}).get("beside") or {}
    if config.hook is not None or config.dataset is not None or not (told.get("hook") or told.get("dataset")):
        return config
    return config.changed(dataset=told.get("dataset"), hook=None if told.get("dataset") else told.get("hook"))


def _trained(run: Run, dataset: store.Dataset) -> dict[str, Path]:
    """Where the run's dictionaries are, by name, if they were trained on this dataset."""
    record = run.config()["stages"].get("train-dicts", {})
    result = record.get("result") or {}
    if record.get("status") != "done" or result.get("dataset_fingerprint") != dataset.fingerprint:
        return {}
    return {name: run.dictionaries_path / name for name in result["dictionaries"]}


def _eval_rows(run: Run, config: BaselinesConfig, dataset: store.Dataset, trained: dict[str, Dictionary]) -> int:
    """How many at the end: the very rows on which the trained dictionaries were measured, where there are any.

    Raises:
        DatasetUnfit: not finished, too few rows to fit on, or rows all the same.
    """
    if not dataset.complete:
        raise DatasetUnfit(f"{dataset.path}: its writer has not finished; run the command that writes it again")
    if not dataset.statistics["variance"] > 0:
        raise DatasetUnfit(f"{dataset.path}: all rows are equal, there is nothing to fit; harvest another hook point")
    own = run.config()["stages"]["train-dicts"]["result"].get("eval_rows") if trained else None
    rows = int(own or min(config.eval_rows, dataset.rows // 4))
    if dataset.rows - rows < _LEAST_ROWS * dataset.activation_dim:
        raise DatasetUnfit(
            f"{dataset.path}: {dataset.rows} rows are too few to fit baselines on; harvest more (--rows)"
        )
    return rows


def _check_rows(config: BaselinesConfig, kinds: list[str], dataset: store.Dataset) -> None:
    """Refuses to fit over fewer rows than there are dimensions: then most directions are anything at all.

    Raises:
        InvalidSetting: too few rows for one of `kinds`.
    """
    for kinds_of, name in ((_FITTED, "rows"), (_ITERATIVE, "iterative_rows")):
        asked = [kind for kind in kinds if kind in kinds_of]
        rows = getattr(config, name)
        if asked and rows < dataset.activation_dim:
            raise InvalidSetting(
                f"baselines: --{name.replace('_', '-')} {rows} are fewer than the {dataset.activation_dim} dimensions "
                f"of {dataset.path}; raise it, or leave {', '.join(asked)} out of --kinds"
            )


def _fit(config: BaselinesConfig, dataset: store.Dataset, train_rows: int) -> Fit:
    rows = min(config.rows, train_rows)
    with store.ActivationStream(dataset, batch_size=rows, seed=config.seed, stop_row=train_rows) as stream:
        x = next(iter(stream)).numpy().astype(np.float64)
    return Fit(x, min(config.iterative_rows, rows), config.ica_iterations, config.nmf_iterations, config.seed)


def _batches(dataset: store.Dataset, rows: int) -> Iterator[Tensor]:
    for first in range(dataset.rows - rows, dataset.rows, _BATCH):
        yield dataset.read(first, min(first + _BATCH, dataset.rows))


def _record(
    config: BaselinesConfig,
    dataset: store.Dataset,
    made: dict[str, Dictionary],
    curves: dict[str, list[dict[str, Any]]],
    trained: dict[str, Dictionary],
) -> dict[str, Any]:
    chance = {kind: chance_mmcs(512, own.W_dec) for kind, own in made.items()}
    return {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "hook_point": str(dataset.provenance.get("hook_point", "")),
        "dataset_fingerprint": dataset.fingerprint,
        "activation_dim": dataset.activation_dim,
        "chance_mmcs": chance,
        "baselines": [
            {"name": kind, "dict_size": own.dict_size, "codes": own.meta["codes"], "fit": own.meta["fit"]}
            | own.meta["metrics"]
            | {"curve": curves[kind], "against": _against(own, made, config.threshold, leave_out=kind)}
            for kind, own in made.items()
        ],
        "trained": [
            {key: own.meta.get(key) for key in ("l1", "seed", "metrics")}
            | {"name": name, "dict_size": own.dict_size, "against": _against(own, made, config.threshold)}
            for name, own in trained.items()
        ],
    }


def _against(
    own: Dictionary, baselines: dict[str, Dictionary], threshold: float, leave_out: str | None = None
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


def _csv(rows: list[dict[str, Any]]) -> str:
    flat = [
        {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        | {f"fvu_top{point['codes']}": point["fvu"] for point in row["curve"]}
        | {f"mmcs_to_{other}": values["mmcs"] for other, values in row["against"].items()}
        for row in rows
    ]
    return csv_of(flat)
