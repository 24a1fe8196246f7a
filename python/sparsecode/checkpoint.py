"""Files that appear whole or not at all: tmp, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecode.errors import CheckpointCorrupt, IoFailed, OutOfSpace

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_SHOWN = 3  # names in an error
# A full disk, a full quota, a file larger than is allowed: each system has its own numbers, and not all of these.
_FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(tmp)` and moves tmp to `path` once its bytes are on disk; on failure `path` is untouched.

    Raises:
        OutOfSpace, IoFailed: the operating system refused; no temporary file is left.
    """
    tmp = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp.touch()
        mode = tmp.stat().st_mode
        write(tmp)
        tmp.chmod(mode)  # safetensors makes files that only their owner can read; a run may be others' to read
        _fsync(tmp)
        tmp.replace(path)
        _fsync(path.parent)
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise os_failure(path, refusal) from error
    finally:
        with suppress(OSError):  # what refused the file may refuse this too; that is told already
            tmp.unlink(missing_ok=True)


def _refusal(error: Exception) -> OSError | None:
    """What the operating system refused; safetensors wraps it in an error of its own, with the number in the text."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    if type(error).__name__ != "SafetensorError" or number is None:
        return None
    found = int(number[1])
    if os.name == "nt":
        return OSError(0, None, None, found)  # Windows' own number, from which Python finds the errno
    return OSError(found, os.strerror(found))


def os_failure(path: Path, error: OSError) -> OutOfSpace | IoFailed:
    """The named error for an operating-system failure at `path`."""
    if error.errno in _FULL:
        return OutOfSpace(f"{path}: no space left on the device; free some and run the same command again, it resumes")
    return IoFailed(f"{path}: {error.strerror or error}")


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes atomically."""
    write_atomic(path, lambda tmp: tmp.write_bytes(data))


def json_text(value: Any) -> str:
    """`value` as indented JSON with a last newline. NaN and infinities become null: JSON has no name for them."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as `json_text` spells it, atomically."""
    write_text(path, json_text(value))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes named tensors as safetensors, atomically; `metadata` travels in the header as one JSON string."""
    from safetensors.torch import save_file

    header = {"sparsecode": json.dumps(dict(metadata))} if metadata is not None else None
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, lambda tmp: save_file(contiguous, tmp, metadata=header))


def load_tensors(path: Path, wanted: Container[str] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_tensors` wrote: (tensors on the CPU, metadata); of the tensors those `wanted`, or all.

    Raises:
        CheckpointCorrupt: the file is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            header = opened.metadata() or {}
            names = [name for name in opened.keys() if wanted is None or name in wanted]  # noqa: SIM118 (not a mapping)
            tensors = {name: opened.get_tensor(name) for name in names}
        return tensors, json.loads(header.get("sparsecode", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointCorrupt(f"{path}: cannot be read ({error}); delete it to start this stage anew") from error


def part_of(path: Path, part: str) -> Path:
    """The file beside `path` that holds a part of the same thing."""
    return path.with_name(f".{path.stem}-{part}{path.suffix}")


def beside(path: Path) -> list[Path]:
    """The parts of `path` that are there, and what killed processes left of it and of them."""
    return [*path.parent.glob(part_of(path, "*").name), *path.parent.glob(f".*{path.stem}*.tmp")]


def remove(*paths: Path) -> None:
    """Removes files; those that are gone already do not matter.

    Raises:
        IoFailed: the operating system refused.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise os_failure(path, error) from error


def digest_of_tensors(begin: str, tensors: Mapping[str, Any]) -> str:
    """SHA-256 over a text, then names and values in the order of names; what is no tensor does not count."""
    import torch

    digest = hashlib.sha256(begin.encode())
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def bare_name(name: str, *, parallel: bool = False) -> str:
    """A tensor's name without what torch.compile, FSDP and activation checkpointing put into it.

    Args:
        name: `_orig_mod.h.0.attn.weight`.
        parallel: without the `module.` before it as well, which DistributedDataParallel puts there: a model may have a
            module of that name, so this is for files where every name begins so.
    """
    bare = _WRAPPERS.sub("", name)
    return re.sub(r"^(module\.)+", "", bare) if parallel else bare


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Every name of a file -> its bare name; as they are where two would become one."""
    names = list(names)
    parallel = all(bare_name(name).startswith("module.") for name in names)
    found = {name: bare_name(name, parallel=parallel) for name in names}
    return found if len(set(found.values())) == len(names) else {name: name for name in names}


def some(names: Sequence[str]) -> str:
    """Names for an error's `... missing`: the first three, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more} {'is' if len(names) == 1 else 'are'}"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
