"""Logit effects beside autograd: the derivative of the logits along an atom, with the last norm's scale held fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsecode.browser.effects import causal, direct, direct_path
from sparsecode.errors import HookUnknown
from sparsecode.gpt import GPT, GPTConfig
from sparsecode.harvest.models import LanguageModel, own_model
from sparsecode.harvest.models.taps import change_tap

PLACES = (
    "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "attn.hook_z", "hook_attn_out", "mlp.hook_post",
    "hook_mlp_out",
)  # fmt: skip


def spread_out(module: torch.nn.Module) -> None:
    """Weights far from their start: gains that differ, logits of size one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "ln" in name or "norm" in name:
                weight.add_(0.5 * torch.rand(weight.shape, generator=generator))
            else:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))


def own() -> LanguageModel:
    gpt = GPT(GPTConfig(vocab_size=40, n_layer=3, n_head=2, d_model=16, d_mlp=24, context=12))
    spread_out(gpt)
    return own_model(gpt, device="cpu")


def hugging_face(kind: str) -> LanguageModel:
    transformers = pytest.importorskip("transformers")
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=40, n_layer=2, n_head=2, n_embd=16, n_positions=12)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, hidden_size=16,
            intermediate_size=24, max_position_embeddings=12,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    spread_out(model)
    return language_model(model.eval())


def language_model(module: Any) -> LanguageModel:
    from sparsecode.harvest.models.families import family_of, hook_taps

    family = family_of(module.config)
    assert family is not None
    hooks = hook_taps(module, family)
    return LanguageModel(module, "tiny", "causal", hooks.taps, module.config.model_type, "f", context=12, vocab_size=40)


MODELS: dict[str, Callable[[], LanguageModel]] = {
    "own": own, "gpt2": lambda: hugging_face("gpt2"), "llama": lambda: hugging_face("llama"),
}  # fmt: skip


def shorten(model: LanguageModel, layer: int, place: str) -> None:
    """Removes the blocks after a layer, and what of its block follows the place beside the residual stream."""
    for name, module in model.module.named_modules():
        if isinstance(module, torch.nn.ModuleList):
            del module[layer + 1 :]
            block: Any = module[layer]
            del name
            break
    silent: list[str] = []
    if place in ("hook_resid_mid", "attn.hook_z", "hook_attn_out", "hook_resid_pre"):
        silent.append("mlp")
    if place == "hook_resid_pre":
        silent.append("attn" if hasattr(block, "attn") else "self_attn")
    for part in silent:
        getattr(block, part).register_forward_hook(
            lambda _, __, out: (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)
        )


def derivative(model: LanguageModel, hook: str, atoms: Tensor, ids: Tensor) -> Tensor:
    """[F, V] of the logits at the last token along atoms that are added there, the last norm's scale held fixed."""
    tap = model.tap("ln_final.hook_normalized")
    norm: Any = model.module.get_submodule(tap.module)
    with torch.no_grad():
        x = model.read({"input_ids": ids}, [f"{tap.module}@input"])[f"{tap.module}@input"]
    layer_norm = isinstance(norm, torch.nn.LayerNorm)
    centred = x - x.mean(-1, keepdim=True) if layer_norm else x
    eps = norm.eps if layer_norm else norm.variance_epsilon
    sigma = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()

    def fixed(_: Any, given: tuple[Tensor, ...], __: Tensor) -> Tensor:
        own = given[0] - given[0].mean(-1, keepdim=True) if layer_norm else given[0]
        bias = getattr(norm, "bias", None)
        scaled: Tensor = own / sigma * norm.weight
        return scaled if bias is None else scaled + bias

    handle = norm.register_forward_hook(fixed)

    def logits(step: Tensor) -> Tensor:
        def change(value: Tensor) -> Tensor:
            return torch.cat([value[:, :-1], value[:, -1:] + step], dim=1)

        out = change_tap(model.module, model.tap(hook), change, lambda: model.call(model.module, {"input_ids": ids}))
        return model.logits_of(out)[0, -1]

    try:
        jacobian: Tensor = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
            logits, torch.zeros(atoms.shape[1])
        )
    finally:
        handle.remove()
    return atoms @ jacobian.T


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", MODELS)
def test_the_direct_path_is_the_derivative_without_later_blocks(kind: str, place: str) -> None:
    model, layer = MODELS[kind](), 1
    hook = f"blocks.{layer}.{place}"
    ids = torch.tensor([[7]])  # one position, whose scale is the mean
    shorten(model, layer, place)
    atoms = torch.randn(6, model.width(hook), generator=torch.Generator().manual_seed(1))
    # A change of the stream between attention and MLP is made in attention's output, and passes no gradient itself.
    expected = derivative(model, hook.replace("hook_resid_mid", "hook_attn_out"), atoms, ids)
    found = direct_path(model, hook, ids).logits(atoms)
    assert float(expected.abs().max()) > 0.1
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_the_scale_is_the_mean_over_positions_and_the_strongest_tokens_are_listed() -> None:
    model = own()
    ids = torch.arange(24).view(2, 12) % 40
    path = direct_path(model, "blocks.1.mlp.hook_post", ids)
    scales = [direct_path(model, "blocks.1.mlp.hook_post", one[None]).scale for one in ids]
    assert path.scale == pytest.approx(sum(scales) / 2, rel=1e-5)
    atoms = torch.randn(5, 24)
    logits, found = path.logits(atoms), direct(path, atoms, 4)
    assert torch.equal(found.raised[1], logits.sort(descending=True).values[:, :4])
    assert torch.equal(found.lowered[1], logits.sort().values[:, :4])
    assert torch.equal(logits.gather(1, found.raised[0]), found.raised[1])


@pytest.mark.parametrize("hook", ["blocks.1.mlp.hook_pre", "blocks.0.attn.hook_q", "blocks.0.ln1.hook_normalized"])
def test_there_is_no_direct_path_from_before_a_nonlinearity(hook: str) -> None:
    with pytest.raises(HookUnknown, match="no direct path"):
        direct_path(own(), hook, torch.tensor([[1, 2]]))


def test_logits_that_are_bent_have_no_direct_path() -> None:
    model = own()
    straight = model.logits_of
    model.logits_of = lambda h: 3 * torch.tanh(straight(h) / 3)
    with pytest.raises(HookUnknown, match="are not its last norm times"):
        direct_path(model, "blocks.1.mlp.hook_post", torch.tensor([[1, 2]]))


def test_the_measured_effect_is_the_difference_of_two_passes() -> None:
    model, hook = own(), "blocks.0.mlp.hook_post"
    ids = torch.randint(0, 40, (5, 9), generator=torch.Generator().manual_seed(0))
    atoms = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    seen: list[int] = []
    found = causal(model, hook, atoms, ids, 40, seen.append)
    gpt: Any = model.module
    with torch.no_grad():
        for f, atom in enumerate(atoms):
            clean, changed = gpt(ids) @ gpt.wte.weight.T, None

            def add(_: Any, given: tuple[Tensor, ...], atom: Tensor = atom) -> tuple[Tensor]:
                new = given[0].clone()
                new[:, -1] += atom
                return (new,)

            handle = gpt.blocks[0].mlp.c_proj.register_forward_pre_hook(add)
            changed = gpt(ids) @ gpt.wte.weight.T
            handle.remove()
            effect = (changed - clean)[:, -1].mean(0)
            assert torch.allclose(found.raised[1][f], effect.sort(descending=True).values, atol=1e-5)
            assert torch.allclose(effect[found.lowered[0][f]], found.lowered[1][f], atol=1e-5)
    assert seen == [1, 1, 1]
