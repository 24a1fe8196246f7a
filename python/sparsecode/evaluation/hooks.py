"""Finds the hook point that another library's name means in the evaluated model.

sparsify names a module below the model without its head (`layers.1.mlp`, `h.3`), Gemma Scope 2 a module and its side
(`model.layers.12.output`), TransformerLens's newer names a part's input and output (`blocks.3.mlp.hook_out`), and
scripts around dictionary_learning have names of their own, mostly `resid_post_layer_3`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sparsecode.errors import HookUnknown
from sparsecode.harvest.models import LanguageModel

_LISTED = 6  # modules in a message
# Within a block: TransformerLens's newer names, and those in the scripts around dictionary_learning.
_ALIASES = {
    "hook_in": "hook_resid_pre", "hook_out": "hook_resid_post", "attn.hook_out": "hook_attn_out",
    "attn.o.hook_in": "attn.hook_z", "ln2.hook_in": "hook_resid_mid", "mlp.hook_out": "hook_mlp_out",
    "mlp.in.hook_out": "mlp.hook_pre", "mlp.gate.hook_out": "mlp.hook_pre", "mlp.out.hook_in": "mlp.hook_post",
}  # fmt: skip
_SITES = {
    "resid": "hook_resid_post", "resid_post": "hook_resid_post", "residual": "hook_resid_post",
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "mlp": "hook_mlp_out", "mlp_out": "hook_mlp_out",
    "attn": "hook_attn_out", "attn_out": "hook_attn_out", "attention_out": "hook_attn_out", "mlp_post": "mlp.hook_post",
    "attn_z": "attn.hook_z",
}  # fmt: skip
_TEXT = ("language_model", "text_model")  # modules that contain the language part of a multimodal model


def find_hook(model: LanguageModel, name: str) -> str:
    """The model's own name of a hook point or module: `name` itself, or the one it means.

    Raises:
        HookUnknown: none or several match; the message says what --hook may be.
    """
    try:
        model.tap(name)
        return name
    except HookUnknown as error:
        unknown = error
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if block and (known := f"blocks.{block[1]}.{_ALIASES.get(block[2], '')}") in model.taps:
        return known
    path, mark, side = name.partition("@")
    if not mark and path.rpartition(".")[2] in ("input", "output"):
        path, _, side = path.rpartition(".")
        mark = "@"
    found = _modules(model, path)
    if len(found) == 1:
        return f"{found[0]}{mark}{side}"
    if found:
        listed = ", ".join(found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
        raise HookUnknown(f"{model.name}: '{name}' may be any of {listed}", remedy="hook")
    for other in _spoken(name):
        if other in model.taps:
            return other
    raise HookUnknown(str(unknown), remedy="hook") from unknown


def _spoken(name: str) -> Iterator[str]:
    """Hook points that a name of the form "site and layer" may mean."""
    site = re.fullmatch(r"([a-z_]+?)_?(?:layer|l)?[_.]?(\d+)", name) or re.fullmatch(r"([a-z_]+)\.(\d+)", name)
    if site and site[1] in _SITES:
        yield f"blocks.{int(site[2])}.{_SITES[site[1]]}"
    turned = re.fullmatch(r"(?:layer|block)s?[_.]?(\d+)[_.]([a-z_]+)", name)
    if turned and turned[2] in _SITES:
        yield f"blocks.{int(turned[1])}.{_SITES[turned[2]]}"


def _modules(model: LanguageModel, path: str) -> list[str]:
    """Modules whose path ends in `path`, or in `path` from the list before its first number on."""
    paths = [name for name, _ in model.module.named_modules() if name]
    parts = path.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    # From the whole path down to its first numbered list: `model.layers.1.mlp`, `layers.1.mlp`.
    starts = range(1) if number is None else range(max(number, 1))
    for start in starts:
        ending = ".".join(parts[start:])
        found = [name for name in paths if name == ending or name.endswith("." + ending)]
        text = [name for name in found if any(part in _TEXT for part in name.split("."))]
        if found:
            return text or found
    return []
