"""The transformer: its arithmetic by hand, its hook points, its files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparsecode.errors import CheckpointCorrupt, HookUnknown, InvalidSetting, ModelInvalid
from sparsecode.gpt import GPT, GPTConfig, gpt_fingerprint, load_gpt, save_gpt
from sparsecode.harvest.models import own_model

CONFIG = GPTConfig(vocab_size=50, n_layer=3, n_head=2, d_model=8, d_mlp=24, context=12)


@pytest.fixture
def model() -> GPT:
    model = GPT(CONFIG, seed=3)
    with torch.no_grad():  # away from the start, where attention is almost uniform and scales are 1
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.3)
    return model.eval()


@pytest.fixture
def idx() -> Tensor:
    return torch.randint(0, 50, (2, 11), generator=torch.Generator().manual_seed(1))


def by_hand(model: GPT, idx: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Every hook point and the final hidden states, from the formulas, with none of the model's own functions."""
    w = {name: p.detach().double() for name, p in model.named_parameters()}
    B, T = idx.shape
    H, C = CONFIG.n_head, CONFIG.d_model

    def norm(x: Tensor, scale: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * scale

    found = {}
    x = w["wte.weight"][idx] + w["wpe.weight"][:T]
    for layer in range(CONFIG.n_layer):
        at = f"blocks.{layer}."
        found[at + "hook_resid_pre"] = x
        qkv = norm(x, w[at + "ln_1.weight"]) @ w[at + "attn.c_attn.weight"].T
        q, k, v = (part.reshape(B, T, H, C // H) for part in qkv.chunk(3, dim=-1))
        z = torch.zeros(B, T, H, C // H, dtype=torch.float64)
        for t in range(T):
            scores = torch.einsum("bhd,bshd->bhs", q[:, t], k[:, : t + 1]) / math.sqrt(C // H)
            z[:, t] = torch.einsum("bhs,bshd->bhd", scores.softmax(-1), v[:, : t + 1])
        found[at + "attn.hook_z"] = z.reshape(B, T, C)
        x = x + z.reshape(B, T, C) @ w[at + "attn.c_proj.weight"].T
        found[at + "hook_resid_mid"] = x
        pre = norm(x, w[at + "ln_2.weight"]) @ w[at + "mlp.c_fc.weight"].T
        post = 0.5 * pre * (1 + torch.erf(pre / math.sqrt(2)))
        found[at + "mlp.hook_post"] = post
        out = post @ w[at + "mlp.c_proj.weight"].T
        found[at + "hook_mlp_out"] = out
        x = x + out
        found[at + "hook_resid_post"] = x
    return found, norm(x, w["ln_f.weight"])


def test_every_hook_point_is_what_the_formulas_give(model: GPT, idx: Tensor) -> None:
    expected, _ = by_hand(model, idx)
    read = own_model(model)
    assert expected.keys() <= read.taps.keys()
    for name, values in expected.items():
        got = read.read({"input_ids": idx}, [name])[name]
        assert got.shape[-1] == read.width(name), name
        torch.testing.assert_close(got.double(), values, rtol=1e-4, atol=1e-5, msg=name)


def test_forward_gives_hidden_states_or_their_loss(model: GPT, idx: Tensor) -> None:
    _, hidden = by_hand(model, idx)
    torch.testing.assert_close(model(idx).double(), hidden, rtol=1e-4, atol=1e-5)
    targets = (idx * 7 + 1) % 50
    logits = hidden @ model.wte.weight.double().T
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, 50), targets.reshape(-1))
    torch.testing.assert_close(model(idx, targets).double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(model.next_logits(idx).double(), logits[:, -1], rtol=1e-4, atol=1e-5)


def test_a_token_sees_only_what_came_before(model: GPT, idx: Tensor) -> None:
    changed = idx.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    before, after = model(idx), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


RUNS = [
    ("blocks.1.hook_resid_pre", 1, 1),
    ("blocks.1.attn.hook_z", 1, 2),
    ("blocks.1.mlp.hook_post", 2, 2),
    ("blocks.2.hook_resid_post", 3, 3),
]


@pytest.mark.parametrize("hook, mlps, attentions", RUNS)
def test_reading_stops_after_what_it_needs(model: GPT, idx: Tensor, hook: str, mlps: int, attentions: int) -> None:
    called: list[str] = []

    def watch(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda *_: called.append(name))

    for name, module in model.named_modules():
        if name.endswith(("c_attn", "c_fc")) or name == "ln_f":
            watch(name, module)
    own_model(model).read({"input_ids": idx}, [hook])
    assert [name.split(".")[-1] for name in called].count("c_fc") == mlps
    assert [name.split(".")[-1] for name in called].count("c_attn") == attentions
    assert "ln_f" not in called


@pytest.mark.parametrize("name", ["blocks.3.mlp.hook_post", "blocks.0.mpl", "mlp.hook_post", "blocks.-1.hook_mlp_out"])
def test_an_unknown_hook_point_is_named(model: GPT, idx: Tensor, name: str) -> None:
    with pytest.raises(HookUnknown, match=r"blocks\.L\.X with L 0 to 2"):
        own_model(model).read({"input_ids": idx}, [name])


def test_parameters_depend_on_the_seed_alone_and_leave_the_random_state() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = GPT(CONFIG, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = GPT(CONFIG, seed=5)
    assert gpt_fingerprint(first) == gpt_fingerprint(second) != gpt_fingerprint(GPT(CONFIG, seed=6))


def test_a_new_model_knows_nothing() -> None:
    config = GPTConfig(vocab_size=1000)
    idx = torch.randint(0, 1000, (2, 256))
    assert GPT(config)(idx, idx.flip(1)).item() == pytest.approx(math.log(1000), rel=0.01)


@pytest.mark.parametrize("change, message", [({"d_model": 9}, "not a multiple"), ({"n_layer": 0}, "n_layer must be")])
def test_impossible_sizes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        GPTConfig(**{"vocab_size": 50} | change)


def test_more_tokens_than_the_context_are_refused(model: GPT) -> None:
    with pytest.raises(InvalidSetting, match="13 tokens are more than the context of 12"):
        model(torch.zeros(1, 13, dtype=torch.int64))


def test_a_saved_model_comes_back_with_its_fingerprint(model: GPT, idx: Tensor, tmp_path: Path) -> None:
    save_gpt(model.train(), tmp_path / "gpt")
    loaded = load_gpt(tmp_path / "gpt")
    assert not loaded.training
    assert loaded.config == CONFIG
    assert gpt_fingerprint(loaded) == gpt_fingerprint(model)
    assert torch.equal(loaded(idx), model(idx))
    with torch.no_grad():
        loaded.wpe.weight[0, 0] += 1e-6
    assert gpt_fingerprint(loaded) != gpt_fingerprint(model)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "vocab_size": 50, "depth": 3}',
                                  '{"format": 1, "vocab_size": "many"}', '{"format": 1, "vocab_size": 0}'])  # fmt: skip
def test_a_broken_config_is_named(model: GPT, tmp_path: Path, text: str) -> None:
    save_gpt(model, tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelInvalid, match=r"config\.json"):
        load_gpt(tmp_path)


def test_tensors_of_another_model_are_refused(model: GPT, tmp_path: Path) -> None:
    save_gpt(model, tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"n_layer": 3', '"n_layer": 2'))
    with pytest.raises(ModelInvalid, match="do not fit"):
        load_gpt(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointCorrupt):
        load_gpt(tmp_path)
