"""A trained GPT as two files: `model.safetensors` and `config.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sparsecode.checkpoint import bare_names, digest_of_tensors, load_tensors, save_tensors, some, write_json
from sparsecode.errors import InvalidSetting, ModelInvalid, WeightsMissing
from sparsecode.gpt.model import GPT, GPTConfig

FORMAT = 1


def save_gpt(model: GPT, path: str | Path) -> None:
    """Writes the folder `path`, the config last, so that a folder with a config is complete."""
    folder = Path(path)
    save_tensors(folder / "model.safetensors", model.state_dict())
    write_json(folder / "config.json", {"format": FORMAT} | dataclasses.asdict(model.config))


def load_gpt(path: str | Path) -> GPT:
    """Reads what `save_gpt` wrote: a model on the CPU, in evaluation mode.

    Raises:
        ModelInvalid: a file is missing or broken, or the two do not fit together.
    """
    folder = Path(path)
    try:
        stored = json.loads((folder / "config.json").read_text())
        if stored.pop("format") != FORMAT:
            raise ModelInvalid(f"{folder / 'config.json'}: not format {FORMAT}; update sparsecode")
        config = GPTConfig(**stored)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, InvalidSetting) as error:
        raise ModelInvalid(f"{folder / 'config.json'}: not a GPT's sizes ({error})", remedy="gpt") from error
    tensors, _ = load_tensors(folder / "model.safetensors")
    names = bare_names(tensors)
    model = GPT(config)
    _fill(model, {names[name]: tensor for name, tensor in tensors.items()}, folder)
    return model.eval()


def _fill(model: GPT, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Gives a model exactly the tensors of its file."""
    file = folder / "model.safetensors"
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise WeightsMissing(f"{file}: {some(missing)} missing that {folder / 'config.json'} speaks of", remedy="gpt")
    wrong = [name for name, tensor in tensors.items() if expected.get(name) != (tensor.shape, tensor.dtype)]
    if wrong:
        raise ModelInvalid(f"{file}: tensors do not fit {folder / 'config.json'}, first {wrong[0]}", remedy="gpt")
    model.load_state_dict(dict(tensors))


def gpt_fingerprint(model: GPT) -> str:
    """SHA-256 over sizes and parameters: two models with the same one give the same activations."""
    return digest_of_tensors(json.dumps(dataclasses.asdict(model.config), sort_keys=True), model.state_dict())
