"""Evaluates the dictionaries of a run, or any others, over held-out text."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsecode.comparison.records import kind_order
from sparsecode.corpus import TextSettings, Tokens, prepare_tokens
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import names_in
from sparsecode.errors import (
    CorpusEmpty,
    DictionaryInvalid,
    HookUnknown,
    InvalidSetting,
    LeftOut,
    SparsecodeError,
    StageMissing,
)
from sparsecode.evaluation.hooks import find_hook
from sparsecode.evaluation.result import Evaluation
from sparsecode.evaluation.splice import check_fits, evaluate_dictionaries, spread
from sparsecode.gpt import load_gpt
from sparsecode.harvest.contexts import Contexts, ContextSettings, TokenBatch, cut
from sparsecode.harvest.models import LanguageModel, load_model, own_model
from sparsecode.harvest.text import same_tokens, tokenizer_of
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import EvalConfig, TrainGptConfig
from sparsecode.pipeline.model_text import check_chat, prepared, tell_control_tokens, tokens_of
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stale import require
from sparsecode.store import Dataset
from sparsecode.watch import Watch

_LOGITS = 1 << 26  # of one forward pass: 256 MB in float32
_MOST_TOKENS = 4096


@advised
def evaluate_run(
    run: str | Path | Run = DEFAULT_RUN,
    dictionaries: Mapping[str, Dictionary] | None = None,
    config: EvalConfig | None = None,
    *,
    model: str | LanguageModel | None = None,
    quiet: bool = False,
    leave_out: Callable[[str, SparsecodeError], object] | None = None,
    **settings: Any,
) -> list[Evaluation]:
    """Metrics of dictionaries, each at its hook point, over the same evenly spread contexts of held-out text.

    Args:
        run: where the model, the text and, unless given, the dictionaries are.
        dictionaries: by name; all those of the run if None.
        config: settings; `settings` change single ones (`rows=64_000`). A `hook` beats what a dictionary says of
            itself; names of other libraries are looked for in the model (see `evaluation.hooks`). `context`,
            `documents` and `special_tokens` are, where None, as the run's harvest of the hook point had them.
        model: folder or name of the model, or one that is loaded; the run's own GPT if None.
        quiet: no progress.
        leave_out: called with name and error of each dictionary that cannot be evaluated, so that the others can be;
            without it, or where none is left, the first such failure is raised.

    Raises:
        StageMissing, StageStale, DictionaryInvalid, HookUnknown, ModelInvalid, InvalidSetting, CorpusEmpty: see
            `sparsecode.errors`.
    """
    run, watch = run if isinstance(run, Run) else Run(run), watching(quiet)
    config = (config or EvalConfig()).changed(**settings)
    model = config.model if model is None else model
    if model is None and dictionaries is None:
        require(run, ["train-dicts"])  # else they may belong to another model than the present one
    apart = LeftOut(leave_out)
    chosen = load_dictionaries(run, apart) if dictionaries is None else dict(dictionaries)
    said = _group_by_hook(chosen, config.hook, apart)
    loaded, own = _model(run, model, config, watch)
    by_hook = _found_in(loaded, said, apart)
    if loaded.kind != "none":  # what cannot be evaluated fails here, before text is read
        loaded.logits({"input_ids": torch.zeros((1, 2), dtype=torch.int64)})
    for line in loaded.strange():
        watch.note(f"eval: {line}")
    _check_text(config, loaded, own)
    given = {name: getattr(config, name) for name in ("context", "documents", "special_tokens", "chat")}
    given = {name: value for name, value in given.items() if value is not None}
    if config.text and not own:
        given["chat"] = bool(config.chat)  # named text is not what was harvested
    if own and given:
        raise InvalidSetting(
            f"eval: --{next(iter(given)).replace('_', '-')} goes with --model; the run's own GPT is read in the "
            "contexts that it was trained on"
        )
    found: dict[str, Evaluation] = {}
    with _tokens(run, loaded, config, watch) as (tokens, side):
        for (point, name), group in by_hook.items():
            harvested = ContextSettings(**_as_harvested(run, name, own) | given)
            contexts = cut(tokens, loaded, None if own else harvested, side=side)
            if not len(contexts.starts):
                raise CorpusEmpty(
                    f"the held-out text is shorter than a context of {contexts.width}; name more with --text"
                )
            numbers = spread(len(contexts.starts), -(-config.rows // contexts.length))
            most = config.batch_tokens or min(_MOST_TOKENS, max(1, _LOGITS // loaded.vocab_size))

            def batches(
                contexts: Contexts = contexts, numbers: Any = numbers, most: int = most
            ) -> Iterator[TokenBatch]:
                return contexts.batches(numbers, most)

            with watch.task("eval", sum(batch.rows for batch in batches()), "rows") as progress:
                found |= evaluate_dictionaries(
                    loaded, group, point, batches, seed=config.seed, advance=progress.advance
                )
    return [found[name] for name in chosen if name in found]


def load_dictionaries(run: Run, apart: LeftOut | None = None) -> dict[str, Dictionary]:
    """All dictionaries of a run by name.

    Raises:
        StageMissing: it has none.
    """
    if "train-dicts" in run.config()["stages"]:
        run.finished("train-dicts", "sparsecode train-dicts")  # an interrupted training has not written all
    paths = names_in(run.dictionaries_path)
    if not paths:
        raise StageMissing(f"{run.path}: no dictionaries; run: sparsecode train-dicts{run.flag}")
    apart = apart or LeftOut(None)
    found: dict[str, Dictionary] = {}
    for path in paths:
        with apart.where(path.name, DictionaryInvalid):
            found[path.name] = Dictionary.load(path)
    apart.check(found)
    keys = {
        name: (*kind_order(one.meta.get("kind"), one.meta.get("l1")), one.dict_size, one.meta.get("seed") or 0)
        for name, one in found.items()
    }
    return dict(sorted(found.items(), key=lambda item: keys[item[0]]))


def _group_by_hook(
    dictionaries: Mapping[str, Dictionary], hook: str | None, apart: LeftOut
) -> dict[str, dict[str, Dictionary]]:
    """Dictionaries by the hook point they were trained on, or all by `hook`."""
    found: dict[str, dict[str, Dictionary]] = {}
    for name, dictionary in dictionaries.items():
        point = hook or dictionary.meta.get("hook_point")
        if point:
            found.setdefault(str(point), {})[name] = dictionary
            continue
        layer = dictionary.meta.get("layer")
        such = f" (such as blocks.{layer}.hook_resid_post: it says layer {layer})" if isinstance(layer, int) else ""
        apart.put(name, DictionaryInvalid(f"{name}: does not say which hook point it was trained on; add --hook{such}"))
    apart.check(found)
    return found


def _found_in(
    model: LanguageModel, said: Mapping[str, Mapping[str, Dictionary]], apart: LeftOut
) -> dict[tuple[str, str], dict[str, Dictionary]]:
    """The dictionaries that fit, by the hook point as the model has it and as they name it."""
    found: dict[tuple[str, str], dict[str, Dictionary]] = {}
    for hook, group in said.items():
        try:
            point = find_hook(model, hook)
            width = model.width(point)
        except HookUnknown as error:
            for name in group:
                apart.put(name, error)
            continue
        for name, dictionary in group.items():
            with apart.where(name, DictionaryInvalid):
                check_fits(model, name, dictionary, point, width)
                found.setdefault((point, hook), {})[name] = dictionary
    apart.check(found)
    return found


def _model(run: Run, model: str | LanguageModel | None, config: EvalConfig, watch: Watch) -> tuple[LanguageModel, bool]:
    """The model, and whether it is the run's own GPT."""
    if isinstance(model, LanguageModel):
        return model, False
    if model is not None:
        return load_model(model, device=config.device, dtype=config.model_dtype, watch=watch), False
    stages = run.config()["stages"]
    if "train-gpt" not in stages and "tokens" in stages:
        name = (stages["tokens"].get("result") or {}).get("model", "")
        raise StageMissing(
            f"{run.path}: its activations are of {name or 'another model'}; name its folder with --model"
        )
    run.finished("train-gpt", "sparsecode train-gpt")
    return own_model(load_gpt(run.gpt_path), device=config.device), True


def _as_harvested(run: Run, hook: str, own: bool) -> dict[str, Any]:
    """The settings that decide which positions are rows, as the run's dataset of a hook point records them."""
    path = run.activations_path / hook
    if own or not (path / "manifest.json").is_file():
        return {}
    told = Dataset(path).provenance
    names = {"context": "context_tokens"} | {name: name for name in ("documents", "special_tokens", "chat")}
    return {name: told[key] for name, key in names.items() if told.get(key) is not None}


def _check_text(config: EvalConfig, model: LanguageModel, own: bool) -> None:
    """Raises InvalidSetting where settings of a text go with no text, or with no other model."""
    default = EvalConfig()
    names = [name for name in ("text_key", "chat", "control_tokens") if getattr(config, name) != getattr(default, name)]
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        if not config.text:
            raise InvalidSetting(f"eval: {flag} goes with --text; the run's own text is read as it was prepared")
        if own and name != "text_key":
            raise InvalidSetting(f"eval: {flag} goes with --model; the run's own GPT has no such tokens")
    check_chat(model, bool(config.chat))


@contextmanager
def _tokens(run: Run, model: LanguageModel, config: EvalConfig, watch: Watch) -> Iterator[tuple[Tokens, str]]:
    """The run's held-out text, or that of files, in the model's tokens; and which side of it to read."""
    if not config.text:
        tokens = tokens_of(run)
        if model.tokenizer is not None and not same_tokens(tokenizer_of(model), tokens.tokenizer.to_str()):
            raise InvalidSetting(f"{run.path}: holds text in the tokens of another model; name text with --text")
        yield tokens, "val"
        return
    with tempfile.TemporaryDirectory() as folder:
        text = TrainGptConfig(text=config.text, text_key=config.text_key).part(TextSettings)
        if model.tokenizer is not None:
            tokens = prepared(folder, text, model, control=config.control_tokens, chat=bool(config.chat), watch=Watch())
            tell_control_tokens("eval", tokens, model, config.control_tokens, watch)
            yield tokens, "train"
        else:
            yield prepare_tokens(folder, replace(text, tokenizer=str(run.tokenizer_path))), "train"
