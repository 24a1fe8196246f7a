"""SAELens: every architecture it can load, and files as older versions wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from make_fixtures import D, N, randomize
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import get_sae_class, get_sae_training_class
from safetensors.torch import load_file, save_file

METADATA = {"model_name": "gpt2", "hook_name": "blocks.2.mlp.hook_post", "context_size": 128}
# case: (architecture, settings)
CASES: dict[str, tuple[str, dict]] = {
    "standard": ("standard", {}),
    "seed-style": ("standard", {"apply_b_dec_to_input": False}),
    "layer-norm": ("standard", {"normalize_activations": "layer_norm"}),
    "constant-norm": ("gated", {"normalize_activations": "constant_norm_rescale"}),
    "expected-average": ("standard", {"normalize_activations": "expected_average_only_in"}),
    "bfloat16": ("standard", {}),
    "topk": ("topk", {"k": 3}),
    "topk-rescaled": ("topk", {"k": 3, "rescale_acts_by_decoder_norm": True}),
    "topk-layer-norm": ("topk", {"k": 3, "normalize_activations": "layer_norm", "apply_b_dec_to_input": False}),
    "abstopk": ("abstopk", {"k": 3}),
    "jumprelu": ("jumprelu", {}),
    "jumprelu-no-subtraction": ("jumprelu", {"apply_b_dec_to_input": False}),
    "gated": ("gated", {}),
    "transcoder": ("transcoder", {"d_out": 6, "apply_b_dec_to_input": False}),
    "transcoder-layer-norm": (
        "transcoder", {"d_out": 6, "apply_b_dec_to_input": False, "normalize_activations": "layer_norm"}
    ),
    "skip-transcoder": ("skip_transcoder", {"d_out": D, "apply_b_dec_to_input": False}),
    "jumprelu-transcoder": ("jumprelu_transcoder", {"d_out": D, "apply_b_dec_to_input": False}),
    "jumprelu-skip-transcoder": ("jumprelu_skip_transcoder", {"d_out": 6, "apply_b_dec_to_input": False}),
    # training ends as another architecture
    "batchtopk-inference": ("batchtopk", {"k": 3.0}),
    "matryoshka-inference": ("matryoshka_batchtopk", {"k": 3.0, "matryoshka_widths": [4, N]}),
    # files of older versions
    "old-standard": ("standard", {}),
    "old-topk": ("topk", {"k": 3}),
    "old-log-threshold": ("jumprelu", {}),
}  # fmt: skip


def make(case: str, folder: Path, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes the case's files and returns (codes, output) of x."""
    architecture, settings = CASES[case]
    if case.endswith("inference"):
        return _after_training(architecture, settings, folder, x, generator)
    sae_class, config_class = get_sae_class(architecture)
    config = config_class(d_in=D, d_sae=N, **{"dtype": "float32", "device": "cpu"} | settings)
    for name, value in METADATA.items():
        config.metadata[name] = value
    sae = sae_class(config)
    randomize(sae, generator)
    sae.save_model(folder)
    if case == "standard":
        frequency = torch.rand(N, generator=generator)
        save_file({"sparsity": (frequency + 1e-10).log10()}, folder / "sparsity.safetensors")
    if (
        case == "bfloat16"
    ):  # weights in float32, which the library rounds; computed in float32 so that the rest is exact
        config = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
        return use(load(folder).to(dtype=torch.float32), x)
    if case.startswith("old"):
        _age(case, folder)
    return use(load(folder, training=case == "old-log-threshold"), x)


def load(folder: Path, *, training: bool = False) -> SAE:
    """Loads it as users of the library do."""
    return (TrainingSAE if training else SAE).load_from_disk(folder).eval()


def use(sae: SAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, output) of x, from a loaded SAE."""
    with torch.no_grad():
        codes = sae.encode(x)
        if getattr(sae, "W_skip", None) is None:
            return codes, sae.decode(codes)
        return codes, sae(x)  # the skip connection is in the forward pass only


def _after_training(
    architecture: str, settings: dict, folder: Path, x: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    sae_class, config_class = get_sae_training_class(architecture)
    sae = sae_class(config_class(d_in=D, d_sae=N, dtype="float32", device="cpu", **settings))
    randomize(sae, generator)
    sae.topk_threshold.fill_(0.4)
    sae.fold_W_dec_norm()
    sae.save_inference_model(folder)
    return use(load(folder), x)


def _age(case: str, folder: Path) -> None:
    """Rewrites new files the way versions before 6 (or, for log_threshold, before 6.30 or so) wrote them."""
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    if case == "old-log-threshold":
        tensors = load_file(folder / "sae_weights.safetensors")
        tensors["log_threshold"] = tensors.pop("threshold").log()
        save_file(tensors, folder / "sae_weights.safetensors")
        return
    metadata = config.pop("metadata")
    config |= {"model_name": metadata["model_name"], "hook_point": metadata["hook_name"], "hook_point_layer": 2}
    config |= {"normalize_activations": False, "activation_fn_str": "relu"}
    config.pop("architecture")
    if case == "old-topk":
        config |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": config.pop("k")}}
        config.pop("rescale_acts_by_decoder_norm")
    path.write_text(json.dumps(config))
