"""The text of a run as the tokens of a model that was not trained here."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from tokenizers import Tokenizer

from sparsecode.config import HarvestConfig, TextConfig, TrainGptConfig
from sparsecode.corpus import Tokens, as_recorded, load_tokens, prepare_tokens
from sparsecode.corpus.tokenizer import prepared
from sparsecode.errors import InvalidSetting, ModelInvalid
from sparsecode.harvest.models import LanguageModel
from sparsecode.progress import say
from sparsecode.run import Run

KEY = "tokens"
_TEXT = ("text", "text_key", "hf_dataset", "hf_stream", "skip_bad", "max_text_mb")


def model_tokens(run: Run, config: HarvestConfig, model: LanguageModel, *, force: bool, quiet: bool) -> Tokens:
    """The run's text in the tokens of `model`: those that are there, or made now where there are none or text is named.

    Raises:
        ModelInvalid: the model came without a tokenizer.
        InvalidSetting: the run holds the tokens of another tokenizer.
        SettingsDiffer: the run holds other text, and not `force`.
        CorpusEmpty, CorpusUnreadable: see `sparsecode.corpus`.
    """
    tokenizer = tokenizer_of(model)
    stages = run.config()["stages"]
    chosen = TextConfig(**{name: getattr(config, name) for name in _TEXT})
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
    with (
        run.stage(KEY, as_recorded(run, KEY, chosen), inputs={"tokenizer": digest}, force=force) as stage,
        tempfile.TemporaryDirectory() as tmp,
    ):
        file = Path(tmp) / "tokenizer.json"
        file.write_text(tokenizer, encoding="utf-8")
        settings = {name: getattr(chosen, name) for name in _TEXT}
        tokens = prepare_tokens(run, TrainGptConfig(tokenizer=str(file), **settings), quiet=quiet)
        stage.finish(
            {"tokens_fingerprint": tokens.fingerprint, "model": model.name, "train_tokens": len(tokens.train),
             "val_tokens": len(tokens.val)}
        )  # fmt: skip
    if not quiet and not asked:
        say(f"harvest: read the default text, {tokens.corpus['description']}; --text names another")
    return tokens


def same_tokens(one: str, other: str) -> bool:
    """Whether two tokenizers, as JSON, make the same tokens of a text: they may differ in what they put around it."""
    around = ("post_processor", "truncation", "padding")
    left, right = (
        {key: value for key, value in json.loads(text).items() if key not in around} for text in (one, other)
    )
    return left == right


def tokenizer_of(model: LanguageModel) -> str:
    """The model's tokenizer as the corpus uses it, as JSON.

    Raises:
        ModelInvalid: it has none.
    """
    if model.tokenizer is None:
        raise ModelInvalid(
            f"{model.name}: no tokenizer.json beside the model; save its fast tokenizer there, or harvest batches of "
            "ids from Python"
        )
    return prepared(Tokenizer.from_str(model.tokenizer))[0].to_str()
