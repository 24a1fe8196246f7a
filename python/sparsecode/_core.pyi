"""The native core (Rust). Arrays cross as objects with the buffer protocol: numpy views of CPU tensors, no copies."""

from os import PathLike
from typing import Self, TypedDict, final, type_check_only

from typing_extensions import Buffer

__all__ = [
    "CpuEngine",
    "FileLock",
    "SweepView",
    "cpu_features",
    "cross_entropy",
]

@type_check_only
class _CpuFeatures(TypedDict):
    simd: str  # avx512, avx2, neon or scalar
    avx512_bf16: bool
    avx512_vnni: bool
    amx_bf16: bool

def cpu_features() -> _CpuFeatures:
    """The widest vector instruction set that the core has code for here, and which low-precision products there are."""

type _Triple = tuple[Buffer, Buffer, Buffer]
type _Sums = tuple[list[float], list[float], list[float], list[float]]

@final
class SweepView:
    """A packed sweep's tensors, each with its two moments, and settings, as `CpuEngine` takes them.

    All contiguous float32, `fired` [N] int64; `W_enc` None where it is `W_dec`. They are kept alive, and changed in
    place with the GIL released: no other thread may touch them meanwhile.

    Raises:
        InvalidArgument: a tensor that is not contiguous, read-only, or shares memory with another.
    """

    def __new__(
        cls,
        activation_dim: int,
        sizes: list[int],
        l1: list[float],
        lr: list[float],
        *,
        mean: bool,
        per_size: bool,
        project: bool,
        W_enc: _Triple | None,
        b_enc: _Triple,
        W_dec: _Triple,
        b_dec: _Triple | None,
        fired: Buffer,
    ) -> Self: ...

@final
class CpuEngine:
    """One training step of every dictionary of a sweep. `x` is [B,D], contiguous float32.

    Methods give lists over the dictionaries: squared error, sum of codes, active codes, codes that the screen let
    through, all summed over rows.

    Raises:
        InvalidArgument: a path that is unknown or cannot run here; shapes that do not fit.
    """

    path: str
    threads: int
    bytes: int
    profile: dict[str, float]
    def __new__(cls, path: str = "auto", threads: int = 1, codes: str = "measured") -> Self: ...
    @staticmethod
    def paths() -> list[str]:
        """Names of the paths of instructions that this machine can run, fastest first."""

    def step(self, sweep: SweepView, x: Buffer, t: int, lr_scale: float) -> _Sums:
        """Updates everything; `t` is Adam's step number, from 1."""

    def evaluate(self, sweep: SweepView, x: Buffer) -> _Sums:
        """Adds to the fired counts and changes nothing else."""

    def gradients(
        self,
        sweep: SweepView,
        x: Buffer,
        W_enc: Buffer | None,
        b_enc: Buffer,
        W_dec: Buffer,
        b_dec: Buffer | None,
    ) -> _Sums:
        """Writes the gradients, before projection, and changes nothing else."""

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
    h: Buffer,
    weight: Buffer,
    targets: Buffer,
    *,
    dh: Buffer | None = None,
    dweight: Buffer | None = None,
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
