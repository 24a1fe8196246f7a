"""The dictionaries of a consensus in one form: unit atoms, and what their codes add to raw activations.

Members may differ in normalisation and in the norms of their decoders. For a rectified code, with atom a, encoder row
e and bias b of a dictionary that divides by s after subtracting m, and has the pre-bias p,

    contribution = relu(|a| e . x + |a| (s b - e . (m + s p))) a / |a|

so rows and biases multiplied by the norm describe the same feature in raw activations. Letters: n features, d
dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.dictionary import AbsTopK, Dictionary, JumpRelu, Relu, TopKLinear
from sparsecode.errors import NotExpressible


@dataclass(frozen=True, eq=False)
class Voter:
    """One dictionary.

    Attributes:
        name, fingerprint, seed: of it; the last two None where unknown.
        dictionary: itself.
        scale: what it divides raw activations by.
        atoms: [n, d] float32 unit rows; zeros where an atom has no direction.
        encoder: [n, d] float64 rows of the encoder, times the norms of the atoms.
        bias: [n] float64, beside these for raw activations.
        offset: [d] float64, what it gives for codes of zero.
        live: [n] which features fired on held-out rows and have a direction.
    """

    name: str
    fingerprint: str | None
    seed: int | None
    dictionary: Dictionary
    scale: float
    atoms: Tensor
    encoder: Tensor
    bias: Tensor
    offset: Tensor
    live: Tensor

    @property
    def threshold(self) -> Tensor | None:
        """[n] of a JumpReLU, for raw activations; None for others."""
        activation = self.dictionary.activation
        if not isinstance(activation, JumpRelu):
            return None
        threshold: Tensor = activation.threshold.double() * self.scale * self.dictionary.W_dec.double().norm(dim=1)
        return threshold

    @property
    def averages(self) -> bool:
        """Whether codes do not depend on other features, so that means of encoders have a meaning."""
        return isinstance(self.dictionary.activation, Relu | JumpRelu)

    @property
    def signed(self) -> bool:
        """Whether codes of both signs occur, so that opposite atoms are the same feature."""
        return isinstance(self.dictionary.activation, AbsTopK | TopKLinear)


def voter_of(dictionary: Dictionary, name: str, fingerprint: str | None = None) -> Voter:
    """A dictionary in that form.

    Raises:
        NotExpressible: it reads other activations than it writes, normalises each row by itself, or has several scales.
    """
    scale = dictionary.scale
    if isinstance(scale, Tensor):
        raise NotExpressible(f"{name}: a consensus is of dictionaries of one layer, with one scale")
    if dictionary.transcoder or dictionary.W_skip is not None or dictionary.input_norm != "none":
        raise NotExpressible(
            f"{name}: a consensus is of dictionaries that read what they write, without a normalisation of each row or "
            "a skip connection"
        )
    decoder, encoder = dictionary.W_dec.double(), dictionary.W_enc.double()
    norm = decoder.norm(dim=1, keepdim=True)
    mean = decoder.new_zeros(decoder.shape[1]) if dictionary.mean is None else dictionary.mean.double()
    pre = mean.new_zeros(()) if dictionary.b_dec is None else scale * dictionary.b_dec.double()
    shift = mean + pre if dictionary.apply_b_dec_to_input else mean
    density, seed = dictionary.features.get("density"), dictionary.meta.get("seed")
    live = norm[:, 0] > 0
    return Voter(
        name=name,
        fingerprint=fingerprint,
        seed=seed if isinstance(seed, int) else None,
        dictionary=dictionary,
        scale=scale,
        atoms=(decoder / norm.clamp(min=torch.finfo(torch.float64).tiny)).float().contiguous(),
        encoder=encoder * norm,
        bias=norm[:, 0] * (scale * dictionary.b_enc.double() - encoder @ shift),
        offset=mean + pre,
        live=live if density is None else live & (density > 0),
    )
