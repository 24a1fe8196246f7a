"""Harvest any `torch.nn.Module` over any batches, from Python.

from sparsecode.harvest import harvest_module

datasets = harvest_module(model, batches, {"encoder.2": "out/encoder.2", "encoder.3.act@input": "out/act"})
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsecode.errors import InvalidArgument
from sparsecode.harvest.models import Place, read_places
from sparsecode.harvest.models.ids import embedded, embeddings
from sparsecode.harvest.models.padding import LeftPadding
from sparsecode.store import Dataset, DatasetWriter
from sparsecode.version import version
from sparsecode.watch import UNWATCHED, Watch

NO_TOKEN = -1  # the token of rows that have none
_LEFT_OUT = (None, "padding", "special", "not kept")  # why a position gives no row; indices are `_Batch.why`


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
    places = {path: Place.parse(path) for path in outputs}
    left_out = torch.tensor(sorted(special), dtype=torch.int64)
    about = {
        "model": type(model).__name__,
        "model_fingerprint": fingerprint(model),
        "special_left_out": left_out.tolist(),
        "sparsecode_version": version(),
    } | dict(provenance or {})
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with ExitStack() as stack:
            progress = stack.enter_context(watch.task("harvest", rows, "rows"))
            padding = LeftPadding(type(model).__name__, model)
            files: dict[str, _Output] = {}
            for batch in batches:
                ids, why = _tokens_and_reasons(batch, left_out, keep)
                for path, value in _read(model, batch, places, forward, padding).items():
                    found = _rows(value, ids, why, path)
                    if path not in files:
                        writer = DatasetWriter(
                            outputs[path],
                            activation_dim=found.values.shape[1],
                            dtype=dtype,
                            provenance={"hook_point": path} | about,
                            contexts=True,
                            shard_bytes=shard_bytes,
                            direct=True,
                        )
                        files[path] = _Output(stack.enter_context(writer), writer.rows)
                    files[path].append(found, rows)
                progress.advance(max(file.row for file in files.values()) - progress.done)
                if rows is not None and all(file.row >= rows for file in files.values()):
                    break
            if not files:
                raise InvalidArgument("harvest_module: there was no batch")
            for file in files.values():
                file.writer.note_left_out(file.left_out)
            return {path: file.writer.finish() for path, file in files.items()}
    finally:
        model.train(modes[0][1])  # its own `train`, which may do more than set modes
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class _Batch:
    """The positions of one value of a batch, whether they are rows or not.

    Attributes:
        values: [n, D].
        tokens: [n].
        contexts: [n] the number of each position's context in the batch.
        why: [n] int8, 0 for rows, else which of _LEFT_OUT.
        count: number of contexts in the batch.
    """

    values: Tensor
    tokens: Tensor
    contexts: Tensor
    why: Tensor
    count: int


@dataclass
class _Output:
    """One dataset: `stored` rows were there before, `row` rows of `contexts` contexts were offered now."""

    writer: DatasetWriter
    stored: int
    row: int = 0
    contexts: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def append(self, batch: _Batch, most: int | None) -> None:
        rows = (batch.why == 0).nonzero().flatten()
        end = len(batch.why)
        if most is not None and len(rows) > most - self.row:
            rows = rows[: most - self.row]
            end = int(rows[-1]) + 1 if len(rows) else 0
        for reason, count in enumerate(batch.why[:end].bincount(minlength=len(_LEFT_OUT)).tolist()):
            if (name := _LEFT_OUT[reason]) is not None:
                self.left_out[name] += count
        new = rows[max(self.stored - self.row, 0) :]
        if len(new):
            everything = len(new) == len(batch.why)
            values = batch.values if everything else batch.values[new.to(batch.values.device)]
            self.writer.append(values, batch.tokens[new], batch.contexts[new] + self.contexts)
        self.row += len(rows)
        self.contexts += batch.count


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names and values of a model's parameters and buffers."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _read(
    model: nn.Module,
    batch: Any,
    places: Mapping[str, Place],
    forward: Callable[[Any], Any] | None,
    padding: LeftPadding,
) -> dict[str, Tensor]:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    moved = _moved(batch, device)

    def values(given: Any) -> dict[str, Tensor]:
        def call() -> Any:
            if forward is not None:
                return forward(given)
            if isinstance(given, Mapping):
                return model(**given)
            return model(*given) if isinstance(given, list | tuple) else model(given)

        return read_places(model, places, call)

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
    """Ids of a batch, and an index of _LEFT_OUT for each position without a row; None where unknown."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch if isinstance(batch, Tensor) else None
    if ids is not None and (ids.is_floating_point() or ids.dtype == torch.bool):
        ids = None
    if keep is not None:
        return ids, (~keep(batch).bool().cpu()).to(torch.int8) * _LEFT_OUT.index("not kept")
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    padding = None if mask is None or mask.ndim != 2 else ~mask.bool().cpu()
    why = None if padding is None else padding.to(torch.int8) * _LEFT_OUT.index("padding")
    if ids is not None and len(left_out):
        special = torch.isin(ids.cpu(), left_out).to(torch.int8) * _LEFT_OUT.index("special")
        why = special if why is None else torch.where(why > 0, why, special)
    return ids, why


def _rows(value: Tensor, ids: Tensor | None, why: Tensor | None, path: str) -> _Batch:
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
    contexts, count = _contexts(len(flat), leading, ids)
    reasons = torch.zeros(len(flat), dtype=torch.int8) if why is None else why.reshape(-1)
    return _Batch(flat, tokens, contexts, reasons, count)


def _contexts(places: int, leading: torch.Size, ids: Tensor | None) -> tuple[Tensor, int]:
    """The context number of each position of a value, and how many contexts there are."""
    if ids is not None and ids.numel() == places and ids.ndim <= 2:
        count = len(ids) if ids.ndim == 2 else 1  # also where a module's input has the sequences of a batch joined
    else:
        count = leading[0] if len(leading) else 1
    return torch.arange(count).repeat_interleave(places // max(count, 1)), count
