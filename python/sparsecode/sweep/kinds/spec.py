"""The kind of one dictionary and its settings, its names and keys, and what it is in the reference.

Pure functions; they know no tensors beyond those that a kind of the reference is made with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise, product
from typing import Any

from sparsecode.errors import InvalidSetting
from sparsecode.sweep.kinds.auxk import AuxK
from sparsecode.sweep.kinds.gated import Gated
from sparsecode.sweep.kinds.jumprelu import PENALTIES, WITH_TARGET, JumpRelu
from sparsecode.sweep.kinds.kind import Kind
from sparsecode.sweep.kinds.panneal import Annealing, PAnneal
from sparsecode.sweep.kinds.relu import Relu
from sparsecode.sweep.kinds.topk import BatchTopK, TopK
from sparsecode.sweep.settings import dictionary_name

Value = float | int | str | bool | tuple[Fraction, ...]

GROUPS = (Fraction(1, 16), Fraction(1, 8), Fraction(1, 4), Fraction(9, 16))  # of Matryoshka: sizes that double
DEAD_AFTER = 250_000  # rows; the libraries' 10 million are longer than a default run

_AUX = ("aux", "aux_k", "dead_after")
# What each kind knows, in the order in which it is written; the first names its dictionaries.
KEYS: dict[str, tuple[str, ...]] = {
    "relu": ("l1", "groups"),
    "topk": ("k", "groups", *_AUX),
    "batchtopk": ("k", "groups", *_AUX),
    "matryoshka": ("k", "groups", *_AUX),
    "jumprelu": ("l0", "strength", "penalty", "window", "steepness", "to_input", "pre_activation", "groups"),
    "gated": ("l1", "groups"),
    "panneal": ("l1", "p_end", "changes", "anneal_start", "groups"),
}


@dataclass(frozen=True)
class _Number:
    """A number between two limits; `above` and `below` are not reached."""

    least: float = 0.0
    most: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False

    def wrong(self, value: float) -> str | None:
        """What the value should have been; None where it is right."""
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        if low and high and math.isfinite(value) and not (self.whole and value != int(value)):
            return None
        limits = f"above {self.least:g}" if self.above else f"from {self.least:g}"
        limits += "" if math.isinf(self.most) else f" and {'below' if self.below else 'up to'} {self.most:g}"
        return f"a {'whole ' if self.whole else ''}number {limits}"


_NUMBERS = {
    "l1": _Number(),
    "k": _Number(above=True),
    "l0": _Number(above=True),
    "strength": _Number(),
    "window": _Number(above=True),
    "steepness": _Number(above=True),
    "pre_activation": _Number(),
    "p_end": _Number(above=True, most=1),
    "changes": _Number(1, whole=True),
    "anneal_start": _Number(most=1, below=True),
    "aux": _Number(),
    "aux_k": _Number(1, whole=True),
    "dead_after": _Number(1, whole=True),
}
WORDS: dict[str, dict[str, str | bool]] = {
    "penalty": {name: name for name in PENALTIES},
    "to_input": {"no": False, "yes": True},
}
HELP = "kinds look like 'batchtopk k=8,16' or 'relu l1=1e-3:1e-1:5'"


@dataclass(frozen=True)
class KindSpec:
    """The kind of one dictionary and its settings; what is not given has the value that `default` says.

    Attributes:
        name: one of `KEYS`.
        l1: coefficient of relu, gated and panneal.
        k: codes per row of topk, batchtopk and matryoshka; those two need no whole number.
        l0: target of jumprelu; its penalty is then target or quadratic, else step or tanh.
        strength: what multiplies jumprelu's penalty.
        penalty, window, steepness, to_input, pre_activation: see `JumpRelu`.
        p_end, changes: see `Annealing`.
        anneal_start: share of the training before p begins to fall.
        groups: shares of the features that nested groups add, which make 1.
        aux: weight of the loss of dead features; 0: there is none.
        aux_k: codes per row of that loss; None: half of D.
        dead_after: rows without a code after which a feature is dead.

    Raises:
        InvalidSetting: a kind that is unknown, a key that it does not know, or a value that cannot be.
    """

    name: str
    l1: float | None = None
    k: float | None = None
    l0: float | None = None
    strength: float | None = None
    penalty: str | None = None
    window: float | None = None
    steepness: float | None = None
    to_input: bool | None = None
    pre_activation: float | None = None
    p_end: float | None = None
    changes: int | None = None
    anneal_start: float | None = None
    groups: tuple[Fraction, ...] | None = None
    aux: float | None = None
    aux_k: int | None = None
    dead_after: int | None = None

    def __post_init__(self) -> None:
        known = known_keys(self.name)
        for key, value in vars(self).items():
            if key != "name" and value is not None and key not in known:
                raise unknown(self.name, key)
        for key in known:
            value = getattr(self, key)
            if value is None:
                object.__setattr__(self, key, self.default(key))
            elif key in _NUMBERS:
                check_number(self.name, key, value)
                object.__setattr__(self, key, int(value) if _NUMBERS[key].whole else float(value) + 0.0)
            elif key in WORDS and value not in WORDS[key].values():
                raise wrong(self.name, key, str(value), " or ".join(WORDS[key]))
            elif key == "groups":
                object.__setattr__(self, key, tuple(Fraction(share) for share in value))
        self._check()

    def _check(self) -> None:
        first = KEYS[self.name][0]
        if self.name == "jumprelu":
            if self.l0 is None and self.strength is None:
                raise InvalidSetting("jumprelu needs l0, its target, or strength, what multiplies its penalty")
            if (self.penalty in WITH_TARGET) != (self.l0 is not None):
                raise InvalidSetting(
                    f"jumprelu: penalty {self.penalty} {'has no use for' if self.l0 is not None else 'needs'} l0; "
                    f"{' and '.join(WITH_TARGET)} have a target, the others none"
                )
            if self.penalty != "tanh" and self.steepness != self.default("steepness"):
                raise InvalidSetting(f"jumprelu: penalty {self.penalty} has no use for steepness; that is tanh's")
        elif getattr(self, first) is None:
            example = "8" if first == "k" else "1e-2"
            raise InvalidSetting(f"{self.name} needs {first}, as in '{self.name} {first}={example}'")
        if self.name == "topk" and self.k != int(self.k or 0):
            raise wrong(self.name, "k", _number(self.k), "a whole number from 1; batchtopk takes others")
        if "aux" in KEYS[self.name] and not self.aux:
            for key in ("aux_k", "dead_after"):
                if getattr(self, key) != self.default(key):
                    raise InvalidSetting(f"{self.name}: {key} has no use without aux, as in aux=1/32")
        self._check_groups()

    def _check_groups(self) -> None:
        shares = self.groups or ()
        if not shares and self.name != "matryoshka":
            return
        if len(shares) < 2 or min(shares) <= 0 or sum(shares) != 1:
            found = ",".join(map(str, shares))
            raise wrong(self.name, "groups", found, "two or more shares above 0 that make 1, as 1/4,3/4 do")

    def default(self, key: str) -> Any:
        """The value of a key that is not given; None where the kind needs it, or has none."""
        defaults: dict[str, Any] = {
            "groups": GROUPS if self.name == "matryoshka" else (),
            "strength": None if self.l0 is None else 1.0,
            "penalty": "step" if self.l0 is None else "target",
            "window": 0.05,
            "steepness": 4.0,
            "to_input": False,
            "pre_activation": 0.0,
            "p_end": 0.2,
            "changes": 9,
            "anneal_start": 0.1,
            "aux": 0.0,
            "dead_after": DEAD_AFTER,
        }
        return defaults.get(key) if key in KEYS[self.name] else None

    @property
    def given(self) -> dict[str, Value]:
        """The settings that differ from their defaults, in the order of `KEYS`."""
        values = {key: getattr(self, key) for key in KEYS[self.name]}
        return {key: value for key, value in values.items() if value != self.default(key)}

    def __str__(self) -> str:
        """A text that `parse_kinds` reads as this kind alone."""
        return " ".join([self.name, *(f"{key}={_written(value)}" for key, value in self.given.items())])

    @property
    def plain(self) -> bool:
        """Whether it is ReLU + L1 and nothing more, whose dictionaries keep the names and keys that they always had."""
        return self.name == "relu" and list(self.given) == ["l1"]

    @property
    def own(self) -> tuple[str, ...]:
        """The parameters [F] that its dictionaries have beside the weights."""
        return {"jumprelu": ("theta",), "gated": ("b_mag", "rho")}.get(self.name, ())

    @property
    def keeps_threshold(self) -> bool:
        """Whether it selects from a whole batch, and is used with a threshold afterwards."""
        return self.name in ("batchtopk", "matryoshka")

    @property
    def selects(self) -> bool:
        """Whether its loss is the error of one reconstruction, and all it does is to choose which codes stay."""
        return self.name in ("topk", "batchtopk") and not self.groups and not self.aux

    @property
    def anneals(self) -> bool:
        """Whether the exponent of its penalty falls during the training."""
        return self.name == "panneal"

    def file_name(self, size: int, seed: int) -> str:
        """The file name of a dictionary without suffix, numbers to three digits: `n512_batchtopk-32_s0`."""
        if self.plain:
            return dictionary_name(size, self.l1 or 0.0, seed)
        return f"n{size}_{self._label(short=True)}_s{seed}"

    def key(self, what: str, size: int, seed: int) -> str:
        """What a dictionary's random numbers are drawn from: `atoms/512/batchtopk-32/0`.

        Every setting is part of it: see `sweep.initial`.
        """
        return f"{what}/{size}/{repr(self.l1) if self.plain else self._label(short=False)}/{seed}"

    def _label(self, *, short: bool) -> str:
        """The kind, the value of its first key, and what else is given."""
        parts, first = [self.name], KEYS[self.name][0]
        for key, value in self.given.items():
            shown = "+".join(str(share).replace("/", "of") for share in value) if isinstance(value, tuple) else ""
            shown = shown or (_number(value, short=short) if key in _NUMBERS else _written(value))
            parts.append(shown if key == first else key.replace("_", "") + shown)
        return "-".join(parts)

    def ends(self, size: int) -> tuple[int, ...]:
        """Where the nested groups of a dictionary of that size end, to the nearest feature; none where it has none.

        Raises:
            InvalidSetting: a group would have no feature.
        """
        ends = tuple(round(size * share) for share in accumulate(self.groups or ()))
        if any(low >= high for low, high in pairwise((0, *ends))):
            raise InvalidSetting(f"{self}: a group of {size} features would have none; take a larger size")
        return ends

    def kind(self, scale: float = 1.0, factor: float = 1.0) -> Kind:
        """The kind in the reference, at the first step.

        Args:
            scale: multiplies l1, as `LossSettings.l1_scale` has it.
            factor: multiplies every penalty on codes, as a warm-up has it: l1 and jumprelu's strength. Kinds with k
                have none, and the pre-activation loss, which is for features without codes, stays.
        """
        if self.name == "jumprelu":
            assert self.strength is not None and self.window is not None and self.penalty is not None
            assert self.steepness is not None and self.to_input is not None and self.pre_activation is not None
            return JumpRelu(
                self.strength * factor, self.window, self.penalty, self.l0, self.steepness, self.to_input,
                self.pre_activation,
            )  # fmt: skip
        if self.k is not None:
            return TopK(int(self.k)) if self.name == "topk" else BatchTopK(self.k)
        kinds: dict[str, Callable[[float], Kind]] = {"relu": Relu, "gated": Gated, "panneal": PAnneal}
        return kinds[self.name]((self.l1 or 0.0) * scale * factor)

    def scaled(self, factor: float) -> KindSpec:
        """The kind with every penalty multiplied by a factor."""
        values = {key: getattr(self, key) for key in ("l1", "strength", "pre_activation")}
        return replace(self, **{key: value * factor for key, value in values.items() if value is not None})

    def auxiliary(self) -> AuxK | None:
        """The loss of dead features, where it has one."""
        return AuxK(self.aux, self.aux_k) if self.aux else None

    def annealing(self, steps: int, known_at: int = 0) -> Annealing | None:
        """When p falls in a training; None for other kinds. Each exponent below 1 holds equally long.

        Args:
            steps: in all.
            known_at: the step at which their number became known; p does not fall before, and falls less often where
                too few steps are left for every change.

        Raises:
            InvalidSetting: too few steps, which were known from the start.
        """
        if self.p_end is None or self.anneal_start is None or self.changes is None:
            return None
        start, changes = max(round(self.anneal_start * steps), known_at), self.changes
        if known_at:
            changes = min(changes, steps - start - 1)
        if known_at and changes < 1:
            return None
        return Annealing(start, start + (steps - start) * changes // (changes + 1), self.p_end, changes)


def as_kind(kind: KindSpec | float) -> KindSpec:
    """The kind; a number is the coefficient of a ReLU with L1."""
    return kind if isinstance(kind, KindSpec) else KindSpec("relu", l1=float(kind))


def entries(sizes: Sequence[int], kinds: Iterable[KindSpec], seeds: Sequence[int]) -> list[tuple[int, KindSpec, int]]:
    """Every (size, kind, seed), sizes outermost.

    Raises:
        InvalidSetting: two of them would share a file name, a kind keeps more codes than there are features, or a group
            would have none.
    """
    found = list(product(sizes, kinds, seeds))
    names: dict[str, tuple[int, KindSpec, int]] = {}
    for entry in found:
        size, kind, seed = entry
        other = names.setdefault(kind.file_name(size, seed), entry)
        if other is not entry:
            what = "is given twice" if other[1] == kind else f"and '{other[1]}' are equal to three digits"
            raise InvalidSetting(f"'{kind}' {what}; take each once, and values further apart")
        for key in ("k", "l0"):
            if (getattr(kind, key) or 0) > size:
                raise InvalidSetting(f"'{kind}': {key} is more than the {size} features of a dictionary")
        kind.ends(size)
    return found


def known_keys(name: str) -> tuple[str, ...]:
    """The keys of a kind. Raises InvalidSetting where it is unknown."""
    if name not in KEYS:
        raise InvalidSetting(f"kind '{name}' is unknown; known: {', '.join(KEYS)}; {HELP}")
    return KEYS[name]


def check_number(name: str, key: str, value: Any) -> None:
    """Raises InvalidSetting unless the value is one that the key of a kind may have."""
    wanted = _NUMBERS[key].wrong(value)
    if wanted is not None:
        raise wrong(name, key, _number(value), wanted)


def wrong(name: str, key: str, found: str, wanted: str) -> InvalidSetting:
    """The error for a value that is not what it should be."""
    return InvalidSetting(f"{name} {key}={found}: '{found}' is not {wanted}")


def unknown(name: str, key: str) -> InvalidSetting:
    """The error for a key that a kind does not know."""
    return InvalidSetting(f"{name} knows no {key or 'key without a name'}; it knows {', '.join(KEYS[name])}")


def _written(value: Any) -> str:
    """A value as `parse_kinds` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else _number(value)


def _number(value: Any, *, short: bool = False) -> str:
    """A number in full, without a point where it is whole, or to three digits."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.3g}" if short else repr(value)
