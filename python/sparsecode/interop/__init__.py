"""Dictionaries of other libraries: read where they lie, written where their libraries look. One file per library."""

from sparsecode.interop.formats import (
    TARGETS,
    Found,
    find_dictionaries,
    find_format,
    load_dictionary,
    load_found,
    not_recognised,
    save_dictionary,
)

__all__ = [
    "TARGETS",
    "Found",
    "find_dictionaries",
    "find_format",
    "load_dictionary",
    "load_found",
    "not_recognised",
    "save_dictionary",
]
