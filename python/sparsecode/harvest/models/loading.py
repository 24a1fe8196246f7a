"""From a folder or a name to a `LanguageModel`: the project's own GPT, or any of Hugging Face's."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sparsecode.errors import MissingExtra, ModelInvalid
from sparsecode.gpt import GPT, gpt_fingerprint, load_gpt
from sparsecode.harvest.models.families import OWN_GPT, Hooks, family_of, hook_places, language_config
from sparsecode.harvest.models.language import Frame, LanguageModel
from sparsecode.machine import torch_device

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PROBE = "a"  # a text of which any tokenizer makes tokens


def load_model(name: str, *, device: str = "auto", dtype: str = "auto") -> LanguageModel:
    """A model by folder or name.

    Args:
        name: a folder that `train-gpt` or `convert` wrote, a folder with a Hugging Face model, or a model's name on
            their hub.
        device: cpu, cuda, mps or auto.
        dtype: float32, bfloat16 or float16; auto is the one it was saved in.

    Raises:
        MissingExtra: it is a Hugging Face model and transformers is not installed.
        ModelInvalid: it cannot be loaded.
    """
    if is_own_gpt(Path(name)):
        tokenizer = Path(name) / "tokenizer.json"
        text = tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None
        return own_model(load_gpt(name), Path(name).name, device=device, dtype=dtype, tokenizer=text)
    return _load_hf(name, torch_device(device), dtype)


def is_own_gpt(path: Path) -> bool:
    """Whether a folder holds a model that this program wrote."""
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "format" in config and "n_layer" in config and "model_type" not in config


def own_model(
    gpt: GPT, name: str = "sparsecode-gpt", *, device: str = "auto", dtype: str = "auto", tokenizer: str | None = None
) -> LanguageModel:
    """The project's own GPT. Its end-of-text token is an ordinary one: it was trained on it."""
    fingerprint = gpt_fingerprint(gpt)
    gpt = gpt.to(torch_device(device)).eval()
    if dtype != "auto":
        gpt = gpt.to(_DTYPES[dtype])
    hooks = hook_places(gpt, OWN_GPT)
    return LanguageModel(
        gpt,
        name,
        "causal",
        hooks.places,
        "sparsecode's GPT",
        fingerprint,
        refused=hooks.refused,
        context=gpt.config.context,
        vocab_size=gpt.config.vocab_size,
        tokenizer=tokenizer,
        call=lambda module, given: module(given["input_ids"]),
        logits_of=lambda h: h @ gpt.wte.weight.T,
    )


def _load_hf(name: str, device: torch.device, dtype: str) -> LanguageModel:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra(
            f"--model {name}: Hugging Face models need the package transformers; run: pip install 'sparsecode[hf]'"
        ) from error
    with _quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(name)
            kind = _kind(transformers, config)
            loader = _loader(transformers, config, kind)
            # Safetensors only: nothing that unpickles, and no code that comes with the model.
            module = getattr(transformers, loader).from_pretrained(
                name, dtype=_DTYPES.get(dtype, "auto"), use_safetensors=True, trust_remote_code=False
            )
        except Exception as error:  # the library raises what its many back ends raise
            raise ModelInvalid(f"--model {name}: cannot be loaded ({_reason(error)})") from error
        tokenizer = _tokenizer(transformers, name)
    return hf_model(module.to(device), tokenizer, _short(name), kind)


def hf_model(
    module: Any, tokenizer: Any | None, name: str, kind: Literal["causal", "masked", "none"] = "causal"
) -> LanguageModel:
    """A transformers model that is loaded already.

    Args:
        module: a `PreTrainedModel`.
        tokenizer: its `PreTrainedTokenizerFast`, or None where only batches of ids are harvested.
        name: what to call it in records.
        kind: what its logits predict.
    """
    config, text = module.config, language_config(module.config)
    config.use_cache = text.use_cache = False  # keys and values of earlier passes are of no use here, and cost memory
    family, hooks, unread = family_of(config), Hooks(), ""
    try:
        hooks = hook_places(module, family) if family is not None else hooks
    except ModelInvalid as error:  # modules can still be read by their paths
        unread = str(error)
    within = f", its language model {text.model_type}" if text is not config else ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    part = _with_head(module, text) if text is not config else ""
    return LanguageModel(
        module.eval(),
        name,
        kind,
        hooks.places,
        f"{config.model_type}, {type(module).__name__}{within}",
        _fingerprint(module),
        refused=hooks.refused,
        unread=unread,
        context=_context(text),
        vocab_size=int(module.get_input_embeddings().weight.shape[0]),
        tokenizer=backend.to_str() if backend is not None else None,
        frame=_frame(tokenizer),
        special=_special(tokenizer),
        mask=getattr(tokenizer, "mask_token_id", None),
        pad=getattr(tokenizer, "pad_token_id", None) or 0,
        call=lambda model, given: model.get_submodule(part)(**given),
    )


def _kind(transformers: Any, config: Any) -> Literal["causal", "masked", "none"]:
    """What a checkpoint was saved as; where it does not say, what its family offers."""
    architectures = list(getattr(config, "architectures", None) or [])
    if any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
        return "masked"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures) or _wrapper(transformers, config):
        return "causal"
    if architectures:
        return "none"  # a BertModel, say: an output that predicts tokens would be made of random numbers
    known = transformers.models.auto.modeling_auto
    if config.model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "masked"
    return "causal" if config.model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else "none"


def _loader(transformers: Any, config: Any, kind: str) -> str:
    """Name of the class that reads a checkpoint with its head."""
    if kind == "causal" and (wrapper := _wrapper(transformers, config)):
        return wrapper
    return {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "none": "AutoModel"}[kind]


def _wrapper(transformers: Any, config: Any) -> str | None:
    """The class of a model that holds a language model and its head, such as LLaVA; None for others."""
    if language_config(config) is config:
        return None
    known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    names = list(getattr(config, "architectures", None) or []) or [known.get(config.model_type, "")]
    for name in names:
        found = getattr(transformers, name, None) if name.endswith("ForConditionalGeneration") else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return str(name)
    return None


def _with_head(module: nn.Module, text: Any) -> str:
    """Path of a language model with a head of its own within one for images (Llama 4): it alone needs no images."""
    for path, part in module.named_modules():
        own = getattr(part, "config", None)
        if path and getattr(own, "model_type", None) == text.model_type and hasattr(part, "lm_head"):
            return str(path)
    return ""


def _tokenizer(transformers: Any, name: str) -> Any | None:
    try:
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception:  # no tokenizer, or none of the kinds known: only text needs one, and asks for it
        return None


def _frame(tokenizer: Any | None) -> Frame:
    """What the tokenizer puts around a text."""
    if tokenizer is None:
        return Frame()
    plain = tokenizer.encode(_PROBE, add_special_tokens=False)
    framed = tokenizer.encode(_PROBE, add_special_tokens=True)
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return Frame(tuple(framed[:start]), tuple(framed[start + len(plain) :]))
    return Frame()


def _special(tokenizer: Any | None) -> frozenset[int]:
    if tokenizer is None:
        return frozenset()
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {token for token, about in added.items() if about.special}


def _context(config: Any) -> int:
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048
    # RoBERTa's positions start after that of the padding token.
    return int(most) - (2 if "roberta" in config.model_type else 0)


def _fingerprint(module: nn.Module) -> str:
    config = module.config.to_dict()  # type: ignore[union-attr, operator]
    kept = {
        key: value for key, value in config.items() if key not in ("_name_or_path", "transformers_version", "use_cache")
    }
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _short(name: str) -> str:
    """A model's name on the hub, or that of its folder: not where the folder lies."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() else name


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and advice: what goes wrong is told in one line."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
