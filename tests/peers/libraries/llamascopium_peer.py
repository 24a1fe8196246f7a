"""Llamascopium, from the formulas of its models/sae.py and sparse_dictionary.py (it is on no package index)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from make_fixtures import D, N
from safetensors.torch import save_file

NORM = "dataset_average_activation_norm."
IN, OUT = "blocks.2.hook_resid_mid", "blocks.2.hook_mlp_out"
CASES = {
    "relu": {"act_fn": "relu", "norm_activation": "inference"},
    "relu-no-bias": {"act_fn": "relu", "norm_activation": "inference", "use_decoder_bias": False},
    "relu-dataset-wise": {"act_fn": "relu", "norm_activation": "dataset-wise"},
    "relu-token-wise": {"act_fn": "relu", "norm_activation": "token-wise"},
    "jumprelu": {"act_fn": "jumprelu", "norm_activation": "dataset-wise"},
    "jumprelu-plain": {"act_fn": "jumprelu", "norm_activation": "inference", "sparsity_include_decoder_norm": False},
    "topk": {"act_fn": "topk", "norm_activation": "inference", "top_k": 3},
    "transcoder": {"act_fn": "jumprelu", "norm_activation": "dataset-wise", "hook_point_out": OUT},
}


def make(case: str, folder: Path, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes the case's files and returns (codes, output) of x."""
    config = {
        "sae_type": "sae", "d_model": D, "expansion_factor": N / D, "use_decoder_bias": True, "use_glu_encoder": False,
        "sparsity_include_decoder_norm": True, "top_k": 50, "hook_point_in": IN, "hook_point_out": IN,
    } | CASES[case]  # fmt: skip

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.5

    tensors = {"W_E": values(D, N), "b_E": values(N), "W_D": values(N, D)}
    if config["use_decoder_bias"]:
        tensors["b_D"] = values(D)
    if config["act_fn"] == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = (values(N).abs() + 0.1).log()
    hooks = {config["hook_point_in"]: 5.0, config["hook_point_out"]: 3.0}
    tensors |= {NORM + hook: torch.tensor(norm) for hook, norm in hooks.items()}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return _use(config, tensors, x)


def _use(config: dict, tensors: dict, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def factor(hook: str) -> torch.Tensor:
        if config["norm_activation"] == "token-wise":
            return math.sqrt(D) / x.norm(dim=-1, keepdim=True)
        if config["norm_activation"] == "dataset-wise":
            return math.sqrt(D) / tensors[NORM + hook]
        return torch.tensor(1.0)

    hidden = (x * factor(config["hook_point_in"])) @ tensors["W_E"] + tensors["b_E"]
    norm = tensors["W_D"].norm(dim=1) if config["sparsity_include_decoder_norm"] else torch.ones(N)
    scaled = hidden * norm
    if config["act_fn"] == "jumprelu":
        acts = scaled * scaled.gt(tensors["activation_function.log_jumprelu_threshold"].exp())
    else:
        acts = scaled * scaled.gt(0)
    if config["act_fn"] == "topk":
        kept = acts.topk(config["top_k"], dim=-1)
        acts = torch.zeros_like(acts).scatter_(-1, kept.indices, kept.values)
    codes = acts / norm
    output = codes @ tensors["W_D"] + tensors.get("b_D", 0)
    return codes, output / factor(config["hook_point_out"])
