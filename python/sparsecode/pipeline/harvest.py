"""The harvest stage: model and tokens in, a dataset of activations out; several hook points in one forward pass.

Each hook point has its own stage, named harvest/HOOK, and its own dataset.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from sparsecode.corpus import Tokens
from sparsecode.errors import CorpusEmpty, InvalidSetting
from sparsecode.gpt import load_gpt
from sparsecode.gpt.model import HOOKS
from sparsecode.harvest.harvest import harvest_gpt
from sparsecode.harvest.models import LanguageModel, load_model, own_model
from sparsecode.harvest.several import ContextSettings, RowSettings, Target, cut, harvest_several
from sparsecode.machine import keep_freed_memory
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import HarvestConfig
from sparsecode.pipeline.hooks import hook_name, single_configs
from sparsecode.pipeline.model_text import model_tokens, tokens_of
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.recall import as_recorded
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, opened, run_stage
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
    **settings: Any,
) -> dict[str, Any]:
    """Stores the activations of one hook point in `RUN/activations/HOOK`: row r is token r % T of window r // T.

    Args:
        run: the run folder, after `train_gpt`.
        config: settings; without it those of the run (`sparsecode.pipeline.recall`). `settings` change single ones
            (`layer=[0, 2, 4], site=["mlp", "resid"], rows=1_000_000`).
        force: do it again where it was done with other settings.
        quiet: no progress.

    Returns:
        {"hook_point", "path", "rows", "activation_dim", "fingerprint", "statistics"}; of several hook points those of
        the first, and all of them in "datasets", by hook point.

    Raises:
        StageMissing: the run has no trained GPT.
        HookUnknown: the model has no such hook point.
        SettingsDiffer, RunLocked, OutOfSpace, NonFiniteActivation: see `sparsecode.errors`.
    """
    home, chosen = called(run, HarvestConfig, config, settings)
    _check_meant(chosen)
    keep_freed_memory()
    singles = single_configs(chosen)
    plain = hook_name(singles[0]).split(".", 2)[-1] in HOOKS  # what the GPT itself can run to
    if chosen.model is not None or chosen.module or len(singles) > 1 or not plain:
        return _several(home, chosen, force=force, quiet=quiet)
    return _one(home, singles[0], force=force, quiet=quiet)


def _check_meant(config: HarvestConfig) -> None:
    """Refuses what would be ignored: settings of another model's text where the run's own GPT is read."""
    if config.model is not None:
        return
    default = HarvestConfig()
    for name in _OF_A_MODEL:
        if getattr(config, name) != getattr(default, name):
            raise InvalidSetting(
                f"harvest: --{name.replace('_', '-')} goes with --model; the run's own GPT is read on the text that it "
                "was trained on, in its own contexts"
            )


def _one(run: Run, config: HarvestConfig, *, force: bool, quiet: bool) -> dict[str, Any]:
    """A single hook point of the run's own GPT."""
    inputs = _trained(run)
    hook = hook_name(config)
    folder = run.activations_path / hook

    def do(_: Stage) -> dict[str, Any]:
        model, tokens = load_gpt(run.gpt_path), tokens_of(run)
        dataset = harvest_gpt(
            model, tokens.train, hook, folder, config.part(RowSettings), _provenance(inputs, "sparsecode-gpt", config),
            batch_size=config.batch_size, device=config.device, watch=watching(quiet),
        )  # fmt: skip
        return _result(hook, dataset)

    return run_stage(
        run, f"harvest/{hook}", as_recorded(run, hook, config), do, called=f"harvest: {hook} is", quiet=quiet,
        inputs=inputs, outputs=[folder], needs=[folder / "manifest.json"], force=force,
    )  # fmt: skip


def _several(run: Run, config: HarvestConfig, *, force: bool, quiet: bool) -> dict[str, Any]:
    """Several hook points, modules by path, and models by name."""
    watch = watching(quiet)
    singles = {hook_name(single): single for single in single_configs(config)}
    singles = {hook: as_recorded(run, hook, single) for hook, single in singles.items()}
    kept = None if force else _kept_dtype(run, config, singles)
    model = _model(run, config, kept, watch)
    for hook in singles:
        model.place(hook)
    # What cannot be done fails here, before text is read and a stage is recorded as begun.
    widths = {hook: model.width(hook) for hook in singles}
    for line in model.strange():
        watch.note(f"harvest: {line}")
    tokens, inputs = _text(run, config, model, force=force, quiet=quiet)
    contexts = cut(tokens, model, config.part(ContextSettings) if config.model is not None else None)
    if not contexts.rows:
        raise CorpusEmpty(f"{run.tokens_path}: too little text for a context of {contexts.width} tokens; give more")
    with ExitStack() as stack:
        stages: dict[str, Stage] = {}
        for hook, single in singles.items():
            folder = run.activations_path / hook
            stages[hook] = stack.enter_context(
                opened(
                    run,
                    f"harvest/{hook}",
                    single,
                    called=f"harvest: {hook} is",
                    quiet=quiet,
                    inputs=inputs,
                    outputs=[folder],
                    needs=[folder / "manifest.json"],
                    force=force,
                )
            )
            if config.model is not None and not stages[hook].done:
                stages[hook].plan(model_dtype=_plain(model.dtype))
        targets = [
            Target(hook, run.activations_path / hook, widths[hook]) for hook, stage in stages.items() if not stage.done
        ]
        if targets:
            about = _provenance(inputs, model.name, config)
            if config.model is not None:
                about |= {
                    "family": model.family,
                    "model_dtype": _plain(model.dtype),
                    "context_tokens": contexts.width,
                    "documents": config.documents,
                    "special_tokens": config.special_tokens,
                } | ({"chat": True} if config.chat else {})
            most = config.batch_tokens if config.model is not None else config.batch_size * contexts.width
            stored = harvest_several(
                model, contexts, targets, config.part(RowSettings), about, batch_tokens=most, watch=watch
            )
            for hook, dataset in stored:
                stages[hook].finish(_result(hook, dataset))
        datasets = {hook: stage.result for hook, stage in stages.items()}
    first = next(iter(datasets.values()))
    return dict(first) if len(datasets) == 1 else dict(first) | {"datasets": datasets}


def _trained(run: Run) -> dict[str, str]:
    """Fingerprints of the run's own GPT and of its tokens."""
    trained = run.finished("train-gpt", "sparsecode train-gpt")
    return {"gpt": trained["fingerprint"], "tokens": trained["tokens_fingerprint"]}


def _provenance(inputs: dict[str, str], model: str, config: HarvestConfig) -> dict[str, Any]:
    return {
        "tokens_fingerprint": inputs["tokens"],
        "model_fingerprint": inputs.get("model") or inputs["gpt"],
        "model": model,
        "seed": config.seed,
        "sparsecode_version": version(),
    }


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


def _kept_dtype(run: Run, config: HarvestConfig, hooks: Iterable[str]) -> str | None:
    """The type in which these hook points were begun to be harvested with `auto`; None where they were not."""
    stages = run.config()["stages"] if config.model is not None and config.model_dtype == "auto" else {}
    for hook in hooks:
        record = stages.get(f"harvest/{hook}", {})
        if record.get("settings", {}).get("model_dtype") == "auto" and "model_dtype" in (record.get("plan") or {}):
            return str(record["plan"]["model_dtype"])
    return None


def _model(run: Run, config: HarvestConfig, kept: str | None, watch: Watch) -> LanguageModel:
    if config.model is None:
        _trained(run)
        return own_model(load_gpt(run.gpt_path), device=config.device)
    return load_model(config.model, device=config.device, dtype=config.model_dtype, kept=kept, watch=watch)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _text(
    run: Run, config: HarvestConfig, model: LanguageModel, *, force: bool, quiet: bool
) -> tuple[Tokens, dict[str, str]]:
    """The text in the model's tokens, and the fingerprints of both."""
    if config.model is None:
        return tokens_of(run), _trained(run)
    tokens = model_tokens(run, config, model, force=force, quiet=quiet)
    return tokens, {"model": model.fingerprint, "tokens": tokens.fingerprint}
