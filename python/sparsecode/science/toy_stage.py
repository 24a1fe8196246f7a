"""The toy stage: known features, a sweep over sizes and L1, and what of the truth each dictionary holds.

RUN/toy/toy.json              settings, one entry per dictionary, the verdict
RUN/toy/measures.csv          the same, a line per dictionary
RUN/toy/recovery.safetensors  NAME [G]: for each true feature its largest cosine with an atom of NAME
RUN/toy/truth.safetensors + .json    the true features as a dictionary, to compare with
RUN/toy/dictionaries/NAME.safetensors + .json    with --save-dictionaries
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import save_tensors, write_json, write_text
from sparsecode.config import ToyConfig
from sparsecode.errors import TrainingDiverged
from sparsecode.machine import versions
from sparsecode.progress import Progress, say
from sparsecode.recall import recalled
from sparsecode.run import DEFAULT_RUN, Run
from sparsecode.science import toy_measures, toy_plan
from sparsecode.science.records import csv_of, load_record
from sparsecode.science.toy_training import KEY, ToyTraining
from sparsecode.science.toy_verdict import thin, verdict
from sparsecode.science.verdicts import NOT_TESTED
from sparsecode.sweep import Dictionary, choose_engine, metrics

FORMAT = 1


def toy_models(
    run: str | Path | Run = DEFAULT_RUN,
    config: ToyConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Trains a sweep on toy data and measures every dictionary against the truth; writes `RUN/toy`.

    Args:
        run: the run folder; it may be empty.
        config: settings; without it those of the run (`sparsecode.recall`). `settings` change single ones
            (`minutes=2, l1="1e-4:1e-2:9"`).
        force: do it again where it was done with other settings.
        quiet: no progress.

    Returns:
        {"dictionaries": names, "diverged", "steps", "samples", "engine", "verdict", "mmcs_truth": name -> value,
        "best": name of the dictionary that holds most of the truth, "not_tested": {"7": why} or {}, "thin": what is
        below the bounds of `trained`}.

    Raises:
        InvalidSetting: a setting that cannot be used.
        TrainingDiverged: every dictionary ran into NaN.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    run = run if isinstance(run, Run) else Run(run)
    config = recalled(run, ToyConfig, config, settings)
    toy_plan.check(config)
    if force or not run.is_done(KEY):
        toy_plan.check_memory(config)
    if force or KEY not in run.config()["stages"]:
        choose_engine(config.engine, config.device)  # fails here, before the stage is recorded as begun
    folder = run.path / KEY
    needs = [folder / name for name in ("toy.json", "measures.csv")]
    with run.stage(KEY, config, outputs=[folder], needs=needs, force=force) as stage:
        if stage.done:
            if not quiet:
                say(f"{KEY}: already done in {run.path} with the same settings")
            return stage.result
        training = ToyTraining(run, stage, config)
        training.restore()
        training.train(quiet=quiet)
        record, recovery = _measure(training, quiet=quiet)
        _truth(training).save(folder / "truth")
        save_tensors(folder / "recovery.safetensors", recovery, {"format": FORMAT})
        write_text(folder / "measures.csv", _csv(record["dictionaries"]))
        write_json(folder / "toy.json", record)
        result = _headline(record)
        stage.finish(result)
        training.state_path.unlink(missing_ok=True)
        return result


def load_toy(run: Run) -> dict[str, Any] | None:
    """What toy.json holds; None where the run has no finished toy stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.path / KEY / "toy.json", FORMAT, "dictionaries")


def _measure(training: ToyTraining, *, quiet: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record that toy.json holds, and per dictionary the recovery of each true feature."""
    sweep, config, truth = training.sweep, training.config, training.data.features
    sums, fired = training.evaluate()
    found = metrics.summaries(sweep, sums, training.spread)
    diverged = sweep.diverged()
    names = sweep.names
    if len(diverged) == len(names):
        raise TrainingDiverged(f"{training.run.path}: all {len(names)} toy dictionaries ran into NaN; use a lower --lr")
    keys = list(zip(sweep.sizes, sweep.l1, sweep.seeds, strict=True))
    alive = {key: k for k, key in enumerate(keys) if k not in diverged}
    atoms = {key: sweep.W_dec[sweep.rows(k)].detach().float().cpu() for key, k in alive.items()}
    larger = toy_measures.next_larger(list(alive))
    rows, recovery = [], {}
    with Progress("toy: compare", len(keys), "dictionaries", quiet=quiet) as progress:
        for k, key in enumerate(keys):
            size, l1, seed = key
            values = {"code_l1" if name == "l1" else name: value for name, value in found[names[k]].items()}
            row: dict[str, Any] = {"name": names[k], "dict_size": size, "l1": l1, "seed": seed} | values
            if key in alive:
                start = sweep.initial_atoms(alive[key])
                own, cosines = toy_measures.against_truth(truth, atoms[key], start, config.threshold)
                recovery[names[k]] = cosines
                row |= own | metrics.motion(sweep.initial_cosine(k), fired[k])
                if key in larger:
                    row |= {"larger": names[alive[larger[key]]]}
                    row |= toy_measures.against_larger(atoms[key], atoms[larger[key]])
            rows.append(row)
            progress.advance(1)
    if config.save_dictionaries:
        for k in alive.values():
            _keep(training, k, found[names[k]], fired[k])
    record = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "steps": sweep.step,
        "samples": sweep.step * config.batch_size,
        "engine": training.engine.name,
        "true_l0": float((training.eval_codes > 0).sum()) / len(training.eval_codes),
        "diverged": [names[k] for k in sorted(diverged)],
        "dictionaries": rows,
    }
    why = thin(record)
    return record | {"thin": [f"{why}; give it more --minutes"] if why else [], "verdict": verdict(record)}, recovery


def _truth(training: ToyTraining) -> Dictionary:
    """The true features as a dictionary; its encoder is their transpose, which knows nothing of superposition."""
    features = training.data.features
    density = (training.eval_codes > 0).float().mean(dim=0)
    meta = {"kind": "toy-truth", "seed": training.config.seed}
    return Dictionary(
        features.clone(), torch.zeros(len(features)), features.clone(), meta=meta, features={"density": density}
    )


def _keep(training: ToyTraining, k: int, found: dict[str, Any], fired: Tensor) -> None:
    sweep = training.sweep
    meta = {
        "kind": "toy",
        "hook_point": "toy",
        "samples_seen": sweep.step * training.config.batch_size,
        "metrics": found,
    }
    dictionary = sweep.dictionary(k, meta=meta)
    dictionary.features = {
        "density": metrics.density(fired, len(training.eval_x)),
        "initial_cosine": sweep.initial_cosine(k),
    }
    dictionary.save(training.run.path / KEY / "dictionaries" / sweep.names[k])


def _csv(rows: list[dict[str, Any]]) -> str:
    flat = [
        {key: value for key, value in row.items() if not isinstance(value, list)}
        | dict(zip(("mmcs_truth_low", "mmcs_truth_high"), row.get("mmcs_truth_interval", (None, None)), strict=True))
        for row in rows
    ]
    return csv_of(flat)


def _headline(record: dict[str, Any]) -> dict[str, Any]:
    measured = {row["name"]: row["mmcs_truth"] for row in record["dictionaries"] if "mmcs_truth" in row}
    return {
        "dictionaries": list(measured),
        "diverged": record["diverged"],
        "steps": record["steps"],
        "samples": record["samples"],
        "engine": record["engine"],
        "mmcs_truth": measured,
        "best": max(measured, key=lambda name: measured[name]),
        "verdict": record["verdict"]["verdict"],
        "not_tested": {"7": record["verdict"]["reason"]} if record["verdict"]["verdict"] == NOT_TESTED else {},
        "thin": record["thin"],
    }
