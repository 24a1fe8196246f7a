"""Loads a `LanguageModel` from a folder or a name: the project's own GPT, or any model of Hugging Face."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import nn

from sparsecode.checkpoint import digest_of_tensors
from sparsecode.corpus.tokenizer import end_of_document
from sparsecode.errors import MissingExtra, ModelInvalid, in_a_line
from sparsecode.gpt import GPT, gpt_fingerprint, load_gpt
from sparsecode.harvest.models.families import OWN_GPT, Hooks, family_of, hook_taps, language_config
from sparsecode.harvest.models.language import NO_FRAME, Frame, LanguageModel
from sparsecode.harvest.models.special import special_ids, unknown_id
from sparsecode.harvest.models.weights import guard, key_mapping, missing_weights
from sparsecode.machine import computes_in, torch_device
from sparsecode.watch import UNWATCHED, Watch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TRIED = 256  # tokens to try until the text of one is not a special token
_GREETING = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]


def load_model(
    name: str, *, device: str = "auto", dtype: str = "auto", kept: str | None = None, watch: Watch = UNWATCHED
) -> LanguageModel:
    """Loads a model by folder or name.

    Args:
        name: a folder that `train-gpt` or `convert` wrote, a folder with a Hugging Face model, or a model's name on
            their hub.
        device: cpu, cuda, mps or auto.
        dtype: float32, bfloat16 or float16; auto is the one it was saved in, or float32 where the processor would
            have to emulate that.
        kept: the type that `auto` meant before, on whichever machine, to go on with.
        watch: told where it computes in another type than it was saved in.

    Raises:
        MissingExtra: it is a Hugging Face model and transformers is not installed.
        ModelInvalid: it cannot be loaded.
    """
    if is_own_gpt(Path(name)):
        tokenizer = Path(name) / "tokenizer.json"
        text = tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None
        return own_model(load_gpt(name), Path(name).name, device=device, dtype=dtype, tokenizer=text)
    model = _load_hf(name, torch_device(device), dtype)
    if dtype == "auto":
        _choose_dtype(model, kept, watch)
    return model


def _choose_dtype(model: LanguageModel, kept: str | None, watch: Watch) -> None:
    """Puts a model that is in the type it was saved in into the one to compute in. Its fingerprint stays."""
    saved = model.dtype
    chosen = computes_in(saved, model.device) if kept is None else _DTYPES[kept]
    if chosen != saved:
        model.module.to(chosen)
        before, after = (str(one).removeprefix("torch.") for one in (saved, chosen))
        why = "this processor has no products of that type" if kept is None else "as it did when this was begun"
        watch.note(f"{model.name}: saved in {before}, computes in {after}: {why}", remedy="model_dtype")


def is_own_gpt(path: Path) -> bool:
    """Whether a folder holds a model that sparsecode wrote."""
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
    hooks = hook_taps(gpt, OWN_GPT)
    return LanguageModel(
        gpt,
        name,
        "causal",
        hooks.taps,
        "sparsecode's GPT",
        fingerprint,
        refused=hooks.refused,
        context=gpt.config.context,
        vocab_size=gpt.config.vocab_size,
        tokenizer=tokenizer,
        end=end_of_document(Tokenizer.from_str(tokenizer)) if tokenizer else None,
        call=lambda module, given: module(given["input_ids"]),
        logits_of=lambda h: h @ gpt.wte.weight.T,
    )


def _load_hf(name: str, device: torch.device, dtype: str) -> LanguageModel:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra(
            f"model {name}: Hugging Face models need the package transformers; run: pip install 'sparsecode[hf]'"
        ) from error
    with _quiet(transformers):
        try:
            # With this setting the library never asks whether to run code that comes with a model.
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
            changed = {"config": config} if _without_kernels(config) else {}
            kind = _kind(transformers, config)
            load = functools.partial(
                # Safetensors only: nothing that unpickles, and no code that comes with the model.
                getattr(transformers, _loader(transformers, config, kind)).from_pretrained, name,
                dtype=_DTYPES.get(dtype, "auto"), use_safetensors=True, trust_remote_code=False,
                output_loading_info=True, **changed,
            )  # fmt: skip
            module, info = load()
            mapping = key_mapping(info)
            if mapping:
                module, info = load(key_mapping=mapping)
        except Exception as error:  # the library raises what its many back ends raise
            raise ModelInvalid(f"model {name}: cannot be loaded ({in_a_line(error)})") from error
        tokenizer = _tokenizer(transformers, name)
    missing, unused = missing_weights(info), tuple(sorted(info.get("unexpected_keys", ())))
    guard(module, _short(name), missing, unused)
    model = hf_model(module.to(device), tokenizer, _short(name), kind)
    return dataclasses.replace(model, missing=missing, unused=unused, wrapped=mapping is not None)


def _without_kernels(config: Any) -> bool:
    """Removes the name of a hub repository whose code would compute attention: such code is never fetched or run.

    Returns:
        Whether the configuration named one.
    """
    found = False
    for part in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", None) or ())):
        for name in ("_attn_implementation", "_experts_implementation"):
            if "/" in str(getattr(part, name, None)):
                setattr(part, name, None)
                found = True
    return found


def hf_model(
    module: Any, tokenizer: Any | None, name: str, kind: Literal["causal", "masked", "none"] = "causal"
) -> LanguageModel:
    """Wraps a loaded transformers model.

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
        hooks = hook_taps(module, family) if family is not None else hooks
    except ModelInvalid as error:  # modules can still be read by their paths
        unread = str(error)
    within = f", its language model {text.model_type}" if text is not config else ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    part = _with_head(module, text) if text is not config else ""
    vocab_size = int(module.get_input_embeddings().weight.shape[0])
    pad = getattr(tokenizer, "pad_token_id", None)
    frame = _frame(tokenizer)
    template = json.dumps(getattr(tokenizer, "chat_template", None) or "").strip('"')
    chat = functools.partial(tokenizer.apply_chat_template, tokenize=False) if tokenizer and template else None
    return LanguageModel(
        module.eval(),
        name,
        kind,
        hooks.taps,
        f"{config.model_type}, {type(module).__name__}{within}",
        _fingerprint(module),
        refused=hooks.refused,
        unread=unread,
        context=_context(text) - _first_position(module),
        vocab_size=vocab_size,
        tokenizer=backend.to_str() if backend is not None else None,
        frame=frame,
        special=special_ids(tokenizer),
        unknown=unknown_id(tokenizer),
        end=_end(tokenizer),
        control=_control(tokenizer),
        template=template,
        chat=chat,
        chat_frame=_chat_frame(tokenizer, frame, chat) if chat is not None else NO_FRAME,
        mask=getattr(tokenizer, "mask_token_id", None),
        # A padding token added only to the tokenizer has no embedding; the mask hides it in any case.
        pad=pad if pad is not None and pad < vocab_size else 0,
        call=lambda model, given: model.get_submodule(part)(**given),
    )


def _kind(transformers: Any, config: Any) -> Literal["causal", "masked", "none"]:
    """The kind that a checkpoint was saved as, or, if it does not say, that its family offers."""
    architectures = list(getattr(config, "architectures", None) or [])
    if any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
        return "masked"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures) or _wrapper(transformers, config):
        return "causal"
    if architectures:
        return "none"  # a BertModel, say: its output layer would consist of random numbers
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
    """The class of a model that contains a language model and its head, such as LLaVA; None for others."""
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
    """Path of a language model with its own head within an image model (Llama 4), which needs no images."""
    for path, part in module.named_modules():
        own = getattr(part, "config", None)
        if path and getattr(own, "model_type", None) == text.model_type and hasattr(part, "lm_head"):
            return str(path)
    return ""


def _tokenizer(transformers: Any, name: str) -> Any | None:
    try:
        found = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception:  # no tokenizer of a known kind; only text needs one, and reports that
        return None
    # Without any file some versions invent an empty tokenizer of the model's kind.
    return found if set(found.get_vocab().values()) - set(found.all_special_ids) else None


def _frame(tokenizer: Any | None) -> Frame:
    """The special tokens that the tokenizer puts around a text."""
    if tokenizer is None:
        return NO_FRAME
    for text in _probes(tokenizer):
        plain = tokenizer.encode(text, add_special_tokens=False)
        framed = tokenizer.encode(text, add_special_tokens=True)
        for start in range(len(framed) - len(plain) + 1) if plain else ():
            if framed[start : start + len(plain)] == plain:
                return Frame(tuple(framed[:start]), tuple(framed[start + len(plain) :]))
    return NO_FRAME


def _probes(tokenizer: Any) -> Iterator[str]:
    """Texts of which any tokenizer can encode at least one; one for DNA knows only A, C, G and T."""
    yield "a"
    special = set(tokenizer.all_special_ids)
    for token in sorted(set(tokenizer.get_vocab().values()) - special)[:_TRIED]:
        yield tokenizer.decode([token])


def _end(tokenizer: Any | None) -> str | None:
    """The tokenizer's own token for the end of a document: eos, or its counterpart in a tokenizer like BERT's."""
    if tokenizer is None:
        return None
    vocabulary = tokenizer.get_vocab()
    named = (tokenizer.special_tokens_map.get(name) for name in ("eos_token", "sep_token"))
    own = next((str(name) for name in named if name is not None and str(name) in vocabulary), None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return own or (end_of_document(backend) if backend is not None else None)


def _control(tokenizer: Any | None) -> tuple[str, ...]:
    """Names of the special tokens that the tokenizer recognises where a text spells them, in the order of their ids."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return tuple(str(added[token].content) for token in sorted(added) if added[token].special)


def _chat_frame(tokenizer: Any, frame: Frame, render: Callable[[list[dict[str, Any]]], str]) -> Frame:
    """The frame of conversations: the beginning in every context if the template writes it, else nothing."""
    try:
        ids = tokenizer.encode(render(_GREETING), add_special_tokens=False)
    except Exception:  # the template needs other roles; it reports that when it writes a conversation
        return NO_FRAME
    return Frame(frame.before) if tuple(ids[: len(frame.before)]) == frame.before else NO_FRAME


def _context(config: Any) -> int:
    return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048)


def _first_position(module: nn.Module) -> int:
    """The first position; in RoBERTa and its kin, the one after the padding token's id."""
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            return 0 if part.padding_idx is None else part.padding_idx + 1
    return 0


def _fingerprint(module: nn.Module) -> str:
    config = module.config.to_dict()  # type: ignore[union-attr, operator]
    kept = {
        key: value for key, value in config.items() if key not in ("_name_or_path", "transformers_version", "use_cache")
    }
    return digest_of_tensors(json.dumps(kept, sort_keys=True, default=str), module.state_dict())


def _short(name: str) -> str:
    """A model's name on the hub, or its folder's name without the path."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() else name


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silences progress bars and advice; an error is reported in one line."""
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
