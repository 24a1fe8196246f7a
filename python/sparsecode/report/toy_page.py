"""A page of the toy models alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsecode.report.page import render
from sparsecode.report.sections.toy import toy_section
from sparsecode.report.thinness import banner_of

_TITLE = "Features that come back: toy models"


def toy_page(record: Mapping[str, Any]) -> str:
    """The page as HTML, of what toy.json holds."""
    data = record["settings"]
    subtitle = (
        f"{len(record['dictionaries'])} sparse dictionaries over {data['dim']} dimensions that hold "
        f"{data['true_features']} known features."
    )
    sections = [toy_section(record)]
    return render(_TITLE, subtitle, sections, banner_of({"toy": record.get("thin", [])}, sections))
