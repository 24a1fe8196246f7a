"""Hook points by name beside TransformerLens's own: the same weights, the same tokens, every name that both have.

Runs in SAELens's environment, which brings TransformerLens, with this package on the path:

    PYTHONPATH=python .venv-interop/saelens/bin/python tests/peers/transformer_lens_hooks.py

Prints a table and ends with 1 where values differ by more than 1e-4. Small random models; nothing is downloaded.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import transformers
from transformer_lens import HookedEncoder, HookedTransformer, HookedTransformerConfig
from transformer_lens.components import LayerNorm
from transformer_lens.pretrained.weight_conversions import (
    convert_bert_weights,
    convert_gpt2_weights,
    convert_llama_weights,
    convert_neox_weights,
)

from sparsecode.harvest.models.loading import hf_model

LAYERS, WIDTH, MLP, HEADS, VOCABULARY, CONTEXT = 2, 16, 24, 2, 61, 32
TOLERANCE = 1e-4
SHAPE = {"n_layers": LAYERS, "d_model": WIDTH, "d_mlp": MLP, "n_heads": HEADS, "d_head": WIDTH // HEADS,
         "d_vocab": VOCABULARY, "n_ctx": CONTEXT}  # fmt: skip
COMMON = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
          "intermediate_size": MLP, "max_position_embeddings": CONTEXT}  # fmt: skip
ROTARY = {"positional_embedding_type": "rotary", "rotary_base": 10000}


def pairs() -> list[tuple[str, Any, Any, Any, dict[str, Any]]]:
    """(family, transformers model, TransformerLens class, its conversion of weights, its settings)."""
    t = transformers
    torch.manual_seed(0)
    gpt2 = t.GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
                        n_inner=MLP, bos_token_id=0, eos_token_id=0)  # fmt: skip
    return [
        ("gpt2", t.GPT2LMHeadModel(gpt2), HookedTransformer, convert_gpt2_weights,
         {"act_fn": "gelu_new", "normalization_type": "LN", "eps": 1e-5}),
        ("gpt_neox", t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**COMMON)), HookedTransformer, convert_neox_weights,
         {"act_fn": "gelu", "normalization_type": "LN", "eps": 1e-5, "parallel_attn_mlp": True,
          "rotary_dim": WIDTH // HEADS // 4, "rotary_adjacent_pairs": False} | ROTARY),
        ("llama", t.LlamaForCausalLM(t.LlamaConfig(**COMMON)), HookedTransformer, convert_llama_weights,
         {"act_fn": "silu", "normalization_type": "RMS", "eps": 1e-6, "gated_mlp": True, "final_rms": True,
          "rotary_dim": WIDTH // HEADS, "rotary_adjacent_pairs": False} | ROTARY),
        ("bert", t.BertForPreTraining(t.BertConfig(**COMMON)), HookedEncoder, convert_bert_weights,
         {"act_fn": "gelu", "attention_dir": "bidirectional", "eps": 1e-12}),
    ]  # fmt: skip


def main() -> int:
    """Compares, prints, and says whether all is well."""
    ids = torch.randint(2, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    bad = 0
    print("| family | hook point | largest difference |\n|---|---|---|")
    for family, model, lens_class, convert, settings in pairs():
        model.eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        config = HookedTransformerConfig(**SHAPE, **settings, device="cpu")
        lens = lens_class(config)
        weights = {name: value.detach().clone() for name, value in convert(model, config).items()}
        lens.load_state_dict(weights, strict=False)
        ours = hf_model(model, None, family, "masked" if family == "bert" else "causal")
        _, cache = lens.run_with_cache(ids)
        found = ours.read({"input_ids": ids}, ours.taps)
        for hook, value in found.items():
            theirs = hook if hook in cache else f"embed.{hook}"  # as BERT's embeddings are called there
            if theirs not in cache:
                print(f"| {family} | {hook} | TransformerLens has none |")
                continue
            # TransformerLens 3 has a LayerNorm's value before weight and bias; 2 had its output, as is kept here.
            norm = lens.get_submodule(theirs.removesuffix(".hook_normalized")) if "hook_normalized" in theirs else None
            expected = cache[theirs]
            if isinstance(norm, LayerNorm):
                expected = expected * norm.w + norm.b
            difference = float((expected.reshape(value.shape) - value).abs().max() / value.abs().max())
            bad += difference > TOLERANCE
            print(f"| {family} | {hook} | {difference:.1e}{' **differs**' if difference > TOLERANCE else ''} |")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
