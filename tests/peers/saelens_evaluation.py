"""SAELens's own evaluation beside `sparsecode.evaluation`: one SAE, one model, the same text.

Runs in SAELens's environment, with this package on the path:

    PYTHONPATH=python .venv-interop/saelens/bin/python tests/peers/saelens_evaluation.py

Prints a table and ends with 1 where a figure differs by more than 1e-4 (relative, above 1) without a reason given here.
The model is a small random GPT-2 whose parameters are enlarged until it predicts sharply; nothing is downloaded.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.load_model import HookedProxyLM
from sae_lens.training.activation_scaler import ActivationScaler
from transformers import GPT2Config, GPT2LMHeadModel

from sparsecode.evaluation import evaluate_dictionaries
from sparsecode.harvest.contexts import packed
from sparsecode.harvest.models.loading import hf_model
from sparsecode.sweep import Dictionary

VOCABULARY, CONTEXT, WIDTH, FEATURES, PROMPTS = 211, 32, 48, 160, 24
END = 7  # plays a special token
MODULE, HOOK = "transformer.h.1", "blocks.1.hook_resid_post"
TOLERANCE = 1e-4
# SAELens's ablation also zeroes special tokens, which its splice spares: the two are then not of the same positions.
# Here both are of the kept positions, so that a dictionary of zeros is the zero ablation.
ABLATED = {"ce_loss_score", "ce_loss_with_ablation", "kl_div_score", "kl_div_with_ablation"}


class Store:
    """What `run_evals` asks of its activation store: the prompts, in order."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens, self.place = tokens, 0
        self.context_size, self.store_batch_size_prompts = CONTEXT, len(tokens)

    def get_batch_tokens(self, count: int) -> torch.Tensor:
        """The next prompts."""
        self.place += count
        return self.tokens[self.place - count : self.place]

    def reset_input_dataset(self) -> None:
        """From the first one again."""
        self.place = 0


def make() -> tuple[GPT2LMHeadModel, StandardSAE, torch.Tensor]:
    """The model, the SAE and the prompts [PROMPTS, CONTEXT]."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=3, n_head=4,
                        bos_token_id=END, eos_token_id=END)  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "wte" not in name:
                parameter.mul_(4)
    sae = StandardSAE(StandardSAEConfig(d_in=WIDTH, d_sae=FEATURES, dtype="float32", device="cpu"))
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(FEATURES, WIDTH), dim=1))
        sae.W_enc.copy_(sae.W_dec.T * 0.8)
        sae.b_enc.copy_(-0.3 * torch.rand(FEATURES))
        sae.b_dec.copy_(0.1 * torch.randn(WIDTH))
    sae.cfg.metadata.hook_name = MODULE
    tokens = torch.randint(0, VOCABULARY, (PROMPTS, CONTEXT))
    tokens[:, ::9] = END
    return model, sae, tokens


def theirs(model: Any, sae: Any, tokens: torch.Tensor, special: list[int]) -> dict[str, float]:
    """SAELens's figures, flat."""
    wrapped = HookedProxyLM(model, None, hook_names=[MODULE])
    config = get_eval_everything_config(PROMPTS, n_eval_reconstruction_batches=1)
    metrics, features = run_evals(
        sae, Store(tokens), wrapped, ActivationScaler(), config, exclude_special_tokens=special or False
    )
    density = torch.tensor(features["feature_density"])
    flat = {name: value for group in metrics.values() for name, value in group.items()}
    return flat | {"frac_alive": float((density > 0).double().mean()), "mean feature_density": float(density.mean())}


def ours(model: Any, sae: Any, tokens: torch.Tensor, special: list[int]) -> dict[str, float]:
    """The metrics from here, in other batches."""
    dictionary = Dictionary(
        sae.W_enc.detach().T.contiguous(), sae.b_enc.detach(), sae.W_dec.detach(), b_dec=sae.b_dec.detach()
    )
    loaded = hf_model(model, None, "random GPT-2")
    text = tokens.flatten().numpy().astype(np.uint16)
    contexts = packed(text, CONTEXT, loaded.frame, frozenset(special))
    numbers = np.arange(PROMPTS)
    found = evaluate_dictionaries(loaded, {"sae": dictionary}, HOOK, lambda: contexts.batches(numbers, 5 * CONTEXT))
    flat = found["sae"].as_saelens()
    return flat | {"mean feature_density": float(np.mean(found["sae"].feature_density))}


def main() -> int:
    """Compares, prints, and says whether all is well."""
    model, sae, tokens = make()
    bad = 0
    print("| special tokens | metric | SAELens | here | difference |\n|---|---|---|---|---|")
    for special in ([], [END]):
        with torch.no_grad():
            a, b = theirs(model, sae, tokens, special), ours(model, sae, tokens, special)
        for name in sorted(a.keys() & b.keys()):
            difference = abs(a[name] - b[name]) / max(1.0, abs(a[name]))
            explained = bool(special) and name in ABLATED
            bad += difference > TOLERANCE and not explained
            note = " (ablates other positions)" if explained else "" if difference <= TOLERANCE else " **differs**"
            where = "left out" if special else "kept"
            print(f"| {where} | {name} | {a[name]:.6f} | {b[name]:.6f} | {difference:.1e}{note} |")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
