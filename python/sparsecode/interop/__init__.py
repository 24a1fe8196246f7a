"""Reads and writes dictionaries of other libraries, in their own layouts. One file per library."""

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
from sparsecode.interop.models import MODEL_TARGETS, convert_model, find_model
from sparsecode.interop.unread import looks_like

__all__ = [
    "MODEL_TARGETS",
    "TARGETS",
    "Found",
    "convert_model",
    "find_dictionaries",
    "find_format",
    "find_model",
    "load_dictionary",
    "load_found",
    "looks_like",
    "not_recognised",
    "save_dictionary",
]
