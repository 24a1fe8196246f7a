"""A language model as harvest and eval need it: tokens in, named values or logits out.

Shapes: B sequences, T positions, D width of a hook point, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsecode.errors import HookUnknown, ModelInvalid
from sparsecode.harvest.models.places import (
    Change,
    Place,
    change_place,
    listed,
    module_paths,
    read_places,
    submodule,
)

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Frame:
    """Special tokens that a tokenizer puts around a text: [CLS] ... [SEP], or <s> before it."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


NO_FRAME = Frame()


@dataclass(eq=False)
class LanguageModel:
    """A model on its device, in evaluation mode, with what its tokens mean.

    Attributes:
        module: the model; called with `input_ids` and, where it takes one, `attention_mask`.
        name: what to call it in records.
        kind: what its logits predict: the next token (causal), the token itself where it was masked (masked), or
            nothing: it has none.
        places: hook points by name; empty where the family is unknown.
        family: what was found, for messages.
        fingerprint: SHA-256 of its parameters and configuration.
        context: most tokens it takes.
        vocab_size: V.
        tokenizer: tokenizer.json as text, or None.
        frame: special tokens around each context.
        special: ids whose rows are left out: special tokens and the unknown one.
        unknown: id that stands for text that the tokenizer does not know; None where there is none of its own.
        mask: id of the token that hides another; masked models only.
        call: calls the module on a batch.
        logits_of: logits [B,T,V] from what the module returns.
    """

    module: nn.Module
    name: str
    kind: Literal["causal", "masked", "none"]
    places: dict[str, Place]
    family: str
    fingerprint: str
    context: int
    vocab_size: int
    tokenizer: str | None = None
    frame: Frame = NO_FRAME
    special: frozenset[int] = frozenset()
    unknown: int | None = None
    mask: int | None = None
    pad: int = 0
    call: Callable[[nn.Module, dict[str, Tensor]], Any] = field(default=lambda module, given: module(**given))
    logits_of: Callable[[Any], Tensor] = field(default=lambda output: output.logits)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its parameters."""
        return next(self.module.parameters()).dtype

    def place(self, hook: str) -> Place:
        """The place of a hook point, `blocks.2.mlp.hook_post`, or of a module, `encoder.layer.2.output@input`.

        Raises:
            HookUnknown: the model has neither; the message says what it has.
        """
        if hook in self.places:
            return self.places[hook]
        place = Place.parse(hook)
        if not hook.startswith("blocks.") or _has(self.module, place.module):
            submodule(self.module, place.module)
            return place
        if self.places:
            layers = 1 + max(int(name.split(".")[1]) for name in self.places)
            kinds = dict.fromkeys(name.split(".", 2)[2] for name in self.places)
            raise HookUnknown(
                f"{self.name} ({self.family}): no hook point '{hook}'; there are blocks.L.X with L 0 to {layers - 1}, "
                f"X {', '.join(kinds)}; other modules with --module"
            )
        raise HookUnknown(
            f"{self.name}: its family, {self.family}, has no hook points here; name a module with --module, one of "
            f"{listed(module_paths(self.module))}"
        )

    @torch.no_grad()
    def read(self, batch: Batch, hooks: Iterable[str]) -> dict[str, Tensor]:
        """Values [B,T,D] at hook points for `input_ids` [B,T]; nothing after the last of them is computed.

        Raises:
            HookUnknown: no such hook point, or its value has no vector per token.
        """
        places = {hook: self.place(hook) for hook in hooks}
        given = self._given(batch)
        B, T = given["input_ids"].shape
        found = read_places(self.module, places, lambda: self.call(self.module, given))
        return {hook: per_token(value, B, T, hook) for hook, value in found.items()}

    @torch.no_grad()
    def logits(self, batch: Batch, hook: str | None = None, change: Change | None = None) -> Tensor:
        """Logits [B,T,V]; with `hook`, those that follow when its value [B,T,D] is replaced by `change` of it.

        Raises:
            ModelInvalid: the model has no logits.
        """
        if self.kind == "none":
            raise ModelInvalid(f"{self.name}: has no output that predicts tokens; only its activations can be read")
        given = self._given(batch)
        if hook is None or change is None:
            return self.logits_of(self.call(self.module, given))
        B, T = given["input_ids"].shape

        def changed(value: Tensor) -> Tensor:
            return change(per_token(value, B, T, hook)).to(value).view_as(value)

        return self.logits_of(
            change_place(self.module, self.place(hook), changed, lambda: self.call(self.module, given))
        )

    def width(self, hook: str) -> int:
        """D of a hook point, found by a forward pass over two tokens.

        Raises:
            HookUnknown: no such hook point, or its value has no vector per token.
            ModelInvalid: the pass fails on the way there: the model needs more than a text's tokens.
        """
        ids = torch.zeros((1, 2), dtype=torch.int64, device=self.device)
        try:
            return int(self.read({"input_ids": ids}, [hook])[hook].shape[-1])
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ModelInvalid(
                f"{self.name}: its forward pass over the tokens of a text does not reach {hook} ({error}); of an "
                "encoder-decoder model only the encoder can be read"
            ) from error

    def _given(self, batch: Batch) -> dict[str, Tensor]:
        accepted = _accepted(self.module)
        given = {name: value.to(self.device) for name, value in batch.items() if accepted is None or name in accepted}
        mask = given.get("attention_mask")
        if mask is not None and bool(mask.all()):
            del given["attention_mask"]  # the same result, and the faster kernels of attention
        elif (
            mask is not None and not bool(mask[:, 0].all()) and "position_ids" not in given and _counts(self, accepted)
        ):
            # Padded on the left: without this, positions would count the padding.
            given["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        return given


def per_token(value: Tensor, B: int, T: int, hook: str) -> Tensor:
    """A value as [B,T,D]: heads side by side, and a flattened batch unfolded.

    Raises:
        HookUnknown: it has no vector for every token.
    """
    if value.shape[:2] == (B, T) and value.ndim >= 2:
        return value.reshape(B, T, -1)
    if value.ndim >= 2 and value.shape[0] == B * T:
        return value.reshape(B, T, -1)
    raise HookUnknown(
        f"{hook}: its value {list(value.shape)} has no vector for each of {B} x {T} tokens; read another module"
    )


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def _accepted(module: nn.Module) -> set[str] | None:
    """Names of the arguments of a module's forward; None where it takes any."""
    parameters = inspect.signature(module.forward).parameters
    named = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    return named if "input_ids" in named else None


def _counts(model: LanguageModel, accepted: set[str] | None) -> bool:
    """Whether positions are simply counted from 0; RoBERTa's come from the padding token itself."""
    return accepted is not None and "position_ids" in accepted and "roberta" not in model.family.lower()
