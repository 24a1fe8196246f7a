"""Weights that a model's files do not have: using one is an error; those that nothing uses are ignored.

transformers fills missing weights with random numbers and says so in a log. Here they become NaN, and a forward pass
that uses them ends in an error that names them. A head that a harvest never reaches may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsecode.checkpoint import bare_name, some
from sparsecode.errors import WeightsMissing

# What bare_name leaves out, as transformers' `key_mapping`: pattern -> replacement. Each pattern replaces once in a
# name, so there are several of the same meaning: a compiled block of a compiled model has two wrappers.
_ANYWHERE = {r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\." + "(?:)" * i: "" for i in range(4)}
_PARALLEL = {r"^(?:module\.)+": ""}


def missing_weights(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the parameters and buffers that did not come from the files, as `from_pretrained` reports."""
    mismatched = [one if isinstance(one, str) else one[0] for one in info.get("mismatched_keys", ())]
    return tuple(sorted({*info.get("missing_keys", ()), *mismatched}))


def key_mapping(info: Mapping[str, Any]) -> dict[str, str] | None:
    """How to read names that a wrapper changed, such as torch.compile's `_orig_mod.`; None if none did."""
    unexpected = [str(name) for name in info.get("unexpected_keys", ())]
    if not info.get("missing_keys") or not unexpected:
        return None
    bare = [bare_name(name) for name in unexpected]
    parallel = all(name.startswith("module.") for name in bare)
    return (_ANYWHERE | (_PARALLEL if parallel else {})) if parallel or bare != unexpected else None


def guard(module: nn.Module, name: str, missing: Iterable[str], unexpected: Iterable[str] = ()) -> None:
    """Makes every forward pass that uses a missing weight fail.

    Args:
        module: the model.
        name: its name in the error.
        missing: names of its parameters and buffers that are not from its files.
        unexpected: names in its files that match none of its own, for the error.
    """
    owners: dict[str, list[str]] = {}
    for weight in missing:
        owner, _, own = weight.rpartition(".")
        tensor = getattr(module.get_submodule(owner), own)
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.fill_(torch.nan)
        owners.setdefault(owner, []).append(weight)
    others = list(unexpected)
    for owner, weights in owners.items():

        def refuse(_: nn.Module, __: Any, weights: list[str] = weights) -> None:
            raise missing_error(name, [*weights, *(one for one in missing if one not in weights)], others)

        module.get_submodule(owner).register_forward_pre_hook(refuse)


def told(model: nn.Module, name: str, missing: Sequence[str], unexpected: Iterable[str]) -> Iterator[str]:
    """Lines on oddities of a usable model.

    Unused names of modules that the model does not have, such as another head, are not odd. Those of its own modules
    are: biases that its configuration leaves out, or blocks beyond those that it counts.
    """
    if missing:
        yield f"{name}: {some(missing)} missing in its files; nothing that is read here needs them"
    strange = [weight for weight in unexpected if _is_near(model, weight)]
    if strange:
        yield f"{name}: {some(strange)} in its files, but not in the model that config.json describes; left out"


def _is_near(model: nn.Module, weight: str) -> bool:
    module = model
    for part in weight.split(".")[:-1]:
        inner = module._modules.get(part)
        if inner is None:
            return isinstance(module, nn.ModuleList)
        module = inner
    return True


def missing_error(name: str, missing: Iterable[str], unexpected: Iterable[str] = ()) -> WeightsMissing:
    """The error of a pass that needs missing weights."""
    missing = list(missing)
    other = next((one for one in unexpected if any(one.endswith(f".{weight}") for weight in missing)), None)
    instead = f" (they have {other} instead)" if other else ""
    return WeightsMissing(
        f"{name}: {some(missing)} missing in its files{instead}, and what you ask for goes through them; take a "
        "checkpoint that has all weights"
    )
