"""What a feature does to the model's predictions: by the direct path to the logits, or measured in forward passes.

The direct path of an atom v at a hook point: the place's output matrix where it has one, the residual stream, the last
norm's centring and gain with its scale held fixed, the unembedding. It is the derivative of the logits along the atom,
through no later block (nostalgebraist 2020, "the logit lens"; the scale is the mean of 1 / sigma over positions).

Shape letters: P positions or contexts, T tokens of a context, F features, C width of the residual stream, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecode.errors import HookUnknown, SparsecodeError
from sparsecode.gpt import GPT
from sparsecode.harvest.models import LanguageModel
from sparsecode.harvest.models.families import language_config
from sparsecode.harvest.models.taps import submodule

# Causal models whose blocks add to the residual stream what their parts give, with no norm after them.
PRE_NORM = (
    "gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "mistral", "ministral", "qwen2", "qwen3", "smollm3", "phi",
    "starcoder2", "stablelm", "olmo", "gemma",
)  # fmt: skip
_ADDED = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
_PROJECTED = ("attn.hook_z", "mlp.hook_post")
_LOGITS = 1 << 24  # computed at a time: 64 MB
_TOLERANCE = 1e-3  # relative, of the logits that the path must explain


@dataclass(frozen=True, eq=False)
class DirectPath:
    """The linear map from a hook point to the logits.

    Attributes:
        through: the matrix from the place into the residual stream; None where the place is added to it.
        centred: whether the last norm takes the mean off.
        gain: [C] of the last norm.
        scale: mean of what it multiplies with, 1 / sigma.
        unembed: [V, C].
    """

    through: nn.Module | None
    centred: bool
    gain: Tensor
    scale: float
    unembed: Tensor

    @torch.no_grad()
    def logits(self, atoms: Tensor) -> Tensor:
        """[F, V] what adding each of `atoms` [F, d] to the place adds to the logits."""
        x = atoms.to(self.unembed)
        if self.through is not None:
            x = self.through(x) - self.through(torch.zeros_like(x[:1]))
        if self.centred:
            x = x - x.mean(1, keepdim=True)
        return (x * (self.gain * self.scale)) @ self.unembed.T


@torch.no_grad()
def direct_path(model: LanguageModel, hook: str, ids: Tensor) -> DirectPath:
    """The direct path from a hook point to the logits, with the scale that the last norm has on tokens [P, T].

    Raises:
        HookUnknown: there is none; the message says why.
    """
    through = _through(model, hook)
    tap = model.tap("ln_final.hook_normalized")
    norm: Any = submodule(model.module, tap.module)
    head: Any = None if isinstance(model.module, GPT) else model.module.get_output_embeddings()  # type: ignore[operator]
    unembed = model.module.wte.weight if isinstance(model.module, GPT) else head.weight
    batch = {"input_ids": ids}
    x = model.read(batch, [f"{tap.module}@input"])[f"{tap.module}@input"]
    y, plain = norm(x), norm(torch.zeros_like(x[:1, :1]))
    centred = torch.allclose(norm(x + 1), y, rtol=1e-3, atol=1e-4)
    weight = getattr(norm, "weight", None)
    gain = torch.ones_like(x[0, 0]) if weight is None else weight + tap.offset
    u = gain * (x - x.mean(-1, keepdim=True) if centred else x)
    scale = (u * (y - plain)).sum(-1) / (u * u).sum(-1)
    explained = u * scale[..., None] + plain
    explained = explained @ unembed.T if head is None else head(explained)
    logits = model.logits(batch)
    if float((explained - logits).abs().max()) > _TOLERANCE * float(logits.abs().max()):
        raise HookUnknown(f"no direct path: the logits of {model.name} are not its last norm times its unembedding")
    return DirectPath(through, centred, gain.float(), float(scale.mean()), unembed.float())


def _through(model: LanguageModel, hook: str) -> nn.Module | None:
    kind = "" if isinstance(model.module, GPT) else str(language_config(model.module.config).model_type)
    if kind and (model.kind != "causal" or kind not in PRE_NORM):
        raise HookUnknown(f"no direct path: not known to be straight in {model.family}")
    place = re.fullmatch(r"blocks\.\d+\.(.+)", hook)
    if place is None or place[1] not in (*_ADDED, *_PROJECTED):
        raise HookUnknown(f"no direct path from {hook}: a block's nonlinear parts follow it")
    tap = model.tap(hook)
    if place[1] in _ADDED:
        return None
    if tap.side != "input" or tap.part is not None:
        raise HookUnknown(f"no direct path from {hook}: no single matrix of {model.name} reads it")
    return submodule(model.module, tap.module)


@dataclass(frozen=True, eq=False)
class Effects:
    """The tokens whose logits each feature raises and lowers most: ids and changes [F, k], the largest first."""

    raised: tuple[Tensor, Tensor]
    lowered: tuple[Tensor, Tensor]


def direct(
    path: DirectPath, atoms: Tensor, count: int, advance: Callable[[int], Any] = lambda features: None
) -> Effects:
    """The effects of atoms [F, d] by the direct path."""

    def each() -> Iterator[Tensor]:
        for some in torch.split(atoms, max(1, _LOGITS // len(path.unembed))):
            yield path.logits(some)
            advance(len(some))

    return _strongest(each(), count)


def causal(
    model: LanguageModel,
    hook: str,
    atoms: Tensor,
    ids: Tensor,
    count: int,
    advance: Callable[[int], Any] = lambda features: None,
) -> Effects:
    """The measured effects of atoms [F, d]: each is added at the last token of every context of `ids` [P, T].

    What is averaged over the contexts is the change of the logits there, later blocks included.

    Raises:
        ModelInvalid: the model has no logits.
        HookUnknown: the hook point can only be read.
    """
    if why := model.tap(hook).fixed:
        raise HookUnknown(f"{hook} of {model.name} can only be read, not changed: {why}")
    batch = {"input_ids": ids}
    clean = model.logits(batch)[:, -1].float()

    def each() -> Iterator[Tensor]:
        for atom in atoms:

            def change(value: Tensor, atom: Tensor = atom) -> Tensor:
                new = value.clone()
                new[:, -1] += atom.to(value)
                return new

            yield (model.logits(batch, hook, change)[:, -1].float() - clean).mean(0, keepdim=True)
            advance(1)

    return _strongest(each(), count)


def reason(error: SparsecodeError) -> str:
    """Why there are no effects, in a line."""
    return str(error).splitlines()[0]


@torch.no_grad()
def _strongest(parts: Iterator[Tensor], count: int) -> Effects:
    found = []
    for logits in parts:
        k = min(count, logits.shape[1])
        up, down = logits.topk(k), logits.topk(k, largest=False)
        found.append([one.cpu() for one in (up.indices, up.values, down.indices, down.values)])
    a, b, c, d = (torch.cat(own) for own in zip(*found, strict=True))
    return Effects((a, b), (c, d))
