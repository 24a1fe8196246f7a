"""Dictionaries that were not trained sparsely, each with an encoder, so that everything takes them like any other.

Shape letters: R rows, D dimensions, k directions, n features.

Directions whose codes have two signs (identity, random, PCA, ICA) become two features each, because a dictionary's
codes are not negative: feature j is direction j, and feature k + j the opposite one. Of the two at most one is active,
and together they reconstruct what the direction does. NMF's codes and the neurons' own have one sign.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsecode.sweep import Dictionary

Array = npt.NDArray[np.float64]
# Directions in which the data vary by less than this share of the largest variance are rounding errors of float16
# activations: whitening would blow them up into independent components.
_FLAT = 1e-6
MOST_DIRECTIONS = 4096  # of weights: as many as the largest dictionaries here have features
_RIDGE = 1e-4  # of the largest eigenvalue, in the regression that gives NMF an encoder


@dataclass(frozen=True)
class Fit:
    """What the baselines are fitted with: rows [R, D], of which iterative ones read the first `iterative_rows`.

    `weights` are the directions [k, D] of `read` and `write`, the longest first, where they are asked for.
    """

    x: Array
    iterative_rows: int
    ica_iterations: int
    nmf_iterations: int
    seed: int
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.x.shape[1])


def neurons(fit: Fit) -> Dictionary:
    """The neuron basis: feature j is neuron j where it is above zero."""
    eye = np.eye(fit.dim)
    return _dictionary(eye, eye, None, kind="neurons", codes="non-negative", fit_rows=0)


def identity(fit: Fit) -> Dictionary:
    """Every neuron with both signs: reconstructs everything, with as many codes as neurons are not zero."""
    eye = np.eye(fit.dim)
    return _signed(eye, eye, None, kind="identity", fit_rows=0)


def random(fit: Fit) -> Dictionary:
    """A random rotation of the neuron basis, uniform over all rotations (QR of a Gaussian matrix; Mezzadri 2007)."""
    generator = np.random.Generator(np.random.PCG64([fit.seed, 0x726F74]))  # "rot"
    q, r = np.linalg.qr(generator.standard_normal((fit.dim, fit.dim)))
    directions = (q * np.sign(np.diag(r))).T
    return _signed(directions, directions, None, kind="random", fit_rows=0)


def pca(fit: Fit) -> Dictionary:
    """Principal components, by falling variance; `features.variance` holds the variance along each."""
    from sklearn.decomposition import PCA

    found = PCA(svd_solver="covariance_eigh").fit(fit.x)
    directions = found.components_
    made = _signed(directions, directions, found.mean_, kind="pca", fit_rows=len(fit.x))
    made.features["variance"] = torch.from_numpy(np.tile(found.explained_variance_, 2)).float()
    return made


def ica(fit: Fit) -> Dictionary:
    """Independent components (FastICA, Hyvärinen 1999, contrast log cosh) of data whitened along every direction
    that varies; those that do not are left out.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    x = fit.x[: fit.iterative_rows]
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((x - mean).T))
    kept = values > _FLAT * values[-1]
    scale = np.sqrt(values[kept])
    white = (x - mean) @ vectors[:, kept] / scale
    model = FastICA(whiten=False, max_iter=fit.ica_iterations, tol=1e-4, random_state=fit.seed)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = model.fit(white.astype(np.float32))  # half the time of float64, and the same components
        except ValueError:  # in a thousand dimensions it may end in NaN
            found = model.fit(white)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in said)
    turn = _orthogonal(np.asarray(found.components_, dtype=np.float64))  # sources = turn @ white
    unmixing = turn / scale @ vectors[:, kept].T  # [k, D]
    mixing = turn * scale @ vectors[:, kept].T  # [k, D]: x - mean = sources @ mixing
    made = _signed(mixing, unmixing, mean, kind="ica", fit_rows=len(x))
    made.meta["fit"] |= {"iterations": int(found.n_iter_), "converged": converged}
    return made


def nmf(fit: Fit) -> Dictionary:
    """Non-negative matrix factorisation (coordinate descent) of the rows minus each neuron's smallest value.

    NMF has no encoder: its codes solve a problem per row. The dictionary's is the linear map, cut at zero, that is
    nearest to these codes on the rows of the fit (ridge regression). `fit.own_fvu` is what NMF's own codes leave.
    """
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    x = fit.x[: fit.iterative_rows]
    least = x.min(axis=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = NMF(fit.dim, init="nndsvda", max_iter=fit.nmf_iterations, random_state=fit.seed)
        codes = model.fit_transform(x - least)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in said)
    atoms = np.asarray(model.components_, dtype=np.float64)
    own = float(np.square(codes @ atoms + least - x).sum() / np.square(x - x.mean(axis=0)).sum())
    used = np.linalg.norm(atoms, axis=1) > 0
    encoder, bias = _regression(x - least, codes[:, used])
    made = _dictionary(atoms[used], encoder, least, bias, kind="nmf", codes="non-negative", fit_rows=len(x))
    made.meta["fit"] |= {"iterations": int(model.n_iter_), "converged": converged, "own_fvu": own}
    return made


def read(fit: Fit) -> Dictionary:
    """Directions that later parts of the model read, by falling length of the weights."""
    return _of_weights(fit, "read")


def write(fit: Fit) -> Dictionary:
    """Directions that earlier parts of the model write, by falling length."""
    return _of_weights(fit, "write")


def _of_weights(fit: Fit, kind: str) -> Dictionary:
    rows = fit.weights[kind][:MOST_DIRECTIONS].double().numpy()
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return _dictionary(directions, directions, fit.x.mean(axis=0), kind=kind, codes="non-negative", fit_rows=0)


BASELINES: dict[str, Callable[[Fit], Dictionary]] = {
    "neurons": neurons,
    "identity": identity,
    "random": random,
    "pca": pca,
    "ica": ica,
    "nmf": nmf,
    "read": read,
    "write": write,
}
OF_WEIGHTS = ("read", "write")  # kinds that need the model


def _signed(atoms: Array, encoder: Array, mean: Array | None, **about: Any) -> Dictionary:
    """Directions with codes of both signs, each as two features."""
    both = np.concatenate([atoms, -atoms]), np.concatenate([encoder, -encoder])
    return _dictionary(*both, mean, codes="signed", **about)


def _dictionary(
    atoms: Array, encoder: Array, mean: Array | None, bias: Array | None = None, *, kind: str, codes: str, fit_rows: int
) -> Dictionary:
    """Atoms [n, D] brought to norm 1, and codes [.. n] = relu((x - mean) encoder^T + bias) scaled to match."""
    norms = np.linalg.norm(atoms, axis=1)
    bias = np.zeros(len(atoms)) if bias is None else bias
    return Dictionary(
        W_enc=torch.from_numpy(encoder * norms[:, None]).float(),
        b_enc=torch.from_numpy(bias * norms).float(),
        W_dec=torch.from_numpy(atoms / norms[:, None]).float(),
        mean=None if mean is None else torch.from_numpy(mean).float(),
        meta={"kind": kind, "codes": codes, "fit": {"rows": fit_rows}},
    )


def _orthogonal(matrix: Array) -> Array:
    """The nearest orthogonal matrix: removes what float32 iterations leave."""
    u, _, v = np.linalg.svd(matrix)
    nearest: Array = u @ v
    return nearest


def _regression(x: Array, codes: Array) -> tuple[Array, Array]:
    """Encoder [n, D] and bias [n] with x encoder^T + bias nearest to the codes [R, n] in ridge regression."""
    mean, middle = x.mean(axis=0), codes.mean(axis=0)
    centred = x - mean
    gram = centred.T @ centred
    gram[np.diag_indices(len(gram))] += _RIDGE * np.linalg.norm(gram, 2)
    weights = np.linalg.solve(gram, centred.T @ (codes - middle))
    return weights.T, middle - mean @ weights
