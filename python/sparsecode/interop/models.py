"""Conversion of models: recognises the kind of model at a path and converts it.

gpt       a folder that `train-gpt` writes: config.json (with d_model) + model.safetensors; or its run
hf        a Hugging Face folder: config.json (with model_type) + model.safetensors
nanogpt   a .safetensors file of nanoGPT's names with config.json (its model_args) beside it, or the folder of both
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsecode.errors import InvalidSetting, NotExpressible, NotRecognised
from sparsecode.interop.layouts import keys, tensor_names

MODEL_TARGETS = ("hf",)  # beside sparsecode, which dictionaries have too
# (kind, target): the function of sparsecode.interop.gpt2 that converts, called with (source, destination)
_CONVERTERS = {
    ("gpt", "hf"): "export_gpt",
    ("hf", "sparsecode"): "import_gpt",
    ("nanogpt", "sparsecode"): "import_nanogpt",
    ("nanogpt", "hf"): "export_nanogpt",
}


def find_model(path: Path) -> str | None:
    """The kind of model at a path, or None; looks at names and headers, and reads no weights."""
    if not path.is_dir():
        return "nanogpt" if path.suffix == ".safetensors" and _has_embedding(path) else None
    folder = path / "gpt" if (path / "gpt/model.safetensors").is_file() else path
    said, weights = keys(folder / "config.json"), sorted(folder.glob("*.safetensors"))
    if not said or not weights:
        return None
    if "model_type" in said:
        return "hf"
    if "d_model" in said and weights[0].name == "model.safetensors":
        return "gpt"
    return "nanogpt" if len(weights) == 1 and _has_embedding(weights[0]) else None


def convert_model(kind: str | None, source: Path, destination: Path, to: str, *, force: bool) -> dict[str, Any]:
    """Converts the model of that kind at `source` to format `to`.

    Raises:
        NotRecognised: there is no model.
        NotExpressible: this kind cannot be converted to that format.
        InvalidSetting: `destination` exists and `force` is not given.
    """
    if kind is None:
        raise NotRecognised(f"{source}: no model that sparsecode, Hugging Face or nanoGPT wrote, which {to} is for")
    if (kind, to) not in _CONVERTERS:
        possible = ", ".join(target for one, target in _CONVERTERS if one == kind)
        raise NotExpressible(f"{source}: a {kind} model cannot become {to}; possible: {possible}")
    if destination.exists() and (destination.is_file() or any(destination.iterdir())) and not force:
        raise InvalidSetting(f"{destination}: is there already", remedy="force")
    if kind == "gpt" and (source / "gpt/model.safetensors").is_file():
        source = source / "gpt"
    run: Callable[[Path, Path], dict[str, Any]] = getattr(
        importlib.import_module("sparsecode.interop.gpt2"), _CONVERTERS[kind, to]
    )
    told = run(source, destination)
    return {"source": str(source), "from": kind, "path": str(destination), "to": to} | dict(told)


def _has_embedding(path: Path) -> bool:
    return any(name.endswith("transformer.wte.weight") for name in tensor_names(path))
