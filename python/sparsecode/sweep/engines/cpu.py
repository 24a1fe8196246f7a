"""The CPU engine: the Rust core on numpy views of a sweep's tensors. `docs/engine.md` explains how it works.

Every path of instructions gives the same bits, for any number of threads, and for a dictionary alone or in a sweep.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.errors import InvalidArgument, InvalidSetting
from sparsecode.machine import cores
from sparsecode.sweep.engines.protocol import CPU_PATHS, Engine, StepStats
from sparsecode.sweep.kinds.spec import KindSpec
from sparsecode.sweep.sweep import Sweep


class CpuEngine(Engine):
    """Trains on the CPU: float32, exact codes, work only where codes are not zero.

    Sweeps must be contiguous float32 on the CPU. No other thread may touch a sweep while the engine works on it: the
    GIL is released.

    Args:
        device: the CPU.
        threads: threads; None: all cores.
        path: instructions, one of `CPU_PATHS`; `auto`: what SPARSECODE_ENGINE names, else the fastest here.
        codes: between the phases as `lists` of those that are active, as `dense` matrices, or `measured`: dense while
            more than a quarter were active in the batch before.
        rest: whether features that have stopped firing, and would not change, are left out of steps until they fire
            again. The bits are the same.

    Attributes:
        path: the name of the path in use.
        candidates: [K] float64, of the last batch: codes that the screen let through, of which `l0` were active.

    Raises:
        InvalidSetting: not the CPU, or a path that is unknown or cannot run here.
    """

    name = "cpu"
    transcodes = True

    @staticmethod
    def trains(kind: KindSpec) -> bool:
        """See `Engine.trains`: every kind."""
        del kind
        return True

    def __init__(
        self,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        path: str = "auto",
        codes: str = "measured",
        rest: bool = True,
    ) -> None:
        self.device = torch.device(device)
        if self.device.type != "cpu":
            raise InvalidSetting(f"engine 'cpu' cannot work on {self.device}", remedy="device_cpu")
        asked = os.environ.get("SPARSECODE_ENGINE", "")
        if path == "auto" and asked in CPU_PATHS:
            path = asked
        try:
            self._core = _core.CpuEngine(path, threads or cores(), codes)
        except InvalidArgument as error:
            raise InvalidSetting(str(error)) from error
        self.path = self._core.path
        self.candidates = torch.zeros(0, dtype=torch.float64)
        self._rest = rest
        self._view: _View | None = None

    @property
    def bytes(self) -> int:
        """Memory held beside the sweep: O(B (D + L0)), and the packed encoder of the largest dictionary."""
        return self._core.bytes

    @property
    def profile(self) -> dict[str, float]:
        """Seconds since the engine was made: batch, pack, rows, features; of rows, summed over threads: screen,
        encode and decode.
        """
        return self._core.profile

    @torch.no_grad()
    def step(self, sweep: Sweep, x: Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
        """See `Engine.step`."""
        view = self._prepare(sweep, x)
        view.anneal(sweep)
        with self.constrained(sweep):
            sums = self._core.step(view.core, _array(x), sweep.step + 1, lr_scale, l1_factor)
            view.follow(sweep)
            sweep.step += 1
            sweep.confine()
        return self._stats(sweep, x, sums)

    @torch.no_grad()
    def gradients(self, sweep: Sweep, x: Tensor) -> tuple[StepStats, dict[str, Tensor]]:
        """See `Engine.gradients`."""
        view = self._prepare(sweep, x)
        view.anneal(sweep)
        found = {name: torch.empty_like(value) for name, value in sweep.parameters().items()}
        buffers: dict[str, Any] = {name: found[name].numpy() if name in found else None for name in _PARAMETERS}
        sums = self._core.gradients(view.core, _array(x), **buffers)
        sweep.confine_each(found)
        return self._stats(sweep, x, sums), found

    @torch.no_grad()
    def evaluate(self, sweep: Sweep, x: Tensor) -> StepStats:
        """See `Engine.evaluate`."""
        return self._stats(sweep, x, self._core.evaluate(self._prepare(sweep, x).core, _array(x)))

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Engine.feed`."""
        return iter(batches)

    def train(
        self,
        sweep: Sweep,
        batches: Iterator[Tensor],
        schedule: Sequence[tuple[float, float]],
        sums: StepStats | None = None,
    ) -> StepStats:
        """See `Engine.train`; the core reads a stream of stored activations itself, without Python in between, unless
        something is to be kept from step to step.

        Ctrl-C ends it after the step that has begun.

        Raises:
            SparsecodeError: what the stream fails with, too.
        """
        kept = sweep.inputs is not None or sweep.loss.frozen or sweep.loss.aligned
        if not hasattr(batches, "native") or kept:
            return super().train(sweep, batches, schedule, sums)
        stream: Any = batches
        view = self._prepare(sweep)
        before = sums or StepStats.zeros(len(sweep))
        factors = [(float(lr_scale), float(l1_factor)) for lr_scale, l1_factor in schedule]
        found: Any = (*(part.tolist() for part in (before.sse, before.l1, before.l0)), [0.0] * len(sweep))
        done = 0
        for part in _alike(sweep, len(factors)):
            view.anneal(sweep)
            steps, found, stopped = self._core.train(
                view.core, stream.native, sweep.step + 1, factors[done : done + part], found
            )
            if steps:
                view.follow(sweep)
            sweep.step += steps
            done += steps
            if stopped is not None:
                raise stopped
            if steps < part:
                break
        return self._sums(before.rows + done * stream.batch_size, found)

    def reading_threads(self, threads: int | None) -> int | None:
        """See `Engine.reading_threads`.

        One is enough beside an engine that keeps every core busy: it gathers a batch in a quarter of a millisecond, a
        step takes 15, and more of them would take turns with the engine's own threads.
        """
        return max(1, (threads or cores()) // 8)

    def _prepare(self, sweep: Sweep, x: Tensor | None = None) -> _View:
        if x is not None:
            sweep.check_batch(x)
        if self._view is None or self._view is not sweep.resting or not self._rest:
            sweep.settle()
        key = _key(sweep)
        if self._view is None or self._view.key != key:
            sweep.settle()  # what rests, rests as the sweep was
            self._view = _View(key, sweep, self._rest)
        if self._rest:
            sweep.resting = self._view
        return self._view

    def _stats(self, sweep: Sweep, x: Tensor, sums: Sequence[Sequence[float]]) -> StepStats:
        stats = self._sums(x.shape[0], sums)
        if sweep.inputs is not None:  # no atom lies in what is read: it is left as it was
            stats.sse -= x[:, sweep.read].double().square().sum()
        return stats

    def _sums(self, rows: int, sums: Sequence[Sequence[float]]) -> StepStats:
        sse, l1, l0, self.candidates = (torch.tensor(values, dtype=torch.float64) for values in sums)
        return StepStats(rows, sse, l1, l0)


def _array(x: Tensor) -> Any:
    return x.detach().contiguous().numpy()


def _alike(sweep: Sweep, steps: int) -> Iterator[int]:
    """Cuts steps into runs that the core does by itself: within one, p-annealing wants no sums and changes nothing."""
    annealing = [one for one in sweep.state.annealing if one is not None]
    if not annealing:
        return iter([steps] if steps else [])

    def alike(step: int) -> tuple[int, ...]:
        alone = any(one.wants(step) for one in annealing)
        return (step if alone else -1, *(one.changed_by(step) for one in annealing))

    return (len(list(run)) for _, run in groupby(range(sweep.step, sweep.step + steps), alike))


_PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec", "theta", "b_mag", "rho")


class _View:
    """A sweep as the core sees it, valid while its tensors and settings are those of `key`.

    Attributes:
        core: what the core works on.
        annealing: [K, 5] float64, of p-annealing: coefficient, p, next p or NaN, sums of z^p and z^(next p).
        lag: see `Resting`.
        rest_rates: [K] float32, the learning rate up to which resting features stand still.
    """

    def __init__(self, key: tuple[Any, ...], sweep: Sweep, rest: bool) -> None:
        tensors = _tensors(sweep)
        for name, triple in tensors.items():
            for tensor in triple:
                if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
                    raise InvalidArgument(
                        f"engine 'cpu' needs contiguous float32 on the CPU; {name} or a moment of it is "
                        f"{tensor.dtype} on {tensor.device}"
                    )
        self.key = key
        self.lag = torch.zeros(sweep.total, dtype=torch.int32)
        self.rest_rates = torch.zeros(len(sweep), dtype=torch.float32)
        parts: dict[str, Any] = {
            name: tuple(part.detach().numpy() for part in tensors[name]) if name in tensors else None
            for name in _PARAMETERS
        }
        self.annealing = torch.zeros(len(sweep), 5, dtype=torch.float64)
        kinds = None if all(kind.plain for kind in sweep.kinds) else [_settings(sweep, k) for k in range(len(sweep))]
        more: dict[str, Any] = {
            name: value.numpy() for name, value in sweep.state.tensors().items() if name != "annealed"
        }
        self.core = _core.SweepView(
            sweep.activation_dim,
            sweep.sizes,
            [sweep.scaled(k).l1 or 0.0 for k in range(len(sweep))],
            sweep.lr,
            mean=sweep.loss.mse == "mean",
            per_size=sweep.loss.l1_scale == "per-size",
            project=sweep.loss.project_gradient,
            fired=sweep.fired.numpy(),
            idle=(self.lag.numpy(), self.rest_rates.numpy()) if rest else None,
            kinds=kinds,
            annealing=self.annealing.numpy(),
            **parts,
            **more,
        )

    def anneal(self, sweep: Sweep) -> None:
        """Says where p-annealing stands at the step to come."""
        for k, kind in enumerate(sweep.kinds):
            if kind.anneals:
                plan, wanted = sweep.state.annealing[k], math.nan
                if plan is not None and plan.wants(sweep.step):
                    wanted = plan.exponents(sweep.step)[1]
                values = [sweep.state.strength(k).strength, sweep.state.exponent(k, sweep.step), wanted, 0.0, 0.0]
                self.annealing[k] = torch.tensor(values, dtype=torch.float64)

    def follow(self, sweep: Sweep) -> None:
        """Moves p-annealing by the sums of the step that was done."""
        for k, plan in enumerate(sweep.state.annealing):
            if plan is not None and plan.wants(sweep.step):
                sweep.state.anneal(k, sweep.step, *self.annealing[k, 3:].tolist())

    def wake(self) -> None:
        """Lets the moments of resting features catch up."""
        if bool(self.lag.any()):
            self.core.wake()


def _tensors(sweep: Sweep) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    moments = sweep.stored_moments
    return {name: (value, *moments[name]) for name, value in sweep.parameters().items()}


def _settings(sweep: Sweep, k: int) -> dict[str, Any]:
    """The kind of dictionary k as the core takes it."""
    kind, size = sweep.scaled(k), sweep.sizes[k]
    found: dict[str, Any] = {"name": "batchtopk" if kind.name == "matryoshka" else kind.name}
    if kind.k is not None:
        found["k"] = int(kind.k) if kind.name == "topk" else kind.k
    if kind.name == "jumprelu":
        own = {"step": (), "target": ("l0",), "quadratic": ("l0",), "tanh": ("steepness",)}[kind.penalty or "step"]
        names = ("strength", "penalty", "window", "to_input", "pre_activation", *own)
        found |= {name: getattr(kind, name) for name in names}
    if kind.groups:
        found["groups"] = list(kind.ends(size))
    if kind.aux:
        aux_k = kind.aux_k or max(1, sweep.activation_dim // 2)
        found |= {"aux": kind.aux, "aux_k": aux_k, "dead_after": kind.dead_after}
    return found


def _key(sweep: Sweep) -> tuple[Any, ...]:
    # The versions tell that torch has written to a tensor.
    places = [(tensor.data_ptr(), tensor._version) for triple in _tensors(sweep).values() for tensor in triple]
    places += [(tensor.data_ptr(), 0) for tensor in sweep.state.tensors().values()]
    return (
        *places,
        sweep.fired.data_ptr(),
        *sweep.sizes,
        *sweep.kinds,
        *sweep.lr,
        sweep.loss,
        sweep.activation_dim,
        sweep.inputs,
    )
