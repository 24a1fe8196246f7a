"""circuit-tracer's transcoder sets, compared with what circuit-tracer computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from published import D, N, X, assert_same, parts, random, write_set
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop import load_dictionary


def transcoder(x: Tensor, *, act: str = "relu", k: int = 0, skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes and output of one layer as circuit-tracer computes them."""
    w = parts()
    pre = x @ w["W_enc"] + w["b_enc"]
    if act == "relu":
        codes = pre.clamp(min=0)
    elif act == "topk":  # the largest, even when negative
        gate = torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1)
        codes = pre * gate
    else:
        codes = pre * (pre > w["threshold"])
    output = codes @ w["W_dec"] + w["b_dec"]
    return codes, output if skip is None else output + x @ skip.T


SKIP = random(D, D, seed=8)
HEAD = "model_name: \"google/gemma-2-2b\"  # the model\nmodel_kind: 'transcoder_set'\n"


@pytest.mark.parametrize(
    ("config", "changes", "definition"),
    [
        ("", {}, {}),
        ("activation: relu\n", {}, {}),
        ("", {"W_dec": parts()["W_dec"].T.contiguous()}, {}),
        ("", {"W_skip": SKIP}, {"skip": SKIP}),
        ("", {"activation_function.threshold": parts()["threshold"]}, {"act": "jumprelu"}),
        ("activation: topk\nk: 5\n", {}, {"act": "topk", "k": 5}),
        ("", {"k": torch.tensor(5)}, {"act": "topk", "k": 5}),
    ],
)
def test_a_transcoder_of_a_set_does_what_circuit_tracer_does(
    tmp_path: Path, config: str, changes: dict[str, Any], definition: dict[str, Any]
) -> None:
    hooks = 'feature_input_hook: mlp.hook_in\nfeature_output_hook: "hook_mlp_out"\n'
    folder = write_set(tmp_path / "set", config=HEAD + hooks + config, **changes)
    found = load_dictionary(folder / "layer_2.safetensors")
    assert_same(found, *transcoder(X, **definition))
    assert found.transcoder
    assert (found.meta["hook_point"], found.meta["hook_point_out"]) == ("blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out")
    assert (found.meta["model"], found.meta["layer"]) == ("google/gemma-2-2b", 2)


@pytest.mark.parametrize(
    ("config", "changes", "error", "message"),
    [
        ("model_kind: cross_layer_transcoder\n", {}, NotExpressible, "cross_layer_transcoder is no set of"),
        (HEAD + "activation: topk\n", {}, DictionaryInvalid, "needs k"),
        (HEAD + "activation: gelu\n", {}, NotExpressible, "activation 'gelu'"),
        (HEAD, {"activation_function.threshold": -torch.ones(N)}, NotExpressible, "lets negative codes through"),
        (HEAD, {"extra": torch.ones(1)}, DictionaryInvalid, "holds extra"),
        (HEAD, {"W_enc": None}, DictionaryInvalid, "no tensor W_enc"),
    ],
)
def test_what_a_set_says_otherwise_is_named(
    tmp_path: Path, config: str, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    folder = write_set(tmp_path / "set", 1, config=config, **changes)
    with pytest.raises(error, match=message):
        load_dictionary(folder / "layer_0.safetensors")
