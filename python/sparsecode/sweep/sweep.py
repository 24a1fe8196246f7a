"""A sweep: many dictionaries of different sizes packed as rows of one set of tensors.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary, N features of all, K
dictionaries. Nothing is padded: dictionary k owns rows offsets[k] to offsets[k+1].

A transcoder reads some activations and writes others. Here a row is both side by side, first what is read: encoders are
zero outside of the first part, atoms and the pre-bias outside of the second, and the error counts in the second alone.
What is zero stays so by `confine`; everything else is as for a dictionary that writes what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import CheckpointCorrupt, InvalidArgument, InvalidSetting
from sparsecode.sweep.initial import Given, initial_atoms
from sparsecode.sweep.kinds import Kind, KindSpec, PAnneal, Weights, as_kind
from sparsecode.sweep.kinds.activation import activation_of
from sparsecode.sweep.own import OWN, KindState, places
from sparsecode.sweep.settings import LossSettings
from sparsecode.sweep.split import Split

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults, for every engine


class Resting(Protocol):
    """Features that an engine leaves out of its steps because nothing but their moments would change.

    Attributes:
        lag: [N] int32, for a feature that rests 1 and the steps by which its stored moments are behind; else 0.
    """

    lag: Tensor

    def wake(self) -> None:
        """Lets their moments catch up."""


class Sweep:
    """Parameters, Adam moments and counters of K dictionaries. Engines change them in place.

    Encoders begin as copies of the atoms, biases at zero; `start.begin` sets them as a recipe has it.

    Args:
        activation_dim: D.
        sizes, kinds, seeds: one value per dictionary (K); a number for the kind is the coefficient of a ReLU with L1.
        lr: Adam's peak learning rate, one for all or one per dictionary.
        loss: conventions shared by all.
        inputs: of transcoders, how many of the D dimensions are read; None: all are, and all are written. Where the
            squared error is averaged, it is over the dimensions that are written.
        orthogonal: the atoms are those of an orthogonal matrix instead of independent ones.
        given: atoms to begin near; None: all are random.
        together: sizes of all dictionaries of a sweep of which these are the part of one process: engines that choose
            their ways by the sizes choose as if they trained all, so that the bits are the same; None: `sizes`.
        split: how each dictionary is cut; of its features those are held here that are this process's. None: all are.
        device, dtype: of the parameters; engines other than the reference need contiguous float32.

    Attributes:
        W_enc: [N, D]. With tied weights it is the very tensor `W_dec`.
        b_enc: [N], zeros at the start.
        W_dec: [N, D], atoms, rows of norm 1.
        b_dec: [K, D] or None.
        own: parameters that only some kinds have, packed over those that have them: theta, b_mag, rho; see `place`.
        state: what kinds need beside that from step to step.
        moments: name -> (m, v), shaped as the parameter; one pair for the one matrix of a tied sweep ("W_dec"). Read
            them anew after a step: an engine may leave out features that have stopped firing, and reading makes up for
            it.
        resting: what an engine has left out; None while everything is up to date.
        step: Adam's t, steps done.
        fired: [N] int64, rows on which each feature was active since the caller last zeroed it.

    Raises:
        InvalidArgument: lists of unequal length, none at all, or a value that cannot be used.
        InvalidSetting: transcoders whose encoders are to be aligned with their atoms; dictionaries that cannot be cut.
    """

    def __init__(
        self,
        activation_dim: int,
        sizes: Sequence[int],
        kinds: Sequence[KindSpec | float],
        seeds: Sequence[int],
        lr: float | Sequence[float] = 1e-3,
        loss: LossSettings | None = None,
        *,
        inputs: int | None = None,
        orthogonal: bool = False,
        given: Given | None = None,
        together: Sequence[int] | None = None,
        split: Split | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        K = len(sizes)
        rates = [float(lr)] * K if isinstance(lr, float | int) else [float(rate) for rate in lr]
        if not (K and len(kinds) == len(seeds) == len(rates) == K):
            raise InvalidArgument(
                f"a sweep needs as many sizes ({K}) as kinds ({len(kinds)}), seeds and rates; at least one"
            )
        if activation_dim < 1 or min(sizes) < 1:
            raise InvalidArgument(f"activation_dim {activation_dim} and sizes {list(sizes)} must be 1 or more")
        if inputs is not None and not 0 < inputs < activation_dim:
            raise InvalidArgument(f"inputs {inputs} must be between 0 and the {activation_dim} dimensions of a row")
        if inputs is not None and ((loss is not None and loss.tied) or any(as_kind(kind).aux for kind in kinds)):
            raise InvalidArgument("a transcoder has no tied weights, and no loss of dead features")
        self.activation_dim = activation_dim
        self.inputs = inputs
        self.sizes = [int(size) for size in sizes]
        self.kinds = [as_kind(kind) for kind in kinds]
        self.lr = rates
        self.seeds = [int(seed) for seed in seeds]
        self.loss = loss or LossSettings()
        if self.loss.aligned and inputs is not None:
            raise InvalidSetting("aligned encoders lie in the space of their atoms, and those of transcoders do not")
        self.orthogonal = orthogonal
        self.given = given
        self.together = self.sizes if together is None else [int(size) for size in together]
        self.split = split
        if split is not None:
            _check_split(self.kinds, inputs)
        self.held = [len(range(size)[self._held(size)]) for size in self.sizes]
        self.offsets = [0]
        for count in self.held:
            self.offsets.append(self.offsets[-1] + count)

        atoms = torch.cat([self.initial_atoms(k) for k in range(K)])
        self.W_dec = atoms.to(device=device, dtype=dtype).contiguous()
        self.W_enc = self.W_dec if self.loss.tied else self.W_dec.clone()
        if inputs is not None:
            directions = torch.cat([self._initial(k)[:, :inputs] for k in range(K)])
            self.W_enc[:, :inputs] = torch.nn.functional.normalize(directions).to(self.W_enc)
            self.W_enc[:, inputs:] = 0
        self.b_enc = torch.zeros(self.total, device=device, dtype=dtype)
        self.b_dec = torch.zeros(K, activation_dim, device=device, dtype=dtype) if self.loss.pre_bias else None
        self.places = {name: places(name, self.kinds, self.held) for name in OWN}
        self.own = {
            name: torch.zeros(sum(at.stop - at.start for at in found if at), device=device, dtype=dtype)
            for name, found in self.places.items()
            if any(found)
        }
        self.state = KindState(self.kinds, self.held, [self.penalty(k) for k in range(K)], self.device)
        self.stored_moments = {
            name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in self.parameters().items()
        }
        self.step = 0
        self.fired = torch.zeros(self.total, device=device, dtype=torch.int64)
        self.resting: Resting | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def total(self) -> int:
        """N, the features of all dictionaries that are held."""
        return self.offsets[-1]

    @property
    def read(self) -> slice:
        """The dimensions that encoders read."""
        return slice(0, self.inputs)

    @property
    def written(self) -> slice:
        """The dimensions in which atoms lie."""
        return slice(self.inputs or 0, None)

    @property
    def output_dim(self) -> int:
        """How many these are."""
        return self.activation_dim - (self.inputs or 0)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.W_dec.device

    @property
    def names(self) -> list[str]:
        """The file name of each dictionary."""
        return [kind.file_name(size, seed) for size, kind, seed in self.keys]

    @property
    def keys(self) -> list[tuple[int, KindSpec, int]]:
        """(size, kind, seed) of each dictionary."""
        return list(zip(self.sizes, self.kinds, self.seeds, strict=True))

    @property
    def l1(self) -> list[float]:
        """The L1 coefficient of each dictionary, 0 for kinds that have none."""
        return [kind.l1 or 0.0 for kind in self.kinds]

    def initial_atoms(self, k: int) -> Tensor:
        """The atoms [F, D] that dictionary k started from, those that are held, float32 on the CPU."""
        rows = self._initial(k)
        if self.inputs is not None:
            rows[:, self.read] = 0
            rows = torch.nn.functional.normalize(rows)
        return self.part_of(k, rows if self.given is None else self.given.near(rows))

    def _held(self, size: int) -> slice:
        return slice(None) if self.split is None else self.split.held(size)

    def part_of(self, k: int, values: Tensor) -> Tensor:
        """What is held of values [F, ...] of all features of dictionary k."""
        return values[self._held(self.sizes[k])]

    def whole(self, values: Tensor) -> Tensor:
        """[F, ...] of all features of a dictionary, given those that are held. All processes of a team call it."""
        return values if self.split is None else self.split.team.gather(values)

    @property
    def leads(self) -> bool:
        """Whether this process is the one of its team that writes dictionaries."""
        return self.split is None or self.split.team.rank == 0

    def _initial(self, k: int) -> Tensor:
        return initial_atoms(*self.keys[k], self.activation_dim, orthogonal=self.orthogonal)

    @torch.no_grad()
    def confine(self) -> None:
        """Sets what is zero in transcoders to zero, and atoms to norm 1 again."""
        if self.inputs is not None:
            self.confine_each(self.parameters())
            self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)

    def confine_each(self, values: Mapping[str, Tensor]) -> None:
        """Sets the same to zero in values by the name of their parameter, such as gradients."""
        outside = {"W_enc": self.written, "W_dec": self.read, "b_dec": self.read}
        for name, value in values.items() if self.inputs is not None else ():
            if name in outside:
                value[..., outside[name]] = 0

    def rows(self, k: int) -> slice:
        """Rows of dictionary k in the packed tensors."""
        return slice(self.offsets[k], self.offsets[k + 1])

    def parameters(self) -> dict[str, Tensor]:
        """The trained tensors by name: W_enc (absent where tied), b_enc, W_dec, b_dec where there is one, and `own`."""
        found = {} if self.loss.tied else {"W_enc": self.W_enc}
        found |= {"b_enc": self.b_enc, "W_dec": self.W_dec}
        if self.b_dec is not None:
            found["b_dec"] = self.b_dec
        return found | self.own

    def place(self, name: str, k: int) -> slice | int | None:
        """Where the values of dictionary k lie in a parameter, its moments or its gradient; None where it has none."""
        if name == "b_dec":
            return k
        return self.places[name][k] if name in self.places else self.rows(k)

    @property
    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Adam's moments by name, of every feature up to date."""
        self.settle()
        return self.stored_moments

    def settle(self) -> None:
        """Lets the moments of features that an engine left out catch up (docs/engine.md).

        Call it before writing to a parameter through something else than torch, such as a numpy view.
        """
        resting, self.resting = self.resting, None
        if resting is not None:
            resting.wake()

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        return dict(self.__dict__)

    def scaled(self, k: int) -> KindSpec:
        """The kind of dictionary k with its penalties in the scale of the error that engines compute.

        The averaged error of transcoders is divided by all D dimensions there. Their penalties are smaller by the same
        factor, and so is the loss as a whole, which Adam does not see.
        """
        whole = self.inputs is None or self.loss.mse == "sum"
        return self.kinds[k] if whole else self.kinds[k].scaled(self.output_dim / self.activation_dim)

    def penalty(self, k: int) -> float:
        """What multiplies the mean L1 norm of dictionary k's codes in its loss; 0 for kinds without a coefficient."""
        l1 = self.scaled(k).l1 or 0.0
        return l1 / self.sizes[k] if self.loss.l1_scale == "per-size" else l1

    def weights(self, k: int) -> Weights:
        """Copies of dictionary k's parameters.

        Copies: BLAS may round differently with the alignment of its operands, and a dictionary must come out with the
        same bits wherever in a sweep it lies.
        """
        own, found = self.rows(k), {}
        for name, value in self.own.items():
            if (at := self.place(name, k)) is not None:
                found[name] = value[at].clone()
        b_dec = self.b_dec[k].clone() if self.b_dec is not None else None
        return Weights(self.W_enc[own].clone(), self.b_enc[own].clone(), self.W_dec[own].clone(), b_dec, **found)

    def kind(self, k: int, step: int, factor: float = 1.0) -> Kind:
        """How dictionary k is trained at a step, counted from 0, with its penalty on codes multiplied by `factor`."""
        if self.kinds[k].anneals:
            return PAnneal(self.state.strength(k).strength * factor, self.state.exponent(k, step))
        return self.scaled(k).kind(1 / self.sizes[k] if self.loss.l1_scale == "per-size" else 1.0, factor)

    def error_divisor(self, rows: int) -> int:
        """What the summed squared error of `rows` rows is divided by in the loss."""
        return rows * self.activation_dim if self.loss.mse == "mean" else rows

    def per_dictionary(self, values: Tensor) -> list[Tensor]:
        """Cuts a packed [N, ...] tensor into K views."""
        return list(torch.split(values, self.held))

    def check_batch(self, x: Tensor) -> None:
        """Raises InvalidArgument unless `x` is [B, D] with B >= 1, on the parameters' device and of their type."""
        fits = x.ndim == 2 and x.shape[0] >= 1 and x.shape[1] == self.activation_dim
        if not fits or x.dtype != self.W_dec.dtype or x.device.type != self.device.type:
            raise InvalidArgument(
                f"batch of shape {tuple(x.shape)}, {x.dtype} on {x.device}: this sweep needs [rows, "
                f"{self.activation_dim}], {self.W_dec.dtype} on {self.device}"
            )

    def diverged(self) -> set[int]:
        """Dictionaries with a parameter that is NaN or infinite, or with an atom that has no direction any more.

        All processes of a team call it.
        """
        finite = (
            torch.isfinite(self.W_dec).all(1)
            & self.W_dec.any(1)
            & torch.isfinite(self.W_enc).all(1)
            & torch.isfinite(self.b_enc)
        )
        bad = {k for k, own in enumerate(self.per_dictionary(finite)) if not bool(own.all())}
        for name, value in self.own.items():
            bad |= {k for k, at in enumerate(self.places[name]) if at and not bool(torch.isfinite(value[at]).all())}
        if self.b_dec is not None:
            bad |= {k for k, own in enumerate(self.b_dec) if not bool(torch.isfinite(own).all())}
        return bad if self.split is None else self.split.union(bad, len(self))

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that training changes, by name (the tensors themselves, not copies)."""
        state = dict(self.parameters())
        for name, (m, v) in self.moments.items():
            state |= {f"m.{name}": m, f"v.{name}": v}
        return state | self.state.tensors() | {"fired": self.fired, "step": torch.tensor(self.step)}

    def part(self, k: int) -> dict[str, Tensor]:
        """What `state_dict` has of dictionary k alone, by name, without the step: views of the same tensors."""
        found = {"fired": self.fired[self.rows(k)]} | self.state.part(k, self.rows(k))
        moments = self.moments
        for name, value in self.parameters().items():
            if (at := self.place(name, k)) is not None:
                m, v = moments[name]
                found |= {name: value[at], f"m.{name}": m[at], f"v.{name}": v[at]}
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` gave, in place.

        Raises:
            CheckpointCorrupt: a tensor is missing or has another shape or type.
        """
        own = self.state_dict()
        for name, mine in own.items():
            theirs = state.get(name)
            if theirs is None or theirs.shape != mine.shape or theirs.dtype != mine.dtype:
                found = "missing" if theirs is None else f"{theirs.dtype} {list(theirs.shape)}"
                raise CheckpointCorrupt(
                    f"saved state: '{name}' is {found}, not {mine.dtype} {list(mine.shape)}; "
                    "delete it to start this stage anew"
                )
        for name, mine in own.items():
            mine.copy_(state[name])
        self.step = int(state["step"])

    def dictionary(
        self, k: int, *, mean: Tensor | None = None, scale: float | Tensor = 1.0, meta: Mapping[str, Any] | None = None
    ) -> Dictionary:
        """A copy of dictionary k on the CPU, in float32, with the normalisation of the data it was trained on.

        All processes of a team call it.

        A transcoder writes raw activations, so the normalisation of these is in its atoms and b_dec.
        """
        own = {name: value for name, value in vars(self.weights(k)).items() if value is not None}
        own = {name: value if name == "b_dec" else self.whole(value) for name, value in own.items()}
        weights = Weights(**{name: value.to("cpu", torch.float32) for name, value in own.items()})
        kind = self.kinds[k]
        told: dict[str, Any] = {} if kind.plain else {"kind": str(kind)}
        told |= {} if kind.l1 is None else {"l1": kind.l1}
        told |= {} if self.given is None else {"init": self.given.record()}
        if ends := kind.ends(self.sizes[k]):
            told["group_sizes"] = [high - low for low, high in pairwise((0, *ends))]
        W_enc, W_dec, b_dec = weights.W_enc, weights.W_dec, weights.b_dec
        if self.inputs is not None:
            scales = torch.as_tensor(scale).expand(self.activation_dim)
            shift = [
                part[self.written] for part in (None if b_dec is None else b_dec * scales, mean) if part is not None
            ]
            W_enc, W_dec = W_enc[:, self.read].contiguous(), W_dec[:, self.written] * scales[self.written]
            b_dec = torch.stack(shift).sum(0) if shift else None
            mean, scale = None if mean is None else mean[self.read], scales[self.read]
            scale = float(scale[0]) if bool((scale == scale[0]).all()) else scale
        return Dictionary(
            W_enc=W_enc,
            b_enc=weights.b_enc,
            W_dec=W_dec,
            b_dec=b_dec,
            mean=mean,
            scale=scale,
            activation=activation_of(kind, weights, self.state.threshold_of(k)),
            apply_b_dec_to_input=self.inputs is None,
            transcoder=self.inputs is not None,
            meta=told | {"seed": self.seeds[k], "loss": self.loss.record()} | dict(meta or {}),
        )

    def initial_cosine(self, k: int) -> Tensor:
        """Cosine [F] of each atom of dictionary k with the atom it started from: 1 means that it did not move.

        All processes of a team call it.
        """
        start = self.initial_atoms(k).double()
        atoms = self.W_dec[self.rows(k)].detach().to("cpu", torch.float64)
        return self.whole(torch.nn.functional.cosine_similarity(atoms, start, dim=1).float())


def _check_split(kinds: Sequence[KindSpec], inputs: int | None) -> None:
    chooses = next((kind for kind in kinds if not kind.plain), None)
    if chooses is not None:
        raise InvalidSetting(f"'{chooses}' cannot be cut over processes: only ReLU dictionaries with L1 can")
    if inputs is not None:
        raise InvalidSetting("transcoders cannot be cut over processes")
