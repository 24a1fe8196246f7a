"""The report stage: one HTML page for people, the same numbers as JSON for programs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsecode import store
from sparsecode.checkpoint import write_json, write_text
from sparsecode.compare import Comparison
from sparsecode.config import ReportConfig
from sparsecode.corpus import load_tokens
from sparsecode.errors import InvalidSetting, SparsecodeError, StageMissing
from sparsecode.machine import versions
from sparsecode.progress import Progress, say
from sparsecode.report.blocks import Section
from sparsecode.report.examples import FeatureExamples, feature_examples
from sparsecode.report.facts import Facts
from sparsecode.report.page import render
from sparsecode.report.sections import ORDER
from sparsecode.run import DEFAULT_RUN, Run
from sparsecode.sweep import Dictionary

FORMAT = 1
_OPTIONAL = ("baselines", "toy")


def write_report(
    run: str | Path | Run = DEFAULT_RUN,
    config: ReportConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Writes `RUN/report.html` and `RUN/report.json`.

    Args:
        run: the run folder, after `compare_dicts`.
        config: settings; `settings` change single ones (`features=20`).
        force: do it again where it was done with other settings or from another comparison.
        quiet: no progress.

    Returns:
        {"page", "bytes", "summary": one sentence per section}.

    Raises:
        StageMissing: the run's dictionaries were not compared.
        SettingsDiffer, RunLocked, RunInvalid, OutOfSpace: see `sparsecode.errors`.
    """
    run = run if isinstance(run, Run) else Run(run)
    config = (config or ReportConfig()).changed(**settings)
    if config.features < 0 or config.tokens < 1 or config.rows < 1:
        raise InvalidSetting("report: --tokens and --rows must be at least 1, --features at least 0")
    run.finished("compare", "sparsecode compare")
    outputs = [run.report_path, run.report_path.with_suffix(".json")]
    comparison = Comparison.load(run.comparison_path)
    inputs = {"comparison": hashlib.sha256(run.comparison_path.read_bytes()).hexdigest()[:16]} | _optional_inputs(run)
    with run.stage("report", config, inputs=inputs, outputs=outputs, force=force) as stage:
        if stage.done and run.report_path.exists():
            if not quiet:
                say(f"report: already done in {run.path} with the same settings")
            return stage.result
        facts = gather(run, config, comparison, quiet=quiet)
        sections = [section for make in ORDER if (section := make(facts)) is not None]
        page = render("Features that come back", _subtitle(facts), sections)
        write_text(run.report_path, page)
        write_json(run.report_path.with_suffix(".json"), as_json(sections))
        result = {
            "page": run.report_path.name,
            "bytes": len(page.encode()),
            "summary": [section.summary for section in sections if section.summary],
        }
        stage.finish(result)
        return result


def _optional_inputs(run: Run) -> dict[str, str]:
    """When stages finished that a run may have or not, and that the page shows where it has them."""
    stages = run.config()["stages"]
    return {key: stages[key]["finished"] for key in _OPTIONAL if stages.get(key, {}).get("status") == "done"}


def gather(run: Run, config: ReportConfig, comparison: Comparison, *, quiet: bool = False) -> Facts:
    """Reads what the sections need. A run that lost its text or activations has a report without examples."""
    stages = {key: record for key, record in run.config()["stages"].items() if key != "report"}
    examples: list[FeatureExamples] = []
    missing = None
    try:
        examples = _examples(run, config, comparison, stages, quiet=quiet)
    except SparsecodeError as error:
        missing = str(error)
        if not quiet:
            say(f"report: without top tokens ({missing})")
    return Facts(run, config, stages, run.metrics("train-gpt"), comparison, examples, missing)


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """What report.json holds."""
    return {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "summary": {section.id: section.summary for section in sections if section.summary},
        "sections": {section.id: section.as_json() for section in sections},
    }


def _examples(
    run: Run, config: ReportConfig, comparison: Comparison, stages: dict[str, Any], *, quiet: bool
) -> list[FeatureExamples]:
    steadiest = comparison.record["steadiest"][: config.features]
    if not steadiest:
        raise StageMissing("no feature is found again in another dictionary")
    dataset = store.Dataset(_dataset_path(run, comparison, stages))
    tokens = load_tokens(run)
    if dataset.provenance.get("tokens_fingerprint") != tokens.fingerprint:
        raise StageMissing(f"{run.path}: the activations were not harvested from this run's text")
    names = {entry["dictionary"] for entry in steadiest}
    dictionaries = {name: Dictionary.load(run.dictionaries_path / name) for name in sorted(names)}
    rows = min(config.rows, dataset.rows)
    with Progress("report", rows, "rows", quiet=quiet) as progress:
        return feature_examples(
            dataset,
            tokens.token_text,
            dictionaries,
            steadiest,
            count=config.tokens,
            rows=rows,
            advance=progress.advance,
        )


def _dataset_path(run: Run, comparison: Comparison, stages: dict[str, Any]) -> Path:
    elsewhere = stages.get("train-dicts", {}).get("settings", {}).get("dataset")
    if elsewhere:
        return Path(elsewhere)
    hook = comparison.record["dictionaries"][0].get("hook_point")
    if not hook:
        raise StageMissing("the dictionaries do not say which hook point they were trained on")
    return run.path / "activations" / str(hook)


def _subtitle(facts: Facts) -> str:
    entries = facts.dictionaries
    sizes = sorted({entry["dict_size"] for entry in entries})
    hook = entries[0].get("hook_point") or "unknown activations"
    text = facts.result("train-gpt").get("corpus") or ""
    return (
        f"{len(entries)} sparse dictionaries of {sizes[0]:,} to {sizes[-1]:,} features over the {facts.dimensions} "
        f"dimensions of {hook}, compared with one another"
        + (f"; text: {text}." if isinstance(text, str) and text else ".")
    )
