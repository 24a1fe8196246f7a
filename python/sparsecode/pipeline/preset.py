"""Presets: named sets of changes to the defaults, that come with the package or in a file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sparsecode.errors import InvalidSetting
from sparsecode.pipeline.config import STAGES
from sparsecode.pipeline.settings import StageConfig

DEFAULT_PRESET = "default"
SEEDED = [stage for stage, kind in STAGES.items() if "seed" in {field.name for field in fields(kind)}]
_FOLDER = Path(__file__).with_name("presets")  # importlib.resources would take a tenth of the time of a --help


@dataclass(frozen=True)
class Preset:
    """A named set of changes to the defaults: a TOML file with one table per stage."""

    name: str
    cost: str
    stages: Mapping[str, Mapping[str, Any]]

    def stage(self, name: str) -> StageConfig:
        """Settings of one stage: defaults, then the preset."""
        return STAGES[name].from_mapping(self.stages.get(name, {}), f"preset {self.name}, [{name}]")

    def seeded(self, seed: int) -> Preset:
        """This preset with a seed for every stage that has one."""
        return replace(self, stages={**self.stages, **{s: {**self.stages.get(s, {}), "seed": seed} for s in SEEDED}})

    def record(self) -> dict[str, Any]:
        """What a run remembers of it: its contents too, since a file may change or go."""
        return {"name": self.name, "stages": {stage: dict(table) for stage, table in self.stages.items()}}


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def load_preset(name: str) -> Preset:
    """Reads a preset by name, or from a path that ends in .toml.

    Raises:
        InvalidSetting: no such preset, not TOML, or unknown tables or settings.
    """
    if name.endswith(".toml"):
        source = Path(name)
        if not source.is_file():
            raise InvalidSetting(f"{name}: no such preset file; presets with a name: {', '.join(preset_names())}")
    elif name in preset_names():
        source = _FOLDER / f"{name}.toml"
    else:
        raise InvalidSetting(f"preset '{name}' is unknown; known: {', '.join(preset_names())}, or a path to a .toml")
    try:
        table = tomllib.loads(source.read_text(errors="replace"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidSetting(f"preset {name}: not valid TOML ({error})") from error
    cost = table.pop("cost", "")
    unknown = set(table) - set(STAGES)
    if unknown or not all(isinstance(inner, dict) for inner in table.values()):
        raise InvalidSetting(f"preset {name}: tables must be {', '.join(STAGES)}; found {', '.join(sorted(table))}")
    preset = Preset(name, str(cost), table)
    for stage in table:
        preset.stage(stage)
    return preset
