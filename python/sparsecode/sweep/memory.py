"""What a sweep needs of memory and disk, told before it starts.

Shape letters: B rows of a batch, D activation dimension, F features of the largest dictionary, N features of all, K
dictionaries. A matrix of all dictionaries is N D float32, one of the largest F D.

    held      parameters and their two moments: six matrices (tied: three), counters of every feature
    working   cpu: batch, residual, rounded copies, and of the largest dictionary its two matrices side by side, the
              gradients of both and its rounded encoder, and the codes of a block of rows (docs/engine.md)
              reference: copies, gradients and Adam's terms of the largest dictionary, its codes of a batch four times
              (of a kind beside ReLU + L1, with its derivatives, ten times, and its residual once per nested group)
              gpu: gradients of all, 16-bit copies of both matrices, codes of a chunk
    ending    where it is looked for NaN, or where the largest dictionary is compared with its start in float64

`tests/sweep/test_memory.py` holds the parts against tensors' sizes, `CpuEngine.bytes` and resident memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparsecode.errors import InvalidSetting
from sparsecode.machine import cores, ranks_here, usable_memory
from sparsecode.sweep.engines import engine_class
from sparsecode.sweep.kinds.spec import KindSpec

_BASE = 300e6  # Python and torch before the first step; more with CUDA's libraries, which lie in files
_TILE, _BLOCK_TILES = 64, 4  # src/engine: codes are dense for this many rows of each thread at the start
_WAVE_BYTES = 12 * (2 << 20)  # codes that the CPU engine holds at once
_GPU_CHUNK = 3 * (256 << 20)  # codes of a chunk, their derivative and a mask


@dataclass(frozen=True)
class Need:
    """Bytes that a sweep takes; `memory` is that of `device`."""

    dictionaries: int
    held: int
    working: int
    ending: int
    state: int  # of the file that a training saves and goes on from
    files: int  # of the dictionaries in the end
    device: str = "cpu"

    @property
    def memory(self) -> int:
        """The most at once."""
        return int(self.held + self.working + self.ending + (_BASE if self.device == "cpu" else 0))

    @property
    def disk(self) -> int:
        """The most at once: a state is written beside the one before it, dictionaries beside the last."""
        return self.state + max(self.state, self.files)

    def as_json(self) -> dict[str, int | str]:
        """The need as JSON values, in bytes."""
        return {
            "dictionaries": self.dictionaries, "device": self.device, "memory_bytes": self.memory,
            "held_bytes": self.held, "disk_bytes": self.disk,
        }  # fmt: skip


def need_of(
    sizes: Sequence[int],
    dim: int,
    *,
    batch: int,
    engine: str = "cpu",
    tied: bool = False,
    pre_bias: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    kinds: Sequence[KindSpec] = (),
) -> Need:
    """What dictionaries of these sizes (one number per dictionary, K) need at width `dim`.

    Args:
        sizes: features of each.
        dim: D.
        batch: B.
        engine: reference, cpu or gpu.
        tied, pre_bias: as in `LossSettings`.
        threads: of the CPU engine; None: all cores.
        device: where it is trained.
        kinds: of each; none: all are ReLU + L1.
    """
    N, F, K = sum(sizes), max(sizes), len(sizes)
    every, largest, rows = 4 * N * dim, 4 * F * dim, 4 * batch * dim
    matrices = 1 if tied else 2
    own = sum(4 * size * len(kind.own) for size, kind in zip(sizes, kinds, strict=False))
    parameters = matrices * every + 4 * N + (4 * K * dim if pre_bias else 0) + own
    since = 8 * N if any(kind.aux for kind in kinds) else 0
    held = 3 * parameters + 12 * N + since  # fired and lag
    plain = all(kind.plain for kind in kinds)
    groups = max((len(kind.groups or ()) for kind in kinds), default=0)
    if engine == "cpu":
        T = threads or cores()
        block = 8 * F * min(_TILE * _BLOCK_TILES, batch) * min(T, -(-batch // (_TILE * _BLOCK_TILES)))
        working = 3 * rows + T * (rows + largest // 2) + 4 * largest + max(block, _WAVE_BYTES)
    elif engine == "gpu":
        working = 4 * N * (2 * dim + 1) + 4 * N * (dim + 16) + 6 * rows + min(_GPU_CHUNK, 8 * batch * F)
        working += 0 if plain else 8 * largest + 48 * batch * F + (4 + groups) * rows
    else:
        working = 8 * largest + (16 if plain else 40) * batch * F + (4 + groups) * rows
    ending = max(7 * every // 4, 12 * largest if device == "cpu" else 0)
    state = 3 * parameters + 8 * N + sum(8 * size for size, kind in zip(sizes, kinds, strict=False) if kind.aux)
    files = 2 * every + 20 * N + own
    return Need(K, held, int(working), ending, state, files, device)


def refuse(who: str, found: Need, dim: int) -> None:
    """Refuses a sweep that cannot fit, before anything of it is made.

    Args:
        who: what wants to train it, named in the error.
        found: what it needs.
        dim: D.

    Raises:
        InvalidSetting: it needs more memory than the device has.
    """
    there = device_memory(found.device)
    if there is not None and found.memory > there:
        what = "dictionary needs" if found.dictionaries == 1 else "dictionaries need"
        place = "this machine has" if found.device == "cpu" else f"{found.device} has"
        raise InvalidSetting(
            f"{who}: {found.dictionaries:,} {what} {found.memory / 1e9:,.1f} GB of memory at a width of {dim:,} "
            f"({found.held / 1e9:,.1f} for parameters and Adam's moments); {place} {there / 1e9:,.1f}"
        )


def device_memory(device: str) -> int | None:
    """Bytes that a process may use there, its share where `ranks_here`; None where that cannot be told."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    there = usable_memory() if device == "cpu" else None
    return there and there // ranks_here()


def engine_kind(name: str, device: str, kinds: Iterable[KindSpec] = ()) -> str:
    """Which of reference, cpu and gpu a setting means for dictionaries of these kinds."""
    if name == "auto":
        name = os.environ.get("SPARSECODE_ENGINE", "auto")
    if name == "auto":
        name = {"cpu": "cpu", "cuda": "gpu"}.get(device, "reference")
        name = name if all(map(engine_class(name).trains, kinds)) else "reference"
    return name if name in ("reference", "gpu") else "cpu"
