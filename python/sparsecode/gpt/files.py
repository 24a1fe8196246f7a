"""A trained GPT as two files: `model.safetensors` and `config.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch

from sparsecode.checkpoint import load_tensors, save_tensors, write_json
from sparsecode.errors import InvalidSetting, ModelInvalid
from sparsecode.gpt.model import GPT, GPTConfig

FORMAT = 1
_AGAIN = "run sparsecode train-gpt again"


def save_gpt(model: GPT, path: str | Path) -> None:
    """Writes the folder `path`; the config last, so that a folder with a config is whole."""
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
        raise ModelInvalid(f"{folder / 'config.json'}: not a GPT's sizes ({error}); {_AGAIN}") from error
    tensors, _ = load_tensors(folder / "model.safetensors")
    model = GPT(config)
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != expected:
        raise ModelInvalid(f"{folder / 'model.safetensors'}: tensors do not fit {folder / 'config.json'}; {_AGAIN}")
    model.load_state_dict(tensors)
    return model.eval()


def gpt_fingerprint(model: GPT) -> str:
    """SHA-256 over sizes and parameters: two models with the same one give the same activations."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
