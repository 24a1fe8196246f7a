"""Dataclasses as JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_PLAIN = (int, float, str, bool, Any)


def as_json(value: Any) -> Any:
    """A dataclass, with all that it holds, as JSON values; `from_json` reads them.

    A field whose default is None is left out where it is None. An underscore at the end of its name is left out too:
    `from_` is "from". The names in a dict whose field has the metadata `spread` stand beside those of the fields.
    """
    if is_dataclass(value):
        found: dict[str, Any] = {}
        for spec in fields(value):
            own = getattr(value, spec.name)
            if spec.metadata.get("spread"):
                found |= own
            elif own is not None or spec.default is not None:
                found[spec.name.rstrip("_")] = as_json(own)
        return found
    if isinstance(value, Mapping):
        return {name: as_json(own) for name, own in value.items()}
    return [as_json(own) for own in value] if isinstance(value, list | tuple) else value


def from_json(kind: Any, value: Any) -> Any:
    """An object of type `kind`, a dataclass or what one holds, from its JSON values.

    Raises:
        TypeError: the values are not those of a `kind`; values that are no container are taken unchecked.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{type(value).__name__} where a record was expected")
        known, hints = {spec.name.rstrip("_"): spec for spec in fields(kind)}, _hints(kind)
        given = {spec.name: from_json(hints[spec.name], value[name]) for name, spec in known.items() if name in value}
        for spec in known.values():
            if spec.metadata.get("spread"):
                given[spec.name] = {name: own for name, own in value.items() if name not in known}
        return kind(**given)
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else from_json(next(one for one in choices if one is not NoneType), value)
    if origin not in (list, tuple, dict):
        return value
    if not isinstance(value, dict if origin is dict else list):
        raise TypeError(f"{type(value).__name__} where a {origin.__name__} was expected")
    if isinstance(value, dict):
        return {name: from_json(choices[1], own) for name, own in value.items()}
    return origin(value if choices[0] in _PLAIN else (from_json(choices[0], own) for own in value))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
