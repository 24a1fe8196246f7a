"""Where every number comes from: settings, versions, machine."""

from __future__ import annotations

import json
from typing import Any

from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section:
    """When and where each stage ran, and every setting."""
    stages = facts.stages
    places = {stage: f"{_machine(record)}; {_versions(record)}" for stage, record in stages.items()}
    distinct = list(dict.fromkeys(places.values()))
    one_place = len(distinct) == 1
    columns = [Column("stage"), Column("started"), Column("finished")]
    rows = [[stage, record.get("started"), record.get("finished")] for stage, record in stages.items()]
    if not one_place:
        columns.append(Column("place", help="where, in the list above"))
        rows = [[*row, str(1 + distinct.index(places[row[0]]))] for row in rows]
    settings = [
        [stage, name, _text(value)]
        for stage, record in stages.items()
        for name, value in (record["settings"] | _inputs(record)).items()
    ]
    return Section(
        "provenance",
        "How this was made",
        lead=[f"{'Every stage' if one_place else f'Place {i}'} ran on {where}." for i, where in enumerate(distinct, 1)],
        blocks=[
            Table("stages", "When each stage ran.", columns, rows),
            Table(
                "settings",
                "Every setting that decides a result, and the fingerprints of what each stage read",
                [Column("stage"), Column("setting"), Column("value")],
                settings,
                folded=True,
            ),
        ],
    )


def _machine(record: dict[str, Any]) -> str:
    found = record.get("machine", {})
    cores = f", {found['cores']} cores" if "cores" in found else ""
    return f"{found.get('processor', 'an unknown processor')}{cores}, {found.get('system', 'unknown')}"


def _versions(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in record.get("versions", {}).items())


def _inputs(record: dict[str, Any]) -> dict[str, Any]:
    return {f"input: {name}": value for name, value in record.get("inputs", {}).items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
