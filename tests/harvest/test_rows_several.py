"""Harvesting several hook points at once, and third-party models: the rows that reach a dataset."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from sparsecode.cli import main
from sparsecode.corpus import load_tokens
from sparsecode.errors import (
    HookUnknown,
    InvalidArgument,
    InvalidSetting,
    MissingExtra,
    ModelInvalid,
    SettingsDiffer,
)
from sparsecode.gpt import load_gpt
from sparsecode.harvest import harvest_module
from sparsecode.harvest import rows as rows_module
from sparsecode.harvest.contexts import ContextSettings, by_document, cut, packed
from sparsecode.harvest.models import load_model, own_model
from sparsecode.harvest.models.language import Frame
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import HarvestConfig
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.hook_names import hook_name, parse_layers, single_configs
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.store import Dataset
from sparsecode.store.parts import PartWriter

CONTEXT = 16
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(12):
        text = " ".join(f"sentence {number} says {word * number} again." for word in range(5 + 4 * number))
        (folder / f"{number}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def own_run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("own") / "run")
    train_gpt(
        run, text=(str(texts),), vocab_size=300, n_layer=3, n_head=2, d_model=8, context=CONTEXT, batch_size=2, steps=2,
        val_tokens=64, val_fraction=0.2, device="cpu", quiet=True,
    )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def bert(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random BERT and its own WordPiece tokenizer."""
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([file.read_text() for file in sorted(texts.glob("*.txt"))], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("models") / "small-bert"
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    config = transformers.BertConfig(vocab_size=80, hidden_size=8, num_hidden_layers=3, num_attention_heads=2,
                                     intermediate_size=16, max_position_embeddings=32)  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def settings(**changes: Any) -> HarvestConfig:
    return HarvestConfig(rows=10**6, batch_size=2, dtype="float32", device="cpu").changed(**changes)


def test_layers_and_sites_are_every_pair() -> None:
    singles = single_configs(HarvestConfig(layer="0,2-3", site="mlp,resid"))
    assert [hook_name(one) for one in singles] == [
        f"blocks.{layer}.{hook}" for layer in (0, 2, 3) for hook in ("mlp.hook_post", "hook_resid_post")
    ]
    assert singles[0] == HarvestConfig(layer=0, site="mlp")  # the record of a harvest of this one alone
    named = single_configs(HarvestConfig(hook="blocks.0.hook_resid_pre, blocks.1.hook_mlp_out"))
    assert [hook_name(one) for one in named] == ["blocks.0.hook_resid_pre", "blocks.1.hook_mlp_out"]
    assert parse_layers("4, 0-2,1") == [4, 0, 1, 2]
    for wrong in ("2-0", "", "a", "1,", "-1"):
        with pytest.raises(InvalidSetting, match="is not a layer"):
            parse_layers(wrong)


def test_several_at_once_are_the_datasets_of_each_alone(own_run: Run, tmp_path: Path) -> None:
    together = harvest_activations(own_run, settings(layer="0,2", site="mlp,resid", rows=101), quiet=True)
    assert set(together["datasets"]) == {
        f"blocks.{layer}.{hook}" for layer in (0, 2) for hook in ("mlp.hook_post", "hook_resid_post")
    }
    for layer, site in ((0, "resid"), (2, "mlp")):
        alone = settings(layer=layer, site=site, rows=101)
        hook = hook_name(alone)
        assert harvest_activations(own_run, alone, quiet=True) == together["datasets"][hook]  # already done
        again = harvest_activations(own_run, alone, force=True, quiet=True)
        assert again["fingerprint"] == together["datasets"][hook]["fingerprint"]


def test_taps_of_the_own_gpt_that_no_site_names(own_run: Run) -> None:
    gpt = load_gpt(own_run.gpt_path)
    result = harvest_activations(own_run, settings(hook="blocks.1.attn.hook_k", rows=4 * CONTEXT), quiet=True)
    dataset = Dataset(own_run.path / result["path"])
    ids = torch.from_numpy(dataset.tokens(0, CONTEXT).astype(np.int64))[None]
    x = own_model(gpt).read({"input_ids": ids}, ["blocks.1.hook_resid_pre"])["blocks.1.hook_resid_pre"]
    block: Any = gpt.blocks[1]
    keys = torch.nn.functional.layer_norm(x, (8,), block.ln_1.weight) @ block.attn.c_attn.weight[8:16].T
    torch.testing.assert_close(dataset.read(0, CONTEXT), keys[0].detach(), rtol=1e-3, atol=1e-4)
    mlp = {"module": ("blocks.1.mlp",)}, {"hook": "blocks.1.hook_mlp_out"}
    found = [harvest_activations(own_run, settings(rows=CONTEXT, **one), quiet=True)["path"] for one in mlp]
    by_path, by_name = (Dataset(own_run.path / path).read(0, CONTEXT) for path in found)
    assert torch.equal(by_path, by_name)
    with pytest.raises(HookUnknown, match=r"no hook_embed: it adds up tokens and positions in one step"):
        harvest_activations(own_run, settings(hook="hook_embed"), quiet=True)


def test_several_resume_to_the_same_bytes(own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SmallShards(PartWriter):
        def __init__(self, path: Path, **options: Any) -> None:
            super().__init__(path, **(options | {"shard_bytes": 1500}))

    monkeypatch.setattr(rows_module, "PartWriter", SmallShards)
    wanted = settings(layer="1,2", site="mlp,attn", rows=150)
    whole = harvest_activations(own_run, wanted, force=True, quiet=True)["datasets"]
    plain = rows_module.activation_rows
    for stop_after in range(1, 4):

        def broken(*arguments: Any, stop: int = stop_after) -> Iterator[Any]:
            for number, batch in enumerate(plain(*arguments)):
                if number == stop:
                    raise KeyboardInterrupt
                yield batch

        with monkeypatch.context() as patch:
            patch.setattr(rows_module, "activation_rows", broken)
            with pytest.raises(KeyboardInterrupt):
                harvest_activations(own_run, wanted, force=True, quiet=True)
        resumed = harvest_activations(own_run, wanted, quiet=True)["datasets"]
        assert {hook: one["fingerprint"] for hook, one in resumed.items()} == {
            hook: one["fingerprint"] for hook, one in whole.items()
        }


def test_windows_have_their_frame_and_no_special_rows() -> None:
    tokens = np.array([5, 6, 7, 3, 8, 9, 10, 3, 11, 12, 13], np.uint16)
    frame, special = Frame((1,), (2,)), frozenset({1, 2, 3})
    contexts = packed(tokens, 5, frame, special)
    (batch,) = contexts.batches(np.array([0, 2]), 100)
    assert batch.ids.tolist() == [[1, 5, 6, 7, 2], [1, 10, 3, 11, 2]]
    assert batch.ids[batch.keep].tolist() == [5, 6, 7, 10, 11]
    assert (contexts.rows, contexts.rows_each, len(contexts.starts)) == (8 - 1, None, 3)
    everything = packed(tokens, 5, frame, frozenset())
    assert everything.batch(np.array([1])).keep.all()
    assert (everything.rows, everything.rows_each) == (15, 5)
    with pytest.raises(InvalidSetting, match=r"a context of 2 tokens: .* leave no room"):
        packed(tokens, 2, frame, special)


def test_documents_stay_apart_and_are_padded_on_the_right() -> None:
    tokens = np.array([5, 6, 7, 8, 9, 3, 3, 10, 3, 11, 12], np.uint16)  # of 5, 0, 1 and 2 tokens
    contexts = by_document(tokens, 3, 5, Frame((1,), (2,)), frozenset({1, 2, 3}), pad=0)
    assert [tokens[a:b].tolist() for a, b in zip(contexts.starts, contexts.stops, strict=True)] == [
        [5, 6, 7], [8, 9], [10], [11, 12],
    ]  # fmt: skip
    assert contexts.rows == 8
    batches = list(contexts.batches(np.array([2, 0, 1, 3]), 10))
    assert [batch.ids.shape for batch in batches] == [(2, 5), (2, 4)]  # two of 5 tokens are 10
    assert batches[0].ids.tolist() == [[1, 10, 2, 0, 0], [1, 5, 6, 7, 2]]
    assert batches[0].present.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batches[0].ids[batches[0].keep].tolist() == [10, 5, 6, 7]
    kept = sum(batch.rows for batch in batches)
    assert kept == contexts.rows
    everything = by_document(tokens, 3, 5, Frame((1,), (2,)), frozenset(), pad=0)
    assert everything.rows == sum(batch.rows for batch in everything.batches(np.arange(4), 10)) == 8 + 2 * 4


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("special", [False, True])
def test_rows_of_a_model_are_its_values_at_kept_tokens(
    bert: Path, texts: Path, tmp_path: Path, documents: bool, special: bool
) -> None:
    """Compares every context with transformers' own hidden states."""
    transformers = pytest.importorskip("transformers")
    run = Run(tmp_path / "run")
    wanted = settings(
        model=str(bert), text=(str(texts),), layer="0,2", site="resid_pre", context=12, batch_tokens=64,
        documents=documents, special_tokens=special,
    )  # fmt: skip
    result = harvest_activations(run, wanted, quiet=True)
    dataset = Dataset(run.path / result["datasets"]["blocks.2.hook_resid_pre"]["path"])
    tokens, values = dataset.tokens(0, dataset.rows), dataset.read(0, dataset.rows)
    assert bool(set(tokens.tolist()) & {0, 2, 3, 4}) == special  # [CLS] and [SEP] only if asked for
    assert 0 not in tokens  # and padding never
    model = transformers.AutoModel.from_pretrained(bert).eval()
    loaded = load_model(str(bert), device="cpu")
    assert (loaded.kind, loaded.name, loaded.frame) == ("masked", "small-bert", Frame((2,), (3,)))
    contexts = cut(load_tokens(run), loaded, wanted.part(ContextSettings))
    row = 0
    for number in contexts.order(0).tolist():
        stretch = contexts.tokens[contexts.starts[number] : contexts.stops[number]].tolist()
        ids = [2, *stretch, 3]
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
        kept = [i for i, token in enumerate(ids) if special or token not in (0, 1, 2, 3, 4)]
        assert tokens[row : row + len(kept)].tolist() == [ids[i] for i in kept]
        torch.testing.assert_close(values[row : row + len(kept)], hidden[kept], rtol=1e-4, atol=1e-5)
        row += len(kept)
    assert row == dataset.rows == contexts.rows
    assert dataset.provenance["model"] == "small-bert"
    assert dataset.provenance["special_tokens"] is special


def test_a_models_harvest_resumes_and_records_what_it_read(bert: Path, texts: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    wanted = settings(model=str(bert), text=(str(texts),), layer=1, context=12, rows=200, model_dtype="bfloat16")
    first = harvest_activations(run, wanted, quiet=True)
    assert (first["rows"], first["activation_dim"]) == (200, 16)
    provenance = Dataset(run.path / first["path"]).provenance
    assert (provenance["model_dtype"], provenance["context_tokens"]) == ("bfloat16", 12)
    # Without --text the run's own text is read; the model may lie elsewhere by now.
    assert harvest_activations(run, wanted.changed(text=()), quiet=True) == first
    with pytest.raises(
        SettingsDiffer, match=r"harvest/blocks.1.mlp.hook_post was done with .*model_dtype|inputs|model"
    ):
        harvest_activations(run, wanted.changed(model_dtype="float32"), quiet=True)
    with pytest.raises(SettingsDiffer, match=r"tokens was done with text"):
        harvest_activations(run, wanted.changed(text=(str(texts / "3.txt"),)), quiet=True)


def test_modules_by_path_and_the_command_line(bert: Path, texts: Path, tmp_path: Path) -> None:
    command = ["harvest", "--run", str(tmp_path / "run"), "--model", str(bert), "--text", str(texts), "--rows", "64"]
    paths = ["bert.encoder.layer.1.output@input", "bert.encoder.layer.0.intermediate.intermediate_act_fn"]
    result = CliRunner().invoke(main, [*command, "--context", "12", "--module", *paths, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    folders = {path.name for path in (tmp_path / "run/activations").iterdir()}
    assert folders == set(paths)
    assert all(f"harvest: {path}, 64 rows" in result.stderr for path in paths)
    shown = CliRunner().invoke(main, ["info", str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    assert "tokens: done, of small-bert, " in shown.stdout
    assert f"harvest/{paths[0]}: done, {paths[0]}, 64 rows" in shown.stdout
    wrong = CliRunner().invoke(main, [*command, "--module", "bert.encoder.layer.1.outptu"])
    assert wrong.exit_code == 3
    assert "no module 'bert.encoder.layer.1.outptu'; there are bert" in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert "resid_mid" in CliRunner().invoke(main, ["harvest", "--help"]).stdout


def test_what_cannot_be_harvested_says_why(
    bert: Path, own_run: Run, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(model=str(bert), text=(str(texts),))
    with pytest.raises(
        InvalidSetting, match="holds the text of the GPT trained there; choose another run for small-bert"
    ):
        harvest_activations(own_run, given, quiet=True)
    with pytest.raises(InvalidSetting, match="a context of 99 tokens: small-bert takes at most 32 tokens"):
        harvest_activations(tmp_path / "a", given.changed(context=99), quiet=True)
    with pytest.raises(HookUnknown, match="no module 'nothing'"):
        harvest_activations(tmp_path / "a", given.changed(module=("nothing",)), quiet=True)
    assert list(Run(tmp_path / "a").config()["stages"]) == ["tokens"]  # nothing was begun that cannot be done
    with pytest.raises(HookUnknown, match=r"small-bert .*no hook point 'blocks.7.mlp.hook_post'"):
        harvest_activations(tmp_path / "b", given.changed(layer=7), quiet=True)
    with pytest.raises(ModelInvalid, match="nowhere: cannot be loaded"):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        harvest_activations(tmp_path / "c", given.changed(model=str(tmp_path / "nowhere")), quiet=True)
    monkeypatch.setattr("importlib.import_module", _without_transformers)
    with pytest.raises(MissingExtra, match=r"pip install 'sparsecode\[hf\]'"):
        load_model(str(bert))


def test_the_encoder_of_an_encoder_decoder_is_read_and_the_rest_says_why_not(bert: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2}
    transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=80, **sizes)).save_pretrained(tmp_path)
    for file in bert.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    assert model.width("encoder.block.0") == 8
    with pytest.raises(HookUnknown, match=r"its family, t5.* its modules are .*encoder.*name modules with --module"):
        advised(model.tap)("blocks.1.mlp.hook_post")
    with pytest.raises(ModelInvalid, match=r"does not reach decoder\.block\.0 .*only the encoder can be read"):
        model.width("decoder.block.0")


def _without_transformers(name: str) -> Any:
    raise ImportError(name)


class Net(nn.Module):
    """Two layers over vectors or ids, a dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.first(self.embed(input_ids)).relu()
        self.calls += 1
        y: Tensor = self.second(self.dropout(x))
        return y


def test_any_module_over_any_batches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    ids = torch.randint(1, 20, (4, 7))
    mask = torch.ones(4, 7, dtype=torch.int64)
    mask[0, :3] = mask[2, 5:] = 0  # padding on the left and on the right
    batches = [{"input_ids": ids[:2], "attention_mask": mask[:2]}, {"input_ids": ids[2:], "attention_mask": mask[2:]}]
    out = {"second@input": tmp_path / "hidden", "first": tmp_path / "first"}
    datasets = harvest_module(net, batches, out, dtype="float32", special=[int(ids[1, 1])], provenance={"text": "mine"})
    keep = mask.bool() & (ids != ids[1, 1])
    hidden = datasets["second@input"]
    assert hidden.tokens(0, hidden.rows).tolist() == ids[keep].tolist()
    torch.testing.assert_close(hidden.read(0, hidden.rows), net.first(net.embed(ids)).relu()[keep].detach())
    assert hidden.provenance["text"] == "mine"
    assert datasets["first"].activation_dim == 5
    assert net.training  # as it was; while it was read, dropout was off
    plain = harvest_module(net, [ids], {"first": tmp_path / "plain"}, rows=10, dtype="float32")["first"]
    assert plain.rows == 10


def test_any_module_without_tokens(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(4, 6, 3)
    dataset = harvest_module(net, [x, (x + 1,)], {"1": tmp_path / "a"}, dtype="float32")["1"]
    assert dataset.rows == 48
    assert set(dataset.tokens(0, 48).tolist()) == {-1}
    torch.testing.assert_close(dataset.read(24, 48), net[:2](x + 1).flatten(0, 1).detach())
    with pytest.raises(InvalidArgument, match="there was no batch"):
        harvest_module(net, [], {"1": tmp_path / "b"})
    with pytest.raises(HookUnknown, match="no module '7'"):
        harvest_module(net, [x], {"7": tmp_path / "c"})
    for out, rows in (({}, None), ({"1": tmp_path / "d"}, -1), ({"1": tmp_path / "d"}, 0)):
        with pytest.raises(InvalidArgument, match="at least one module"):
            harvest_module(net, [x], out, rows=rows)
    with pytest.raises(InvalidArgument, match="the same folder"):
        harvest_module(net, [x], {"0": tmp_path / "e", "1": tmp_path / "e"})


def test_any_module_is_read_before_the_next_one_writes_over_it(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    x = torch.randn(20, 3)
    out = {"0": tmp_path / "linear", "1": tmp_path / "relu", "2@input": tmp_path / "input"}
    linear, relu, given = harvest_module(net, [x], out, dtype="float32").values()
    torch.testing.assert_close(linear.read(0, 20), net[0](x).detach())
    torch.testing.assert_close(relu.read(0, 20), net[0](x).detach().relu())
    torch.testing.assert_close(given.read(0, 20), net[0](x).detach().relu())


def test_any_module_leaves_every_mode_as_it_was(tmp_path: Path) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)).train()
    net[0].eval()  # a frozen layer of a model in training
    harvest_module(net, [torch.randn(4, 3)], {"2": tmp_path / "a"})
    assert [module.training for module in net.modules()] == [True, False, True, True]


def test_any_module_resumes(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    batches = [torch.randn(40, 3) for _ in range(5)]
    whole = harvest_module(net, batches, {"0": tmp_path / "whole"}, dtype="float32", shard_bytes=600)["0"]

    def breaking() -> Iterator[Tensor]:
        yield from batches[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harvest_module(net, breaking(), {"0": tmp_path / "parts"}, dtype="float32", shard_bytes=600)
    again = harvest_module(net, batches, {"0": tmp_path / "parts"}, dtype="float32", shard_bytes=600)["0"]
    assert again.fingerprint == whole.fingerprint
    assert json.loads(json.dumps(again.provenance))["model"] == "Sequential"
