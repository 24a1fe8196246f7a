"""The project's own GPT as a Hugging Face GPT-2 folder and back, and nanoGPT's checkpoints.

The architecture is nanoGPT's without biases: GPT-2 with exact GELU, biases of zero and a tied embedding. GPT-2 keeps
its matrices transposed ([in, out]); nanoGPT's names are GPT-2's, its matrices are torch's ([out, in]).

Files of a GPT-2 folder: config.json, model.safetensors, and where the tokenizer is known tokenizer.json with
tokenizer_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import load_tensors, write_atomic, write_json, write_text
from sparsecode.errors import CheckpointCorrupt, InvalidSetting, ModelInvalid
from sparsecode.gpt import GPT, GPTConfig, load_gpt, save_gpt

MODEL_FORMATS = ("sparsecode", "hf", "nanogpt")
_HF_METADATA = {"format": "pt"}
_EPSILON = 1e-5
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "[SEP]")
_COMPILED = "_orig_mod."  # what torch.compile puts before every name in a checkpoint
_BUFFERS = (".attn.bias", ".attn.masked_bias")  # causal masks, which older checkpoints hold
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def find_model(path: str | Path) -> str | None:
    """Which of `MODEL_FORMATS` a folder holds (or, for sparsecode, a run's); None where it is none of them."""
    folder = _folder(Path(path))
    config = _read_config(folder)
    if config is None:
        return None
    if "format" in config and "n_layer" in config:
        return "sparsecode"
    if config.get("model_type") == "gpt2":
        return "hf"
    if "n_embd" in _nanogpt_sizes(config) and _tensor_file(folder) is not None:
        return "nanogpt"
    return None


def convert_model(source: str | Path, destination: str | Path, to: str, *, force: bool = False) -> dict[str, Any]:
    """Writes a GPT in another format; the source's is found by looking.

    Args:
        source: a run, a folder of its GPT, a GPT-2 folder, or a folder with nanoGPT's config.json and safetensors.
        destination: folder to write.
        to: "hf" or "sparsecode".
        force: write where something is already.

    Returns:
        {"from", "to", "path", "parameters", "tokenizer": whether one came along}.

    Raises:
        ModelInvalid: there is no such model, or it has parts that the target has not.
        InvalidSetting: something is at the destination already.
    """
    kind, folder = find_model(source), _folder(Path(source))
    if kind is None:
        raise ModelInvalid(
            f"{source}: no GPT of sparsecode, no GPT-2 folder, and no nanoGPT checkpoint (model.safetensors beside a "
            "config.json with n_layer, n_head and n_embd)"
        )
    target = Path(destination)
    if target.exists() and any(target.iterdir()) and not force:
        raise InvalidSetting(f"{target}: is there already; --force writes over it")
    if to == "hf":
        made = export_nanogpt(folder, target) if kind == "nanogpt" else export_gpt(folder, target)
    elif to == "sparsecode":
        made = import_nanogpt(folder, target) if kind == "nanogpt" else import_gpt(folder, target)
    else:
        raise InvalidSetting(f"--to {to}: a model can be written as hf or sparsecode")
    return {"from": kind, "to": to, "path": str(target)} | made


def export_gpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a GPT of this project (its folder, or one already as GPT-2) as a Hugging Face GPT-2 folder.

    Raises:
        ModelInvalid: there is no GPT.
    """
    folder = _folder(Path(source))
    model = _read_hf(folder) if find_model(folder) == "hf" else load_gpt(folder)
    config = model.config
    tensors = {_hf_name(name): tensor for name, tensor in model.state_dict().items()}
    tensors = {name: value.T.contiguous() if name.endswith(_TRANSPOSED) else value for name, value in tensors.items()}
    for name, width in _biases(config):
        tensors[name] = torch.zeros(width)
    sizes = {"vocab_size": config.vocab_size, "n_positions": config.context, "n_embd": config.d_model,
             "n_layer": config.n_layer, "n_head": config.n_head, "n_inner": config.d_mlp}  # fmt: skip
    _write_hf(Path(destination), tensors, sizes, _tokenizer_of(folder))
    return _told(model, folder)


def import_gpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a GPT-2 folder as a GPT of this project.

    Raises:
        ModelInvalid: it has what this project's GPT has not: biases, another activation, an embedding that is not tied.
    """
    folder = _folder(Path(source))
    model = load_gpt(folder) if find_model(folder) == "sparsecode" else _read_hf(folder)
    _write_own(model, Path(destination), folder)
    return _told(model, folder)


def import_nanogpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a nanoGPT checkpoint as a GPT of this project.

    Args:
        source: folder with one safetensors file and a config.json of `model_args` (n_layer, n_head, n_embd, ...).
        destination: folder to write.

    Raises:
        ModelInvalid: it was trained with biases (then `--to hf` takes it), or files do not fit together.
    """
    folder = Path(source)
    sizes, tensors = _read_nanogpt(folder)
    biased = [name for name, value in tensors.items() if name.endswith(".bias") and bool(value.any())]
    if biased:
        raise ModelInvalid(
            f"{folder}: trained with bias=True ({biased[0]} is not zero), which this project's GPT has not; "
            "convert it --to hf and harvest that with --model"
        )
    model = _own_model(sizes, {name: value for name, value in tensors.items() if not name.endswith(".bias")}, folder)
    _write_own(model, Path(destination), folder)
    return _told(model, folder)


def export_nanogpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a nanoGPT checkpoint, with or without biases, as a Hugging Face GPT-2 folder.

    Raises:
        ModelInvalid: files do not fit together.
    """
    folder = Path(source)
    sizes, tensors = _read_nanogpt(folder)
    config = _config(sizes, folder)
    named = {f"transformer.{name}": value for name, value in tensors.items()}
    named = {name: value.T.contiguous() if name.endswith(_TRANSPOSED) else value for name, value in named.items()}
    for name, width in _biases(config):
        named.setdefault(name, torch.zeros(width))
    _write_hf(Path(destination), named, sizes, _tokenizer_of(folder))
    return {
        "parameters": sum(value.numel() for value in tensors.values()),
        "tokenizer": _tokenizer_of(folder) is not None,
    }


def _read_hf(folder: Path) -> GPT:
    config = _read_config(folder) or {}
    expected: dict[str, Callable[[Any], bool]] = {
        "model_type": lambda value: value == "gpt2",
        "activation_function": lambda value: value == "gelu",
        "layer_norm_epsilon": lambda value: value in (None, _EPSILON),
        "scale_attn_weights": lambda value: value in (None, True),
        "scale_attn_by_inverse_layer_idx": lambda value: not value,
        "add_cross_attention": lambda value: not value,
        "tie_word_embeddings": lambda value: value in (None, True),
    }
    for name, fits in expected.items():
        if not fits(config.get(name)):
            raise ModelInvalid(
                f"{folder / 'config.json'}: {name} is {config.get(name)!r}, which this project's GPT has not; "
                "harvest the folder as it is with --model"
            )
    tensors = _tensors(folder, _tensor_file(folder))
    tensors = {name.removeprefix("transformer."): value for name, value in tensors.items() if name != "lm_head.weight"}
    tensors = {name: value for name, value in tensors.items() if not name.endswith(_BUFFERS)}
    biased = [name for name, value in tensors.items() if name.endswith(".bias") and bool(value.any())]
    if biased:
        raise ModelInvalid(
            f"{folder}: has biases ({biased[0]} is not zero), which this project's GPT has not; harvest the folder as "
            "it is with --model"
        )
    own = {
        name: value.T.contiguous() if name.endswith(_TRANSPOSED) else value
        for name, value in tensors.items()
        if not name.endswith(".bias")
    }
    return _own_model(config, own, folder)


def _own_model(sizes: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> GPT:
    """A GPT of tensors by GPT-2's names, as torch keeps matrices."""
    model = GPT(_config(sizes, folder))
    named = {
        name.replace("h.", "blocks.", 1) if name.startswith("h.") else name: t.float() for name, t in tensors.items()
    }
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in named.items()}
    if expected != found:
        wrong = sorted(set(expected.items()) ^ set(found.items()))
        raise ModelInvalid(f"{folder}: tensors do not fit config.json, first {wrong[0][0]} {list(wrong[0][1])}")
    model.load_state_dict(named)
    return model.eval()


def _config(sizes: Mapping[str, Any], folder: Path) -> GPTConfig:
    try:
        return GPTConfig(
            vocab_size=int(sizes["vocab_size"]),
            n_layer=int(sizes["n_layer"]),
            n_head=int(sizes["n_head"]),
            d_model=int(sizes["n_embd"]),
            d_mlp=int(sizes.get("n_inner") or 4 * int(sizes["n_embd"])),
            context=int(sizes["n_positions"]),
        )
    except (KeyError, TypeError, ValueError, InvalidSetting) as error:
        raise ModelInvalid(f"{folder / 'config.json'}: not a GPT's sizes ({error})") from error


def _read_nanogpt(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes by GPT-2's names, and tensors by nanoGPT's less `transformer.`; the tied output embedding left out."""
    sizes = _nanogpt_sizes(_read_config(folder) or {})
    tensors = {
        name.removeprefix(_COMPILED).removeprefix("transformer."): value.float()
        for name, value in _tensors(folder, _tensor_file(folder)).items()
        if not name.endswith(_BUFFERS)
    }
    output = tensors.pop("lm_head.weight", None)
    if "wte.weight" not in tensors or "wpe.weight" not in tensors:
        raise ModelInvalid(
            f"{folder}: no transformer.wte.weight and transformer.wpe.weight; is this nanoGPT's state dict?"
        )
    if output is not None and not torch.equal(output, tensors["wte.weight"]):
        raise ModelInvalid(f"{folder}: lm_head.weight is not transformer.wte.weight; nanoGPT ties them")
    vocabulary, width = tensors["wte.weight"].shape
    sizes = {"n_embd": width} | sizes | {"vocab_size": vocabulary, "n_positions": tensors["wpe.weight"].shape[0]}
    return sizes, tensors


def _nanogpt_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """`model_args` of nanoGPT's checkpoint: a config.json holds them, or is them."""
    args = config.get("model_args", config)
    return {name: args[name] for name in ("n_layer", "n_head", "n_embd") if isinstance(args, dict) and name in args}


def _biases(config: GPTConfig) -> list[tuple[str, int]]:
    widths = {"ln_1": config.d_model, "attn.c_attn": 3 * config.d_model, "attn.c_proj": config.d_model,
              "ln_2": config.d_model, "mlp.c_fc": config.d_mlp, "mlp.c_proj": config.d_model}  # fmt: skip
    found = [
        (f"transformer.h.{layer}.{part}.bias", width)
        for layer in range(config.n_layer)
        for part, width in widths.items()
    ]
    return [*found, ("transformer.ln_f.bias", config.d_model)]


def _hf_name(name: str) -> str:
    return "transformer." + (name.replace("blocks.", "h.", 1) if name.startswith("blocks.") else name)


def _write_hf(folder: Path, tensors: Mapping[str, Tensor], sizes: Mapping[str, Any], tokenizer: Path | None) -> None:
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu",  # the exact one; GPT-2's own is an approximation with tanh
        "layer_norm_epsilon": _EPSILON,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "dtype": "float32",
        "torch_dtype": "float32",
        **{name: sizes.get(name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")},
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if tokenizer is not None:
        text = tokenizer.read_text(encoding="utf-8")
        end = _end_of_text(text)
        if end is not None:
            name, token = end
            config |= {"bos_token_id": token, "eos_token_id": token}
            about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": name, "eos_token": name,
                     "model_max_length": sizes["n_positions"], "clean_up_tokenization_spaces": False}  # fmt: skip
            write_json(folder / "tokenizer_config.json", about)
        write_text(folder / "tokenizer.json", text)
    from safetensors.torch import save_file

    plain = {name: value.detach().contiguous() for name, value in tensors.items()}
    write_atomic(folder / "model.safetensors", lambda tmp: save_file(plain, tmp, metadata=_HF_METADATA))
    write_json(folder / "config.json", config)


def _write_own(model: GPT, folder: Path, source: Path) -> None:
    tokenizer = _tokenizer_of(source)
    if tokenizer is not None:
        write_text(folder / "tokenizer.json", tokenizer.read_text(encoding="utf-8"))
    save_gpt(model, folder)


def _end_of_text(tokenizer: str) -> tuple[str, int] | None:
    """Name and id of the token of a tokenizer.json that ends a document."""
    added = json.loads(tokenizer).get("added_tokens") or []
    by_name = {str(token["content"]): int(token["id"]) for token in added}
    return next(((name, by_name[name]) for name in _ENDS if name in by_name), None)


def _tokenizer_of(folder: Path) -> Path | None:
    """tokenizer.json beside the model, or that of the run whose GPT it is."""
    for place in (folder / "tokenizer.json", folder.parent / "tokenizer.json"):
        if place.is_file():
            return place
    return None


def _folder(path: Path) -> Path:
    """The model's folder: that of its GPT where `path` is a run."""
    return path / "gpt" if (path / "gpt" / "config.json").is_file() else path


def _read_config(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _tensor_file(folder: Path) -> Path | None:
    files = sorted(folder.glob("*.safetensors"))
    named = [file for file in files if file.name == "model.safetensors"]
    return (named or files or [None])[0] if len(files) == 1 or named else None


def _tensors(folder: Path, file: Path | None) -> dict[str, Tensor]:
    if file is None:
        raise ModelInvalid(f"{folder}: no model.safetensors; a checkpoint in several files must be joined first")
    try:
        return load_tensors(file)[0]
    except CheckpointCorrupt as error:
        raise ModelInvalid(f"{file}: not a safetensors file; write it again") from error


def _told(model: GPT, folder: Path) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokenizer": _tokenizer_of(folder) is not None,
    }
