"""The baselines stage: neurons, PCA, ICA and others on the data of the trained dictionaries, and how alike they are.

RUN/baselines/NAME.safetensors + .json    a dictionary each (NAME is its kind), its metrics on the held-out rows
RUN/baselines/baselines.json              all metrics, curves and similarities
RUN/baselines/measures.csv                a line per baseline
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsecode import store
from sparsecode.checkpoint import write_json, write_text
from sparsecode.comparison import fingerprint_of
from sparsecode.comparison.members import check_memory
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import files_of
from sparsecode.errors import DatasetUnfit, HookUnknown, InvalidSetting
from sparsecode.gpt import load_gpt
from sparsecode.gpt.directions import weight_directions
from sparsecode.machine import versions
from sparsecode.pipeline.advice import advice, advised
from sparsecode.pipeline.config import BaselinesConfig, TrainDictsConfig
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.plan import find_dataset
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.records import load_record
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import dictionaries_of, require
from sparsecode.science.baselines.fit import FitSettings, fit_all, measures_csv
from sparsecode.science.baselines.kinds import BASELINES, OF_WEIGHTS
from sparsecode.watch import Watch

KEY = "baselines"
FORMAT = 1
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
    needs += [file for kind in kinds for file in files_of(folder / kind)]

    weights = _weights(home, kinds, dataset)

    def do(_: Stage) -> dict[str, Any]:
        return _make(chosen, kinds, dataset, trained, eval_rows, weights, folder, watching(quiet))

    return run_stage(home, KEY, chosen, do, inputs=inputs, outputs=[folder], needs=needs, force=force, quiet=quiet)


def _make(
    config: BaselinesConfig,
    kinds: list[str],
    dataset: store.Dataset,
    trained: dict[str, Dictionary],
    eval_rows: int,
    weights: Mapping[str, Tensor],
    folder: Path,
    watch: Watch,
) -> dict[str, Any]:
    """Fits and measures the baselines, and writes them and what was found into `folder`."""
    found = fit_all(dataset, kinds, config.part(FitSettings), eval_rows, watch, weights)
    for kind, own in found.made.items():
        own.save(folder / kind)
    hook, rows = str(dataset.provenance.get("hook_point", "")), found.rows(config.threshold)
    record = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "hook_point": hook,
        "dataset_fingerprint": dataset.fingerprint,
        "activation_dim": dataset.activation_dim,
        "chance_mmcs": found.chance(),
        "baselines": rows,
        "trained": found.beside(trained, config.threshold),
    }
    write_text(folder / "measures.csv", measures_csv(rows))
    write_json(folder / "baselines.json", record)
    return {
        "baselines": kinds,
        "eval_rows": eval_rows,
        "fit_rows": found.fit_rows,
        "dataset_fingerprint": dataset.fingerprint,
        "hook_point": hook,
        "fvu": {row["name"]: row["fvu"] for row in rows},
        "l0": {row["name"]: row["l0"] for row in rows},
    }


def load_baselines(run: Run) -> dict[str, Any] | None:
    """What baselines.json holds; None where the run has no finished baselines stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.path / KEY / "baselines.json", FORMAT, "baselines", dict)


def _weights(run: Run, kinds: list[str], dataset: store.Dataset) -> dict[str, Tensor]:
    """Directions of the weights of the model that the activations are of, where kinds need them.

    Raises:
        InvalidSetting: they are not of the run's own GPT, or of a place where its weights have no directions.
    """
    asked = [kind for kind in kinds if kind in OF_WEIGHTS]
    if not asked:
        return {}
    own = (run.config()["stages"].get("train-gpt") or {}).get("result") or {}
    if not own or dataset.provenance.get("model_fingerprint") != own.get("fingerprint"):
        raise InvalidSetting(
            f"baselines: {dataset.path}: is not of this run's own GPT, whose weights are known; leave "
            f"{', '.join(asked)} out of --kinds"
        )
    hook = str(dataset.provenance.get("hook_point", ""))
    with advice(f"leave {', '.join(asked)} out of --kinds", HookUnknown):
        return weight_directions(load_gpt(run.gpt_path), hook)


def _checked(config: BaselinesConfig) -> list[str]:
    """The kinds asked for, in the order of `BASELINES`."""
    asked = [kind.strip() for kind in config.kinds.split(",") if kind.strip()]
    unknown = [kind for kind in asked if kind not in BASELINES]
    if unknown or not asked:
        raise InvalidSetting(f"baselines: --kinds '{config.kinds}': known are {', '.join(BASELINES)}")
    return [kind for kind in BASELINES if kind in asked]


def _located(run: Run, config: BaselinesConfig) -> BaselinesConfig:
    """With the data that the run's dictionaries were trained on, where the settings name none."""
    told = run.config()["stages"].get("train-dicts", {}).get("beside") or {}
    if config.hook is not None or config.dataset is not None or not (told.get("hook") or told.get("dataset")):
        return config
    if "," in (told.get("hook") or ""):  # several layers, of which one must be named
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
