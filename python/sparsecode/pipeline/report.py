"""The report stage: one HTML page for people, the same numbers as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsecode.checkpoint import write_json, write_text
from sparsecode.comparison import Comparison
from sparsecode.machine import versions
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.baselines import load_baselines
from sparsecode.pipeline.claims import load_claims, untrained_model
from sparsecode.pipeline.compare import KEY as COMPARE
from sparsecode.pipeline.compare import load_comparison
from sparsecode.pipeline.config import ReportConfig
from sparsecode.pipeline.consensus import load_consensus
from sparsecode.pipeline.interpret import load_interpretations
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import OPTIONAL, digest, optional_digests, require
from sparsecode.pipeline.thin import thin
from sparsecode.pipeline.toy import load_toy
from sparsecode.report import export
from sparsecode.report.blocks import Figure, Section
from sparsecode.report.facts import Facts
from sparsecode.report.page import render
from sparsecode.report.sections import ORDER
from sparsecode.report.thinness import Banner, banner_of
from sparsecode.watch import Watch

KEY = "report"
FORMAT = 1


@advised
def write_report(
    run: str | Path | Run = DEFAULT_RUN,
    config: ReportConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Writes `RUN/report.html` and `RUN/report.json`, and each figure as CSV and PNG into `RUN/figures`.

    Args:
        run: the run folder, after `compare_dicts`; after `check_claims` with verdicts.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`features=6`).
        force: do it again where it was done with other settings or from another comparison.
        quiet: no progress.

    Returns:
        {"page", "bytes", "figures": files in `RUN/figures`, "pictures_missing": why some have no PNG, or None,
        "summary": one sentence per section}.

    Raises:
        StageMissing: the run's dictionaries were not compared.
        SettingsDiffer, RunLocked, RunInvalid, OutOfSpace: see `sparsecode.errors`.
    """
    home, chosen = called(run, ReportConfig, config, settings)
    outputs = [home.report_path, home.report_path.with_suffix(".json"), home.figures_path]
    require(home, [COMPARE, *(key for key in OPTIONAL if home.is_done(key))], own=KEY)
    comparison = load_comparison(home, own=KEY)
    inputs = {"comparison": digest(home.comparison_path)} | optional_digests(home)

    def do(_: Stage) -> dict[str, Any]:
        return _write(home, chosen, gather(home, chosen, comparison), watching(quiet))

    return run_stage(home, KEY, chosen, do, inputs=inputs, outputs=outputs, needs=outputs[:2], force=force, quiet=quiet)


def _write(run: Run, config: ReportConfig, facts: Facts, watch: Watch) -> dict[str, Any]:
    sections = [section for make in ORDER if (section := make(facts)) is not None]
    judged = sections if facts.claims is not None else [one for one in sections if one.id == "toy"]
    banner = banner_of(thin_stages(facts, untrained_model(run, None)), judged)
    page = render("Features that come back", _subtitle(facts), sections, banner)
    write_text(run.report_path, page)
    write_json(run.report_path.with_suffix(".json"), as_json(sections, banner))
    figures = export.figures_of(sections)
    files = export.write_csv(figures, run.figures_path)
    pictures, why = _pictures(run, config, page, figures)
    if config.images and why:
        watch.note(f"report: {why}")
    return {
        "page": run.report_path.name,
        "bytes": len(page.encode()),
        "figures": sorted([*files, *pictures]),
        "pictures_missing": why,
        "summary": [section.summary for section in sections if section.summary],
    }


def thin_stages(facts: Facts, untrained_model: str) -> dict[str, list[str]]:
    """What of a run is thin, by stage: what `claims` found, or where it was not run, what the stages recorded."""
    if facts.claims is not None:
        found = dict(facts.claims.thin)
    else:
        found = {
            "train-gpt": [untrained_model] if untrained_model else [],
            "train-dicts": thin("train-dicts", facts.result("train-dicts")),
        }
    return found | {"toy": thin("toy", facts.result("toy"))}


def _pictures(run: Run, config: ReportConfig, page: str, figures: Sequence[Figure]) -> tuple[list[str], str | None]:
    """Names of the PNGs written, and why some are not there."""
    if not config.images:
        return [], "pictures were not asked for (--images)"
    return export.write_png(page, figures, run.figures_path)


def gather(run: Run, config: ReportConfig, comparison: Comparison) -> Facts:
    """Reads what the sections need. A run whose claims were not tested says so in their places."""
    return Facts(
        features=config.features,
        tokens=config.tokens,
        stages={key: record for key, record in run.config()["stages"].items() if key != KEY},
        gpt_metrics=run.metrics("train-gpt"),
        comparison=comparison,
        claims=load_claims(run),
        consensus=load_consensus(run),
        baselines=load_baselines(run),
        interpretations=load_interpretations(run),
        browser="browse/index.html" if run.is_done("browse") else "",
        toy=load_toy(run),
        untested=f"The claims were not tested yet; run: sparsecode claims{run.flag}",
    )


def as_json(sections: Sequence[Section], banner: Banner) -> dict[str, Any]:
    """What report.json holds."""
    return {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        **banner.as_json(),
        "summary": {section.id: section.summary for section in sections if section.summary},
        "sections": {section.id: section.as_json() for section in sections},
    }


def _subtitle(facts: Facts) -> str:
    entries = facts.comparison.entries
    sizes = sorted({entry.dict_size for entry in entries})
    hook = entries[0].about.get("hook_point") or "unknown activations"
    text = facts.result("train-gpt").get("corpus") or ""
    return (
        f"{len(entries)} sparse dictionaries of {sizes[0]:,} to {sizes[-1]:,} features over the {facts.dimensions} "
        f"dimensions of {hook}, compared with one another"
        + (f"; text: {text}." if isinstance(text, str) and text else ".")
    )
