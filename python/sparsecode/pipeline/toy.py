"""The toy stage: known features, a sweep over sizes and L1, and how much of the ground truth each one recovers.

RUN/toy/toy.json              settings, one entry per dictionary, the verdict
RUN/toy/measures.csv          the same, a line per dictionary
RUN/toy/recovery.safetensors  NAME [G]: for each true feature its largest cosine with an atom of NAME
RUN/toy/truth.safetensors + .json    the true features as a dictionary, to compare with
RUN/toy/dictionaries/NAME.safetensors + .json    with --save-dictionaries
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import save_tensors, write_json, write_text
from sparsecode.errors import TrainingDiverged
from sparsecode.machine import versions
from sparsecode.pipeline import toy_plan
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import ToyConfig
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.records import load_record
from sparsecode.pipeline.run import DEFAULT_RUN, Run, Stage
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.training import engine_of, train
from sparsecode.report.toy_page import toy_page
from sparsecode.science import toy_measures
from sparsecode.science.records import csv_of
from sparsecode.science.toy import ToyData
from sparsecode.science.toy_batches import ToyBatches
from sparsecode.science.toy_verdict import thin, verdict
from sparsecode.science.verdicts import NOT_TESTED
from sparsecode.sweep import Dictionary, choose_engine, metrics
from sparsecode.sweep.schedule import Budget
from sparsecode.sweep.trainer import Trainer, evaluate
from sparsecode.watch import Watch

KEY = "toy"
FORMAT = 1


@advised
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
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
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
    home, chosen = called(run, ToyConfig, config, settings)
    toy_plan.check(chosen)
    if force or not home.is_done(KEY):
        toy_plan.check_memory(chosen)
    if force or KEY not in home.config()["stages"]:
        choose_engine(chosen.engine, chosen.device)  # fails here, before the stage is recorded as begun
    folder = home.path / KEY
    needs = [folder / name for name in ("toy.json", "measures.csv")]
    state = folder / "state.safetensors"

    def do(stage: Stage) -> dict[str, Any]:
        toy = _train(home, stage, chosen, state, quiet=quiet)
        record, recovery = _measure(toy, home, chosen, watching(quiet))
        _truth(toy).save(folder / "truth")
        save_tensors(folder / "recovery.safetensors", recovery, {"format": FORMAT})
        write_text(folder / "measures.csv", _csv(record["dictionaries"]))
        write_json(folder / "toy.json", record)
        return _headline(record)

    return run_stage(home, KEY, chosen, do, outputs=[folder], needs=needs, state=state, force=force, quiet=quiet)


def toy(
    run: str | Path | Run = DEFAULT_RUN,
    config: ToyConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Trains and measures the toy models (`toy_models`), and writes `RUN/toy/report.html`.

    Returns:
        What `toy_models` returns, and "page": the path of the page.

    Raises:
        SparsecodeError: as `toy_models`.
    """
    run = run if isinstance(run, Run) else Run(run)
    result = toy_models(run, config, force=force, quiet=quiet, **settings)
    record = load_toy(run)
    assert record is not None, "the stage has just finished"
    page = run.path / KEY / "report.html"
    write_text(page, toy_page(record))
    return result | {"page": str(page)}


def load_toy(run: Run) -> dict[str, Any] | None:
    """What toy.json holds; None where the run has no finished toy stage.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    return load_record(run, KEY, run.path / KEY / "toy.json", FORMAT, "dictionaries")


@dataclass(frozen=True, eq=False)
class _Trained:
    """A trained sweep over toy data, with rows that it has not seen: x [rows, D] and their true codes [rows, G]."""

    trainer: Trainer
    data: ToyData
    x: Tensor
    codes: Tensor
    spread: float  # squared deviations of x from their mean


def _train(run: Run, stage: Stage, config: ToyConfig, state: Path, *, quiet: bool) -> _Trained:
    engine = engine_of(stage, config)
    sweep = toy_plan.build_sweep(config, engine.device)
    batches = ToyBatches(ToyData(toy_plan.data_settings(config)), config.batch_size)
    x, codes = batches.fresh(config.eval_rows)
    spread = metrics.Deviations.of(x).total
    budget = None if config.minutes is None else Budget(config.minutes * 60, config.steps, config.min_steps)
    trainer = train(
        run, stage, config, sweep, batches, engine, start=toy_plan.start(config),
        steps=config.steps if budget is None else None, budget=budget,
        deviations=lambda rows: spread * rows / len(x),  # those of fresh rows, in expectation
        state=state, quiet=quiet,
    )  # fmt: skip
    return _Trained(trainer, batches.data, x, codes, spread)


def _measure(toy: _Trained, run: Run, config: ToyConfig, watch: Watch) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record that toy.json holds, and per dictionary the recovery of each true feature."""
    sweep, engine, truth = toy.trainer.sweep, toy.trainer.engine, toy.data.features
    chunks = (x.contiguous() for x in torch.split(toy.x, config.batch_size))
    found, fired = evaluate(engine, sweep, chunks, toy.spread)
    diverged = sweep.diverged()
    names = sweep.names
    if len(diverged) == len(names):
        raise TrainingDiverged(f"{run.path}: all {len(names)} toy dictionaries ran into NaN; use a lower --lr")
    alive = {key: k for k, key in enumerate(sweep.keys) if k not in diverged}
    atoms = {key: sweep.W_dec[sweep.rows(k)].detach().float().cpu() for key, k in alive.items()}
    larger = toy_measures.next_larger(list(alive))
    rows, recovery = [], {}
    with watch.task("toy: compare", len(names), "dictionaries") as progress:
        for k, key in enumerate(sweep.keys):
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
            _keep(toy, k, found[names[k]], fired[k], run.path / KEY / "dictionaries" / names[k])
    record = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "steps": sweep.step,
        "samples": toy.trainer.samples,
        "engine": engine.name,
        "true_l0": float((toy.codes > 0).sum()) / len(toy.codes),
        "diverged": [names[k] for k in sorted(diverged)],
        "dictionaries": rows,
    }
    why = thin(record)
    return record | {"thin": [f"{why}; give it more --minutes"] if why else [], "verdict": verdict(record)}, recovery


def _truth(toy: _Trained) -> Dictionary:
    """The true features as a dictionary; its encoder is their transpose, which knows nothing of superposition."""
    features = toy.data.features
    density = (toy.codes > 0).float().mean(dim=0)
    meta = {"kind": "toy-truth", "seed": toy.data.settings.seed}
    return Dictionary(
        features.clone(), torch.zeros(len(features)), features.clone(), meta=meta, features={"density": density}
    )


def _keep(toy: _Trained, k: int, found: dict[str, Any], fired: Tensor, path: Path) -> None:
    sweep = toy.trainer.sweep
    meta = {"kind": "toy", "hook_point": "toy", "samples_seen": toy.trainer.samples, "metrics": found}
    dictionary = sweep.dictionary(k, meta=meta)
    dictionary.features = {"density": metrics.density(fired, len(toy.x)), "initial_cosine": sweep.initial_cosine(k)}
    dictionary.save(path)


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
