"""Reading and changing values inside any `torch.nn.Module`, by the names of its submodules.

A tap says where a value is: at the input or the output of a submodule. The model is not changed: hooks are registered
for one forward pass and removed afterwards, and the pass ends at the last tap that was requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sparsecode.errors import HookUnknown

INPUT = "@input"  # transformer.h.2.mlp.c_proj@input: the module's input
_SHOWN = 40  # module paths in an error

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """Some columns of a value: those from `start` to `stop` in each of `groups` equal stretches.

    Queries, keys and values from one matrix are side by side as a whole (one group) or head by head (a group each).
    """

    groups: int
    start: int
    stop: int

    def of(self, value: Tensor) -> Tensor:
        """Only these columns."""
        return self._grouped(value)[..., self.start : self.stop].flatten(-2)

    def put(self, value: Tensor, new: Tensor) -> Tensor:
        """`value` with these columns replaced."""
        whole = value.clone()
        self._grouped(whole)[..., self.start : self.stop] = self._grouped(new)
        return whole

    def _grouped(self, value: Tensor) -> Tensor:
        return value.view(*value.shape[:-1], self.groups, -1)


@dataclass(frozen=True)
class Tap:
    """Where a value is in a model, and how to replace it.

    Attributes:
        module: dotted path of a submodule.
        side: its input or its output; of several, the first tensor. `normalised`: an RMSNorm's input over the root mean
            square, before the weight. `logits`: its input times its weight, where the output is derived from that.
        addend, base: for a value that is a sum read by several modules, such as the residual stream between attention
            and MLP: the module whose output is the addend, and the one whose input it is added to. A change of the sum
            is made in the addend, so that everything after it sees the change.
        part: the columns of the value; None for all.
        offset: what an RMSNorm adds to its weight (Gemma's are stored less 1).
        fixed: why the value can only be read, where that is so.
    """

    module: str
    side: Literal["input", "output", "normalised", "logits"] = "output"
    addend: str | None = None
    base: str | None = None
    part: Part | None = None
    offset: float = 0.0
    fixed: str = ""

    @classmethod
    def parse(cls, text: str) -> Tap:
        """`PATH` is a module's output, `PATH@input` its input, `PATH@output` its output as well."""
        if text.endswith(INPUT):
            return cls(text.removesuffix(INPUT), "input")
        return cls(text.removesuffix("@output"))

    def within(self, prefix: str) -> Tap:
        """This tap with its module path below `prefix`."""

        def below(path: str | None) -> str | None:
            return None if path is None else f"{prefix}.{path}".strip(".")

        return replace(self, module=below(self.module) or "", addend=below(self.addend), base=below(self.base))

    def made_of(self, module: nn.Module, value: Tensor) -> Tensor:
        """The value at this tap, computed from its module's input or output."""
        if self.side == "normalised":
            value = _normalised(value, module)
        elif self.side == "logits":
            value = linear(value, module.weight, getattr(module, "bias", None))  # type: ignore[arg-type]
        return value if self.part is None else self.part.of(value)


def _normalised(x: Tensor, norm: Any) -> Tensor:
    """An RMSNorm's input over its root mean square, as the norm itself computes it."""
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    exact = x.float()
    return (exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


class _Enough(Exception):
    """Ends a forward pass once every requested value has been read."""


def read_taps(model: nn.Module, taps: Mapping[str, Tap], forward: Callable[[], Any]) -> dict[str, Tensor]:
    """Calls `forward` and returns the value at each tap, by name; nothing after the last tap is computed.

    Where a pass calls a module more than once, the first call counts.

    Raises:
        HookUnknown: there is no such module, or the pass does not call it.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        if name not in found:
            last = len(found) + 1 == len(taps)
            found[name] = value if last else value.clone()  # later operations may write in place, as ReLU can
            if last:
                raise _Enough

    with _hooks() as handles:
        for name, tap in taps.items():
            module = submodule(model, tap.module)

            def given(module: nn.Module, args: Any, kwargs: Any, name: str = name, tap: Tap = tap) -> None:
                keep(name, tap.made_of(module, first_tensor((args, kwargs), name)))

            def gave(module: nn.Module, __: Any, output: Any, name: str = name, tap: Tap = tap) -> None:
                keep(name, tap.made_of(module, first_tensor(output, name)))

            if tap.side != "output":
                # Registered first: reading a module's input needs nothing of the module, not even its weights.
                handles.append(module.register_forward_pre_hook(given, with_kwargs=True, prepend=True))
            else:
                handles.append(module.register_forward_hook(gave))
        try:
            forward()
        except _Enough:
            return found
    missing = ", ".join(sorted(taps.keys() - found.keys()))
    raise HookUnknown(f"{type(model).__name__}: its forward pass does not come by {missing}; read another module")


def change_tap(model: nn.Module, tap: Tap, change: Change, forward: Callable[[], Any]) -> Any:
    """Calls `forward` with the value at `tap` replaced by `change` of it.

    Raises:
        HookUnknown: there is no such module, the pass does not call it, or the value can only be read.
    """
    if tap.fixed:
        raise HookUnknown(f"{type(model).__name__}: what is at {tap.module} can only be read: {tap.fixed}")
    seen: list[Tensor] = []
    base: list[Tensor] = []

    def changed(value: Tensor) -> Tensor:
        part = tap.part
        seen[:] = [value if part is None else part.of(value)]
        new = change(seen[0])
        return new if part is None else part.put(value, new)

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        base[:] = [first_tensor((args, kwargs), tap.module)]

    def given(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        args, kwargs = _with_first((args, kwargs), changed(first_tensor((args, kwargs), tap.module)))
        return args, kwargs

    def gave(_: nn.Module, __: Any, output: Any) -> Any:
        return _with_first(output, changed(first_tensor(output, tap.module)))

    # Where nothing changes, nothing is rounded either: (a + b) - b is not always a, nor a / b * b.
    def added(_: nn.Module, __: Any, output: Any) -> Any:
        addend = first_tensor(output, tap.module)
        seen[:] = [addend + base[0]]
        new = change(seen[0])
        return _with_first(output, torch.where(new == seen[0], addend, new - base[0]))

    def scaled(norm: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        own = first_tensor(output, tap.module)
        seen[:] = [tap.made_of(norm, first_tensor((args, kwargs), tap.module))]
        new = change(seen[0])
        weight = norm.weight.float() + tap.offset  # type: ignore[operator]
        return _with_first(output, torch.where(new == seen[0], own, (new.float() * weight).to(own.dtype)))

    with _hooks() as handles:
        if tap.addend is not None and tap.base is not None:
            handles.append(submodule(model, tap.base).register_forward_pre_hook(note, with_kwargs=True))
            handles.append(submodule(model, tap.addend).register_forward_hook(added))
        elif tap.side == "input":
            handles.append(submodule(model, tap.module).register_forward_pre_hook(given, with_kwargs=True))
        elif tap.side == "normalised":
            handles.append(submodule(model, tap.module).register_forward_hook(scaled, with_kwargs=True))
        else:
            handles.append(submodule(model, tap.module).register_forward_hook(gave))
        output = forward()
    if not seen:
        raise HookUnknown(f"{type(model).__name__}: its forward pass does not come by {tap.module}; name another")
    return output


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path.

    Raises:
        HookUnknown: there is none; the message lists some that exist.
    """
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise HookUnknown(
            f"{type(model).__name__}: no module '{path}'; there are {listed(module_paths(model))}"
        ) from error


def module_paths(model: nn.Module) -> list[str]:
    """Dotted paths of all submodules; of a numbered list only those of its first entry, since the others are alike."""
    return [
        path for path, _ in model.named_modules() if path and not any(p.isdigit() and p != "0" for p in path.split("."))
    ]


def listed(paths: Iterable[str]) -> str:
    """Paths for an error message; of many, the first ones."""
    paths = list(paths)
    more = f", ... ({len(paths) - _SHOWN} more)" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def first_tensor(value: Any, where: str) -> Tensor:
    """The first floating-point tensor of a module's arguments or results.

    Raises:
        HookUnknown: there is none.
    """
    found = next(_tensors(value), None)
    if found is None:
        raise HookUnknown(f"{where}: holds no floating-point tensor; read another module")
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _with_first(value: Any, new: Tensor) -> Any:
    """`value` with its first floating-point tensor replaced."""
    pending = [new]

    def walk(value: Any) -> Any:
        if not pending:
            return value
        if isinstance(value, Tensor):
            return pending.pop() if value.is_floating_point() else value
        if isinstance(value, Mapping):
            changed = {key: walk(inner) for key, inner in value.items()}
            return changed if type(value) is dict else type(value)(**changed)
        if isinstance(value, list | tuple):
            changed_items = [walk(inner) for inner in value]
            return type(value)(*changed_items) if hasattr(value, "_fields") else type(value)(changed_items)
        return value

    return walk(value)


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()
