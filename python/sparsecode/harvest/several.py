"""Harvest several hook points in one forward pass, or those of a model that was not trained here.

Each hook point has its own stage and dataset, the same as if it had been harvested alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import sparsecode
from sparsecode.config import HarvestConfig
from sparsecode.corpus import Tokens, load_tokens
from sparsecode.errors import CorpusEmpty, InvalidSetting
from sparsecode.gpt import load_gpt
from sparsecode.harvest.hooks import hook_name, single_configs
from sparsecode.harvest.models import LanguageModel, load_model, own_model
from sparsecode.harvest.models.ids import check_text
from sparsecode.harvest.sequences import Contexts, TokenBatch, by_document, packed
from sparsecode.harvest.text import model_tokens
from sparsecode.progress import Progress, say
from sparsecode.recall import as_recorded
from sparsecode.run import Run, Stage
from sparsecode.store import DatasetWriter

DEFAULT_CONTEXT = 256

Ids = npt.NDArray[np.int32]
Rows = tuple[Mapping[str, Tensor], Ids, Ids]  # hook point -> [R,D], the tokens [R] and the numbers of contexts [R]


@dataclass(frozen=True)
class Target:
    """One hook point with its stage, and its dataset of rows `width` wide."""

    hook: str
    stage: Stage
    folder: Path
    width: int


def harvest_several(run: Run, config: HarvestConfig, *, force: bool, quiet: bool) -> dict[str, Any]:
    """What `harvest_activations` does for several hook points, modules by path, and models by name."""
    singles = {hook_name(single): single for single in single_configs(config)}
    singles = {hook: as_recorded(run, hook, single) for hook, single in singles.items()}
    kept = None if force else _kept_dtype(run, config, singles)
    model = _model(run, config, kept, quiet=quiet)
    for hook in singles:
        model.place(hook)
    # What cannot be done fails here, before text is read and a stage is recorded as begun.
    widths = {hook: model.width(hook) for hook in singles}
    if not quiet:
        for line in model.strange():
            say(f"harvest: {line}")
    tokens, inputs = _text(run, config, model, force=force, quiet=quiet)
    contexts = cut(tokens, config, model)
    if not contexts.rows:
        raise CorpusEmpty(f"{run.tokens_path}: too little text for a context of {contexts.width} tokens; give more")
    with ExitStack() as stack:
        targets = []
        for hook, single in singles.items():
            folder = run.activations_path / hook
            needs = [folder / "manifest.json"]
            opened = run.stage(f"harvest/{hook}", single, inputs=inputs, outputs=[folder], needs=needs, force=force)
            stage = stack.enter_context(opened)
            if config.model is not None and not stage.done:
                stage.plan(model_dtype=_plain(model.dtype))
            targets.append(Target(hook, stage, folder, widths[hook]))
        waiting = [target for target in targets if not target.stage.done]
        if not quiet:
            for target in targets:
                if target.stage.done:
                    say(f"harvest: {target.hook} is already done in {run.path} with the same settings")
        if waiting:
            _harvest(model, contexts, config, inputs, waiting, quiet=quiet)
        datasets = {target.hook: target.stage.result for target in targets}
    first = next(iter(datasets.values()))
    return dict(first) if len(datasets) == 1 else dict(first) | {"datasets": datasets}


def _kept_dtype(run: Run, config: HarvestConfig, hooks: Iterable[str]) -> str | None:
    """The type in which these hook points were begun to be harvested with `auto`; None where they were not."""
    stages = run.config()["stages"] if config.model is not None and config.model_dtype == "auto" else {}
    for hook in hooks:
        record = stages.get(f"harvest/{hook}", {})
        if record.get("settings", {}).get("model_dtype") == "auto" and "model_dtype" in (record.get("plan") or {}):
            return str(record["plan"]["model_dtype"])
    return None


def _model(run: Run, config: HarvestConfig, kept: str | None, *, quiet: bool) -> LanguageModel:
    if config.model is None:
        run.finished("train-gpt", "sparsecode train-gpt")
        return own_model(load_gpt(run.gpt_path), device=config.device)
    if config.batch_tokens < 1:
        raise InvalidSetting("harvest: --batch-tokens must be at least 1")
    return load_model(config.model, device=config.device, dtype=config.model_dtype, kept=kept, quiet=quiet)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _text(
    run: Run, config: HarvestConfig, model: LanguageModel, *, force: bool, quiet: bool
) -> tuple[Tokens, dict[str, str]]:
    """The text in the model's tokens, and the fingerprints of both."""
    if config.model is None:
        trained = run.finished("train-gpt", "sparsecode train-gpt")
        return load_tokens(run), {"gpt": trained["fingerprint"], "tokens": trained["tokens_fingerprint"]}
    tokens = model_tokens(run, config, model, force=force, quiet=quiet)
    return tokens, {"model": model.fingerprint, "tokens": tokens.fingerprint}


def cut(tokens: Tokens, config: HarvestConfig, model: LanguageModel, *, side: str = "train") -> Contexts:
    """The contexts that the settings ask for, over the `train` or `val` text.

    Raises:
        InvalidSetting: the model does not take that many tokens, or does not know the token between documents.
        TokensUnknown: it has no embedding for a token of the text, or of those around it.
    """
    text = tokens.train if side == "train" else tokens.val
    if config.model is None:
        return packed(text, model.context, model.frame, frozenset())
    context = min(DEFAULT_CONTEXT, model.context) if config.context is None else config.context
    if context > model.context:
        raise InvalidSetting(f"--context {context}: {model.name} takes at most {model.context} tokens")
    special = frozenset() if config.special_tokens else model.special
    frame = model.chat_frame if config.chat else model.frame
    around = np.array([*frame.before, *frame.after], np.int64)
    check_text(model.name, around, model.vocab_size, -1, tokens.token_text)
    check_text(model.name, text, model.vocab_size, tokens.eot, tokens.token_text)
    if config.documents:
        return by_document(text, tokens.eot, context, frame, special, model.pad)
    end = tokens.eot if model.tokenizer is None else tokens.tokenizer.token_to_id(model.end or "")
    if end is None or end >= model.vocab_size:
        raise InvalidSetting(f"{model.name}: its tokenizer has no token that ends a document; add --documents")
    return packed(text, context, frame, special, model.pad, border=(tokens.eot, end))


def _harvest(
    model: LanguageModel,
    contexts: Contexts,
    config: HarvestConfig,
    inputs: Mapping[str, str],
    targets: Sequence[Target],
    *,
    quiet: bool,
) -> None:
    rows = min(config.rows, contexts.rows)
    if rows < config.rows and not quiet:
        say(f"harvest: the corpus holds {rows} rows of training text; storing these instead of {config.rows}")
    numbered = contexts.rows_each is None
    provenance: dict[str, Any] = {} if numbered else {"context": contexts.rows_each}
    provenance |= {
        "tokens_fingerprint": inputs["tokens"],
        "model_fingerprint": inputs.get("model") or inputs["gpt"],
        "model": model.name,
        "seed": config.seed,
        "sparsecode_version": sparsecode.__version__,
    }
    if config.model is not None:
        provenance |= {
            "family": model.family,
            "model_dtype": _plain(model.dtype),
            "context_tokens": contexts.width,
            "documents": config.documents,
            "special_tokens": config.special_tokens,
        } | ({"chat": True} if config.chat else {})
    most = config.batch_tokens if config.model is not None else config.batch_size * contexts.width
    with ExitStack() as stack:
        writers = {}
        for target in targets:
            writer = DatasetWriter(
                target.folder,
                activation_dim=target.width,
                dtype=config.dtype,
                provenance={"hook_point": target.hook} | provenance,
                contexts=numbered,
                shard_bytes=config.shard_mb << 20,
                direct=True,
            )
            writers[target.hook] = stack.enter_context(writer)
        done = {hook: writer.rows for hook, writer in writers.items()}
        first = min(done.values())
        progress = stack.enter_context(Progress("harvest", rows, "rows", done=first, quiet=quiet))
        batches = contexts.batches(contexts.order(config.seed), most)
        left_out: Counter[str] = Counter()
        found = activation_rows(model, batches, list(writers), rows, first, config.dtype, left_out)
        write_several(writers, done, found, progress, numbered=numbered, behind=model.device.type != "cpu")
        for target in targets:
            writers[target.hook].note_left_out(left_out)
            dataset = writers[target.hook].finish()
            target.stage.finish(
                {
                    "hook_point": target.hook,
                    "path": f"activations/{target.hook}",
                    "rows": dataset.rows,
                    "activation_dim": dataset.activation_dim,
                    "fingerprint": dataset.fingerprint,
                    "statistics": {name: dataset.statistics[name] for name in ("rms", "variance", "non_finite")},
                    "left_out": dataset.left_out,
                }
            )
    if left_out.total() and not quiet:
        told = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
        say(f"harvest: tokens that gave no row: {told} (docs/models.md says what is left out)")


def activation_rows(
    model: LanguageModel,
    batches: Iterable[TokenBatch],
    hooks: Sequence[str],
    rows: int,
    skip: int,
    dtype: str,
    left_out: Counter[str],
) -> Iterator[tuple[int, Rows]]:
    """(number of the first row, rows) of every batch up to `rows` that does not lie before row `skip` as a whole.

    Positions up to there that are no rows are added to `left_out`, by the reason, also of batches that are skipped.
    """
    row = before = 0
    for batch in batches:
        count = min(batch.rows, rows - row)
        left_out.update(batch.left_out(count, model.unknown))
        if row + count > skip:
            given = {"input_ids": torch.from_numpy(batch.ids)}
            if not batch.present.all():
                given["attention_mask"] = torch.from_numpy(batch.present.astype(np.int64))
            keep = torch.from_numpy(batch.keep)
            found = {hook: kept(value, keep, count, dtype) for hook, value in model.read(given, hooks).items()}
            yield row, (found, batch.ids[batch.keep][:count].astype(np.int32), batch.contexts(before)[:count])
        row, before = row + count, before + len(batch.numbers)
        if row >= rows:
            return


def kept(value: Tensor, keep: Tensor, count: int, dtype: str) -> Tensor:
    """The first `count` rows [R,D] of a value [B,T,D] where `keep` [B,T], on the CPU."""
    flat = value.flatten(0, 1) if bool(keep.all()) else value[keep.to(value.device)]
    flat = flat[:count]
    if flat.device.type != "cpu":
        flat = flat.to(getattr(torch, dtype))  # half the bytes to move
    return flat.cpu()


def write_several(
    writers: Mapping[str, DatasetWriter],
    done: Mapping[str, int],
    batches: Iterable[tuple[int, Rows]],
    progress: Progress,
    *,
    numbered: bool,
    behind: bool,
) -> None:
    """Appends to every dataset the rows it does not have yet, with the numbers of their contexts where `numbered`.

    `behind`: on a second thread, as `harvest` explains.
    """

    def append(row: int, found: Mapping[str, Tensor], ids: Ids, contexts: Ids) -> None:
        for hook, writer in writers.items():
            start = max(done[hook] - row, 0)
            if start < len(ids):
                writer.append(found[hook][start:], ids[start:], contexts[start:] if numbered else None)

    with ThreadPoolExecutor(1) as background:
        pending: Future[None] | None = None
        for row, (found, ids, contexts) in batches:
            if pending is not None:
                pending.result()
            if behind:
                pending = background.submit(append, row, found, ids, contexts)
            else:
                append(row, found, ids, contexts)
            progress.advance(min(len(ids), row + len(ids) - min(done.values())))
        if pending is not None:
            pending.result()
