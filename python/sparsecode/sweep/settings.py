"""What a sweep is made of, read from the short texts that people type: sizes, L1 coefficients, seeds.

Pure functions; they know nothing of tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsecode.errors import InvalidSetting

LR_SCALINGS = ("sqrt", "none")
_LARGEST_SIZE = 1 << 24  # 16.8 million atoms; more is a typing error, not a dictionary
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(x?)")
_SIZE_HELP = "sizes look like 64-4096 (powers of two), 64,100,512 or 2x-32x (times the width)"
_L1_HELP = "L1 coefficients look like 1e-3, 1e-3,1e-2 or 1e-4:1e-2:8 (8 values, log-spaced)"


@dataclass(frozen=True)
class LossSettings:
    """Conventions of the loss of docs/definitions.md; the defaults are the seed's, with the projection.

    Attributes:
        mse: squared error averaged over rows and dimensions ("mean", the seed) or over rows only ("sum").
        l1_scale: "plain", or "per-size", which divides the coefficient by the dictionary's size.
        tied: encoder and decoder are one matrix.
        pre_bias: a learned vector is subtracted before encoding and added after decoding.
        project_gradient: the gradient along each atom is removed before Adam sees it.
        frozen: atoms stay as they begin, and the rest is trained.
        aligned: after every step the product of each encoder row and its atom is set to 1, by a move along the atom.

    Raises:
        InvalidSetting: a value that is unknown, or a frozen decoder that is the encoder.
    """

    mse: str = "mean"
    l1_scale: str = "plain"
    tied: bool = False
    pre_bias: bool = False
    project_gradient: bool = True
    frozen: bool = False
    aligned: bool = False

    def __post_init__(self) -> None:
        if self.mse not in ("mean", "sum"):
            raise InvalidSetting(f"mse must be mean or sum, not '{self.mse}'")
        if self.l1_scale not in ("plain", "per-size"):
            raise InvalidSetting(f"l1-scale must be plain or per-size, not '{self.l1_scale}'")
        if self.frozen and self.tied:
            raise InvalidSetting("frozen atoms need an encoder of their own, so tied cannot be on")

    def record(self) -> dict[str, Any]:
        """The settings as JSON values, for a dictionary's file; without what is off and was not always there."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("frozen", "aligned")}


def dictionary_name(size: int, l1: float, seed: int) -> str:
    """The file name of one dictionary of a sweep, without suffix: `n512_l1-0.001_s0`."""
    return f"n{size}_l1-{l1:.3g}_s{seed}"


def parse_sizes(text: str, activation_dim: int) -> list[int]:
    """Dictionary sizes from text, ascending, each once.

    Items are separated by commas: `100`, `2x` (times `activation_dim`), `64-4096` (every power of two between two
    powers of two) and `2x-32x` (the width times every power of two between).

    >>> parse_sizes("64-512", 32)
    [64, 128, 256, 512]
    >>> parse_sizes("2x-8x,100", 32)
    [64, 100, 128, 256]

    Raises:
        InvalidSetting: anything else, or a size outside 1 to 16,777,216.
    """
    sizes: set[int] = set()
    for item in text.split(","):
        low, dash, high = item.strip().partition("-")
        first, first_unit = _size(low, text)
        if not dash:
            sizes.add(_whole(first * (activation_dim if first_unit else 1), text))
            continue
        last, last_unit = _size(high, text)
        if first_unit != last_unit:
            raise InvalidSetting(f"sizes '{text}': '{item.strip()}' mixes a size and a multiple; {_SIZE_HELP}")
        if not (_power_of_two(first) and _power_of_two(last) and first < last):
            raise InvalidSetting(f"sizes '{text}': a range goes from a power of two to a larger one; {_SIZE_HELP}")
        unit = activation_dim if first_unit else 1
        _whole(last * unit, text)
        while first <= last:
            sizes.add(_whole(first * unit, text))
            first *= 2
    return sorted(sizes)


def parse_l1(text: str) -> list[float]:
    """L1 coefficients from text, ascending, each once.

    Items are separated by commas: `1e-3`, or `LOW:HIGH:COUNT` for COUNT log-spaced values from LOW to HIGH.

    >>> parse_l1("1e-4:1e-2:3")
    [0.0001, 0.001, 0.01]

    Raises:
        InvalidSetting: anything else; a negative, infinite or NaN coefficient.
    """
    values: set[float] = set()
    for item in text.split(","):
        parts = item.strip().split(":")
        if len(parts) == 1:
            values.add(_coefficient(parts[0], text))
        elif len(parts) == 3:
            low, high = _coefficient(parts[0], text), _coefficient(parts[1], text)
            count = int(parts[2]) if re.fullmatch(r"\d{1,4}", parts[2].strip()) else 0
            if not (0 < low < high and count >= 2):
                raise InvalidSetting(f"l1 '{text}': a range needs 0 < LOW < HIGH and a count of 2 to 9999; {_L1_HELP}")
            values.update(log_spaced(low, high, count))
        else:
            raise InvalidSetting(f"l1 '{text}': '{item.strip()}' is neither a number nor LOW:HIGH:COUNT; {_L1_HELP}")
    return sorted(values)


def log_spaced(low: float, high: float, count: int) -> list[float]:
    """`count` values from `low` to `high` with a constant ratio; written numbers (1e-3) come out as written."""
    step = math.log10(high / low) / (count - 1)
    inner = (float(f"{low * 10 ** (step * i):.12g}") for i in range(1, count - 1))
    return [low, *inner, high]


def rates(lr: float, sizes: Sequence[int], scaling: str = "sqrt") -> list[float]:
    """The peak learning rate of each dictionary.

    At one rate small dictionaries learn too slowly or large ones lose features (docs/recipe.md has the measurements);
    a rate that falls with the root of the size is what Gao et al. (arXiv 2406.04093) fit to TopK dictionaries.

    Args:
        lr: that of 1,024 features.
        sizes: features of each.
        scaling: "sqrt": lr times the root of 1,024 / size; "none": lr for every size.

    Raises:
        InvalidSetting: another scaling.
    """
    if scaling not in LR_SCALINGS:
        raise InvalidSetting(f"lr_scaling must be one of {', '.join(LR_SCALINGS)}, not {scaling!r}")
    return [lr * math.sqrt(1024 / size) if scaling == "sqrt" else lr for size in sizes]


def grid(sizes: list[int], l1: list[float], seeds: list[int]) -> list[tuple[int, float, int]]:
    """Every (size, l1, seed), sizes outermost.

    Raises:
        InvalidSetting: two of them would share a file name.
    """
    entries = [(size, value, seed) for size in sizes for value in l1 for seed in seeds]
    names: dict[str, tuple[int, float, int]] = {}
    for entry in entries:
        other = names.setdefault(dictionary_name(*entry), entry)
        if other is not entry:
            raise InvalidSetting(
                f"l1 {other[1]!r} and {entry[1]!r} are equal to three digits; take values further apart"
            )
    return entries


def _size(text: str, whole: str) -> tuple[float, bool]:
    found = _SIZE.fullmatch(text.strip())
    if found is None or ("." in found[1] and not found[2]):
        raise InvalidSetting(f"sizes '{whole}': '{text.strip()}' is not a size; {_SIZE_HELP}")
    return float(found[1]), bool(found[2])


def _whole(value: float, text: str) -> int:
    if not (1 <= value <= _LARGEST_SIZE and value == int(value)):
        raise InvalidSetting(f"sizes '{text}': {value:g} is not a whole number from 1 to {_LARGEST_SIZE}; {_SIZE_HELP}")
    return int(value)


def _power_of_two(value: float) -> bool:
    return value > 0 and math.frexp(value)[0] == 0.5


def _coefficient(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InvalidSetting(f"l1 '{whole}': '{text.strip()}' is not a number; {_L1_HELP}") from None
    if not (math.isfinite(value) and value >= 0):
        raise InvalidSetting(f"l1 '{whole}': {text.strip()} is not a number from 0 up; {_L1_HELP}")
    return value
