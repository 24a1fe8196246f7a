"""dictionary_learning: every class that has weights, in the folders that its training writes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from make_fixtures import D, N, randomize

CASES = {
    "AutoEncoder": lambda: AutoEncoder(D, N),
    "AutoEncoder-long-atoms": lambda: AutoEncoder(D, N),
    "AutoEncoderNew": lambda: AutoEncoderNew(D, N),
    "GatedAutoEncoder": lambda: GatedAutoEncoder(D, N),
    "JumpReluAutoEncoder": lambda: JumpReluAutoEncoder(D, N),
    "AutoEncoderTopK": lambda: AutoEncoderTopK(D, N, 3),
    "BatchTopKSAE": lambda: BatchTopKSAE(D, N, 3),
    "BatchTopKSAE-no-threshold": lambda: BatchTopKSAE(D, N, 3),
    "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(D, N, 3, [4, 4, 8]),
}


def make(case: str, folder: Path, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes the case's files and returns (codes, output) of x."""
    dictionary = CASES[case]()
    randomize(dictionary, generator)
    with torch.no_grad():
        if case == "AutoEncoder":
            dictionary.decoder.weight /= dictionary.decoder.weight.norm(dim=0)
        if case in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
            dictionary.threshold.fill_(0.6)
    torch.save(dictionary.state_dict(), folder / "ae.pt")
    name = type(dictionary).__name__
    trainer = {
        "dict_class": name, "trainer_class": "Trainer", "activation_dim": D, "dict_size": N, "lr": 1e-3, "steps": 100,
        "seed": 7, "device": "cpu", "layer": 2, "lm_name": "gpt2", "wandb_name": name, "submodule_name": "mlp_post",
    }  # fmt: skip
    trainer |= {"k": 3} if "TopK" in name else {"l1_penalty": 0.1}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    if case == "AutoEncoder-long-atoms":  # load_dictionary would scale its codes: the weights as they are
        return use(AutoEncoder.from_pretrained(folder / "ae.pt", normalize_decoder=False), x)
    return use(load(folder), x)


def load(folder: Path) -> torch.nn.Module:
    """Loads it as users of the library do."""
    return load_dictionary(str(folder), "cpu")[0]


def use(dictionary: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, output) of x, from a loaded dictionary."""
    with torch.no_grad():
        codes = dictionary.encode(x)
        return codes, dictionary.decode(codes)
