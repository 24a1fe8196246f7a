"""What measurements leave in files: dataclasses as JSON values, and rows as CSV."""

from __future__ import annotations

import csv
import io
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def as_json(value: Any) -> Any:
    """A dataclass, with all that it holds, as JSON values; `from_json` reads them.

    A field whose default is None is left out where it is None. An underscore at the end of its name is left out too:
    `from_` is "from".
    """
    if is_dataclass(value):
        held = {spec.name.rstrip("_"): (spec.default, getattr(value, spec.name)) for spec in fields(value)}
        return {name: as_json(own) for name, (default, own) in held.items() if not (own is None and default is None)}
    if isinstance(value, Mapping):
        return {name: as_json(own) for name, own in value.items()}
    return [as_json(own) for own in value] if isinstance(value, list | tuple) else value


def from_json(kind: Any, value: Any) -> Any:
    """An object of type `kind`, a dataclass or what one holds, from its JSON values.

    Raises:
        KeyError, TypeError, AttributeError: the values are not those of a `kind`; values that are no container are
            taken unchecked.
    """
    choices, origin = get_args(kind), get_origin(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else from_json(choices[0], value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        needed = [spec for spec in fields(kind) if spec.default is MISSING or spec.name.rstrip("_") in value]
        return kind(**{spec.name: from_json(hints[spec.name], value[spec.name.rstrip("_")]) for spec in needed})
    if origin is dict:
        return {name: from_json(choices[1], own) for name, own in value.items()}
    if origin in (list, tuple):
        return origin(from_json(choices[0], own) for own in value)
    return value


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a column for every name that a row has, in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
