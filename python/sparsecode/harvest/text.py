"""The tokenizer of a model that was not trained here, as the corpus uses it."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from sparsecode.corpus.prepare import ModelTokenizer
from sparsecode.corpus.tokenizer import BORDER, checked, plain, prepared, reading
from sparsecode.errors import InvalidSetting, ModelInvalid
from sparsecode.harvest.models import LanguageModel


def control_tokens(model: LanguageModel, wanted: str) -> tuple[str, ...]:
    """Names of the special tokens that are read where a text spells them.

    Args:
        model: with its tokenizer.
        wanted: all, none, auto, or names with commas.

    Raises:
        InvalidSetting: the tokenizer has no such special token.
    """
    if wanted == "none" or (wanted == "auto" and not model.template):
        return ()
    if wanted in ("auto", "all"):
        return model.control
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    unknown = [name for name in names if name not in model.control]
    if unknown:
        raise InvalidSetting(
            f"{model.name} has no special token '{unknown[0]}'; it has "
            f"{', '.join(model.control[:8]) or 'none'}; or say all, none or auto"
        )
    return names


def model_tokenizer(model: LanguageModel, names: tuple[str, ...], *, chat: bool = False) -> ModelTokenizer:
    """What the corpus needs to know of a model's tokenizer.

    Where control tokens are read, the one that ends a document can stand within one; then another tells them apart.
    """
    end = model.end if model.end is not None and model.end not in names else BORDER
    return ModelTokenizer(tokenizer_of(model, names), end, model.control, model.template if chat else "")


def same_tokens(one: str, other: str) -> bool:
    """Whether two tokenizers, as JSON, make the same tokens of a text.

    They may differ in what they put around it, in which special tokens they read in it, and in the one that was added
    to them between documents.
    """
    return _essence(one) == _essence(other)


def _essence(tokenizer: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer)
    for name in ("post_processor", "truncation", "padding"):
        found.pop(name, None)
    added = found.pop("added_tokens", None) or []
    return found | {"added": [{**token, "special": None} for token in added if token["content"] != BORDER]}


def tokenizer_of(model: LanguageModel, control: tuple[str, ...] = ()) -> str:
    """The model's tokenizer as the corpus uses it, as JSON.

    Args:
        model: with its tokenizer.
        control: names of the special tokens that are read where a text spells them.

    Raises:
        ModelInvalid: it has none.
        TokenizerInvalid: it encodes nothing.
    """
    if model.tokenizer is None:
        raise ModelInvalid(
            f"{model.name}: no tokenizer, such as tokenizer.json, beside the model", remedy="fast_tokenizer"
        )
    found = plain(Tokenizer.from_str(model.tokenizer))
    checked(found, f"the tokenizer of {model.name}", "fast_tokenizer")
    # The same one whichever tokens are read: what is between documents is a token of its own, or one that is there.
    return reading(prepared(found, model.end or BORDER)[0].to_str(), control)
