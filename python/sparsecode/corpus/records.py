"""The content of one record of a table: a text, or the ids that a tokenizer made of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecode.corpus.chat import Messages
from sparsecode.corpus.tables import MASK
from sparsecode.errors import CorpusUnreadable

IDS = "input_ids"


def content(value: Any, where: str, text_key: str) -> str | NDArray[np.int64]:
    """The text of a record, or its ids [T] without padding.

    Args:
        value: an object by key; a string is a text itself.
        where: file and place, for an error.
        text_key: the key; `Messages` for conversations.

    Raises:
        CorpusUnreadable: no such key, null, or neither text nor ids; half a surrogate pair in it; no conversation.
    """
    if isinstance(text_key, Messages):
        return _encodable(text_key.text(value, where), where)
    if isinstance(value, str):
        return _encodable(value, where)
    if not isinstance(value, dict):
        raise CorpusUnreadable(
            f"{where}: no text under '{text_key}' (found: {_kind(value)} instead of an object)", remedy="skip_bad"
        )
    if text_key not in value:
        raise CorpusUnreadable(
            f"{where}: no text under '{text_key}' (found: {', '.join(map(str, list(value)[:8])) or 'nothing'})",
            remedy="text_key_or_ids" if IDS in value else "text_key",
        )
    found = value[text_key]
    if found is None:
        raise CorpusUnreadable(f"{where}: '{text_key}' is null, there is no text", remedy="skip_bad")
    if isinstance(found, str):
        if text_key == IDS:
            raise CorpusUnreadable(
                f"{where}: '{IDS}' is text, not ids; lists of ids stand in .jsonl, .parquet or .arrow"
            )
        return _encodable(found, where)
    ids = _ids(found)
    if ids is None:
        raise CorpusUnreadable(
            f"{where}: '{text_key}' is {_kind(found)}, neither text nor a list of ids", remedy="skip_bad"
        )
    mask = value.get(MASK) if text_key == IDS else None
    if mask is None:
        return ids
    present = _ids(mask)
    if present is None or len(present) != len(ids):
        raise CorpusUnreadable(f"{where}: '{MASK}' does not fit '{IDS}'", remedy="skip_bad")
    kept: NDArray[np.int64] = ids[present != 0]
    return kept


def _encodable(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusUnreadable(
            f"{where}: half a surrogate pair at character {error.start}", remedy="skip_bad"
        ) from error
    return text


def _ids(found: Any) -> NDArray[np.int64] | None:
    try:
        ids = np.asarray(found)
    except ValueError:  # lists of lists of unequal lengths
        return None
    if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or int(ids.min()) < 0)):
        return None
    return ids.astype(np.int64)


def _kind(value: Any) -> str:
    names = {"list": "a list", "dict": "an object", "int": "a number", "float": "a number", "bool": "a truth value"}
    return "null" if value is None else names.get(type(value).__name__, type(value).__name__)
