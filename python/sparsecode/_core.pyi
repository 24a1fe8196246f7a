"""The native core (Rust). Arrays cross as objects with the buffer protocol: numpy views of CPU tensors, no copies."""

import sys
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Final, Self, TypeAlias, TypedDict, final, type_check_only

from numpy.typing import NDArray
from typing_extensions import Buffer

__all__ = [
    "INSTRUCTION_SETS",
    "Batch",
    "CpuEngine",
    "Dataset",
    "DatasetParts",
    "DatasetWriter",
    "FileLock",
    "Stream",
    "SweepView",
    "assign",
    "attention_backward",
    "attention_forward",
    "best_of_all",
    "cluster",
    "cpu_features",
    "cross_entropy",
    "dataset_damage",
    "kth_largest",
    "match_one_to_one",
    "nearest",
    "read_shard_header",
]

_Array: TypeAlias = Buffer | NDArray[Any]  # numpy's own types say so from Python 3.12 on

INSTRUCTION_SETS: Final[tuple[str, ...]]  # paths of the CPU engine by name, fastest first; a machine runs some of them

@type_check_only
class _CpuFeatures(TypedDict):
    simd: str  # avx512, avx2, neon or scalar
    avx512_bf16: bool
    avx512_vnni: bool
    avx_vnni: bool
    amx_bf16: bool

def cpu_features() -> _CpuFeatures:
    """The widest vector instruction set that the core has code for here, and which low-precision products there are."""

_Triple: TypeAlias = tuple[_Array, _Array, _Array]
_Sums: TypeAlias = tuple[list[float], list[float], list[float], list[float]]

@final
class SweepView:
    """A packed sweep's tensors, each with its two moments, and settings, as `CpuEngine` takes them.

    All contiguous float32, `fired` [N] int64; `W_enc` None where it is `W_dec`. They are kept alive, and changed in
    place with the GIL released: no other thread may touch them meanwhile.

    `kinds` has the settings of each dictionary, None where all are ReLU + L1. What only some kinds have is packed over
    these: theta, b_mag and rho. `since` [N] int64: rows trained on since each feature of a dictionary with AuxK fired.
    `threshold` [K] float32: BatchTopK's running threshold, NaN before the first. `annealing` [K, 5] float64: of
    p-annealing the coefficient, p, and the next p or NaN; where it is a number, a step writes the sums of z^p and of
    z^(next p) behind it.

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
        fired: _Array,
        idle: tuple[_Array, _Array] | None = None,
        kinds: list[dict[str, Any]] | None = None,
        theta: _Triple | None = None,
        b_mag: _Triple | None = None,
        rho: _Triple | None = None,
        since: _Array | None = None,
        threshold: _Array | None = None,
        annealing: _Array | None = None,
    ) -> Self: ...
    def wake(self) -> None:
        """Lets the moments of features that rest catch up."""

@final
class CpuEngine:
    """One training step of every dictionary of a sweep. `x` is [B,D], contiguous float32.

    Methods give lists over the dictionaries: squared error, sum of codes, active codes, codes that the screen let
    through, all summed over rows.

    Raises:
        InvalidArgument: a path that is unknown or cannot run here; shapes that do not fit.
    """

    @property
    def path(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def profile(self) -> dict[str, float]: ...
    def __new__(cls, path: str = "auto", threads: int = 1, codes: str = "measured") -> Self: ...
    @staticmethod
    def paths() -> list[str]:
        """Names of the paths of instructions that this machine can run, fastest first."""

    def step(self, sweep: SweepView, x: _Array, t: int, lr_scale: float, l1_factor: float) -> _Sums:
        """Updates everything; `t` is Adam's step number, from 1, the factors are those of the schedule."""

    def train(
        self,
        sweep: SweepView,
        stream: Stream,
        t: int,
        schedule: list[tuple[float, float]],
        sums: _Sums | None = None,
    ) -> tuple[int, _Sums, BaseException | None]:
        """A step on each of the stream's next batches, with (lr_scale, l1_factor) each: steps done, `sums` and theirs,
        and what stopped them early.
        """

    def evaluate(self, sweep: SweepView, x: _Array) -> _Sums:
        """Adds to the fired counts and changes nothing else."""

    def gradients(
        self,
        sweep: SweepView,
        x: _Array,
        W_enc: _Array | None,
        b_enc: _Array,
        W_dec: _Array,
        b_dec: _Array | None,
        theta: _Array | None = None,
        b_mag: _Array | None = None,
        rho: _Array | None = None,
    ) -> _Sums:
        """Writes the gradients, before projection, and changes nothing else."""

def kth_largest(x: _Array, W_enc: _Array, k: int, *, out: _Array, path: str = "auto", threads: int = 1) -> None:
    """Writes to `out` [F] the k-th largest (from 1) of the products of each row of `W_enc` [F,D] with all of `x` [R,D].

    Contiguous float32. The bits are those of the engine's own products, on every path and for any number of threads.

    Raises:
        InvalidArgument: shapes that do not fit, or no k-th row.
    """

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

class _Matched(TypedDict):
    rounds: int
    candidates: int
    bound: float
    seconds: list[float]

def assign(
    starts: Sequence[int], columns: Sequence[int], weights: Sequence[int], width: int
) -> tuple[list[int], list[int], list[int]]:
    """The heaviest matching of a sparse bipartite graph, and its dual variables: (column of each row or -1, u, v).

    u[i] + v[j] >= w for every edge, both never below 0 and 0 for what is not matched; the sum of both is the weight.

    Args:
        starts: [n + 1] the edges of row i are those from starts[i] to starts[i + 1].
        columns: column of each edge, below `width`.
        weights: weight of each edge, from 1 to 2^43 - 1.

    Raises:
        InvalidArgument: this is not a graph.
    """

def best_of_all(
    atoms: _Array,
    sizes: Sequence[int],
    live: _Array | None,
    cosine: _Array,
    index: _Array,
    live_cosine: _Array | None,
    *,
    absolute: bool,
    path: str,
    threads: int,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Each atom's nearest atom in every one of K dictionaries; exact, and the same bits on every path and any threads.

    Args:
        atoms: [N, d] float32 unit rows, dictionary after dictionary.
        sizes: [K] atoms of each dictionary, which add up to N.
        live: [N] uint8, which atoms are live; None: not told apart.
        cosine: [K, N] float32, receives the cosine of atom i of all with its nearest in dictionary j; 1 in its own.
        index: [K, N] int32, receives the index of that atom within dictionary j, the lowest of equal ones.
        live_cosine: [K, N] float32, receives the cosine with the nearest live atom, -inf without one; with `live`.
        absolute: whether the sign of a cosine does not count.
        path: instructions, one of `CpuEngine.paths()`, or auto.
        threads: how many.
        advance: called on this thread now and then with the pairs compared since the last call.

    Raises:
        InvalidArgument: arrays that do not fit, or rows that are not of norm 1.
    """

def cluster(
    atoms: _Array,
    sizes: Sequence[int],
    pairs: tuple[_Array, _Array],
    cosine: _Array,
    links: tuple[_Array, _Array],
    live: _Array,
    label: _Array,
    votes: _Array,
    sign: _Array,
    closeness: _Array,
    *,
    threshold: float,
    absolute: bool,
) -> None:
    """Clusters of features of several dictionaries, at most one of each; the same bits everywhere (docs/consensus.md).

    Args:
        atoms: [N, d] float32 unit rows, dictionary after dictionary.
        sizes: [K] atoms of each dictionary.
        pairs: two of [P] int32, atoms that are each other's nearest.
        cosine: [P] float32, of these.
        links: two of [L] int32, other near atoms.
        live: [N] uint8, which atoms may be in a cluster.
        label: [N] int32, receives the number of an atom's cluster; -1 where it is not live.
        votes: [N] uint8, receives 0 for a second atom of the same dictionary, else 1.
        sign: [N] int8, receives -1 for an atom that points away from its cluster's first one, else 1.
        closeness: [N] float64, receives the sum of an atom's cosines with all members, itself included.
        threshold: cosine with the centre that every member exceeds.
        absolute: whether the sign of a cosine does not count.

    Raises:
        InvalidArgument: arrays that do not fit.
    """

def match_one_to_one(
    a: _Array,
    b: _Array,
    partner: _Array,
    cosine: _Array,
    *,
    candidates: int,
    absolute: bool,
    path: str,
    threads: int,
    advance: Callable[[int], None] | None = None,
) -> _Matched:
    """The matching of unit rows a [n, d] and b [m, d] with the largest sum of cosines, proved optimal.

    Args:
        partner: [n] int32, receives the row of b or -1.
        cosine: [n] float32, receives the cosine or NaN.
        candidates: nearest rows of each row that the first assignment is solved on.

    Raises:
        InvalidArgument: arrays that do not fit, or rows that are not of norm 1.
    """

def nearest(
    a: _Array,
    b: _Array,
    of_a: tuple[_Array, _Array],
    of_b: tuple[_Array, _Array],
    *,
    absolute: bool,
    path: str,
    threads: int,
    advance: Callable[[int], None] | None = None,
) -> None:
    """The nearest rows of b [m, d] of each row of a [n, d], and vice versa, best first.

    Args:
        of_a: cosines [n, min(k, m)] float32 and indices of the same shape, int32, to be filled.
        of_b: cosines [m, min(k, n)] and indices.

    Raises:
        InvalidArgument: arrays that do not fit, or rows that are not of norm 1.
    """

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

# The activation store; `sparsecode.store` documents what these take and raise. Arrays are uint8 views.

@final
class DatasetWriter:
    """The only writer of a dataset."""

    def __new__(
        cls,
        path: str | PathLike[str],
        activation_dim: int,
        dtype: str,
        contexts: bool,
        provenance: str,
        shard_bytes: int,
        non_finite: str,
        durable: bool,
        threads: int,
        direct: bool,
    ) -> Self: ...
    @property
    def rows(self) -> int:
        """Rows in complete shards."""

    @property
    def consumed(self) -> int:
        """Rows appended up to the end of the last complete shard, dropped ones included."""

    def append(self, activations: object, dtype: str, tokens: object, contexts: object) -> None:
        """Appends rows of `dtype` (bytes) with their tokens and numbers of contexts (bytes of int32)."""

    def note_left_out(self, counts: dict[str, int]) -> None:
        """Notes rows that were left out, by the reason."""

    def count_dropped(self, rows: int) -> None:
        """Counts rows that were dropped before they came here."""

    def finish(self) -> None:
        """Completes the dataset."""

    def close(self) -> None:
        """Leaves it as it is."""

@final
class DatasetParts:
    """A dataset whose shards are made apart, by several processes."""

    def __new__(
        cls,
        path: str | PathLike[str],
        activation_dim: int,
        dtype: str,
        contexts: bool,
        provenance: str,
        shard_bytes: int,
        shard_rows: int | None,
        durable: bool,
        threads: int,
        direct: bool,
    ) -> Self: ...
    @property
    def shard_rows(self) -> int:
        """Rows of every shard but the last."""

    def there(self) -> tuple[dict[int, int], bool]:
        """The rows of every shard that is there, by its place, and whether these are all."""

    def writer(self, place: int) -> DatasetWriter:
        """The writer of one shard."""

    def gather(self, shards: int, left_out: dict[str, int]) -> bool:
        """Lists the shards that are there; whether they are all, and the dataset is complete."""

@final
class Dataset:
    """A dataset open for reading."""

    def __new__(cls, path: str | PathLike[str], access: str, verify: str) -> Self: ...
    @property
    def rows(self) -> int:
        """Rows in all shards."""

    @property
    def activation_dim(self) -> int:
        """Values per row."""

    @property
    def dtype(self) -> str:
        """Type on disk."""

    @property
    def complete(self) -> bool:
        """Whether its writer finished it."""

    @property
    def provenance(self) -> str:
        """JSON object, as text."""

    @property
    def fingerprint(self) -> str:
        """Digest of rows and provenance."""

    @property
    def mean(self) -> list[float]:
        """Mean of each dimension."""

    @property
    def spread(self) -> tuple[float, float, int]:
        """(rms, variance, rows dropped)."""

    @property
    def shards(self) -> list[tuple[str, int, int, str]]:
        """(file, rows, bytes, digest) of each."""

    @property
    def left_out(self) -> dict[str, int]:
        """Rows that were left out, by the reason."""

    @property
    def has_contexts(self) -> bool:
        """Whether the shards say the context of each row."""

    @property
    def shard_rows(self) -> int:
        """Rows of a full shard."""

    @property
    def block_rows(self) -> int:
        """Rows of a full block."""

    def read_into(self, start: int, stop: int, out: object, raw: bool) -> None:
        """Reads rows as float32, or as stored."""

    def tokens_into(self, start: int, stop: int, out: object) -> None:
        """Reads tokens as int32."""

    def contexts_into(self, rows: object, out: object) -> None:
        """Reads the numbers of the contexts (int32) of rows (int64)."""

    def bad_shards(self, threads: int) -> list[tuple[str, str]]:
        """(file, what is wrong) of each damaged shard."""

@final
class Stream:
    """An endless sequence of batches."""

    def __new__(
        cls,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        start_row: int,
        stop_row: int,
        position: int,
        window_bytes: int | None,
        raw: bool,
        mean: list[float] | None,
        scale: float,
        threads: int,
        prefetch: int,
        rank: int,
        world_size: int,
    ) -> Self: ...
    @property
    def position(self) -> int:
        """Where the next round starts."""

    def next(self) -> Batch:
        """The next batch."""

    def next_into(self, out: object) -> None:
        """Writes the next batch into float32 memory."""

    def close(self) -> None:
        """Ends the threads."""

@final
class Batch:
    """Memory of one batch, lent through the buffer protocol."""

    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

def dataset_damage(path: str | PathLike[str], threads: int) -> list[tuple[str, str]]:
    """(file, what is wrong) of each shard that cannot be opened or does not fit its digests."""

def read_shard_header(path: str | PathLike[str]) -> tuple[int, int, str]:
    """Checks the header of a shard by itself: (rows, activation_dim, dtype)."""
