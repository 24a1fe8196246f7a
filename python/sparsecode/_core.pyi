"""The native core (Rust). Arrays cross as objects with the buffer protocol: numpy views of CPU tensors, no copies."""

from os import PathLike
from typing import Any, Self, TypeAlias, TypedDict, final, type_check_only

from numpy.typing import NDArray
from typing_extensions import Buffer

__all__ = [
    "FileLock",
    "attention_backward",
    "attention_forward",
    "cpu_features",
    "cross_entropy",
]

_Array: TypeAlias = Buffer | NDArray[Any]  # numpy's own types say so from Python 3.12 on

@type_check_only
class _CpuFeatures(TypedDict):
    simd: str  # avx512, avx2, neon or scalar
    avx512_bf16: bool
    avx512_vnni: bool
    amx_bf16: bool

def cpu_features() -> _CpuFeatures:
    """The widest vector instruction set that the core has code for here, and which low-precision products there are."""

@final
class FileLock:
    """An exclusive lock on a file, held from construction until `release`; freed when its process dies.

    Raises:
        RunLocked: another process holds it.
        IoFailed: the file cannot be opened.
    """

    def __new__(cls, path: str | PathLike[str]) -> Self: ...
    @staticmethod
    def wait(path: str | PathLike[str]) -> FileLock:
        """The same, waiting for as long as another process holds it."""

    def release(self) -> None:
        """Frees the lock; a second call does nothing."""

def cross_entropy(
    h: _Array,
    weight: _Array,
    targets: _Array,
    *,
    dh: _Array | None = None,
    dweight: _Array | None = None,
    threads: int,
) -> float:
    """Mean cross-entropy in nats of rows `h` [M,D] against the embedding `weight` [V,D], without their logits [M,V].

    All arrays are contiguous; float32, but `targets` [M] int64. The result does not depend on the number of threads.

    Args:
        dh: receives d loss / d h [M,D], together with
        dweight: d loss / d weight [V,D].

    Raises:
        InvalidArgument: sizes that do not fit, an array that is not contiguous, or a target outside 0 .. V.
    """

def attention_forward(qkv: _Array, z: _Array, lse: _Array, *, heads: int, threads: int) -> None:
    """Causal attention of `qkv` [B,T,3C] (queries, keys, values; each its heads side by side) into `z` [B,T,C].

    All arrays are contiguous float32. Heads of 4, 8 or 16 dimensions. The result does not depend on the number
    of threads.

    Args:
        lse: receives what `attention_backward` needs, [B,heads,T].

    Raises:
        InvalidArgument: sizes that do not fit, or another head width.
    """

def attention_backward(
    qkv: _Array, z: _Array, lse: _Array, dz: _Array, dqkv: _Array, *, heads: int, threads: int
) -> None:
    """The gradient `dqkv` [B,T,3C] for `dz` [B,T,C], from what `attention_forward` was given and gave.

    Raises:
        InvalidArgument: sizes that do not fit, or another head width.
    """
