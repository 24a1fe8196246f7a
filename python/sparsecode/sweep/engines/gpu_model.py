"""A paper model of the GPU engine's speed: data sheets and the compiler's output, no measurement. Good to about 40 %.

It decides what is dispatched where no one has measured, and `sparsecode doctor --gpu` prints it beside what it
measures. Imports neither torch nor Triton.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, L0 active
features per row and dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A GPU's data sheet.

    Attributes:
        units: multiprocessors (compute units).
        clock: boost clock in GHz.
        tensor: dense 16-bit peak with float32 accumulators, TFLOP/s.
        memory: bandwidth in TB/s.
        cache: bandwidth of the second-level cache in TB/s, as microbenchmarks report it (no vendor gives it).
    """

    name: str
    arch: str
    units: int
    clock: float
    tensor: float
    memory: float
    cache: float


DEVICES = (
    Device("A100 SXM 80 GB", "sm_80", 108, 1.41, 312, 2.04, 4.0),
    Device("H100 SXM", "sm_90", 132, 1.83, 989, 3.35, 5.5),
    Device("B200", "sm_100", 148, 1.85, 2250, 8.0, 10.0),
    Device("MI300X", "gfx942", 304, 2.1, 1307, 5.3, 11.0),
)

# (architecture, D) -> static bounds of the forward and the backward kernel, from the gate table of docs/kernels.md.
BOUNDS = {
    ("sm_80", 32): (0.9, 0.8),
    ("sm_80", 64): (1.0, 0.84),
    ("sm_80", 128): (0.79, 0.61),
    ("sm_80", 256): (0.49, 0.6),
    ("sm_90", 32): (0.55, 0.68),
    ("sm_90", 64): (0.84, 1.0),
    ("sm_90", 128): (1.0, 1.0),
    ("sm_90", 256): (1.0, 1.0),
    ("sm_100", 32): (0.24, 0.18),
    ("sm_100", 64): (0.35, 0.36),
    ("sm_100", 128): (0.67, 0.68),
    ("sm_100", 256): (0.89, 0.75),
    ("gfx942", 32): (0.29, 0.74),
    ("gfx942", 64): (0.57, 1.0),
    ("gfx942", 128): (1.0, 1.0),
    ("gfx942", 256): (1.0, 0.63),
}

# Instructions per code of a loop that encodes and appends what is active to lists (bias, comparison, prefix sum of the
# tile, addresses, masked stores), counted in the machine code of such a Triton kernel at D = 64 and 128, tile 128 x 64,
# 8 warps; the encode alone takes 8 to 11. Without votes or atomics the prefix sum is what costs.
SELECT = {"sm_80": 45, "sm_90": 56, "sm_100": 53, "gfx942": 22}
LANES = {"sm_80": 128, "sm_90": 128, "sm_100": 128, "gfx942": 64}  # per multiprocessor and cycle

TIE = 1.1  # a tie goes to the fused kernels: they need no memory for codes
SUSTAINED = 0.5  # share of its static bound that a fused Triton kernel reaches: waits, tails, clocks under load
LIBRARY = 0.7  # share of peak that the vendor's matrix products reach at these shapes
UNALIGNED = 2  # D no multiple of 16: the compiler gives up asynchronous copies, and the bounds fall by half (D = 100)
STREAMED = 0.85  # share of the memory's bandwidth that a streaming kernel reaches
GATHERED = 0.5  # share of the cache's bandwidth that gathered rows reach
LAUNCH = 7e-6  # seconds of host time per kernel of torch
TRITON_LAUNCH = 20e-6  # seconds of host time per Triton launch with twenty arguments
ADAM_BYTES = 2 * 30  # per feature and dimension, two matrices: read g w m v, write w m v and 16-bit w
EAGER_ADAM_BYTES = 2 * 48  # torch's fused Adam, then norms, division and casts of their own


@dataclass(frozen=True)
class Prediction:
    """Milliseconds of one training step, by way of computing it.

    Attributes:
        fused: the fused kernels; None above D = 256.
        products: five matrix products per dictionary, hand-written, with the extra columns of gemm.py.
        eager: torch autograd, one dictionary after the other, with fused Adam.
        sparse: a dense encode to compact lists, then gathered rows; not implemented.
    """

    fused: float | None
    products: float
    eager: float
    sparse: float

    @property
    def prefers_fused(self) -> bool:
        """Whether the GPU engine runs the fused kernels."""
        return self.fused is not None and self.fused <= TIE * self.products

    @property
    def engine(self) -> float:
        """What the GPU engine takes."""
        return self.fused if self.fused is not None and self.prefers_fused else self.products


def prefers_fused(arch: str, D: int, sizes: Sequence[int], batch: int) -> bool:
    """Whether the model gives the fused kernels the step on an architecture, by its data-centre device."""
    device = next(device for device in DEVICES if device.arch == arch)
    return predict(device, D, sizes, batch).prefers_fused


def device_named(name: str, arch: str) -> Device | None:
    """The data sheet of a device by the name its driver gives, or None."""
    for device in DEVICES:
        if device.name.split()[0] in name and device.arch == arch:
            return device
    return None


def predict(device: Device, D: int, sizes: Sequence[int], batch: int, *, l0: float = 20) -> Prediction:
    """The model of one step at these shapes, with 16-bit operands.

    Args:
        sizes: of the dictionaries.
        batch: B.
        l0: active features per row and dictionary; matters to the sparse path only.
    """
    N, K = sum(sizes), len(sizes)
    product = 2 * batch * N * D / (device.tensor * 1e12)  # one of the matrix products at peak
    codes = 2 * batch * N / (device.memory * 1e12 * STREAMED)  # one pass over 16-bit codes [B, N]
    parameters = N * D / (device.memory * 1e12 * STREAMED)
    adam = parameters * ADAM_BYTES

    one = max(product / LIBRARY, codes)
    products = max(5 * one + 3 * codes + adam, 20 * K * LAUNCH)
    eager = max(5 * one + 9 * codes + parameters * EAGER_ADAM_BYTES, 45 * K * LAUNCH)
    return Prediction(
        1e3 * fused if (fused := _fused(device, D, product, adam)) is not None else None,
        1e3 * products,
        1e3 * eager,
        1e3 * _sparse(device, D, N, K, batch, l0, product, adam),
    )


def _fused(device: Device, D: int, product: float, adam: float) -> float | None:
    width = next((width for width in (32, 64, 128, 256) if width >= D), None)
    if width is None:
        return None
    forward, backward = BOUNDS[device.arch, width]
    padding = width / D
    # Encode and decode; then the codes again, two products of gradients and one of dz. At 256 the codes come twice.
    work = 2 / forward + (5 if width == 256 else 4) / backward
    if D % 16:
        work *= UNALIGNED
    return max(product * padding * work / SUSTAINED + adam, 7 * TRITON_LAUNCH)


def _sparse(device: Device, D: int, N: int, K: int, batch: int, l0: float, product: float, adam: float) -> float:
    """Encode on tensor cores, keep what is active as lists, then the CPU engine's rows and features phases."""
    width = next((width for width in (32, 64, 128, 256) if width >= D), 256)
    encode = product / (BOUNDS[device.arch, width][0] * SUSTAINED)
    select = SELECT[device.arch] * batch * N / (device.units * LANES[device.arch] * device.clock * 1e9)
    active = batch * K * l0
    lists = 6 * 8 * active / (device.memory * 1e12 * STREAMED)  # written, counted, sorted by feature, read twice
    # Rows: each active atom for x_hat, and again for dz once r is known. Features: the rows of x and of r.
    gathered = 4 * active * D * 2 / (device.cache * 1e12 * GATHERED)
    return max(max(encode, select) + lists + gathered + adam, 12 * TRITON_LAUNCH)
