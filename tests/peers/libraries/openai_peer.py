"""openai/sparse_autoencoder, from a folder of its repository: $OPENAI_SPARSE_AUTOENCODER."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch
from make_fixtures import D, N, randomize

_spec = importlib.util.spec_from_file_location(
    "openai_model", Path(os.environ["OPENAI_SPARSE_AUTOENCODER"]) / "sparse_autoencoder/model.py"
)
model = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(model)

CASES = {
    "relu": lambda: (torch.nn.ReLU(), False),
    "topk": lambda: (model.TopK(3), True),
    "topk-identity": lambda: (model.TopK(12, torch.nn.Identity()), True),
}


def make(case: str, folder: Path, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes the case's file and returns (codes, output) of x."""
    activation, normalize = CASES[case]()
    autoencoder = model.Autoencoder(N, D, activation=activation, normalize=normalize)
    randomize(autoencoder, generator)
    state = autoencoder.state_dict()
    if (
        case != "topk-identity"
    ):  # the published files are without these, and without them alone does strict loading work
        state = {name: value for name, value in state.items() if not name.startswith("activation.")}
    torch.save(state, folder / "autoencoder.pt")
    return use(load(folder), x)


def load(folder: Path) -> torch.nn.Module:
    """Loads it as users of the library do."""
    state = torch.load(folder / "autoencoder.pt", weights_only=True)
    return model.Autoencoder.from_state_dict(state, strict="activation.k" not in state)


def use(autoencoder: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, output) of x, from a loaded autoencoder."""
    with torch.no_grad():
        codes, info = autoencoder.encode(x)
        return codes, autoencoder.decode(codes, info)
