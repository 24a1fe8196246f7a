"""The project's own GPT as a Hugging Face GPT-2 folder and back, and nanoGPT's checkpoints.

The architecture is nanoGPT's without biases: GPT-2 with exact GELU, biases of zero and a tied embedding. GPT-2 stores
its matrices transposed ([in, out]); nanoGPT has GPT-2's names and torch's matrices ([out, in]).

Files of a GPT-2 folder: config.json, model.safetensors, and, if the tokenizer is known, tokenizer.json with
tokenizer_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import bare_names, load_tensors, some, write_atomic, write_json, write_text
from sparsecode.errors import CheckpointCorrupt, InvalidSetting, ModelInvalid, WeightsMissing
from sparsecode.gpt import GPT, GPTConfig, load_gpt, save_gpt

_HF_METADATA = {"format": "pt"}
_EPSILON = 1e-5
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "[SEP]")
_BUFFERS = (".attn.bias", ".attn.masked_bias")  # causal masks in older checkpoints
_UNTIED = "lm_head.weight is not transformer.wte.weight"
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def export_gpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a GPT of this project (its folder, or its run) as a Hugging Face GPT-2 folder.

    Returns:
        {"parameters", "tokenizer": whether one came along}.

    Raises:
        ModelInvalid: there is no GPT.
    """
    folder = _gpt_folder(Path(source))
    model = load_gpt(folder)
    config = model.config
    tensors = _turned({_hf_name(name): tensor for name, tensor in model.state_dict().items()})
    for name, width in _biases(config):
        tensors[name] = torch.zeros(width)
    sizes = {"vocab_size": config.vocab_size, "n_positions": config.context, "n_embd": config.d_model,
             "n_layer": config.n_layer, "n_head": config.n_head, "n_inner": config.d_mlp}  # fmt: skip
    _write_hf(Path(destination), tensors, sizes, _tokenizer_of(folder))
    return _told(model, folder)


def import_gpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a GPT-2 folder as a GPT of this project.

    Raises:
        ModelInvalid: it has biases, another activation or an untied embedding, which this project's GPT does not have.
    """
    folder = Path(source)
    config = _read_config(folder)
    if _nanogpt_sizes(config) and "model_type" not in config:
        return import_nanogpt(folder, destination)
    model = _read_hf(folder)
    _write_own(model, Path(destination), folder)
    return _told(model, folder)


def import_nanogpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a nanoGPT checkpoint as a GPT of this project.

    Args:
        source: a safetensors file with config.json beside it, which holds nanoGPT's `model_args` (n_layer, n_head,
            n_embd), or the folder of both.
        destination: folder to write.

    Raises:
        ModelInvalid: it was trained with biases (`export_nanogpt` takes it), or files do not fit together.
    """
    sizes, tensors, folder = _read_nanogpt(Path(source))
    plain = _without_biases(tensors, f"{source}: trained with bias=True", remedy="convert_hf")
    model = _own_model(sizes, plain, folder)
    _write_own(model, Path(destination), folder)
    return _told(model, folder)


def export_nanogpt(source: str | Path, destination: str | Path) -> dict[str, Any]:
    """Writes a nanoGPT checkpoint, with or without biases, as a Hugging Face GPT-2 folder; see `import_nanogpt`.

    Raises:
        ModelInvalid: files do not fit together.
    """
    sizes, tensors, folder = _read_nanogpt(Path(source))
    config = _config(sizes, folder)
    named = {f"transformer.{name}": value for name, value in tensors.items()}
    for name, width in _biases(config):
        named.setdefault(name, torch.zeros(width))
    own = {_hf_name(name): tuple(value.shape) for name, value in GPT(config).state_dict().items()}
    _check_fits(named, own | {name: (width,) for name, width in _biases(config)}, folder)
    _write_hf(Path(destination), _turned(named), sizes, _tokenizer_of(folder))
    count = sum(value.numel() for value in tensors.values())
    return {"parameters": count, "tokenizer": _tokenizer_of(folder) is not None}


def _read_hf(folder: Path) -> GPT:
    config = _read_config(folder)
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
                f"{folder / 'config.json'}: {name} is {config.get(name)!r}, which this project's GPT has not",
                remedy="harvest_model",
            )
    file = _tensor_file(folder)
    tensors = _tensors(folder, file, f"{folder}: {_UNTIED}, which this project's GPT ties", remedy="harvest_model")
    _check_biases(tensors, _config(config, folder), folder)
    plain = _without_biases(tensors, f"{folder}: has biases", remedy="harvest_model")
    return _own_model(config, _turned(plain), folder)


def _turned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with those matrices transposed that GPT-2 and torch lay out differently."""
    return {name: value.T.contiguous() if name.endswith(_TRANSPOSED) else value for name, value in tensors.items()}


def _without_biases(tensors: Mapping[str, Tensor], what: str, *, remedy: str) -> dict[str, Tensor]:
    """The tensors but the biases, which must be zero; `what` begins the message if one is not."""
    biased = [name for name, value in tensors.items() if name.endswith(".bias") and bool(value.any())]
    if biased:
        raise ModelInvalid(f"{what} ({biased[0]} is not zero), which this project's GPT has not", remedy=remedy)
    return {name: value for name, value in tensors.items() if not name.endswith(".bias")}


def _own_model(sizes: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> GPT:
    """A GPT from tensors with GPT-2's names and torch's layout of matrices."""
    model = GPT(_config(sizes, folder))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    _check_fits(tensors, {name.replace("blocks.", "h.", 1): shape for name, shape in shapes.items()}, folder)
    named = {
        name.replace("h.", "blocks.", 1) if name.startswith("h.") else name: t.float() for name, t in tensors.items()
    }
    model.load_state_dict(named)
    return model.eval()


def _check_fits(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Refuses tensors whose names and shapes are not exactly the expected ones."""
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise WeightsMissing(
            f"{folder}: {some(missing)} missing that config.json speaks of; take a checkpoint that has all weights"
        )
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != expected:
        wrong = sorted(set(expected.items()) ^ set(found.items()))
        raise ModelInvalid(f"{folder}: tensors do not fit config.json, first {wrong[0][0]} {list(wrong[0][1])}")


def _check_biases(tensors: Mapping[str, Tensor], config: GPTConfig, folder: Path) -> None:
    """Refuses some biases without the others: a model has all of them or none."""
    names = [name.removeprefix("transformer.") for name, _ in _biases(config)]
    missing = [name for name in names if name not in tensors]
    if 0 < len(missing) < len(names):
        raise WeightsMissing(
            f"{folder}: {some(missing)} missing, though other biases are there; take a checkpoint that has all weights"
        )


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


def _read_nanogpt(source: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """Sizes by GPT-2's names, tensors by nanoGPT's (no `transformer.`, no tied output embedding), and the folder."""
    folder, file = (source.parent, source) if source.is_file() else (source, _tensor_file(source))
    sizes = _nanogpt_sizes(_read_config(folder))
    if not {"n_layer", "n_head"} <= sizes.keys():
        raise ModelInvalid(
            f"{folder / 'config.json'}: needs n_layer and n_head, as in nanoGPT's model_args; weights do not say them"
        )
    tensors = _tensors(folder, file, f"{source}: {_UNTIED}; nanoGPT ties them")
    tensors = {name: value.float() for name, value in tensors.items()}
    if "wte.weight" not in tensors or "wpe.weight" not in tensors:
        raise ModelInvalid(f"{source}: no transformer.wte.weight or transformer.wpe.weight; is this nanoGPT's state?")
    vocabulary, width = tensors["wte.weight"].shape
    own = {"n_embd": width, "vocab_size": vocabulary, "n_positions": tensors["wpe.weight"].shape[0]}
    _check_biases(tensors, _config(sizes | own, folder), folder)
    return sizes | own, tensors, folder


def _nanogpt_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """`model_args` of nanoGPT's checkpoint, which config.json contains or consists of."""
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
    """Name and id of the token that ends a document in a tokenizer.json."""
    added = json.loads(tokenizer).get("added_tokens") or []
    by_name = {str(token["content"]): int(token["id"]) for token in added}
    return next(((name, by_name[name]) for name in _ENDS if name in by_name), None)


def _tokenizer_of(folder: Path) -> Path | None:
    """tokenizer.json beside the model, or of the run that the GPT belongs to."""
    for place in (folder / "tokenizer.json", folder.parent / "tokenizer.json"):
        if place.is_file():
            return place
    return None


def _gpt_folder(path: Path) -> Path:
    """The folder of a GPT; if `path` is a run, of its GPT."""
    return path / "gpt" if (path / "gpt" / "config.json").is_file() else path


def _read_config(folder: Path) -> dict[str, Any]:
    """What config.json says; nothing where it cannot be read."""
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tensor_file(folder: Path) -> Path | None:
    """model.safetensors, or the only safetensors file there is."""
    if (folder / "model.safetensors").is_file():
        return folder / "model.safetensors"
    files = sorted(folder.glob("*.safetensors"))
    return files[0] if len(files) == 1 else None


def _tensors(folder: Path, file: Path | None, untied: str, remedy: str | None = None) -> dict[str, Tensor]:
    """Tensors by GPT-2's names, without causal masks and the output embedding, which must be that of the input.

    `untied` and `remedy` are the error where it is another.
    """
    if file is None:
        raise ModelInvalid(f"{folder}: no model.safetensors; a checkpoint in several files must be joined first")
    try:
        tensors = load_tensors(file)[0]
    except CheckpointCorrupt as error:
        raise ModelInvalid(f"{file}: not a safetensors file; write it again") from error
    names = bare_names(tensors)
    found = {names[name].removeprefix("transformer."): value for name, value in tensors.items()}
    found = {name: value for name, value in found.items() if not name.endswith(_BUFFERS)}
    output = found.pop("lm_head.weight", None)
    if output is not None and not torch.equal(output.float(), found.setdefault("wte.weight", output).float()):
        raise ModelInvalid(untied, remedy=remedy)
    return found


def _told(model: GPT, folder: Path) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokenizer": _tokenizer_of(folder) is not None,
    }
