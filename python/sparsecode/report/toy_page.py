"""`sparsecode toy`: the toy models, and a page of their own that needs no other stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsecode.checkpoint import write_text
from sparsecode.config import ToyConfig
from sparsecode.report.page import render
from sparsecode.report.sections.toy import toy_section
from sparsecode.report.thinness import banner_of
from sparsecode.run import DEFAULT_RUN, Run
from sparsecode.science import load_toy, toy_models

_TITLE = "Features that come back: toy models"


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
    data = record["settings"]
    subtitle = (
        f"{len(record['dictionaries'])} sparse dictionaries over {data['dim']} dimensions that hold "
        f"{data['true_features']} known features."
    )
    page = run.path / "toy" / "report.html"
    sections = [toy_section(record)]
    write_text(page, render(_TITLE, subtitle, sections, banner_of({"toy": record.get("thin", [])}, sections)))
    return result | {"page": str(page)}
