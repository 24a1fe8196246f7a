"""The harvest stage: model and tokens in, a dataset of activations out."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import sparsecode
from sparsecode.config import HarvestConfig
from sparsecode.corpus import load_tokens
from sparsecode.errors import HookUnknown, InvalidSetting
from sparsecode.gpt import GPT, load_gpt
from sparsecode.gpt.model import HOOKS
from sparsecode.harvest.hooks import hook_name, hook_names, single_configs
from sparsecode.harvest.several import harvest_several
from sparsecode.harvest.windows import window_order, windows
from sparsecode.machine import keep_freed_memory, torch_device
from sparsecode.progress import Progress, say
from sparsecode.recall import as_recorded, recalled
from sparsecode.run import DEFAULT_RUN, Run, Stage
from sparsecode.store import DatasetWriter

_OF_A_MODEL = (
    "model_dtype", "context", "batch_tokens", "documents", "special_tokens",
    "text", "text_key", "hf_dataset", "hf_stream", "skip_bad", "max_text_mb", "chat", "control_tokens",
)  # fmt: skip

Batches = Generator[tuple[torch.Tensor, npt.NDArray[np.int32]], None, None]


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
        config: settings; without it those of the run (`sparsecode.recall`). `settings` change single ones
            (`layer="0,2,4", site="mlp,resid", rows=1_000_000`).
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
    run = run if isinstance(run, Run) else Run(run)
    config = recalled(run, HarvestConfig, config, settings, hooks=hook_names)
    if config.rows < 1 or config.batch_size < 1 or config.shard_mb < 1:
        raise InvalidSetting("harvest: --rows, --batch-size and --shard-mb must be at least 1")
    _check_meant(config)
    keep_freed_memory()
    singles = single_configs(config)
    plain = hook_name(singles[0]).split(".", 2)[-1] in HOOKS  # what the GPT itself can run to
    if config.model is not None or config.module or len(singles) > 1 or not plain:
        return harvest_several(run, config, force=force, quiet=quiet)
    config = singles[0]
    trained = run.finished("train-gpt", "sparsecode train-gpt")
    hook = hook_name(config)
    config = as_recorded(run, hook, config)
    folder = run.activations_path / hook
    inputs = {"gpt": trained["fingerprint"], "tokens": trained["tokens_fingerprint"]}
    needs = [folder / "manifest.json"]
    with run.stage(f"harvest/{hook}", config, inputs=inputs, outputs=[folder], needs=needs, force=force) as stage:
        if stage.done:
            if not quiet:
                say(f"harvest: {hook} is already done in {run.path} with the same settings")
            return stage.result
        return _harvest(run, config, stage, hook, folder, inputs, quiet)


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


def _harvest(
    run: Run, config: HarvestConfig, stage: Stage, hook: str, folder: Path, inputs: dict[str, str], quiet: bool
) -> dict[str, Any]:
    model = load_gpt(run.gpt_path)
    if hook not in model.hook_points():
        raise HookUnknown(f"{run.gpt_path}: no hook point '{hook}'; there are {', '.join(model.hook_points())}")
    tokens = load_tokens(run)
    context = model.config.context
    available = len(tokens.train) // context * context
    rows = min(config.rows, available)
    if rows < config.rows and not quiet:
        say(f"harvest: the corpus holds {available} rows of training text; storing these instead of {config.rows}")
    provenance = {
        "hook_point": hook,
        "context": context,
        "tokens_fingerprint": inputs["tokens"],
        "model_fingerprint": inputs["gpt"],
        "model": "sparsecode-gpt",
        "seed": config.seed,
        "sparsecode_version": sparsecode.__version__,
    }
    writer = DatasetWriter(
        folder,
        activation_dim=model.hook_width(hook),
        dtype=config.dtype,
        provenance=provenance,
        shard_bytes=config.shard_mb << 20,
        direct=True,
    )
    with writer, Progress("harvest", rows, "rows", done=writer.rows, quiet=quiet) as progress:
        batches = activation_batches(model, tokens.train, hook, config, rows, skip=writer.rows)
        write_batches(writer, batches, progress, behind=torch_device(config.device).type != "cpu")
        dataset = writer.finish()
    result = {
        "hook_point": hook,
        "path": f"activations/{hook}",
        "rows": dataset.rows,
        "activation_dim": dataset.activation_dim,
        "fingerprint": dataset.fingerprint,
        "statistics": {name: dataset.statistics[name] for name in ("rms", "variance", "non_finite")},
        "left_out": dataset.left_out,
    }
    stage.finish(result)
    return result


def write_batches(writer: DatasetWriter, batches: Batches, progress: Progress, *, behind: bool) -> None:
    """Appends batches; `behind` on a second thread, which writes one while a GPU computes the next.

    Where the model runs on the processor its threads have every core, and one more would only make them wait for each
    other: then a batch is written between two forward passes, on all cores.
    """
    with closing(batches), ThreadPoolExecutor(1) as background:
        pending: Future[None] | None = None
        for activations, ids in batches:
            if pending is not None:
                pending.result()
            if behind:
                pending = background.submit(writer.append, activations, ids)
            else:
                writer.append(activations, ids)
            progress.advance(len(ids))
            del activations
        if pending is not None:
            pending.result()


def activation_batches(
    model: GPT, tokens: npt.NDArray[np.unsignedinteger], hook: str, config: HarvestConfig, rows: int, *, skip: int = 0
) -> Batches:
    """Rows `skip` .. `rows` of a harvest as batches (activations [R, D], tokens [R])."""
    device = torch_device(config.device)
    model = model.to(device)
    context = model.config.context
    order = window_order(len(tokens), context, config.seed)
    rows_per_batch = config.batch_size * context
    first = skip // rows_per_batch
    row = first * rows_per_batch
    for window in windows(tokens, order, context, config.batch_size, first):
        start, stop = max(skip - row, 0), min(window.size, rows - row)
        # Nothing is held here while the batch is written: the next forward pass takes over its memory.
        yield _rows_at(model, window, hook, device)[start:stop], window.reshape(-1)[start:stop].astype(np.int32)
        row += window.size
        if row >= rows:
            return


def _rows_at(model: GPT, window: npt.NDArray[np.int64], hook: str, device: torch.device) -> torch.Tensor:
    """Activations [B * T, D] of windows [B, T]."""
    with torch.inference_mode():
        found = model.run_to(torch.from_numpy(window).to(device), hook)  # [B, T, D]
    return found.reshape(-1, found.shape[-1]).cpu()
