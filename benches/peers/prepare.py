"""What both comparisons share: a stream of activations, and sweeps trained until they are sparse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsecode.checkpoint import load_tensors, save_tensors
from sparsecode.store import ActivationStream, Dataset
from sparsecode.sweep import LossSettings, Start, Sweep, begin
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.kinds import parse_kinds
from sparsecode.sweep.start import SAMPLE_ROWS

BATCH = 4096
LR = 3e-3
WARMUP = 200


def sizes(text: str) -> list[int]:
    """The sizes of `64,128`."""
    return [int(size) for size in text.split(",")]


def stream_of(path: Path, batch: int = BATCH) -> ActivationStream:
    """Batches of a dataset, divided by its root mean square."""
    dataset = Dataset(path)
    return ActivationStream(dataset, batch_size=batch, scale=dataset.statistics["rms"])


def scales(first: int, last: int) -> list[float]:
    """Factors of the learning rate of steps `first` to `last`, counted from 0: a linear warm-up."""
    return [min(1.0, (step + 1) / WARMUP) for step in range(first, last)]


def sparse_sweep(path: Path, wanted: list[int], l1: float, state: Path | None, most: int = 4000) -> tuple[Sweep, float]:
    """A sweep trained until the L0 of every dictionary is below 20, and the largest; kept in `state`, if given."""
    dataset = Dataset(path)
    sweep = Sweep(dataset.activation_dim, wanted, [l1] * len(wanted), [0] * len(wanted), LR)
    if state is not None and state.exists():
        tensors, about = load_tensors(state)
        sweep.load_state_dict(tensors)
        return sweep, float(about["l0_max"])
    engine: Any = choose_engine("cpu", "cpu")
    largest = float("inf")
    with stream_of(path) as stream:
        while largest >= 20 and sweep.step < most:
            stats = engine.train(sweep, stream, scales(sweep.step, sweep.step + 100))
            stats = engine.step(sweep, next(stream), 1.0)
            largest = float((stats.l0 / stats.rows).max())
    if largest >= 20:
        raise SystemExit(f"after {sweep.step} steps the largest L0 is {largest:.1f}, not below 20: raise --l1")
    if state is not None:
        save_tensors(state, sweep.state_dict(), {"l0_max": largest})
    return sweep, largest


def kind_sweep(path: Path, wanted: list[int], text: str, steps: int) -> Sweep:
    """A sweep of one kind after its last step, with a pre-bias and the squared error summed over dimensions."""
    (kind,) = parse_kinds(text)
    count = len(wanted)
    with stream_of(path, SAMPLE_ROWS) as first:
        sample = next(first).clone()
    loss = LossSettings(mse="sum", pre_bias=True)
    sweep = Sweep(sample.shape[1], wanted, [kind] * count, [0] * count, LR, loss)
    begin(sweep, Start(), sample)
    sweep.state.plan(steps)
    engine: Any = choose_engine("cpu", "cpu")
    with stream_of(path) as stream:
        engine.train(sweep, stream, [(scale, 1.0) for scale in scales(0, steps)])
    return sweep
