"""Harvest any `torch.nn.Module` over any batches, from Python.

from sparsecode.harvest import harvest_module

datasets = harvest_module(model, batches, {"encoder.2": "out/encoder.2", "encoder.3.act@input": "out/act"})
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsecode.checkpoint import digest_of_tensors
from sparsecode.errors import InvalidArgument
from sparsecode.harvest.contexts import REASONS
from sparsecode.harvest.models import Tap, read_taps
from sparsecode.harvest.models.ids import embedded, embeddings
from sparsecode.harvest.models.padding import LeftPadding
from sparsecode.harvest.rows import Positions, Target, store
from sparsecode.store import Dataset
from sparsecode.version import version
from sparsecode.watch import UNWATCHED, Watch

NO_TOKEN = -1  # the token of rows that have none
_PADDING, _SPECIAL, _NOT_KEPT = (REASONS.index(reason) for reason in ("padding", "special", "not kept"))


def harvest_module(
    model: nn.Module,
    batches: Iterable[Any],
    outputs: Mapping[str, str | Path],
    *,
    dtype: str = "float16",
    forward: Callable[[Any], Any] | None = None,
    keep: Callable[[Any], Tensor] | None = None,
    special: Iterable[int] = (),
    rows: int | None = None,
    provenance: Mapping[str, Any] | None = None,
    shard_bytes: int = 256 << 20,
    watch: Watch = UNWATCHED,
) -> dict[str, Dataset]:
    """Stores outputs or inputs of modules, one dataset each; a batch's forward pass ends at the last of them.

    A value [..., D] gives a row for every position of its leading dimensions. With ids (`input_ids` of a mapping, or a
    batch that is an integer tensor) each row has its token, and rows where `attention_mask` is 0 or whose token is in
    `special` are left out and counted. Without ids, all rows are kept and have the token -1. The first dimension of a
    batch counts sequences, and the rows of one sequence are one context; a value with one vector per sequence gives
    contexts of one row.

    A batch with `input_ids` that is padded on the left is given `position_ids` that do not count padding, if the model
    takes them and the batch has none. The first such batch is checked: its values must be those of the text without
    padding. A `forward` of your own must handle positions itself.

    Args:
        model: put into evaluation mode while it is read; afterwards each of its modules is in its former mode.
        batches: mappings (given to the model as keyword arguments), tuples or lists (as positional ones), or anything
            else (as the only one); tensors are moved to the model's device. Shapes may differ from batch to batch.
        outputs: module path, or PATH@input for a module's input -> folder of the dataset.
        dtype: type on disk: float16, bfloat16 or float32.
        forward: called with a batch instead of the model.
        keep: returns the rows of a batch to keep, bool, of the shape of the value's leading dimensions, instead of the
            mask.
        special: ids whose rows are left out.
        rows: stop after this many.
        provenance: additional JSON values to record.
        shard_bytes: size of a shard file, about.
        watch: what it is watched with.

    Returns:
        The datasets by module path. Called again with the same model and batches after an interruption, it continues
        where the datasets stopped.

    Raises:
        HookUnknown: no such module.
        InvalidArgument: a value's rows do not fit the mask; no module, no batch, or one folder for two modules; a batch
            is padded on the left and the model's positions cannot follow its mask; an index beyond an embedding.
        TokensUnknown: an id that the mask does not hide is beyond the model's embedding.
        NonFiniteActivation, OutOfSpace, SettingsDiffer, DatasetComplete: see `sparsecode.errors`.
    """
    if not outputs or (rows is not None and rows < 1):
        raise InvalidArgument("harvest_module: name at least one module in `outputs`, and one row or more")
    if not all(os.fspath(folder) for folder in outputs.values()):
        raise InvalidArgument("harvest_module: the folder of a module is empty; '.' is the one you are in")
    folders = [Path(folder).resolve() for folder in outputs.values()]
    if len(set(folders)) < len(folders):
        raise InvalidArgument("harvest_module: two modules have the same folder; each needs one of its own")
    taps = {path: Tap.parse(path) for path in outputs}
    left_out = torch.tensor(sorted(special), dtype=torch.int64)
    about = {
        "model": type(model).__name__,
        "model_fingerprint": digest_of_tensors(type(model).__name__, model.state_dict()),
        "special_left_out": left_out.tolist(),
        "sparsecode_version": version(),
    } | dict(provenance or {})
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        found = _positions(model, batches, taps, forward, keep, left_out)
        first = next(found, None)
        if first is None:
            raise InvalidArgument("harvest_module: there was no batch")
        targets = [Target(path, Path(outputs[path]), one.width) for path, one in first.items()]
        every = chain([first], found)
        del first
        stored = store(
            lambda _: every, targets, about, rows=rows, dtype=dtype, shard_bytes=shard_bytes, numbered=True,
            behind=_device(model).type != "cpu", watch=watch,
        )  # fmt: skip
        return {path: dataset for path, dataset in stored if dataset is not None}
    finally:
        model.train(modes[0][1])  # its own `train`, which may do more than set modes
        for module, training in modes:
            module.training = training


def _positions(
    model: nn.Module,
    batches: Iterable[Any],
    taps: Mapping[str, Tap],
    forward: Callable[[Any], Any] | None,
    keep: Callable[[Any], Tensor] | None,
    left_out: Tensor,
) -> Iterator[dict[str, Positions]]:
    """The values of each batch, by module path."""
    padding = LeftPadding(type(model).__name__, model)
    for batch in batches:
        ids, why = _tokens_and_reasons(batch, left_out, keep)
        yield {
            path: _of_value(value, ids, why, path)
            for path, value in _read(model, batch, taps, forward, padding).items()
        }


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@torch.no_grad()
def _read(
    model: nn.Module,
    batch: Any,
    taps: Mapping[str, Tap],
    forward: Callable[[Any], Any] | None,
    padding: LeftPadding,
) -> dict[str, Tensor]:
    moved = _moved(batch, _device(model))

    def values(given: Any) -> dict[str, Tensor]:
        def call() -> Any:
            if forward is not None:
                return forward(given)
            if isinstance(given, Mapping):
                return model(**given)
            return model(*given) if isinstance(given, list | tuple) else model(given)

        return read_taps(model, taps, call)

    size = embeddings(model)
    if isinstance(moved, dict) and isinstance(moved.get("input_ids"), Tensor):
        if size is not None:
            ids = embedded(type(model).__name__, moved["input_ids"], size, moved.get("attention_mask"))
            moved = moved | {"input_ids": ids}
        if forward is None:
            moved = padding.follow(moved, lambda given: values(given).values())
    try:
        return values(moved)
    except IndexError as error:  # torch raises it from an embedding on the CPU
        if "out of range" not in str(error):
            raise
        raise InvalidArgument(
            f"{type(model).__name__}: an embedding has no row for an index of the batch ({error}); compare the ids and "
            "the length of the batch with the sizes of the model's embeddings"
        ) from error


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(inner, device) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(inner, device) for inner in value]
    return value


def _tokens_and_reasons(
    batch: Any, left_out: Tensor, keep: Callable[[Any], Tensor] | None
) -> tuple[Tensor | None, Tensor | None]:
    """Ids of a batch, and for each position its place in REASONS; None where unknown."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch if isinstance(batch, Tensor) else None
    if ids is not None and (ids.is_floating_point() or ids.dtype == torch.bool):
        ids = None
    if keep is not None:
        return ids, (~keep(batch).bool().cpu()).to(torch.int8) * _NOT_KEPT
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    why = None if mask is None or mask.ndim != 2 else (~mask.bool().cpu()).to(torch.int8) * _PADDING
    if ids is not None and len(left_out):
        special = torch.isin(ids.cpu(), left_out).to(torch.int8) * _SPECIAL
        why = special if why is None else torch.where(why > 0, why, special)
    return ids, why


def _of_value(value: Tensor, ids: Tensor | None, why: Tensor | None, path: str) -> Positions:
    leading = value.shape[:-1]
    if why is not None and why.ndim >= 1 and value.shape[: why.ndim] == why.shape:
        leading = why.shape  # further dimensions, heads for example, are side by side in a row
    elif ids is not None and value.shape[: ids.ndim] == ids.shape:
        leading = ids.shape
    flat = value.reshape(leading.numel(), -1)
    tokens = torch.full((len(flat),), NO_TOKEN) if ids is None or ids.shape != leading else ids.reshape(-1).cpu()
    if why is not None and why.shape != leading:
        raise InvalidArgument(
            f"{path}: values of {list(value.shape)} do not fit a mask of {list(why.shape)}; give keep= its shape"
        )
    if ids is not None and ids.numel() == len(flat) and ids.ndim <= 2:
        count = len(ids) if ids.ndim == 2 else 1  # also where a module's input has the sequences of a batch joined
    else:
        count = leading[0] if len(leading) else 1
    contexts = torch.arange(count).repeat_interleave(len(flat) // max(count, 1))
    reasons = None if why is None else why.reshape(-1).numpy()
    return Positions(flat, tokens.numpy(), contexts.numpy(), reasons, count)
