"""The harvest stage: model and tokens in, a dataset of activations out; several hook points in one forward pass.

Each hook point has its own stage, named harvest/HOOK, and its own dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsecode.errors import CorpusEmpty, InvalidSetting
from sparsecode.gpt import load_gpt
from sparsecode.harvest.contexts import ContextSettings, cut
from sparsecode.harvest.models import LanguageModel, load_model, own_model
from sparsecode.harvest.rows import RowSettings, Target, harvest_rows
from sparsecode.machine import keep_freed_memory
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import HarvestConfig
from sparsecode.pipeline.hook_names import hook_name, single_configs
from sparsecode.pipeline.model_text import model_tokens, tokens_of
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.recall import as_recorded
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, opened
from sparsecode.store import Dataset
from sparsecode.version import version
from sparsecode.watch import Watch

_OF_A_MODEL = (
    "model_dtype", "context", "batch_tokens", "documents", "special_tokens",
    "text", "text_key", "hf_dataset", "hf_stream", "skip_bad", "max_text_mb", "chat", "control_tokens",
)  # fmt: skip


@advised
def harvest_activations(
    run: str | Path | Run = DEFAULT_RUN,
    config: HarvestConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    part: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Stores activations of the run's own GPT, or of another model, in `RUN/activations/HOOK`, a hook point each.

    Of the own GPT row r is token r % T of context r // T.

    Args:
        run: the run folder, after `train_gpt`, or of another model's harvest.
        config: settings; without it those of the run (`sparsecode.pipeline.recall`). `settings` change single ones
            (`layer=[0, 2, 4], site=["mlp", "resid"], rows=1_000_000`).
        force: do it again where it was done with other settings.
        quiet: no progress.
        part: I/N makes every N-th shard, from the I-th on, counted from 0; None: what RANK and WORLD_SIZE say, or all.

    Returns:
        {"hook_point", "path", "rows", "activation_dim", "fingerprint", "statistics"}; of several hook points those of
        the first, and all of them in "datasets", by hook point.

    Raises:
        StageMissing: the run has no trained GPT.
        HookUnknown: the model has no such hook point.
        SettingsDiffer, RunLocked, OutOfSpace, NonFiniteActivation: see `sparsecode.errors`.

    Where shards of other parts are missing, there is but "hook_point" and "path"; the part that finds all of them
    finishes the stage.
    """
    run, config = called(run, HarvestConfig, config, settings)
    which = _part(part)
    shared = which != (0, 1)
    _check(config)
    if shared and force:
        raise InvalidSetting("harvest: --force would remove what other parts made; remove the run's activations first")
    keep_freed_memory()
    watch = watching(quiet)
    singles = {hook_name(single): single for single in single_configs(config)}
    singles = {hook: as_recorded(run, hook, single) for hook, single in singles.items()}
    model = _model(run, config, () if force else singles, watch)
    # What cannot be done fails here, before text is read and a stage is recorded as begun.
    widths = {hook: model.width(hook) for hook in singles}
    for line in model.strange():
        watch.note(f"harvest: {line}")
    own = config.model is None
    tokens = tokens_of(run) if own else model_tokens(run, config, model, force=force, quiet=quiet, wait=shared)
    inputs = _trained(run) if own else {"model": model.fingerprint, "tokens": tokens.fingerprint}
    contexts = cut(tokens, model, None if own else config.part(ContextSettings))
    if not contexts.rows:
        raise CorpusEmpty(f"{run.tokens_path}: too little text for a context of {contexts.width} tokens; give more")
    with ExitStack() as stack:
        stages: dict[str, Stage] = {}
        targets: list[Target] = []
        for hook, single in singles.items():
            folder = run.activations_path / hook
            stage = opened(
                run, f"harvest/{hook}", single, called=f"harvest: {hook} is", quiet=quiet, inputs=inputs,
                outputs=[folder], needs=[folder / "manifest.json"], force=force, shared=shared,
            )  # fmt: skip
            stages[hook] = stack.enter_context(stage)
            if not stages[hook].done:
                targets.append(Target(hook, folder, widths[hook]))
                if not own:
                    stages[hook].plan(model_dtype=_plain(model.dtype))
        if targets:
            about = {
                "tokens_fingerprint": inputs["tokens"],
                "model_fingerprint": inputs["gpt" if own else "model"],
                "model": model.name,
                "seed": config.seed,
                "sparsecode_version": version(),
            }
            if not own:
                about |= {
                    "family": model.family,
                    "model_dtype": _plain(model.dtype),
                    "context_tokens": contexts.width,
                    "documents": config.documents,
                    "special_tokens": config.special_tokens,
                } | ({"chat": True} if config.chat else {})
            most = config.batch_size * contexts.width if own else config.batch_tokens
            rows = replace(config.part(RowSettings), share=which)
            for hook, dataset in harvest_rows(model, contexts, targets, rows, about, batch_tokens=most, watch=watch):
                if dataset is not None:
                    stages[hook].finish(_result(hook, dataset))
                else:
                    watch.note(f"harvest: {hook}: part {which[0]} of {which[1]} is made; shards of others are missing")
        results = {hook: stage.result or _begun(hook) for hook, stage in stages.items()}
    first = next(iter(results.values()))
    return dict(first) if len(results) == 1 else dict(first) | {"datasets": results}


def _part(text: str | None) -> tuple[int, int]:
    """The part that is asked for, or that torchrun gives this process; (0, 1) is all.

    Raises:
        InvalidSetting: it is none.
    """
    if text is None:
        rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
        text = f"{rank}/{size}" if rank.isdecimal() and size.isdecimal() else "0/1"
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise InvalidSetting(f"harvest: --part '{text}' is not I/N with I from 0 to N - 1, such as 0/8")
    return int(found[1]), int(found[2])


def _check(config: HarvestConfig) -> None:
    """Refuses what would be ignored: settings of another model's text where the run's own GPT is read."""
    default = HarvestConfig()
    for name in _OF_A_MODEL if config.model is None else ():
        if getattr(config, name) != getattr(default, name):
            raise InvalidSetting(
                f"harvest: --{name.replace('_', '-')} goes with --model; the run's own GPT is read on the text that it "
                "was trained on, in its own contexts"
            )


def _trained(run: Run) -> dict[str, str]:
    """Fingerprints of the run's own GPT and of its tokens."""
    trained = run.finished("train-gpt", "sparsecode train-gpt")
    return {"gpt": trained["fingerprint"], "tokens": trained["tokens_fingerprint"]}


def _model(run: Run, config: HarvestConfig, hooks: Iterable[str], watch: Watch) -> LanguageModel:
    """The model, in the type in which these hook points were begun to be harvested with `auto`."""
    if config.model is None:
        _trained(run)
        return own_model(load_gpt(run.gpt_path), device=config.device)
    kept = None
    if config.model_dtype == "auto":
        records = [run.config()["stages"].get(f"harvest/{hook}", {}) for hook in hooks]
        plans = [one.get("plan") or {} for one in records if one.get("settings", {}).get("model_dtype") == "auto"]
        kept = next((str(plan["model_dtype"]) for plan in plans if "model_dtype" in plan), None)
    return load_model(config.model, device=config.device, dtype=config.model_dtype, kept=kept, watch=watch)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _begun(hook: str) -> dict[str, Any]:
    """What is said of a hook point of which other parts are missing."""
    return {"hook_point": hook, "path": f"activations/{hook}"}


def _result(hook: str, dataset: Dataset) -> dict[str, Any]:
    return {
        "hook_point": hook,
        "path": f"activations/{hook}",
        "rows": dataset.rows,
        "activation_dim": dataset.activation_dim,
        "fingerprint": dataset.fingerprint,
        "statistics": {name: dataset.statistics[name] for name in ("rms", "variance", "non_finite")},
        "left_out": dataset.left_out,
    }
