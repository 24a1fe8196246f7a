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

_WIDTHS = (32, 64, 128, 256)
# (architecture, D) -> static bounds of the forward and the backward kernel, from the gate table of docs/kernels.md.
BOUNDS = {
    (arch, D): pair
    for arch, pairs in {
        "sm_80": ((1.0, 0.8), (1.0, 0.84), (0.79, 0.61), (0.52, 0.6)),
        "sm_90": ((0.77, 0.68), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
        "sm_100": ((0.31, 0.18), (0.44, 0.36), (0.87, 0.68), (1.0, 0.75)),
        "gfx942": ((0.36, 0.74), (0.71, 1.0), (1.0, 1.0), (1.0, 0.63)),
    }.items()
    for D, pair in zip(_WIDTHS, pairs, strict=True)
}

# The same of the kernel that finds active codes: products, and the instructions that turn each code into two bits.
MASK_BOUNDS = {
    (arch, D): bound
    for arch, bounds in {
        "sm_80": (0.29, 0.49, 0.58, 0.46),
        "sm_90": (0.16, 0.28, 0.43, 0.6),
        "sm_100": (0.09, 0.15, 0.31, 0.46),
        "gfx942": (0.15, 0.29, 0.47, 0.8),
    }.items()
    for D, bound in zip(_WIDTHS, bounds, strict=True)
}
# Instructions per active code and dimension, of one lane: the loops of the rows and the features kernel together.
GATHER_INSTRUCTIONS = 26.0
LANES = {"sm_80": 128, "sm_90": 128, "sm_100": 128, "gfx942": 64}  # per multiprocessor and cycle

TIE = 1.2  # a tie goes to the fused kernels: they need no memory for codes
SUSTAINED = 0.5  # share of its static bound that a fused Triton kernel reaches: waits, tails, clocks under load
LIBRARY = 0.7  # share of peak that the vendor's matrix products reach at these shapes
UNALIGNED = 2  # D no multiple of 16: the compiler gives up asynchronous copies, and the bounds fall by half (D = 100)
STREAMED = 0.85  # share of the memory's bandwidth that a streaming kernel reaches
GATHERED = 0.5  # share of the cache's bandwidth that gathered rows reach
LAUNCH = 7e-6  # seconds of host time per kernel of torch
TRITON_LAUNCH = 20e-6  # seconds of host time per Triton launch with twenty arguments
COUNTS = 60e-6  # seconds that the device idles while the host reads how many codes are active and launches what follows
GAIN = 1.25  # by how much the lists must win to be taken: the encode is lost on every dictionary that turns out dense
EXPECTED = 20 / 4096  # share of active codes that the choice of lists is made for, before anything is measured
MOST = 1 / 16  # largest share of active codes for which lists are allocated: 8 bytes each
ADAM_BYTES = 2 * 30  # per feature and dimension, two matrices: read g w m v, write w m v and 16-bit w
EAGER_ADAM_BYTES = 2 * 48  # torch's fused Adam, then norms, division and casts of their own


@dataclass(frozen=True)
class Prediction:
    """Milliseconds of one training step, by way of computing it.

    Attributes:
        fused: the fused kernels; None above D = 256.
        products: five matrix products per dictionary, hand-written, with the extra columns of gemm.py.
        eager: torch autograd, one dictionary after the other, with fused Adam.
        sparse: the lists of active codes (sparse.py), all dictionaries taking part; None above D = 256.
    """

    fused: float | None
    products: float
    eager: float
    sparse: float | None

    @property
    def prefers_fused(self) -> bool:
        """Whether the GPU engine runs the fused kernels, rather than products, where codes are dense."""
        return self.fused is not None and self.fused <= TIE * self.products

    @property
    def dense(self) -> float:
        """What the GPU engine takes where codes are dense."""
        return self.fused if self.fused is not None and self.prefers_fused else self.products

    @property
    def prefers_sparse(self) -> bool:
        """Whether the GPU engine looks for dictionaries with few active codes."""
        return self.sparse is not None and GAIN * self.sparse <= self.dense


def _standing_for(arch: str) -> Device:
    return next(device for device in DEVICES if device.arch == arch)


def prefers_fused(arch: str, D: int, sizes: Sequence[int], batch: int) -> bool:
    """Whether the model gives the fused kernels the step on an architecture, by its data-centre device."""
    return predict(_standing_for(arch), D, sizes, batch).prefers_fused


def prefers_sparse(arch: str, D: int, sizes: Sequence[int], batch: int) -> bool:
    """Whether the model gives lists of active codes the step, at the density that trained dictionaries have."""
    return predict(_standing_for(arch), D, sizes, batch, l0=EXPECTED * sum(sizes) / len(sizes)).prefers_sparse


def sparse_density(arch: str, D: int, sizes: Sequence[int], batch: int) -> float:
    """Share of active codes from which on a dictionary is cheaper without lists; its bits are found already then."""
    N, K = sum(sizes), len(sizes)
    none, some = (predict(_standing_for(arch), D, sizes, batch, l0=l0) for l0 in (0, EXPECTED * N / K))
    if none.sparse is None or some.sparse is None:
        return 0.0
    adam = 1e3 * N * D * ADAM_BYTES / (_standing_for(arch).memory * 1e12 * STREAMED)  # either way
    slope = (some.sparse - none.sparse) / EXPECTED
    return float(min(MOST, max(0.0, none.dense - adam) / slope)) if slope > 0 else MOST


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
        l0: active features per row and dictionary, or all of a small one; matters to the lists only.
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
        1e3 * lists if (lists := _sparse(device, D, sizes, batch, l0, product, adam)) is not None else None,
    )


def _fused(device: Device, D: int, product: float, adam: float) -> float | None:
    width = next((width for width in _WIDTHS if width >= D), None)
    if width is None:
        return None
    forward, backward = BOUNDS[device.arch, width]
    padding = width / D
    # Encode and decode; then the codes again, two products of gradients and one of dz. At 256 the codes come twice.
    work = 2 / forward + (5 if width == 256 else 4) / backward
    if D % 16:
        work *= UNALIGNED
    return max(product * padding * work / SUSTAINED + adam, 8 * TRITON_LAUNCH)


def _sparse(
    device: Device, D: int, sizes: Sequence[int], batch: int, l0: float, product: float, adam: float
) -> float | None:
    width = next((width for width in _WIDTHS if width >= D), None)
    if width is None:
        return None
    stream = device.memory * 1e12 * STREAMED
    N, K = sum(sizes), len(sizes)
    encode = product * (width / D) * (UNALIGNED if D % 16 else 1) / (MASK_BOUNDS[device.arch, width] * SUSTAINED)
    masks = 2 * 3 * batch * N / 8 / stream  # two, each written, counted and read again
    residuals = K * batch * D * (2 + 4 + 2) / stream  # x and the target read, r written, per dictionary
    active = batch * sum(min(l0, size) for size in sizes)
    lists = 2 * 2 * 4 * active / stream  # two, each written and read
    # An encoder row and an atom of every active code of a row; a row of x and one of r of every one of a feature.
    gathered = 4 * active * D * 2 / (device.cache * 1e12 * GATHERED)
    lanes = device.units * LANES[device.arch] * device.clock * 1e9 * SUSTAINED
    work = max(gathered, active * D * GATHER_INSTRUCTIONS / lanes)
    return max(encode + masks + residuals + lists + work + adam, 14 * TRITON_LAUNCH) + COUNTS
