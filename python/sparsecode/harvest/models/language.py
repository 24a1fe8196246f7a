"""A language model for harvest and eval: tokens in, named values or logits out.

Shapes: B sequences, T positions, D width of a hook point, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsecode.errors import HookUnknown, ModelInvalid
from sparsecode.harvest.models.ids import embedded
from sparsecode.harvest.models.padding import LeftPadding, accepted
from sparsecode.harvest.models.taps import Change, Tap, change_tap, listed, module_paths, read_taps, submodule
from sparsecode.harvest.models.weights import missing_error, told

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
    """A model on its device, in evaluation mode, with the meaning of its tokens.

    Attributes:
        module: the model; called with `input_ids` and, where it takes one, `attention_mask`.
        name: its name in records.
        kind: what its logits predict: the next token (causal), a masked token itself (masked), or nothing, if it has no
            logits.
        taps: hook points by name; empty if the family is unknown.
        refused: hook points that other models of its kind have -> why this one does not.
        unread: why a known family has no hook points here.
        family: the family found, for messages.
        fingerprint: SHA-256 of its parameters and configuration.
        context: most tokens it takes.
        vocab_size: V.
        tokenizer: tokenizer.json as text, or None.
        frame: special tokens around each context.
        special: ids whose rows are left out: special tokens and the unknown one.
        unknown: id for text that the tokenizer does not know; None if no id serves only that.
        end: name of the tokenizer's own token that ends a document, or None.
        control: names of the special tokens that the tokenizer recognises where a text spells them.
        template: its chat template, or "".
        chat: writes a conversation by the template; None without one.
        chat_frame: special tokens around each context of conversations, as the template writes them.
        missing: names of weights that its files do not have; a pass that uses them fails.
        wrapped: whether names in its files were those of a compiled or distributed model.
        unused: names in its files that match none of its weights.
        mask: id of the mask token; masked models only.
        padding: how its positions follow the mask; found at the first batch padded on the left.
        call: calls the module on a batch.
        logits_of: takes logits [B,T,V] from the module's return value.
    """

    module: nn.Module
    name: str
    kind: Literal["causal", "masked", "none"]
    taps: dict[str, Tap]
    family: str
    fingerprint: str
    context: int
    vocab_size: int
    refused: Mapping[str, str] = field(default_factory=dict)
    unread: str = ""
    tokenizer: str | None = None
    frame: Frame = NO_FRAME
    special: frozenset[int] = frozenset()
    unknown: int | None = None
    end: str | None = None
    control: tuple[str, ...] = ()
    template: str = ""
    chat: Callable[[list[dict[str, Any]]], str] | None = None
    chat_frame: Frame = NO_FRAME
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    wrapped: bool = False
    mask: int | None = None
    pad: int = 0
    call: Callable[[nn.Module, dict[str, Tensor]], Any] = field(default=lambda module, given: module(**given))
    padding: LeftPadding | None = None
    logits_of: Callable[[Any], Tensor] = field(default=lambda output: output.logits)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its parameters."""
        return next(self.module.parameters()).dtype

    def tap(self, hook: str) -> Tap:
        """The tap of a hook point, `blocks.2.mlp.hook_post`, or of a module, `encoder.layer.2.output@input`.

        Raises:
            HookUnknown: the model has no such hook point or module; the message lists what it has.
            ModelInvalid: its modules are not those of its family.
        """
        if hook in self.taps:
            return self.taps[hook]
        if why := self._refusal(hook):
            raise HookUnknown(f"{self.name} ({self.family}): no {hook}: {why}")
        tap = Tap.parse(hook)
        try:
            submodule(self.module, tap.module)
            return tap
        except HookUnknown:
            if not (hook.startswith("blocks.") or hook.rpartition(".")[2].startswith("hook_")):
                raise
        if self.unread:
            raise ModelInvalid(f"{self.name}: {self.unread}", remedy="module")
        if self.taps:
            inside = [name.split(".", 2) for name in self.taps if name.startswith("blocks.")]
            layers = 1 + max(int(layer) for _, layer, _ in inside)
            kinds = dict.fromkeys(kind for _, _, kind in inside)
            outside = [name for name in self.taps if not name.startswith("blocks.")]
            raise HookUnknown(
                f"{self.name} ({self.family}): no hook point '{hook}'; there are blocks.L.X with L 0 to {layers - 1}, "
                f"X {', '.join(kinds)}; {', '.join(outside)}",
                remedy="module",
            )
        raise HookUnknown(
            f"{self.name}: its family, {self.family}, has no hook points here; its modules are "
            f"{listed(module_paths(self.module))}",
            remedy="module",
        )

    def _refusal(self, hook: str) -> str | None:
        """Why it lacks a hook point that other models of its kind have."""
        block, experts, _ = hook.partition(".mlp.experts.")
        return self.refused.get(f"{block}.mlp.hook_post" if experts else hook)

    @torch.no_grad()
    def read(self, batch: Batch, hooks: Iterable[str]) -> dict[str, Tensor]:
        """Values [B,T,D] at hook points for `input_ids` [B,T]; nothing after the last of them is computed.

        Raises:
            HookUnknown: no such hook point, or its value has no vector per token.
            WeightsMissing: it needs weights that the model's files do not have.
        """
        taps = {hook: self.tap(hook) for hook in hooks}
        given = self._given(batch)
        B, T = given["input_ids"].shape

        def values(given: dict[str, Tensor]) -> dict[str, Tensor]:
            return read_taps(self.module, taps, lambda: self.call(self.module, given))

        self._follow(given, lambda given: values(given).values())
        found = values(given)
        self._check_there(found.values())
        return {hook: per_token(value, B, T, hook) for hook, value in found.items()}

    @torch.no_grad()
    def logits(self, batch: Batch, hook: str | None = None, change: Change | None = None) -> Tensor:
        """Logits [B,T,V]; with `hook`, those that follow when its value [B,T,D] is replaced by `change` of it.

        Raises:
            ModelInvalid: the model has no logits.
            WeightsMissing: they need weights that its files do not have.
        """
        if self.kind == "none":
            raise ModelInvalid(f"{self.name}: has no output that predicts tokens; only its activations can be read")
        given = self._given(batch)
        self._follow(given, lambda given: [self.logits_of(self._forward(given))])
        if hook is None or change is None:
            logits = self.logits_of(self._forward(given))
            self._check_there([logits])
            return logits
        B, T = given["input_ids"].shape

        def changed(value: Tensor) -> Tensor:
            new = change(per_token(value, B, T, hook)).to(value)
            return new.view_as(value) if new.numel() == value.numel() else new

        return self.logits_of(change_tap(self.module, self.tap(hook), changed, lambda: self._forward(given)))

    def width(self, hook: str) -> int:
        """D of a hook point, found by a forward pass over two tokens, or one if it takes no more.

        Raises:
            HookUnknown: no such hook point, or its value has no vector per token.
            ModelInvalid: the forward pass fails because the model needs more than a text's tokens.
        """
        ids = torch.zeros((1, min(2, self.context)), dtype=torch.int64, device=self.device)
        try:
            return int(self.read({"input_ids": ids}, [hook])[hook].shape[-1])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ModelInvalid(
                f"{self.name}: its forward pass over the tokens of a text does not reach {hook} ({error}); of an "
                "encoder-decoder model only the encoder can be read"
            ) from error

    def _forward(self, given: dict[str, Tensor]) -> Any:
        try:
            return self.call(self.module, given)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelInvalid(
                f"{self.name} ({self.family}): its forward pass over the tokens of a text fails ({error})",
                remedy="only_modules",
            ) from error

    def strange(self) -> list[str]:
        """What is odd about its files, one line each, to show once its values are known to be readable."""
        lines = list(told(self.module, self.name, self.missing, self.unused))
        if self.wrapped:
            lines.append(
                f"{self.name}: read without what torch.compile and the like put before its weights' names"
                f"{'' if self.missing else '; none is missing'}"
            )
        return lines

    def _check_there(self, values: Iterable[Tensor]) -> None:
        """Fails if a missing weight was used, which makes values NaN even where no module guards the weight."""
        if self.missing and any(bool(value.isnan().any()) for value in values):
            raise missing_error(self.name, self.missing, self.unused)

    def _given(self, batch: Batch) -> dict[str, Tensor]:
        names = accepted(self.module)
        ids = embedded(self.name, batch["input_ids"], self.vocab_size, batch.get("attention_mask"))
        batch = {**batch, "input_ids": ids}
        given = {name: value.to(self.device) for name, value in batch.items() if names is None or name in names}
        mask = given.get("attention_mask")
        if mask is not None and bool(mask.all()):
            del given["attention_mask"]  # the same result, and the faster kernels of attention
        return given

    def _follow(self, given: dict[str, Tensor], values: Callable[[dict[str, Tensor]], Iterable[Tensor]]) -> None:
        """Makes the positions of a batch that is padded on the left follow its mask."""
        if self.padding is None:
            self.padding = LeftPadding(self.name, self.module)
        given.update(self.padding.follow(given, values))


def per_token(value: Tensor, B: int, T: int, hook: str) -> Tensor:
    """A value as [B,T,D]: heads side by side, a flattened batch unfolded, a value shared by all sequences repeated.

    Raises:
        HookUnknown: it does not have a vector for every token.
    """
    if value.shape[:2] == (B, T) and value.ndim >= 2:
        return value.reshape(B, T, -1)
    if value.ndim >= 2 and value.shape[0] == B * T:
        return value.reshape(B, T, -1)
    if value.ndim == 3 and value.shape[:2] == (1, T):  # embeddings of positions
        return value.expand(B, -1, -1)
    raise HookUnknown(
        f"{hook}: its value {list(value.shape)} has no vector for each of {B} x {T} tokens; read another module"
    )
