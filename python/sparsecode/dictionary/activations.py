"""Nonlinearities of dictionaries, each a small frozen type whose fields are what the files hold of it.

Sweeps train `Relu`, `JumpRelu`, `BatchTopK`, `TopK` and `Gated`; the others are read from other libraries' files. Shape
letter: n features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsecode.errors import DictionaryInvalid


@dataclass(frozen=True, eq=False)
class Activation:
    """Makes codes of what an encoder computes.

    Attributes:
        name: value of `activation` in a dictionary's JSON file, so it stays for ever.
    """

    name: ClassVar[str]

    def encode(self, projected: Tensor, b_enc: Tensor) -> Tensor:
        """Codes [..., n] of the products [..., n] of activations with W_enc^T, and the encoder's bias [n]."""
        return self._codes(projected + b_enc)

    def _codes(self, pre: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors [n] by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def settings(self) -> dict[str, float | None]:
        """Its numbers by name, None where it has none of that name."""
        return {"k": vars(self).get("k")}

    def to(self, device: str | torch.device) -> Activation:
        """This activation on another device."""
        return replace(self, **{name: value.to(device) for name, value in self.tensors.items()})

    def shifted(self, by: Tensor) -> Activation:
        """The one that gives the same codes once `by` [n] is added to what it is given and taken from b_enc."""
        del by
        return self

    def check(self, n: int) -> None:
        """Checks that it is one of n features.

        Raises:
            DictionaryInvalid: a tensor of another shape or with values that are not finite, or a `k` that cannot be.
        """
        for name, value in self.tensors.items():
            check_tensor(name, value, (n,))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b for a, b in pairs)


class Relu(Activation):
    """What is above 0."""

    name = "relu"

    def _codes(self, pre: Tensor) -> Tensor:
        return pre.relu()


@dataclass(frozen=True, eq=False)
class JumpRelu(Activation):
    """What exceeds its feature's threshold [n], unchanged; never below 0 (Rajamanoharan et al., arXiv 2407.14435)."""

    name = "jumprelu"
    threshold: Tensor

    def _codes(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)


@dataclass(frozen=True, eq=False)
class BatchTopK(JumpRelu):
    """A JumpRelu with the threshold by which k features fire on average (Bussmann et al., arXiv 2412.06410).

    Training takes the largest of a batch; afterwards no row depends on the others. `k` may be unknown.
    """

    name = "batchtopk"
    k: float | None = None

    def check(self, n: int) -> None:
        """See `Activation.check`."""
        super().check(n)
        if self.k is not None:
            _check_k(self.k, n, whole=False)


@dataclass(frozen=True, eq=False)
class _Counted(Activation):
    """An activation by which k features fire."""

    k: int

    def check(self, n: int) -> None:
        """See `Activation.check`."""
        super().check(n)
        _check_k(self.k, n)


@dataclass(frozen=True, eq=False)
class TopK(_Counted):
    """The k largest of each row, no less than 0 (Gao et al., arXiv 2406.04093).

    They are ranked after multiplication by `selection_scale` [n], if given.
    """

    name = "topk"
    selection_scale: Tensor | None = None

    def _codes(self, pre: Tensor) -> Tensor:
        rectified = pre.relu()
        ranked = rectified if self.selection_scale is None else rectified * self.selection_scale
        return _largest(rectified, ranked, int(self.k))


class TopKLinear(_Counted):
    """The k largest of each row unchanged, even when negative."""

    name = "topk_linear"

    def _codes(self, pre: Tensor) -> Tensor:
        return _largest(pre, pre, int(self.k))


class AbsTopK(_Counted):
    """The k of largest magnitude of each row, with their sign (arXiv 2510.00404)."""

    name = "abstopk"

    def _codes(self, pre: Tensor) -> Tensor:
        return _largest(pre, pre.abs(), int(self.k))


class GroupMax(_Counted):
    """The largest of each of k groups of neighbouring features, no less than 0."""

    name = "groupmax"

    def _codes(self, pre: Tensor) -> Tensor:
        groups = pre.relu().reshape(*pre.shape[:-1], int(self.k), -1)
        kept = torch.zeros_like(groups).scatter_(-1, groups.argmax(-1, keepdim=True), groups.amax(-1, keepdim=True))
        return kept.flatten(-2)

    def check(self, n: int) -> None:
        """See `Activation.check`."""
        super().check(n)
        if n % int(self.k):
            raise DictionaryInvalid(f"{n} features do not make {int(self.k)} groups of the same size")


@dataclass(frozen=True, eq=False)
class Gated(Activation):
    """Which features fire, by b_enc, and how much, are decided apart (Rajamanoharan et al., arXiv 2404.16014).

    Attributes:
        r_mag, b_mag: [n] logarithm of the gain, and bias, of what a firing feature gives.
    """

    name = "gated"
    r_mag: Tensor
    b_mag: Tensor

    def encode(self, projected: Tensor, b_enc: Tensor) -> Tensor:
        """See `Activation.encode`."""
        return (projected * self.r_mag.exp() + self.b_mag).relu() * (projected + b_enc > 0)

    def shifted(self, by: Tensor) -> Gated:
        """See `Activation.shifted`."""
        return replace(self, b_mag=(self.b_mag.double() - by * self.r_mag.double().exp()).float())


ACTIVATIONS: dict[str, type[Activation]] = {
    kind.name: kind for kind in (Relu, JumpRelu, BatchTopK, TopK, TopKLinear, AbsTopK, GroupMax, Gated)
}
_FIELDS = {name: {item.name: item.default is MISSING for item in fields(kind)} for name, kind in ACTIVATIONS.items()}
VALUES = ("k", "threshold", "selection_scale", "r_mag", "b_mag")  # everything that any of them holds


def from_file(name: str, held: Mapping[str, Any]) -> Activation:
    """The activation of a name, of those `VALUES` that a dictionary's files hold.

    Raises:
        DictionaryInvalid: the name is unknown, or a value is missing or of no use to it.
    """
    if name not in ACTIVATIONS:
        raise DictionaryInvalid(f"activation '{name}' is unknown; known: {', '.join(ACTIVATIONS)}")
    given = {key: held[key] for key in VALUES if held.get(key) is not None}
    for key in VALUES:
        if key in given and key not in _FIELDS[name]:
            raise DictionaryInvalid(f"activation '{name}' has no use for {key}")
        if _FIELDS[name].get(key) and key not in given:
            raise DictionaryInvalid(f"activation '{name}' needs {key}")
    return ACTIVATIONS[name](**given)


def check_tensor(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Raises DictionaryInvalid unless a tensor is of that shape and finite."""
    if tuple(value.shape) != shape:
        raise DictionaryInvalid(f"{name} has shape {list(value.shape)}, not {list(shape)}")
    if not bool(torch.isfinite(value).all()):
        raise DictionaryInvalid(f"{name} holds NaN or infinities", remedy="diverged")


def _check_k(k: Any, n: int, *, whole: bool = True) -> None:
    if not isinstance(k, int | float):  # from a file, it may be anything
        raise DictionaryInvalid(f"k is {k!r}, not a number of features")
    if not (0 < k <= n and (not whole or k == int(k))):
        raise DictionaryInvalid(f"k is {k}, not a {'whole ' if whole else ''}number from 1 to {n} features")


def _largest(values: Tensor, ranked: Tensor, k: int) -> Tensor:
    """Those of `values` whose place is one of the k largest of `ranked`, else 0."""
    places = ranked.topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(values).scatter_(-1, places, values.gather(-1, places))
