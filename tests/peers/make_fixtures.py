"""Dictionaries made by other libraries, each with activations and what the library itself encodes and decodes of them.

    python tests/peers/make_fixtures.py LIBRARY FOLDER [--seed N]

Runs in an environment of the library; nothing of sparsecode is needed. `make interop` calls it with new seeds; the
committed tests/fixtures/interop were made with seed 0 by sae-lens 6.54.12, dictionary-learning 0.1.0, eai-sparsify
1.3.3 and commit 4965b94 of openai/sparse_autoencoder (not on an index: give its folder as $OPENAI_SPARSE_AUTOENCODER).
Llamascopium is not on an index either: its files are written and computed from the formulas of its source.

Each case is a folder of the library's own files and
    expected.safetensors   x [B, d], codes [B, n] = encode(x), output [B, o] = what the library makes of x
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file

D, N, B = 8, 16, 6
DISTRIBUTIONS = {
    "saelens": "sae-lens", "dictionary_learning": "dictionary-learning", "sparsify": "eai-sparsify",
}  # fmt: skip


def randomize(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Gives every parameter values of its own: zeros and unit norms would hide mistakes."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * 0.5
            if "threshold" in name:
                values = values.abs() + 0.1
            parameter.copy_(values.to(parameter.dtype))


def record(folder: Path, x: torch.Tensor, codes: torch.Tensor, output: torch.Tensor) -> None:
    """Writes what the library made of x; every case must have codes that fire and codes that do not."""
    codes, output = codes.detach().float().contiguous(), output.detach().float().contiguous()
    share = float((codes != 0).float().mean())
    assert 0.05 < share < 0.95, f"{folder.name}: {share:.0%} of the codes fire, which tests little"
    save_file({"x": x.float().contiguous(), "codes": codes, "output": output}, folder / "expected.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    peer = importlib.import_module(f"libraries.{arguments.library}_peer")
    generator = torch.Generator().manual_seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    for case in peer.CASES:
        folder = arguments.folder / f"{arguments.library}-{case}"
        folder.mkdir(parents=True, exist_ok=True)
        x = torch.randn(B, D, generator=generator) * 2 + 0.5
        codes, output = peer.make(case, folder, x, generator)
        record(folder, x, codes, output)
    distribution = DISTRIBUTIONS.get(arguments.library)
    if distribution:
        made = arguments.folder / f"{arguments.library}.json"
        made.write_text(json.dumps({distribution: version(distribution), "torch": torch.__version__}) + "\n")
    print(f"{arguments.library}: {len(peer.CASES)} dictionaries in {arguments.folder}")


if __name__ == "__main__":
    main()
