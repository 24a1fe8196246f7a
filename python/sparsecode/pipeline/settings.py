"""What a stage's settings are made of: fields that know their help and their limits, and how values are checked.

A setting's help text, its flag, its kind and its limits are its field's metadata: the command line is made from them.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, TypeVar, get_args

from sparsecode.errors import InvalidSetting

T = TypeVar("T")

SEEDS = 1 << 64  # that torch's generators and the order of rows take
_LIMITS = {
    "min": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "max": (operator.le, "at most"),
    "below": (operator.lt, "below"),
}


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    several: bool = False,
    affects_result: bool = True,
    remembered: bool = True,
    shown: str | None = None,
    metavar: str = "PATH",
    **limits: float,
) -> Any:
    """A field of a stage's settings. `affects_result=False`: two runs that differ in it only are the same.

    `several`: a text of several with commas; a list is as good. `remembered=False`: said anew in every call, such as
    what fits the machine of that call; a run keeps all others. `shown`: the words for the default in `--help`, if it is
    not to show the value; empty: none. `min`, `above`, `max`, `below`: limits of a number, at least 0 unless said.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "several": several,
        "affects_result": affects_result,
        "remembered": remembered,
        "shown": shown,
        "metavar": metavar,
        "limits": limits if "above" in limits else {"min": 0, **limits},
    }
    return field(default=default, metadata=metadata)


OF_KINDS = ("k", "l0", "window", "groups", "aux")  # settings that belong to kinds of dictionaries

# What says the same thing by another setting: where one is given it goes back to its default, unless given as well.
_REPLACES = {
    "text": ("hf_dataset",),
    "hf_dataset": ("text",),
    "steps": ("minutes",),
    "samples": ("epochs", "minutes"),
    "epochs": ("samples", "minutes"),
    "minutes": ("steps", "samples", "epochs"),
    "start_samples": ("start_minutes",),
    "start_minutes": ("start_samples",),
    "layer": ("hook", "module"),
    "site": ("hook", "module"),
    "module": ("hook",),
    "hook": ("dataset", "module", "target"),
    "dataset": ("hook", "target"),
    "kind": OF_KINDS,
}

_FOLDERS = {"dataset", "model", "target"}


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage's settings can do."""

    stage: ClassVar[str]  # its command

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str | None = None) -> Self:
        """Settings from names and values, checked.

        Args:
            values: names with `-` or `_`; lists become tuples.
            where: what to name in an error, such as a preset's file and table; None: a setting's flag.

        Raises:
            InvalidSetting: an unknown name, or a value of the wrong type, outside its limits or outside its choices.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        clean: dict[str, Any] = {}
        place = where or cls.stage
        for raw, value in values.items():
            name = raw.replace("-", "_")
            if name not in known:
                raise InvalidSetting(f"{place}: unknown setting '{raw}'; known: {', '.join(sorted(known))}")
            if name in clean:
                raise InvalidSetting(f"{place}: '{raw}' appears twice, with - and with _; keep one of them")
            subject = f"{where}: '{name}'" if where else f"{cls.stage}: --{name.replace('_', '-')}"
            clean[name] = _checked(known[name], value, subject)
        return cls(**clean)

    def changed(self, **values: Any) -> Self:
        """A copy with some settings changed, checked as `from_mapping` does."""
        return self.from_mapping({f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | values)

    def asked(self, **values: Any) -> Self:
        """`changed`, for what a person asks for: a value also beats what says the same thing by another setting.

        None only unsets.
        """
        replaced = {other for name, value in values.items() if value is not None for other in _REPLACES.get(name, ())}
        back = {f.name: f.default for f in dataclasses.fields(self) if f.name in replaced - values.keys()}
        return self.changed(**back, **values)

    def record(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON values."""
        return self._values("affects_result")

    def beside(self) -> dict[str, Any]:
        """The other settings that a run remembers, as JSON values; a folder by its full path."""
        decide = self.record().keys()
        kept = {name: value for name, value in self._values("remembered").items() if name not in decide}
        for name in _FOLDERS & kept.keys():
            if isinstance(kept[name], str) and Path(kept[name]).is_dir():
                kept[name] = str(Path(kept[name]).absolute())
        return kept

    def part(self, kind: type[T]) -> T:
        """The settings that a class of the library takes, by the names of its fields; others keep their defaults."""
        names: Mapping[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
        return kind(**{name: getattr(self, name) for name in names if hasattr(self, name)})

    def _values(self, wanted: str) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata[wanted]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def recorded(cls, record: Mapping[str, Any], where: str) -> Self:
        """Settings from a stage's record in a run; what an older version did not record has its default.

        Raises:
            InvalidSetting: a value that this version does not take.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        values = dict(record.get("beside") or {}) | dict(record["settings"])
        return cls.from_mapping({name: value for name, value in values.items() if name in known}, where)


def kinds_of(spec: dataclasses.Field[Any]) -> set[Any]:
    """The types that a setting takes, None's and `tuple[str, ...]` among them."""
    return set(get_args(spec.type)) if isinstance(spec.type, UnionType) else {spec.type}


def _checked(spec: dataclasses.Field[Any], value: Any, subject: str) -> Any:
    """The value as the setting holds it. Raises InvalidSetting, which begins with `subject`."""
    kinds, about = kinds_of(spec), spec.metadata
    if hasattr(value, "tolist"):  # numbers and arrays of numpy and torch
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        value = ",".join(map(str, value)) if about["several"] else tuple(value)
    if about["several"] and type(value) in (int, float) and type(value) not in kinds:
        value = str(value)
    if isinstance(value, str) and kinds == {tuple[str, ...]}:
        value = (value,)  # one path, not its letters
    if type(value) is int and float in kinds:
        value = float(value)
    if not (type(value) in kinds or (tuple[str, ...] in kinds and _texts(value))):
        kind = spec.type.__name__ if isinstance(spec.type, type) else spec.type
        raise InvalidSetting(f"{subject} must be {kind}, not {value!r}")
    if value == "":
        raise InvalidSetting(f"{subject} is empty; leave it out, or say what it is")
    if isinstance(value, tuple) and "" in value:
        raise InvalidSetting(f"{subject} holds an empty name; it would be the folder you are in")
    if type(value) in (int, float):
        _check_limits(value, about["limits"], subject)
    if about["choices"] and value is not None:
        for one in value.split(",") if about["several"] else [value]:
            if one not in about["choices"]:
                raise InvalidSetting(f"{subject} must be one of {', '.join(about['choices'])}, not {one!r}")
    return value


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _check_limits(value: float, limits: Mapping[str, float], subject: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidSetting(f"{subject} must be finite, not {value}")
    for name, limit in limits.items():
        holds, words = _LIMITS[name]
        if not holds(value, limit):
            spelled = "2^64" if limit == SEEDS else limit
            raise InvalidSetting(f"{subject} must be {words} {spelled}, not {value}")
