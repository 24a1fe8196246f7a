"""What no reader takes says what it looks like."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from published import call, write_npz
from sparsecode.errors import NotRecognised
from sparsecode.interop import load_dictionary


def test_what_is_not_read_says_what_it_looks_like(tmp_path: Path) -> None:
    def made(name: str, **files: bytes | str | dict[str, Tensor]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for key, content in files.items():
            file = folder / key.replace("__", ".").replace("SLASH", "/")
            file.parent.mkdir(exist_ok=True)
            if isinstance(content, dict):
                save_file(content, file)
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    one = {"W_enc": torch.ones(2, 2)}
    cross = "looks like a cross-layer transcoder of circuit-tracer: its features write into several layers"
    elsewhere = (
        "model_kind: transcoder_set\ntranscoders:\n- hf://google/gemma-scope-2b-pt-transcoders/layer_0/params.npz\n"
    )
    cases = [
        (made("clt", config__yaml="model_kind: cross_layer_transcoder\n"), cross),
        (made("clt2", W_enc_0__safetensors=one), cross),
        (made("clt3", W_enc_0__safetensors=one) / "W_enc_0.safetensors", "a part of a cross-layer transcoder"),
        (made("gemma-clt", params_layer_0__safetensors=one), "a cross-layer transcoder of Gemma Scope 2"),
        (made("elsewhere", config__yaml=elsewhere), "transcoder set without its weights (hf://google/"),
        (made("bare", layer_0__safetensors=one), "transcoder set without its config.yaml"),
        (made("bare2", layer_0__safetensors=one) / "layer_0.safetensors", "copy the set's config.yaml beside it"),
        (made("llama", hyperparams__json="{}"), "a Llama Scope SAE without its weights"),
        (made("gemma", config__json='{"hf_hook_point_in": "x"}'), "a Gemma Scope 2 dictionary without its weights"),
        (made("temporal", conf__yaml="", latest_ckpt__safetensors=one), "a temporal SAE"),
        (made("lens", cfg__json='{"d_in": 3, "d_sae": 4}'), "an SAE of SAELens or sparsify without its weights"),
        (made("other", x__npz=(write_npz(tmp_path / "w", {"a": torch.ones(1)}) / "params.npz").read_bytes()) / "x.npz",
         "a .npz file of a; Gemma Scope's have W_dec, W_enc, threshold"),
        (made("broken", x__npz="") / "x.npz", "cut short, or no .npz file"),
        (made("lora", a__safetensors={"lora_A": torch.ones(1)}) / "a.safetensors", "a safetensors file of lora_A"),
    ]  # fmt: skip
    for path, message in cases:
        with pytest.raises(NotRecognised) as raised:
            load_dictionary(path)
        assert message in str(raised.value), path
        for command in (
            ["info", path],
            ["convert", path, tmp_path / "out", "--to", "saelens"],
            ["compare", path, path],
        ):
            result = call(*command)
            assert result.exit_code == 3, command
            assert message in result.stderr, command
