"""The tokens of a tokenizer that are not text; a harvest leaves out their rows unless told otherwise."""

from __future__ import annotations

import re
from typing import Any

from tokenizers import Tokenizer

_ROLES = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id", "mask_token_id")
# How control tokens are spelt everywhere: <s>, [SEP], <|im_start|>, and DeepSeek's with a wide bar.
_CONTROL = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|<[|\uff5c].*[|\uff5c]>", re.DOTALL)


def special_ids(tokenizer: Any | None) -> frozenset[int]:
    """Ids of special tokens, including the unknown one, except those that also encode text.

    A tokenizer may be told to pad with any token, `!` for example, and then calls it special; in a text it is text.
    """
    if tokenizer is None:
        return frozenset()
    added = getattr(tokenizer, "added_tokens_decoder", {})
    said = frozenset(tokenizer.all_special_ids) | {token for token, about in added.items() if about.special}
    return said - _text_among(tokenizer, said)


def unknown_id(tokenizer: Any | None) -> int | None:
    """Id of the token for text that the tokenizer does not know, unless that token also has another role."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    others = {getattr(tokenizer, name, None) for name in _ROLES if name != "pad_token_id"}
    return None if unknown is None or unknown in others else int(unknown)


def _text_among(tokenizer: Any, ids: frozenset[int]) -> set[int]:
    """Those of `ids` that the tokenizer makes of ordinary text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return set()
    contents = {token: backend.id_to_token(token) for token in ids}
    doubtful = {token: text for token, text in contents.items() if text is not None and not _CONTROL.fullmatch(text)}
    found: set[int] = set()
    if not doubtful:
        return found
    plain = Tokenizer.from_str(backend.to_str())
    plain.encode_special_tokens = True  # text that spells a special token is ordinary text
    for token, content in doubtful.items():
        text = plain.decode([token], skip_special_tokens=False)
        if any(plain.encode(way, add_special_tokens=False).ids == [token] for way in (text, content)):
            found.add(token)
    return found
