"""The toy stage: known features, a sweep over sizes and L1, and how much of the ground truth each one recovers.

RUN/toy/toy.json              settings, one entry per dictionary, the verdict
RUN/toy/measures.csv          the same, a line per dictionary
RUN/toy/recovery.safetensors  NAME [G]: for each true feature its largest cosine with an atom of NAME
RUN/toy/truth.safetensors + .json    the true features as a dictionary, to compare with
RUN/toy/dictionaries/NAME.safetensors + .json    with --save-dictionaries
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsecode.checkpoint import save_tensors, write_json, write_text
from sparsecode.errors import InvalidSetting, TrainingDiverged
from sparsecode.machine import versions
from sparsecode.pipeline import plan
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import ToyConfig
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.records import load_record
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.training import engine_of, train
from sparsecode.report.toy_page import toy_page
from sparsecode.science.claims import c7_toy
from sparsecode.science.claims.verdicts import NOT_TESTED
from sparsecode.science.toy.batches import ToyBatches
from sparsecode.science.toy.data import ToyData, ToySettings
from sparsecode.science.toy.result import Measured, ToyResult
from sparsecode.sweep import choose_engine, metrics
from sparsecode.sweep.schedule import Budget

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
    _check(chosen)
    if force or not home.is_done(KEY):
        needed, rows = plan.need(chosen, chosen.dim), 4 * chosen.eval_rows * (2 * chosen.dim + chosen.true_features)
        plan.refuse(KEY, replace(needed, working=needed.working + rows), chosen.dim)
    if force or KEY not in home.config()["stages"]:
        choose_engine(chosen.engine, chosen.device)  # fails here, before the stage is recorded as begun
    folder = home.path / KEY
    needs = [folder / name for name in ("toy.json", "measures.csv")]
    state = folder / "state.safetensors"

    def do(stage: Stage) -> dict[str, Any]:
        result = _train(home, stage, chosen, state, quiet=quiet)
        measured = result.measured(chosen.threshold, watching(quiet))
        if not measured.recovery:
            raise TrainingDiverged(
                f"{home.path}: all {len(measured.rows)} toy dictionaries ran into NaN; use a lower --lr"
            )
        if chosen.save_dictionaries:
            for name, dictionary in result.dictionaries(measured):
                dictionary.save(folder / "dictionaries" / name)
        result.truth().save(folder / "truth")
        save_tensors(folder / "recovery.safetensors", measured.recovery, {"format": FORMAT})
        write_text(folder / "measures.csv", measured.csv())
        record = _record(chosen, result, measured)
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
    return load_record(run, KEY, run.path / KEY / "toy.json", FORMAT, "dictionaries", dict)


def data_settings(config: ToyConfig) -> ToySettings:
    """What the generator needs."""
    return ToySettings(
        config.dim, config.true_features, config.active, config.draw_rows, config.seed, config.blocks, config.block_rank
    )


def _check(config: ToyConfig) -> None:
    """Raises InvalidSetting for settings that do not go together, or that cannot be read."""
    if config.active >= config.true_features:
        raise InvalidSetting(f"toy: --active must be below --true-features {config.true_features}, not {config.active}")
    if config.batch_size % config.draw_rows:
        raise InvalidSetting(
            f"toy: --batch-size {config.batch_size} must be a multiple of --draw-rows {config.draw_rows}"
        )
    if config.blocks * config.block_rank >= config.dim:
        raise InvalidSetting(
            f"toy: --blocks {config.blocks} of --block-rank {config.block_rank} do not fit into "
            f"--dim {config.dim}; they are to have fewer dimensions together"
        )
    plan.start(config)
    plan.entries(config, config.dim)


def _train(run: Run, stage: Stage, config: ToyConfig, state: Path, *, quiet: bool) -> ToyResult:
    engine = engine_of(stage, config, quiet=quiet)
    sweep = plan.build_sweep(config, plan.entries(config, config.dim), config.dim, engine.device)
    batches = ToyBatches(ToyData(data_settings(config)), config.batch_size)
    x, codes = batches.fresh(config.eval_rows)
    spread = metrics.Deviations.of(x).total
    budget = None if config.minutes is None else Budget(config.minutes * 60, config.steps, config.min_steps)
    trainer = train(
        run, stage, config, sweep, batches, engine, start=plan.start(config),
        steps=config.steps if budget is None else None, budget=budget,
        deviations=lambda rows: spread * rows / len(x),  # those of fresh rows, in expectation
        state=state, quiet=quiet,
    )  # fmt: skip
    return ToyResult(trainer, batches.data, x, codes, spread)


def _record(config: ToyConfig, result: ToyResult, measured: Measured) -> dict[str, Any]:
    """What toy.json holds."""
    record = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "steps": result.trainer.step,
        "samples": result.trainer.samples,
        "engine": result.trainer.engine.name,
        "true_l0": result.true_l0,
        "diverged": measured.diverged,
        "dictionaries": measured.rows,
    }
    why, finding = c7_toy.thin(record), c7_toy.judge(record)
    return record | {"thin": [f"{why}; give it more --minutes"] if why else [], "verdict": c7_toy.as_json(finding)}


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
