"""Evaluate the dictionaries of a run, or any others, over held-out text."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsecode.config import HarvestConfig, TrainGptConfig
from sparsecode.corpus import Tokens, load_tokens, prepare_tokens
from sparsecode.errors import CorpusEmpty, DictionaryInvalid, InvalidSetting, StageMissing
from sparsecode.evaluate.result import Evaluation
from sparsecode.evaluate.splice import evaluate_dictionaries, spread
from sparsecode.gpt import load_gpt
from sparsecode.harvest.models import LanguageModel, load_model, own_model
from sparsecode.harvest.sequences import Contexts
from sparsecode.harvest.several import cut
from sparsecode.harvest.text import same_tokens, tokenizer_of
from sparsecode.progress import Progress
from sparsecode.run import DEFAULT_RUN, Run
from sparsecode.store import Dataset
from sparsecode.sweep import Dictionary

DEFAULT_ROWS = 16_384
_LOGITS = 1 << 26  # of one forward pass: 256 MB in float32
_MOST_TOKENS = 4096


def evaluate_run(
    run: str | Path | Run = DEFAULT_RUN,
    dictionaries: Mapping[str, Dictionary] | None = None,
    *,
    model: str | LanguageModel | None = None,
    model_dtype: str = "auto",
    hook: str | None = None,
    rows: int = DEFAULT_ROWS,
    context: int | None = None,
    documents: bool | None = None,
    special_tokens: bool | None = None,
    batch_tokens: int | None = None,
    text: tuple[str, ...] = (),
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> list[Evaluation]:
    """Metrics of dictionaries, each at its hook point, over the same evenly spread contexts of held-out text.

    Args:
        run: where the model, the text and, unless given, the dictionaries are.
        dictionaries: by name; all those of the run if None.
        model: folder or name of the model, or one that is loaded; the run's own GPT if None.
        model_dtype: the type it computes in, where it is loaded here.
        hook: hook point, where a dictionary does not say it itself, or another than it says.
        rows: about how many positions.
        context, documents, special_tokens: as in a harvest; where None, as the run's harvest of the hook point had it.
        batch_tokens: tokens in a forward pass; default: what gives 256 MB of logits, at most 4096.
        text: files to read instead of the run's held-out text.
        seed: of the tokens that a masked model is asked for.
        device: cpu, cuda, mps or auto.
        quiet: no progress.

    Raises:
        StageMissing, DictionaryInvalid, HookUnknown, ModelInvalid, InvalidSetting, CorpusEmpty: see
            `sparsecode.errors`.
    """
    run = run if isinstance(run, Run) else Run(run)
    if rows < 1 or (batch_tokens is not None and batch_tokens < 1):
        raise InvalidSetting("eval: --rows and --batch-tokens must be at least 1")
    chosen = load_dictionaries(run) if dictionaries is None else dict(dictionaries)
    by_hook = group_by_hook(chosen, hook)
    loaded, own = _model(run, model, model_dtype, device, quiet=quiet)
    given = {"context": context, "documents": documents, "special_tokens": special_tokens}
    given = {name: value for name, value in given.items() if value is not None}
    if own and given:
        raise InvalidSetting(
            f"eval: --{next(iter(given)).replace('_', '-')} goes with --model; the run's own GPT is read in the "
            "contexts that it was trained on"
        )
    found: dict[str, Evaluation] = {}
    with _tokens(run, loaded, text) as (tokens, side):
        for point, group in by_hook.items():
            settings = _as_harvested(run, point, own) | given
            config = HarvestConfig(model=None if own else loaded.name, **settings)
            contexts = cut(tokens, config, loaded, side=side)
            most = batch_tokens or min(_MOST_TOKENS, max(1, _LOGITS // loaded.vocab_size))
            found |= _evaluate(loaded, group, point, contexts, rows, most, seed, quiet=quiet)
    return [found[name] for name in chosen]


def load_dictionaries(run: Run) -> dict[str, Dictionary]:
    """All dictionaries of a run by name.

    Raises:
        StageMissing: it has none.
    """
    paths = sorted(path for path in run.dictionaries_path.glob("*.json") if path.with_suffix(".safetensors").is_file())
    if not paths:
        raise StageMissing(f"{run.path}: no dictionaries; run: sparsecode train-dicts{run.flag}")
    found = {path.stem: Dictionary.load(path) for path in paths}
    keys = {name: (one.meta.get("l1") or 0, one.dict_size, one.meta.get("seed") or 0) for name, one in found.items()}
    return dict(sorted(found.items(), key=lambda item: keys[item[0]]))


def group_by_hook(dictionaries: Mapping[str, Dictionary], hook: str | None) -> dict[str, dict[str, Dictionary]]:
    """Dictionaries by the hook point they were trained on, or all by `hook`.

    Raises:
        DictionaryInvalid: one does not say where it was trained, and `hook` is None.
    """
    found: dict[str, dict[str, Dictionary]] = {}
    for name, dictionary in dictionaries.items():
        point = hook or dictionary.meta.get("hook_point")
        if not point:
            raise DictionaryInvalid(f"{name}: does not say which hook point it was trained on; add --hook")
        found.setdefault(str(point), {})[name] = dictionary
    return found


def _evaluate(
    model: LanguageModel,
    dictionaries: Mapping[str, Dictionary],
    hook: str,
    contexts: Contexts,
    rows: int,
    most_tokens: int,
    seed: int,
    *,
    quiet: bool,
) -> dict[str, Evaluation]:
    if not len(contexts.starts):
        raise CorpusEmpty(f"the held-out text is shorter than a context of {contexts.width}; name more with --text")
    numbers = spread(len(contexts.starts), -(-rows // contexts.length))
    total = sum(batch.rows for batch in contexts.batches(numbers, most_tokens))
    with Progress("eval", total, "rows", quiet=quiet) as progress:
        return evaluate_dictionaries(
            model,
            dictionaries,
            hook,
            lambda: contexts.batches(numbers, most_tokens),
            seed=seed,
            advance=progress.advance,
        )


def _model(
    run: Run, model: str | LanguageModel | None, dtype: str, device: str, *, quiet: bool
) -> tuple[LanguageModel, bool]:
    """The model, and whether it is the run's own GPT."""
    if isinstance(model, LanguageModel):
        return model, False
    if model is not None:
        return load_model(model, device=device, dtype=dtype, quiet=quiet), False
    stages = run.config()["stages"]
    if "train-gpt" not in stages and "tokens" in stages:
        name = (stages["tokens"].get("result") or {}).get("model", "")
        raise StageMissing(
            f"{run.path}: its activations are of {name or 'another model'}; name its folder with --model"
        )
    run.finished("train-gpt", "sparsecode train-gpt")
    return own_model(load_gpt(run.gpt_path), device=device), True


def _as_harvested(run: Run, hook: str, own: bool) -> dict[str, Any]:
    """The settings that decide which positions are rows, as the run's dataset of a hook point records them."""
    path = run.activations_path / hook
    if own or not (path / "manifest.json").is_file():
        return {}
    told = Dataset(path).provenance
    names = {"context": "context_tokens", "documents": "documents", "special_tokens": "special_tokens"}
    return {name: told[key] for name, key in names.items() if told.get(key) is not None}


@contextmanager
def _tokens(run: Run, model: LanguageModel, text: tuple[str, ...]) -> Iterator[tuple[Tokens, str]]:
    """The run's held-out text, or that of files, in the model's tokens; and which side of it to read."""
    if not text:
        tokens = load_tokens(run)
        if model.tokenizer is not None and not same_tokens(tokenizer_of(model), tokens.tokenizer.to_str()):
            raise InvalidSetting(f"{run.path}: holds text in the tokens of another model; name text with --text")
        yield tokens, "val"
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        given = tokenizer_of(model) if model.tokenizer is not None else run.tokenizer_path.read_text(encoding="utf-8")
        file.write_text(given, encoding="utf-8")
        yield (
            prepare_tokens(Run(Path(folder) / "run"), TrainGptConfig(tokenizer=str(file), text=text), quiet=True),
            "train",
        )
