"""Where every number comes from: settings, versions, machine."""

from __future__ import annotations

import json
from typing import Any

from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section:
    """A table of stages with their settings, and one of versions and machine."""
    settings = [
        [stage, name, _text(value)]
        for stage, record in facts.stages.items()
        for name, value in record["settings"].items()
    ]
    inputs = [
        [stage, f"input: {name}", _text(value)]
        for stage, record in facts.stages.items()
        for name, value in record.get("inputs", {}).items()
    ]
    places = []
    for stage, record in facts.stages.items():
        machine = ", ".join(f"{value}" for value in record.get("machine", {}).values())
        versions = ", ".join(f"{name} {value}" for name, value in record.get("versions", {}).items())
        places.append([stage, record.get("started"), record.get("finished"), machine, versions])
    return Section(
        "provenance",
        "How this was made",
        blocks=[
            Table(
                "stages",
                "When, where and with what each stage ran.",
                [Column("stage"), Column("started"), Column("finished"), Column("machine"), Column("versions")],
                places,
            ),
            Table(
                "settings",
                "Every setting that decides a result.",
                [Column("stage"), Column("setting"), Column("value")],
                sorted(settings + inputs, key=lambda row: list(facts.stages).index(row[0])),
            ),
        ],
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
