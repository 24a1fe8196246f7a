"""Tiles of every kernel per architecture and width: hand-picked from what the compiler makes of them, not timed.

No Triton here. A tile passes the gates that docs/kernels.md shows (tensor cores and asynchronous copies in the hot
loop, no spills there, shared memory in bounds) and has the best static bound among those tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsecode.kernels.tables import padded


@dataclass(frozen=True)
class Tile:
    """The shape of one program's work.

    Attributes:
        batch: rows of the batch per tile.
        features: features per tile.
        warps: warps of a program.
        stages: buffers of the software pipeline.
    """

    batch: int
    features: int
    warps: int = 4
    stages: int = 2


ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "gfx942")
LARGEST_FUSED = 256  # above it a tile of weights and its gradients no longer fit a processor's registers

# (architecture, padded D) -> tiles for 16-bit operands. At D = 256 the backward pass runs twice, encoder and decoder
# apart, each with this tile.
_FORWARD = {
    ("sm_80", 32): Tile(128, 64, 4, 3),
    ("sm_80", 64): Tile(128, 64, 4, 3),
    ("sm_80", 128): Tile(128, 64, 8, 2),
    ("sm_80", 256): Tile(64, 64, 8, 2),
    ("sm_90", 32): Tile(128, 128, 4, 2),
    ("sm_90", 64): Tile(128, 64, 4, 3),
    ("sm_90", 128): Tile(128, 64, 8, 3),
    ("sm_90", 256): Tile(128, 32, 8, 2),
    ("sm_100", 32): Tile(128, 128, 8, 2),
    ("sm_100", 64): Tile(128, 32, 4, 3),
    ("sm_100", 128): Tile(128, 128, 8, 2),
    ("sm_100", 256): Tile(128, 64, 8, 2),
    ("gfx942", 32): Tile(128, 64, 4, 2),
    ("gfx942", 64): Tile(128, 64, 4, 2),
    ("gfx942", 128): Tile(128, 32, 4, 2),
    ("gfx942", 256): Tile(64, 32, 2, 2),
}
_BACKWARD = {
    ("sm_80", 32): Tile(64, 64, 4, 3),
    ("sm_80", 64): Tile(64, 128, 8, 2),
    ("sm_80", 128): Tile(64, 32, 4, 2),
    ("sm_80", 256): Tile(64, 32, 4, 2),
    ("sm_90", 32): Tile(64, 128, 4, 2),
    ("sm_90", 64): Tile(64, 128, 8, 2),
    ("sm_90", 128): Tile(64, 128, 8, 2),
    ("sm_90", 256): Tile(64, 64, 4, 2),
    ("sm_100", 32): Tile(64, 64, 4, 3),
    ("sm_100", 64): Tile(64, 128, 8, 2),
    ("sm_100", 128): Tile(64, 128, 8, 2),
    ("sm_100", 256): Tile(64, 64, 8, 2),
    ("gfx942", 32): Tile(64, 128, 4, 2),
    ("gfx942", 64): Tile(64, 128, 4, 2),
    ("gfx942", 128): Tile(32, 128, 4, 2),
    ("gfx942", 256): Tile(32, 64, 4, 2),
}
# Encode alone, for the sparse path's masks: sides are multiples of 32.
_MASKS = {(arch, width): replace(tile) for (arch, width), tile in _FORWARD.items()}
# float32 operands are for verification: no tensor cores, so a small tile that fits anywhere.
_FLOAT32 = Tile(16, 16, 4, 2)
_FLOAT32_MASKS = Tile(32, 32, 4, 2)


@dataclass(frozen=True)
class FusedTiles:
    """How the fused step is launched.

    Attributes:
        forward, backward: tiles of the two kernels.
        parts: what each launch of the backward kernel computes: everything at once (3), or the encoder's gradients
            and the decoder's apart (2, 1).
        counting_warps: warps of the backward kernel where it only counts firings; one product needs no more than four.
    """

    forward: Tile
    backward: Tile
    parts: tuple[int, ...]
    counting_warps: int = 4

    @property
    def counting(self) -> Tile:
        """Tile of the backward kernel where it only counts firings."""
        return replace(self.backward, warps=self.counting_warps)


def fused_tiles(arch: str, D: int, precision: str) -> FusedTiles | None:
    """Tiles for an architecture of ARCHITECTURES, or None where the fused kernels do not fit this width."""
    if D > LARGEST_FUSED:
        return None
    width = max(32, padded(D))
    parts = (2, 1) if width > 128 else (3,)
    if precision == "float32":
        return FusedTiles(_FLOAT32, _FLOAT32, parts)
    backward = _BACKWARD[arch, width]
    # With four warps the compiler spills there, at 72 registers of 255.
    counting_warps = 8 if (arch, width) == ("sm_100", 32) else min(4, backward.warps)
    return FusedTiles(_FORWARD[arch, width], backward, parts, counting_warps)


def masks_tile(arch: str, D: int, precision: str) -> Tile:
    """Tile of the kernel that finds active codes."""
    return _FLOAT32_MASKS if precision == "float32" else _MASKS[arch, max(32, padded(D))]


def adam_tile(D: int) -> int:
    """Features per program of the optimiser: about 2,048 numbers of each of its eight tensors in registers."""
    return max(1, min(64, 2048 // padded(D)))
