"""Evaluation in closed form: the scores of perfect, empty and constant dictionaries, for any batches."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor

from sparsecode.cli import main
from sparsecode.errors import DictionaryInvalid, HookUnknown, InvalidSetting, StageMissing
from sparsecode.evaluation import evaluate_dictionaries
from sparsecode.evaluation.result import Evaluation, max_decoder_cosine
from sparsecode.evaluation.sums import DensityHistogram
from sparsecode.gpt import GPT, GPTConfig
from sparsecode.harvest.contexts import Contexts, by_document, packed
from sparsecode.harvest.models import LanguageModel, own_model
from sparsecode.interop import save_dictionary
from sparsecode.pipeline.eval import evaluate_run
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.sweep import Dictionary

T, V, D, LAYERS = 12, 50, 8, 3
RESID, HIDDEN = "blocks.1.hook_resid_post", "blocks.1.mlp.hook_post"
NEVER = -1e9


def gpt() -> LanguageModel:
    """A GPT that predicts sharply, so that changes inside it cost something."""
    model = GPT(GPTConfig(vocab_size=V, n_layer=LAYERS, n_head=2, d_model=D, d_mlp=16, context=T), seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return own_model(model.eval(), device="cpu")


def text(n: int = 40 * T) -> np.ndarray:
    return np.random.default_rng(0).integers(1, V, n).astype(np.uint16)


def evaluate(
    dictionaries: dict[str, Dictionary], hook: str = RESID, *, most: int = 64, contexts: Contexts | None = None,
    model: LanguageModel | None = None,
) -> dict[str, Evaluation]:  # fmt: skip
    model = model or gpt()
    contexts = contexts or packed(text(), T, model.frame, frozenset())
    numbers = np.arange(len(contexts.starts))
    return evaluate_dictionaries(model, dictionaries, hook, lambda: contexts.batches(numbers, most))


def perfect(d: int) -> Dictionary:
    """x = relu(x) - relu(-x)."""
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return Dictionary(both.clone(), torch.zeros(2 * d), both)


def constant(vector: Tensor) -> Dictionary:
    """Never fires; gives its bias."""
    n, d = 4, len(vector)
    return Dictionary(torch.ones(n, d), torch.full((n,), NEVER), torch.eye(n, d), b_dec=vector)


def random(d: int, n: int = 20) -> Dictionary:
    generator = torch.Generator().manual_seed(1)
    atoms = F.normalize(torch.randn(n, d, generator=generator), dim=1)
    return Dictionary(atoms.clone(), torch.full((n,), -0.2), atoms, scale=2.0)


def all_rows(model: LanguageModel, hook: str) -> Tensor:
    ids = torch.from_numpy(text().astype(np.int64)).view(-1, T)
    return model.read({"input_ids": ids}, [hook])[hook].flatten(0, 1)


@pytest.mark.parametrize("hook", [RESID, HIDDEN, "blocks.0.hook_resid_mid", "blocks.2.attn.hook_z"])
def test_a_perfect_dictionary_costs_nothing(hook: str) -> None:
    d = 16 if hook == HIDDEN else D
    found = evaluate({"it": perfect(d)}, hook)["it"]
    assert (found.loss_recovered, found.loss_recovered_from_mean, found.kl_spliced) == (1, 1, 0)
    assert found.loss_spliced == found.loss_clean
    assert (found.mse, found.explained_variance) == (0, 1)
    assert found.cosine == pytest.approx(1)
    assert found.l2_ratio == pytest.approx(1)
    assert found.relative_reconstruction_bias == pytest.approx(1)
    assert found.loss_zero_ablated != found.loss_clean
    assert found.kl_zero_ablated > 0


def test_the_zero_dictionary_is_the_zero_ablation() -> None:
    zero = evaluate({"it": constant(torch.zeros(D))})["it"]
    assert zero.loss_spliced == zero.loss_zero_ablated
    assert zero.kl_spliced == zero.kl_zero_ablated
    assert (zero.loss_recovered, zero.l0, zero.l1, zero.cosine, zero.l2_ratio, zero.alive) == (0, 0, 0, 0, 0, 0)
    assert math.isnan(zero.relative_reconstruction_bias)
    rows = all_rows(gpt(), RESID).double()
    assert zero.mse == pytest.approx(float(rows.square().mean()))


def test_the_mean_predictor_explains_no_variance() -> None:
    mean = all_rows(gpt(), RESID).mean(0)
    found = evaluate({"it": constant(mean)})["it"]
    assert found.explained_variance == pytest.approx(0, abs=1e-6)
    assert found.loss_spliced == pytest.approx(found.loss_mean_ablated, rel=1e-6)
    assert found.loss_recovered_from_mean == pytest.approx(0, abs=1e-4)


def flat(found: Evaluation) -> dict[str, float]:
    values = {name: value for name, value in dataclasses.asdict(found).items() if isinstance(value, int | float)}
    return values | {f"density {i}": value for i, value in enumerate(found.feature_density)}


@pytest.mark.parametrize("by", ["window", "document"])
def test_the_batch_size_does_not_matter(by: str) -> None:
    tokens = text()
    tokens[[5, 9, 40, 41, 90]] = 0
    model = gpt()
    contexts = (
        packed(tokens, T, model.frame, frozenset({7})) if by == "window"
        else by_document(tokens, 0, T, model.frame, frozenset({7}))
    )  # fmt: skip
    results = [evaluate({"it": random(D)}, most=most, contexts=contexts)["it"] for most in (1, 50, 100_000)]
    assert results[0].rows == contexts.rows
    for other in results[1:]:
        assert flat(other) == pytest.approx(flat(results[0]), rel=1e-5)


def test_figures_are_their_definitions() -> None:
    model, dictionary = gpt(), random(D)
    found = evaluate({"it": dictionary, "other": perfect(D)})["it"]
    x = all_rows(model, RESID)
    z = dictionary.encode(x)
    x_hat = dictionary.decode(z)
    assert found.rows == len(x) == 40 * T
    assert found.mse == pytest.approx(float((x - x_hat).square().mean()), rel=1e-5)
    deviations = (x - x.mean(0)).square().sum()
    assert found.explained_variance == pytest.approx(1 - float((x - x_hat).square().sum() / deviations), rel=1e-5)
    assert found.l0 == pytest.approx(float((z > 0).sum(1).float().mean()))
    assert found.l1 == pytest.approx(float(z.sum(1).mean()), rel=1e-5)
    assert found.cosine == pytest.approx(float(F.cosine_similarity(x, x_hat, dim=1).mean()), rel=1e-5)
    assert found.l2_ratio == pytest.approx(float((x_hat.norm(dim=1) / x.norm(dim=1)).mean()), rel=1e-5)
    bias = x_hat.square().sum(1).mean() / (x * x_hat).sum(1).mean()
    assert found.relative_reconstruction_bias == pytest.approx(float(bias), rel=1e-4)
    assert found.feature_density == pytest.approx((z > 0).float().mean(0).tolist())
    assert found.alive == pytest.approx(float((z > 0).any(0).float().mean()))
    # The model by hand: block 2 over what the dictionary makes of block 1's output.
    own: Any = model.module
    ids = torch.from_numpy(text().astype(np.int64)).view(-1, T)
    with torch.no_grad():
        h = own.ln_f(own.blocks[2](x_hat.view(-1, T, D)))
        spliced, clean = h @ own.wte.weight.T, own(ids) @ own.wte.weight.T
    loss = F.cross_entropy(spliced[:, :-1].reshape(-1, V), ids[:, 1:].reshape(-1))
    assert found.predictions == 40 * (T - 1)
    assert found.loss_spliced == pytest.approx(float(loss), rel=1e-5)
    p, q = clean.log_softmax(-1), spliced.log_softmax(-1)
    assert found.kl_spliced == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    expected = (found.loss_zero_ablated - found.loss_spliced) / (found.loss_zero_ablated - found.loss_clean)
    assert found.loss_recovered == pytest.approx(expected)


def test_special_tokens_keep_their_own_values() -> None:
    """If all tokens but one are special, only that one's value is replaced."""
    tokens = np.full(3 * T, 9, np.uint16)
    tokens[[4, T + 2]] = 3
    model = gpt()
    contexts = packed(tokens, T, model.frame, frozenset({9}))
    found = evaluate({"it": constant(torch.zeros(D))}, contexts=contexts)["it"]
    assert (found.rows, found.predictions) == (2, 2)
    assert found.loss_spliced == found.loss_zero_ablated  # ablation spares them as well


def test_a_masked_model_is_asked_for_what_is_hidden() -> None:
    transformers = pytest.importorskip("transformers")
    from sparsecode.harvest.models.loading import hf_model

    config = transformers.BertConfig(vocab_size=V, hidden_size=D, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=16, max_position_embeddings=T)  # fmt: skip
    torch.manual_seed(0)
    model = hf_model(transformers.AutoModelForMaskedLM.from_config(config), None, "bert", "masked")
    model.mask = 1
    contexts = packed(text(), T, model.frame, frozenset())
    results = [
        evaluate({"it": perfect(D), "zero": constant(torch.zeros(D))}, RESID, most=most, contexts=contexts, model=model)
        for most in (20, 1000)
    ]
    one = results[0]["it"]
    assert 0.1 < one.predictions / one.rows < 0.2
    assert one.loss_recovered == pytest.approx(1)
    assert results[0]["zero"].loss_spliced == results[0]["zero"].loss_zero_ablated
    assert flat(results[1]["it"]) == pytest.approx(flat(one), rel=1e-4, abs=1e-6)


def test_densities_are_counted_by_size() -> None:
    fired = torch.tensor([0, 1, 10, 1000, 500, 0])
    found = DensityHistogram.of(fired, 1000)
    assert (sum(found.counts), found.never) == (4, 2)
    assert found.counts[-1] == 2  # 1000 of 1000, and half of them
    assert max_decoder_cosine(torch.eye(3)).tolist() == [0, 0, 0]
    assert max_decoder_cosine(torch.tensor([[1.0, 0], [2.0, 0], [0, 1.0]])).tolist() == [1, 1, 0]


def test_other_libraries_names_hold_the_same_figures() -> None:
    told = evaluate({"it": random(D)})["it"].as_json()
    assert json.dumps(told)
    theirs = told["saelens"]
    assert theirs["mse"] == pytest.approx(told["mse"] * D)  # summed over dimensions
    assert theirs["ce_loss_score"] == told["loss_recovered"]
    assert theirs["frac_alive"] == told["alive"]
    assert len(theirs["feature_density"]) == len(theirs["max_decoder_cosine_sim"]) == 20
    wanted = {
        "kl_div_score", "ce_loss_score", "ce_loss_with_sae", "ce_loss_without_sae", "ce_loss_with_ablation", "mse",
        "explained_variance", "cossim", "l2_ratio", "relative_reconstruction_bias", "l0", "l1", "feature_density",
        "max_decoder_cosine_sim", "frac_alive", "freq_over_1_percent", "freq_over_10_percent",
    }  # fmt: skip
    assert wanted <= theirs.keys()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("evaluate")
    for number in range(12):
        words = " ".join(f"sentence {number} says {word * number} again." for word in range(60))
        (folder / f"{number}.txt").write_text(words)
    train_gpt(
        folder / "run", text=(str(folder),), vocab_size=300, n_layer=2, n_head=2, d_model=D, context=16,
        batch_size=2, steps=20, val_tokens=64, val_fraction=0.2, device="cpu", quiet=True,
    )  # fmt: skip
    made = random(D)
    made.meta = {"hook_point": RESID, "l1": 0.1, "seed": 0}
    made.save(folder / "run/dictionaries/n20_l1-0.1_s0")
    yield Run(folder / "run")


def test_a_runs_dictionaries_are_evaluated_on_its_held_out_text(run: Run) -> None:
    (found,) = evaluate_run(run, rows=200, device="cpu", quiet=True)
    assert found.name == "n20_l1-0.1_s0"
    assert found.rows == 208  # 13 contexts
    assert found.loss_clean < found.loss_zero_ablated
    (other,) = evaluate_run(run, rows=200, batch_tokens=16, device="cpu", quiet=True)
    assert other.loss_spliced == pytest.approx(found.loss_spliced, rel=1e-6)
    command = ["eval", "--run", str(run.path), "--rows", "200", "--device", "cpu", "--quiet"]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.output
    assert "n20_l1-0.1_s0" in shown.stdout
    assert "with zeros" in shown.stdout
    named = [str(run.dictionaries_path / "n20_l1-0.1_s0"), "--json"]
    told = json.loads(CliRunner().invoke(main, command + named).stdout)["dictionaries"][0]
    assert told["loss_recovered"] == pytest.approx(found.loss_recovered)
    assert told["hook_point"] == RESID


def test_dictionaries_of_other_libraries_are_evaluated_where_they_lie(run: Run, tmp_path: Path) -> None:
    (ours,) = evaluate_run(run, rows=200, device="cpu", quiet=True)
    save_dictionary(random(D), tmp_path / "sae", "saelens")
    command = ["eval", str(tmp_path / "sae"), "--run", str(run.path), "--rows", "200", "--device", "cpu", "--quiet"]
    result = CliRunner().invoke(main, [*command, "--hook", RESID, "--json"])
    assert result.exit_code == 0, result.output
    (theirs,) = json.loads(result.stdout)["dictionaries"]
    for name in ("loss_spliced", "kl_spliced", "explained_variance", "l0", "l1"):
        assert theirs[name] == pytest.approx(getattr(ours, name), rel=1e-4), name
    nothing = CliRunner().invoke(main, ["eval", str(tmp_path), "--run", str(tmp_path)])
    assert nothing.exit_code == 3
    transcoder = dataclasses.replace(random(D), transcoder=True)
    with pytest.raises(DictionaryInvalid, match="it: is a transcoder"):
        evaluate({"it": transcoder})


def test_what_cannot_be_evaluated_is_one_line(run: Run, tmp_path: Any) -> None:
    with pytest.raises(
        DictionaryInvalid, match=r"wrong: made for 5 dimensions, but blocks.1.hook_resid_post of .* has 8"
    ):
        evaluate_run(run, {"wrong": perfect(5)}, hook=RESID, quiet=True)
    with pytest.raises(DictionaryInvalid, match=r"nameless: does not say which hook point.*--hook"):
        evaluate_run(run, {"nameless": perfect(D)}, quiet=True)
    with pytest.raises(HookUnknown, match=r"no hook point 'blocks.7.hook_resid_post'"):
        evaluate_run(run, {"far": perfect(D)}, hook="blocks.7.hook_resid_post", quiet=True)
    with pytest.raises(InvalidSetting, match=r"--context goes with --model"):
        evaluate_run(run, context=8, quiet=True)
    with pytest.raises(InvalidSetting, match=r"--special-tokens goes with --model"):
        evaluate_run(run, special_tokens=False, quiet=True)
    with pytest.raises(StageMissing, match="no dictionaries; run: sparsecode train-dicts"):
        evaluate_run(tmp_path, quiet=True)
