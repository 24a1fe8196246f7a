"""Harvest any `torch.nn.Module` over any batches, from Python.

from sparsecode.harvest import harvest_module

datasets = harvest_module(model, batches, {"encoder.2": "out/encoder.2", "encoder.3.act@input": "out/act"})
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import sparsecode
from sparsecode.errors import InvalidArgument
from sparsecode.harvest.models import Place, read_places
from sparsecode.harvest.models.ids import embedded, embeddings
from sparsecode.harvest.models.padding import LeftPadding
from sparsecode.progress import Progress
from sparsecode.store import Dataset, DatasetWriter

NO_TOKEN = -1  # of rows that belong to none


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
    quiet: bool = True,
) -> dict[str, Dataset]:
    """Stores what modules give, or are given, as one dataset each; a batch's forward pass ends at the last of them.

    A value [..., D] gives a row for every place of its leading dimensions. With ids (`input_ids` of a mapping, or a
    batch that is an integer tensor) each row has its token, and rows where `attention_mask` is 0 or whose token is one
    of `special` are left out; without, all rows are kept and have the token -1.

    A batch with `input_ids` that is padded on the left is given `position_ids` that count no padding, where the model
    takes them and the batch has none; the first such batch shows whether its values are then those of the text without
    padding. With `forward` of your own, the positions are yours too.

    Args:
        model: put into evaluation mode while it is read; each of its modules is then in the mode it was in.
        batches: mappings (given to the model as keyword arguments), tuples or lists (as positional ones), or anything
            else (as the only one); tensors are moved to the model's device. Other shapes each time are fine.
        outputs: module path, or PATH@input for what a module is given -> folder of the dataset.
        dtype: type on disk: float16, bfloat16 or float32.
        forward: calls the model on a batch instead.
        keep: the rows of a batch to keep, bool, of the shape of the value's leading dimensions, instead of the mask.
        special: ids whose rows are left out.
        rows: stop after this many.
        provenance: what else to record; JSON values.
        shard_bytes: size of a shard file, about.
        quiet: no progress.

    Returns:
        The datasets by module path. Called again with the same model and batches after an interruption, it goes on
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
        "sparsecode_version": sparsecode.__version__,
    } | dict(provenance or {})
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with ExitStack() as stack:
            progress = stack.enter_context(Progress("harvest", rows, "rows", quiet=quiet))
            padding = LeftPadding(type(model).__name__, model)
            files: dict[str, _Output] = {}
            for batch in batches:
                ids, mask = _tokens_and_mask(batch, left_out, keep)
                for path, value in _read(model, batch, places, forward, padding).items():
                    flat, tokens = _rows(value, ids, mask, path)
                    if path not in files:
                        writer = DatasetWriter(
                            outputs[path],
                            activation_dim=flat.shape[1],
                            dtype=dtype,
                            provenance={"hook_point": path} | about,
                            shard_bytes=shard_bytes,
                            direct=True,
                        )
                        files[path] = _Output(stack.enter_context(writer), writer.rows)
                    files[path].append(flat, tokens, rows)
                progress.advance(max(file.row for file in files.values()) - progress.done)
                if rows is not None and all(file.row >= rows for file in files.values()):
                    break
            if not files:
                raise InvalidArgument("harvest_module: there was no batch")
            return {path: file.writer.finish() for path, file in files.items()}
    finally:
        model.train(modes[0][1])  # its own `train`, which may do more than set modes
        for module, training in modes:
            module.training = training


@dataclass
class _Output:
    """One dataset: `stored` rows were there before, `row` rows were offered now."""

    writer: DatasetWriter
    stored: int
    row: int = 0

    def append(self, flat: Tensor, tokens: npt.NDArray[np.int64], most: int | None) -> None:
        if most is not None:
            flat, tokens = flat[: most - self.row], tokens[: most - self.row]
        start = max(self.stored - self.row, 0)
        if start < len(flat):
            self.writer.append(flat[start:], tokens[start:])
        self.row += len(flat)


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
    except IndexError as error:  # what torch raises of an embedding on the processor
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


def _tokens_and_mask(
    batch: Any, left_out: Tensor, keep: Callable[[Any], Tensor] | None
) -> tuple[Tensor | None, Tensor | None]:
    """Ids of a batch and which of its places are rows; None where there is nothing to tell."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch if isinstance(batch, Tensor) else None
    if ids is not None and (ids.is_floating_point() or ids.dtype == torch.bool):
        ids = None
    if keep is not None:
        return ids, keep(batch).bool().cpu()
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    kept = None if mask is None or mask.ndim != 2 else mask.bool().cpu()
    if ids is not None and len(left_out):
        allowed = ~torch.isin(ids.cpu(), left_out)
        kept = allowed if kept is None else kept & allowed
    return ids, kept


def _rows(value: Tensor, ids: Tensor | None, mask: Tensor | None, path: str) -> tuple[Tensor, npt.NDArray[np.int64]]:
    leading = value.shape[:-1]
    if mask is not None and mask.ndim >= 1 and value.shape[: mask.ndim] == mask.shape:
        leading = mask.shape  # what comes after, heads for example, lies side by side in a row
    elif ids is not None and value.shape[: ids.ndim] == ids.shape:
        leading = ids.shape
    flat = value.reshape(leading.numel(), -1)
    tokens = torch.full((len(flat),), NO_TOKEN) if ids is None or ids.shape != leading else ids.reshape(-1).cpu()
    if mask is not None:
        if mask.shape != leading:
            raise InvalidArgument(
                f"{path}: values of {list(value.shape)} do not fit a mask of {list(mask.shape)}; give keep= its shape"
            )
        chosen = mask.reshape(-1)
        flat, tokens = flat[chosen.to(flat.device)], tokens[chosen]
    return flat.cpu(), tokens.numpy()
