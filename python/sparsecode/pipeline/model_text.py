"""The text of a run as the tokens of a model that was not trained here: the stage `tokens`, which a harvest opens."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from sparsecode.corpus import TextSettings, Tokens, load_tokens, prepare_tokens
from sparsecode.corpus.chat import Messages
from sparsecode.errors import InvalidSetting, StageMissing
from sparsecode.harvest.models import LanguageModel
from sparsecode.harvest.text import control_tokens, model_tokenizer, same_tokens, tokenizer_of
from sparsecode.pipeline.advice import advice
from sparsecode.pipeline.config import HarvestConfig, TextConfig, TrainGptConfig
from sparsecode.pipeline.naming import as_recorded
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stage import opened
from sparsecode.watch import Watch

KEY = "tokens"
_TEXT = ("text", "text_key", "hf_dataset", "hf_stream", "skip_bad", "max_text_mb")
_CHAT_KEY = "messages"


def model_tokens(
    run: Run, config: HarvestConfig, model: LanguageModel, *, force: bool, quiet: bool, wait: bool = False
) -> Tokens:
    """The run's text in the tokens of `model`: those that are there, or made now where there are none or text is named.

    With `wait`, a process that makes them is waited for.

    Raises:
        ModelInvalid: the model came without a tokenizer.
        InvalidSetting: the run holds the tokens of another tokenizer.
        SettingsDiffer: the run holds other text, and not `force`.
        CorpusEmpty, CorpusUnreadable: see `sparsecode.corpus`.
    """
    watch = watching(quiet)
    tokenizer = tokenizer_of(model, control_tokens(model, config.control_tokens))
    check_chat(model, config.chat)
    stages = run.config()["stages"]
    chosen = TextConfig(**{name: getattr(config, name) for name in (*_TEXT, "chat", "control_tokens")})
    asked = bool(config.text) or config.hf_dataset is not None
    if "train-gpt" in stages:
        run.finished("train-gpt", "sparsecode train-gpt")
        tokens = tokens_of(run)
        if asked or not same_tokens(tokens.tokenizer.to_str(), tokenizer):
            raise InvalidSetting(
                f"{run.path}: holds the text of the GPT trained there; choose another run for {model.name} with --run"
            )
        return tokens
    digest = hashlib.sha256(tokenizer.encode()).hexdigest()[:16]
    before = stages.get(KEY, {})
    if not asked and before.get("status") == "done" and before["inputs"] == {"tokenizer": digest}:
        return tokens_of(run)
    if not asked and before.get("status") == "running" and before.get("inputs") == {"tokenizer": digest}:
        chosen = TextConfig.recorded(before, KEY)  # goes on with the text that it was begun with
    named = as_recorded(run, KEY, chosen)
    with opened(run, KEY, named, inputs={"tokenizer": digest}, force=force, wait=wait, quiet=True) as stage:
        text = replace(TrainGptConfig().part(TextSettings), **{name: getattr(chosen, name) for name in _TEXT})
        tokens = prepared(run, text, model, control=config.control_tokens, chat=config.chat, watch=watch)
        stage.finish(
            {"tokens_fingerprint": tokens.fingerprint, "model": model.name, "train_tokens": len(tokens.train),
             "val_tokens": len(tokens.val)}
        )  # fmt: skip
    if not asked:
        watch.note(f"harvest: read the default text, {tokens.corpus['description']}; --text names another")
    tell_control_tokens("harvest", tokens, model, config.control_tokens, watch)
    return tokens


def check_chat(model: LanguageModel, chat: bool) -> None:
    """Raises InvalidSetting where conversations are to be written by a template that is not there."""
    if chat and model.chat is None:
        raise InvalidSetting(f"--chat: the tokenizer of {model.name} has no chat template; write the texts yourself")


def prepared(
    place: str | Path | Run, text: TextSettings, model: LanguageModel, *, control: str, chat: bool, watch: Watch
) -> Tokens:
    """Text in the tokens of a model.

    Args:
        place: where they are written.
        text: which.
        model: whose tokenizer and chat template are used.
        control: which control tokens are read in the text; see `control_tokens`.
        chat: the text is conversations.
        watch: told the progress.

    Raises:
        ModelInvalid: the model came without a tokenizer.
        CorpusEmpty, CorpusUnreadable: see `sparsecode.corpus`.
    """
    if chat and model.chat is not None:
        key = _CHAT_KEY if text.text_key == TextSettings().text_key else text.text_key
        text = replace(text, text_key=Messages(str(key), model.chat))
    given = model_tokenizer(model, control_tokens(model, control), chat=chat)
    return prepare_tokens(place, text, model=given, watch=watch)


def tell_control_tokens(stage: str, tokens: Tokens, model: LanguageModel, control: str, watch: Watch) -> None:
    """Notes what became of the control tokens that a text spells, if it spells any."""
    if spelled := tokens.corpus.get("control_tokens"):
        watch.note(f"{stage}: {_spelled(spelled, control_tokens(model, control), _why(model, control))}")


def tokens_of(run: Run) -> Tokens:
    """The tokens of a run.

    Raises:
        StageMissing, RunInvalid: see `load_tokens`.
    """
    with advice(f"run: sparsecode train-gpt{run.flag}", StageMissing):
        return load_tokens(run)


def _why(model: LanguageModel, wanted: str) -> str:
    if wanted == "auto":
        return f"the model has {'a' if model.template else 'no'} chat template"
    return "--control-tokens" + (f" {wanted}" if wanted in ("all", "none") else "")


def _spelled(spelled: dict[str, int], names: tuple[str, ...], why: str) -> str:
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
