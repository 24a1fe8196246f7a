"""The text of a run as the tokens of a model that was not trained here."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tokenizers import Tokenizer

from sparsecode.config import HarvestConfig, TextConfig, TrainGptConfig
from sparsecode.corpus import Tokens, as_recorded, load_tokens, prepare_tokens
from sparsecode.corpus.chat import Messages
from sparsecode.corpus.prepare import ModelTokenizer
from sparsecode.corpus.tokenizer import BORDER, checked, plain, prepared, reading
from sparsecode.errors import InvalidSetting, ModelInvalid
from sparsecode.harvest.models import LanguageModel
from sparsecode.progress import say
from sparsecode.run import Run

KEY = "tokens"
_TEXT = ("text", "text_key", "hf_dataset", "hf_stream", "skip_bad", "max_text_mb")
_CHAT_KEY = "messages"
_NEXT = "save its fast tokenizer there, or harvest batches of ids from Python"


def model_tokens(run: Run, config: HarvestConfig, model: LanguageModel, *, force: bool, quiet: bool) -> Tokens:
    """The run's text in the tokens of `model`: those that are there, or made now where there are none or text is named.

    Raises:
        ModelInvalid: the model came without a tokenizer.
        InvalidSetting: the run holds the tokens of another tokenizer.
        SettingsDiffer: the run holds other text, and not `force`.
        CorpusEmpty, CorpusUnreadable: see `sparsecode.corpus`.
    """
    names, why = control_tokens(model, config.control_tokens)
    tokenizer = tokenizer_of(model, names)
    if config.chat and model.chat is None:
        raise InvalidSetting(f"--chat: the tokenizer of {model.name} has no chat template; write the texts yourself")
    stages = run.config()["stages"]
    chosen = TextConfig(**{name: getattr(config, name) for name in (*_TEXT, "chat", "control_tokens")})
    asked = bool(config.text) or config.hf_dataset is not None
    if "train-gpt" in stages:
        run.finished("train-gpt", "sparsecode train-gpt")
        tokens = load_tokens(run)
        if asked or not same_tokens(tokens.tokenizer.to_str(), tokenizer):
            raise InvalidSetting(
                f"{run.path}: holds the text of the GPT trained there; choose another run for {model.name} with --run"
            )
        return tokens
    digest = hashlib.sha256(tokenizer.encode()).hexdigest()[:16]
    before = stages.get(KEY, {})
    if not asked and before.get("status") == "done" and before["inputs"] == {"tokenizer": digest}:
        return load_tokens(run)
    if not asked and before.get("status") == "running" and before.get("inputs") == {"tokenizer": digest}:
        chosen = TextConfig.recorded(before, KEY)  # goes on with the text that it was begun with
    with run.stage(KEY, as_recorded(run, KEY, chosen), inputs={"tokenizer": digest}, force=force) as stage:
        settings = {name: getattr(chosen, name) for name in _TEXT}
        if config.chat and model.chat is not None:
            key = _CHAT_KEY if config.text_key == HarvestConfig().text_key else config.text_key
            settings["text_key"] = Messages(key, model.chat)
        given = model_tokenizer(model, names, chat=config.chat)
        tokens = prepare_tokens(run, TrainGptConfig(**settings), model=given, quiet=quiet)
        stage.finish(
            {"tokens_fingerprint": tokens.fingerprint, "model": model.name, "train_tokens": len(tokens.train),
             "val_tokens": len(tokens.val)}
        )  # fmt: skip
    if not quiet:
        if not asked:
            say(f"harvest: read the default text, {tokens.corpus['description']}; --text names another")
        if spelled := tokens.corpus.get("control_tokens"):
            say(f"harvest: {told(spelled, names, why)}")
    return tokens


def control_tokens(model: LanguageModel, wanted: str) -> tuple[tuple[str, ...], str]:
    """Names of the special tokens that are read where a text spells them, and why these.

    Args:
        model: with its tokenizer.
        wanted: all, none, auto, or names with commas.

    Raises:
        InvalidSetting: the tokenizer has no such special token.
    """
    if wanted == "none":
        return (), "--control-tokens none"
    if wanted == "auto" and not model.template:
        return (), "the model has no chat template"
    if wanted in ("auto", "all"):
        return model.control, "the model has a chat template" if wanted == "auto" else "--control-tokens all"
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    unknown = [name for name in names if name not in model.control]
    if unknown:
        raise InvalidSetting(
            f"--control-tokens: {model.name} has no special token '{unknown[0]}'; it has "
            f"{', '.join(model.control[:8]) or 'none'}; or say all, none or auto"
        )
    return names, "--control-tokens"


def told(spelled: dict[str, int], names: tuple[str, ...], why: str) -> str:
    """One line on what became of the control tokens that a text spells."""
    read = {name: count for name, count in spelled.items() if name in names}
    left = {name: count for name, count in spelled.items() if name not in names}
    parts = []
    if read:
        parts.append(
            f"{_listed(read)} in the text read as control tokens ({why}; --control-tokens none takes them for text)"
        )
    if left:
        parts.append(
            f"{_listed(left)} in the text taken for ordinary text ({why}; --control-tokens all reads them as tokens)"
        )
    return ", ".join(parts)


def _listed(spelled: dict[str, int]) -> str:
    shown = [f"{count} {name}" for name, count in list(spelled.items())[:3]]
    more = len(spelled) - len(shown)
    return ", ".join(shown) + (f" and {more} others" if more else "")


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
        raise ModelInvalid(f"{model.name}: no tokenizer, such as tokenizer.json, beside the model; {_NEXT}")
    found = plain(Tokenizer.from_str(model.tokenizer))
    checked(found, f"the tokenizer of {model.name}", _NEXT)
    # The same one whichever tokens are read: what is between documents is a token of its own, or one that is there.
    return reading(prepared(found, model.end or BORDER)[0].to_str(), control)
