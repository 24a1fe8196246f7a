"""Memory of a sweep that trains on the CPU: what its process holds, beside parameters and moments.

The row's time is that of a few steps in a process of its own; what counts is in its extra info, in MB: `peak_dense` and
`peak_sparse`, by how much the process grew while half of all codes were active and later, `parameters_and_moments`,
`engine` (its buffers at the end) and `batch_times_features`, what one matrix of all codes would take.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

SIZES = [64, 128, 256, 512, 1024, 2048, 4096]
BATCH = 4096
PEAK = Path("/proc/self/clear_refs")  # writing 5 forgets the peak: Linux


def grow(repeats: int) -> dict[str, float]:
    """Trains in this process; MB by name."""
    import torch

    from sparsecode.sweep import Sweep
    from sparsecode.sweep.engines.cpu import CpuEngine

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    x = torch.randn(BATCH, 128, generator=torch.Generator().manual_seed(0))
    before = status("VmRSS")
    K = len(SIZES) * repeats
    sweep = Sweep(128, SIZES * repeats, [0.03] * K, list(range(K)))
    engine = CpuEngine(threads=2)
    PEAK.write_text("5")
    for _ in range(3):
        engine.step(sweep, x, 1e-6)
    dense = status("VmHWM") - before
    sweep.b_enc -= 2.5
    engine.step(sweep, x, 1e-6)
    PEAK.write_text("5")
    for _ in range(3):
        stats = engine.step(sweep, x, 1e-6)
    assert stats.l0.max() < 100 * BATCH
    trained = sum(t.nbytes for name, pair in sweep.moments.items() for t in (*pair, sweep.parameters()[name]))
    return {
        "peak_dense": dense,
        "peak_sparse": status("VmHWM") - before,
        "parameters_and_moments": trained / 2**20,
        "engine": engine.bytes / 2**20,
        "batch_times_features": BATCH * sweep.total * 4 / 2**20,
    }


@pytest.mark.skipif(not PEAK.exists(), reason="the peak of a process's memory is read from /proc")
@pytest.mark.benchmark(group="engine: memory, D = 128, B = 4096")
@pytest.mark.parametrize("repeats", [1, 8], ids=["N = 8,128", "N = 65,024"])
def test_memory(benchmark: BenchmarkFixture, repeats: int) -> None:
    def run() -> None:
        child = [sys.executable, __file__, str(repeats)]
        found = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
        benchmark.extra_info.update({name: round(mb, 1) for name, mb in found.items()})
        # Never a matrix of all codes; a few MB for the allocator and the batch.
        assert max(found["peak_dense"], found["peak_sparse"]) < found["parameters_and_moments"] + 100

    benchmark.pedantic(run, rounds=1)


if __name__ == "__main__":
    print(json.dumps(grow(int(sys.argv[1]))))
