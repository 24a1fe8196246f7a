"""How dictionaries begin: their encoders and biases before the first step. `docs/recipe.md` compares the starts.

Shape letters: R rows of a sample, D activation dimension, F features of one dictionary.

A start is a pure function of a dictionary's own settings and of the sample of rows: the same for a dictionary alone or
in a sweep, for every engine and any number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.errors import InvalidArgument, InvalidSetting
from sparsecode.machine import cores, one_thread
from sparsecode.sweep.initial import uniform

if TYPE_CHECKING:
    from sparsecode.sweep.sweep import Sweep

STARTS = ("calibrated", "atoms", "linear")
# Rows that biases are calibrated on: at a density of 2 % a feature's own share is then right within a tenth.
SAMPLE_ROWS = 8192
AUTO = "auto"
# Measured: see docs/recipe.md.
AUTO_DENSITY = 0.05
# Codes per row that a kind with k begins with, in multiples of k: fewer than k would select nothing.
SPARE = 2.0
AUTO_WHITENING = 0.5
VARIANCE_FLOOR = 0.01  # of the mean over directions: below it a direction is not stretched any further


@dataclass(frozen=True)
class Start:
    """A way to begin.

    Attributes:
        kind: "calibrated": the encoder is the atoms, shorter and whitened, and biases let every feature fire on the
            same share of rows. "atoms": the encoder is a copy of the atoms, biases are zero. "linear": the seed's,
            orthogonal atoms, encoder and bias as torch.nn.Linear draws them. See `begin` for kinds beside ReLU.
        encoder_norm: of "calibrated", the product of each row of the encoder with its atom, which is the row's norm
            where nothing is whitened; None: the cube root of D/F, at most 1. At 1 many features of large dictionaries
            die; at D/F (Anthropic, "Update on how we train SAEs", January 2025) hardly any does, but more of them come
            in near-duplicates, and FVU at equal L0 is higher: docs/recipe.md. Of tied weights it is 1.
        whitening: of "calibrated", the encoder is the atoms times the rows' covariance to the power of -whitening;
            0: their copy; None: 1/2, which gives every direction of the rows the same weight. Where much variance lies
            along one direction, copies fire on the same rows, those that are far along it, and many features die.
            Tied weights stay as they are.
        density: of "calibrated", the share of rows on which each feature fires first; None: 5 %.
    """

    kind: str = "calibrated"
    encoder_norm: float | None = None
    density: float | None = None
    whitening: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in STARTS:
            raise InvalidSetting(f"start must be one of {', '.join(STARTS)}, not '{self.kind}'")
        if self.encoder_norm is not None and not (math.isfinite(self.encoder_norm) and self.encoder_norm > 0):
            raise InvalidSetting(f"encoder-norm must be above 0, or auto, not {self.encoder_norm}")
        if self.density is not None and not 0 < self.density < 1:
            raise InvalidSetting(f"initial-density must be between 0 and 1, or auto, not {self.density}")
        if self.whitening is not None and not 0 <= self.whitening <= 1:
            raise InvalidSetting(f"whitening must be from 0 to 1, or auto, not {self.whitening}")

    @classmethod
    def parse(cls, kind: str, encoder_norm: str, density: str, whitening: str) -> Start:
        """From the texts that people type: a number, or `auto`.

        Raises:
            InvalidSetting: a value that cannot be used.
        """
        return cls(
            kind,
            _number("encoder-norm", encoder_norm),
            _number("initial-density", density),
            _number("whitening", whitening),
        )

    @property
    def orthogonal(self) -> bool:
        """Whether atoms are to be orthogonal rather than independent."""
        return self.kind == "linear"

    def needs_rows(self, sweep: Sweep) -> bool:
        """Whether `begin` looks at a sample of rows."""
        return self.kind == "calibrated" or any(_at_the_mean(sweep, k) for k in range(len(sweep)))

    def norm_of(self, size: int, activation_dim: int, *, tied: bool = False) -> float:
        """The encoder norm of a dictionary of `size` features."""
        if tied:
            return 1.0
        if self.encoder_norm is not None:
            return self.encoder_norm
        return min(1.0, float((activation_dim / size) ** (1 / 3)))

    @property
    def power(self) -> float:
        """What the covariance is raised to, without its sign."""
        return AUTO_WHITENING if self.whitening is None else self.whitening

    def density_of(self, size: int, k: float | None) -> float:
        """The share of rows on which each of `size` features fires first; k: codes per row that are then kept."""
        density = AUTO_DENSITY if self.density is None else self.density
        return density if k is None else max(density, min(0.5, SPARE * k / size))

    def record(self, sweep: Sweep, k: int) -> dict[str, Any]:
        """The start of dictionary k as JSON values, for its file."""
        if self.kind != "calibrated":
            return {"kind": self.kind}
        size, tied = sweep.sizes[k], sweep.loss.tied
        return {
            "kind": self.kind,
            "encoder_norm": self.norm_of(size, sweep.inputs or sweep.activation_dim, tied=tied),
            "density": self.density_of(size, sweep.kinds[k].k),
            "whitening": 0.0 if tied else self.power,
        }


def begin(sweep: Sweep, start: Start, sample: Tensor | None = None, threads: int | None = None) -> None:
    """Sets encoders and biases of a sweep that has not been trained.

    A pre-bias begins at zero for ReLU dictionaries, and at the mean of the sample for every other kind: with the mean
    left in, 63 % of the features of a TopK dictionary died. Thresholds of JumpReLU begin at half its window, so that
    all of it is above 0, and what a gated feature gives begins with the bias of its gate: both begin near to a ReLU,
    which left fewer dead than biases of 0 did and found more true features (docs/kinds.md).

    Args:
        sweep: changed in place; made with `orthogonal=start.orthogonal`.
        start: how.
        sample: [R, D] normalised rows, R >= 2, where `start.needs_rows`.
        threads: of the work; None: all cores.

    Raises:
        InvalidArgument: the sweep was trained already or has other atoms; no sample, or one that does not fit.
    """
    if sweep.step or sweep.orthogonal != start.orthogonal:
        raise InvalidArgument(f"start '{start.kind}' needs a sweep before its first step that was made for it")
    rows = mean = None
    if start.needs_rows(sweep):
        if sample is None or sample.ndim != 2 or sample.shape[0] < 2 or sample.shape[1] != sweep.activation_dim:
            found = "none" if sample is None else f"one of shape {list(sample.shape)}"
            raise InvalidArgument(
                f"a start '{start.kind}' needs a sample [2 or more, {sweep.activation_dim}], not {found}"
            )
        rows = sample.to("cpu", torch.float32).contiguous()
        with one_thread():  # the same bits whatever threads there are
            mean = rows.double().mean(0)
    for k in range(len(sweep)):
        if sweep.b_dec is not None and mean is not None and _at_the_mean(sweep, k):
            sweep.b_dec[k] = mean.to(sweep.b_dec)
    sweep.confine()
    if start.kind == "linear":
        _as_linear(sweep)
    elif start.kind == "calibrated" and rows is not None:
        _calibrate(sweep, start, rows, threads or cores())
    for k, kind in enumerate(sweep.kinds):
        if kind.window is not None:
            sweep.own["theta"][sweep.place("theta", k)] = kind.window / 2
        if kind.name == "gated":
            sweep.own["b_mag"][sweep.place("b_mag", k)] = sweep.b_enc[sweep.rows(k)]


def _at_the_mean(sweep: Sweep, k: int) -> bool:
    """Whether the pre-bias of dictionary k begins at the mean of the rows."""
    return sweep.b_dec is not None and sweep.kinds[k].name != "relu"


@torch.no_grad()
def _as_linear(sweep: Sweep) -> None:
    """Encoder and bias uniform within 1/sqrt(D), the default of torch.nn.Linear."""
    bound = 1 / math.sqrt(sweep.activation_dim)
    for k, key in enumerate(sweep.keys):
        own = sweep.rows(k)
        values = sweep.part_of(k, bound * uniform(*key, sweep.activation_dim + 1))
        if not sweep.loss.tied:
            sweep.W_enc[own] = values[:, :-1].to(sweep.W_enc)
        sweep.b_enc[own] = values[:, -1].to(sweep.b_enc)
    sweep.confine()


@torch.no_grad()
@one_thread()
def _calibrate(sweep: Sweep, start: Start, rows: Tensor, threads: int) -> None:
    whitener = _whitener(rows[:, sweep.read], start.power) if start.power and not sweep.loss.tied else None
    for k, (size, kind) in enumerate(zip(sweep.sizes, sweep.kinds, strict=True)):
        own = sweep.rows(k)
        if not sweep.loss.tied:
            # Copies of the atoms; of transcoders, directions of their own.
            begun = sweep.W_enc[own, sweep.read].to("cpu", torch.float32, copy=True)
            encoder = begun if whitener is None else begun @ whitener
            scale = start.norm_of(size, begun.shape[1]) / (encoder * begun).sum(1, keepdim=True)
            sweep.W_enc[own, sweep.read] = (encoder * scale).to(sweep.W_enc)
        encoder = sweep.W_enc[own].to("cpu", torch.float32).contiguous()
        seen = rows if sweep.b_dec is None else rows - sweep.b_dec[k].to(rows)
        rank = min(max(1, round(start.density_of(size, kind.k) * len(rows))), len(rows) - 1)
        highest = torch.empty(len(encoder))
        _core.kth_largest(seen.numpy(), encoder.numpy(), rank + 1, out=highest.numpy(), threads=threads)
        sweep.b_enc[own] = -highest.to(sweep.b_enc)


def _whitener(rows: Tensor, power: float) -> Tensor:
    """The covariance of rows [R, D] to the power of -`power`, float32 [D, D], whatever scale the rows have.

    A direction in which they hardly vary counts as one of `VARIANCE_FLOOR`; rows that are all the same, or not finite,
    have none.
    """
    centred = rows.double() - rows.double().mean(0)
    covariance = centred.T @ centred
    covariance /= covariance.diagonal().mean()
    if not bool(covariance.isfinite().all()):
        return torch.eye(len(covariance))
    variances, directions = torch.linalg.eigh(covariance)
    whitener: Tensor = (directions * variances.clamp_min(VARIANCE_FLOOR) ** -power @ directions.T).float()
    return whitener


def _number(name: str, text: str) -> float | None:
    if text == AUTO:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidSetting(f"{name} must be a number or auto, not '{text}'") from None
