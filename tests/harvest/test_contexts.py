"""What a harvest records of its rows: contexts, what was left out and why, and the type of computation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from sparsecode import machine
from sparsecode.cli import main
from sparsecode.corpus import load_tokens
from sparsecode.harvest import harvest_module
from sparsecode.harvest import rows as rows_module
from sparsecode.harvest.contexts import REASONS, ContextSettings, by_document, cut, packed
from sparsecode.harvest.models import load_model
from sparsecode.harvest.models.language import Frame
from sparsecode.harvest.models.special import special_ids, unknown_id
from sparsecode.pipeline.config import HarvestConfig
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.progress import Console
from sparsecode.pipeline.run import Run
from sparsecode.store import Dataset
from sparsecode.store.parts import PartWriter

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(14):
        text = " ".join(f"sentence {number} says {word * number} again." for word in range(3 + 3 * number))
        (folder / f"{number}.txt").write_text(text + (" 語 ok" if number % 3 else ""))
    return folder


@pytest.fixture(scope="module")
def bert(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that was saved in bfloat16, and a tokenizer that knows no Chinese."""
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=SPECIAL, show_progress=False)
    latin = (file.read_text().replace("語", "") for file in sorted(texts.glob("*.txt")))
    tokenizer.train_from_iterator(latin, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("models") / "small-bert"
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    config = transformers.BertConfig(vocab_size=80, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=16, max_position_embeddings=32)  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def wanted(bert: Path, texts: Path, **changes: Any) -> HarvestConfig:
    given: dict[str, Any] = {
        "model": str(bert), "text": (str(texts),), "layer": 1, "site": "resid_pre", "context": 12, "batch_tokens": 64,
        "rows": 10**6, "dtype": "float32", "device": "cpu", "model_dtype": "float32",
    }  # fmt: skip
    return HarvestConfig(**(given | changes))


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("rows", [100, 10**6])
def test_every_row_knows_its_context_and_nothing_goes_uncounted(
    bert: Path, texts: Path, tmp_path: Path, documents: bool, special: bool, rows: int
) -> None:
    run = Run(tmp_path / "run")
    config = wanted(bert, texts, documents=documents, special_tokens=special, rows=rows)
    result = harvest_activations(run, config, quiet=True)
    dataset = Dataset(run.path / result["path"])
    there = cut(load_tokens(run), load_model(str(bert), device="cpu"), config.part(ContextSettings))
    numbers: list[int] = []
    left_out: Counter[str] = Counter()
    batches = list(there.batches(there.order(config.seed), config.batch_tokens))
    places = [(batch, i) for batch in batches for i in range(len(batch.ids))]
    for place, (batch, i) in enumerate(places):
        for token, present in zip(batch.ids[i].tolist(), batch.present[i].tolist(), strict=True):
            if rows < there.rows and len(numbers) == rows:
                break  # what stands behind the last row was not read for it
            if present and (special or token not in range(5)):
                numbers.append(place)
            else:
                left_out["padding" if not present else "unknown" if token == 1 else "special"] += 1
    found = dataset.context_of(np.arange(dataset.rows))
    assert dataset.contexts_stored == (documents or not special)
    assert (
        found.tolist() == numbers if dataset.contexts_stored else found.tolist() == [r // 12 for r in range(len(found))]
    )
    for row in (0, dataset.rows // 2, dataset.rows - 1):
        first, last = dataset.context_bounds(row)
        assert first <= row < last and set(found[first:last]) == {found[row]}
        assert last - first <= 12
    assert dataset.left_out == {name: count for name, count in left_out.items() if count}
    assert result["left_out"] == dataset.left_out
    assert ("special" in dataset.left_out) != special
    assert "context" not in dataset.provenance or not dataset.contexts_stored


def test_every_position_without_a_row_says_why() -> None:
    tokens = np.array([5, 6, 7, 8, 9, 3, 1, 10, 3, 11, 12], np.uint16)
    contexts = by_document(tokens, 3, 5, Frame((2,), (2,)), frozenset({1, 2, 3}), pad=0)
    batch = contexts.batch(np.array([1, 0, 2]))  # 2 8 9 2 0 / 2 5 6 7 2 / 2 1 10 2 0
    why = batch.why(1)
    assert why is not None
    reasons = [[REASONS[place] for place in row] for row in why.tolist()]
    assert reasons == [
        ["special", "", "", "special", "padding"],
        ["special", "", "", "", "special"],
        ["special", "unknown", "", "special", "padding"],
    ]
    assert np.array_equal(batch.why(None), np.where(why == 2, 3, why))  # type: ignore[arg-type]
    assert packed(tokens, 5, Frame(), frozenset()).batch(np.array([0, 1])).why(1) is None


def test_a_killed_harvest_goes_on_with_the_same_contexts_and_counts(
    bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SmallShards(PartWriter):
        def __init__(self, path: Path, **options: Any) -> None:
            super().__init__(path, **(options | {"shard_bytes": 1500}))

    monkeypatch.setattr(rows_module, "PartWriter", SmallShards)
    config = wanted(bert, texts, documents=True, rows=300)
    harvest_activations(tmp_path / "whole", config, quiet=True)
    plain = rows_module.activation_rows

    def broken(*arguments: Any) -> Iterator[Any]:
        for number, batch in enumerate(plain(*arguments)):
            if number == 4:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(rows_module, "activation_rows", broken)
        with pytest.raises(KeyboardInterrupt):
            harvest_activations(tmp_path / "cut", config, quiet=True)
    assert 0 < Dataset(tmp_path / "cut/activations" / HOOK).rows < 300
    harvest_activations(tmp_path / "cut", config, quiet=True)
    manifests = [(tmp_path / name / "activations" / HOOK / "manifest.json").read_bytes() for name in ("whole", "cut")]
    assert manifests[0] == manifests[1]


def test_info_tells_of_contexts_and_of_what_was_left_out(bert: Path, texts: Path, tmp_path: Path) -> None:
    command = ["harvest", "--run", str(tmp_path / "run"), "--model", str(bert), "--text", str(texts), "--layer", "1"]
    done = CliRunner().invoke(main, [*command, "--context", "12", "--documents", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "harvest: tokens that gave no row: " in done.stderr
    folder = str(tmp_path / "run/activations/blocks.1.mlp.hook_post")
    found = json.loads(CliRunner().invoke(main, ["info", folder, "--json"]).stdout)
    assert found["left_out"].keys() == {"padding", "special", "unknown"} and found["contexts"] == "numbered"
    shown = CliRunner().invoke(main, ["info", folder]).stdout
    assert "  contexts: numbered" in shown
    assert f"  left out: padding {found['left_out']['padding']}, special {found['left_out']['special']}" in shown


@pytest.mark.parametrize("flags", [frozenset({"avx2"}), frozenset({"avx512_bf16"})])
def test_auto_computes_in_what_the_processor_has_and_a_resumed_harvest_keeps_it(
    bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    flags: frozenset[str],
) -> None:  # fmt: skip
    expected = "bfloat16" if "avx512_bf16" in flags else "float32"
    monkeypatch.setattr(machine, "processor_flags", lambda: flags)
    loaded = load_model(str(bert), device="cpu", watch=Console())
    assert str(loaded.dtype) == f"torch.{expected}"
    told = capsys.readouterr().err
    line = "small-bert: saved in bfloat16, computes in float32: this processor has no products of that type"
    assert (line in told) == (expected == "float32") and told.count("\n") <= 1
    assert loaded.fingerprint == load_model(str(bert), device="cpu", dtype="bfloat16").fingerprint

    config = wanted(bert, texts, model_dtype="auto", rows=60)
    plain = rows_module.activation_rows
    with monkeypatch.context() as patch:
        patch.setattr(rows_module, "activation_rows", lambda *arguments: iter(()))
        patch.setattr(PartWriter, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            harvest_activations(tmp_path / "run", config, quiet=True)
    assert rows_module.activation_rows is plain
    record = Run(tmp_path / "run").config()["stages"][f"harvest/{HOOK}"]
    assert (record["status"], record["plan"]) == ("running", {"model_dtype": expected})
    # Another machine goes on.
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset({"amx_bf16", "avx2"}) - flags)
    if expected == "bfloat16":
        monkeypatch.setattr(machine, "processor_flags", frozenset)
    result = harvest_activations(tmp_path / "run", config, quiet=True)
    dataset = Dataset(tmp_path / "run" / result["path"])
    assert (dataset.provenance["model_dtype"], dataset.rows) == (expected, 60)


def test_what_stands_for_text_is_not_special() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>", "<unk>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(["hello world! hello there!"], trainer)
    mark, end, unknown = (tokenizer.token_to_id(text) for text in ("!", "<|endoftext|>", "<unk>"))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="!", eos_token="<|endoftext|>", unk_token="<unk>"
    )
    assert mark in fast.all_special_ids  # so says whoever chose it to fill up with
    assert special_ids(fast) == {end, unknown}
    assert unknown_id(fast) == unknown
    same = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    assert unknown_id(same) is None and special_ids(None) == frozenset() and unknown_id(None) is None


class Net(nn.Module):
    """A vector for each token, and one for each sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.flat, self.pooled = nn.Linear(6, 5), nn.Linear(6, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(input_ids)
        self.flat(x.flatten(0, 1))
        return self.pooled(x)  # type: ignore[no-any-return]


def test_sequences_of_a_modules_batches_are_contexts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(2, 20, (4, 7))
    ids[1, 3] = 1
    mask = torch.ones(4, 7, dtype=torch.int64)
    mask[0, :3] = mask[2, 5:] = 0
    batches = [{"input_ids": ids[i : i + 2], "attention_mask": mask[i : i + 2]} for i in (0, 2)]
    dataset = harvest_module(Net(), batches, {"pooled": tmp_path / "a"}, dtype="float32", special=[1])["pooled"]
    keep = mask.bool() & (ids != 1)
    expected = torch.arange(4)[:, None].expand(4, 7)[keep].tolist()
    assert dataset.context_of(np.arange(dataset.rows)).tolist() == expected
    assert dataset.left_out == {"padding": 5, "special": 1}
    some = harvest_module(Net(), batches, {"pooled": tmp_path / "b"}, dtype="float32", special=[1], rows=6)["pooled"]
    assert some.rows == 6 and some.left_out == {"padding": 3}
    joined = harvest_module(Net(), [ids], {"flat": tmp_path / "c"}, dtype="float32")["flat"]
    assert joined.context_of(np.arange(28)).tolist() == [row // 7 for row in range(28)]
    kept = harvest_module(
        Net(), [ids], {"pooled": tmp_path / "d"}, dtype="float32", keep=lambda batch: batch != ids[0, 0]
    )
    assert kept["pooled"].left_out == {"not kept": int((ids == ids[0, 0]).sum())}


def test_vectors_without_sequences_are_contexts_of_their_own(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    alone = harvest_module(net, [torch.randn(4, 3), torch.randn(2, 3)], {"0": tmp_path / "a"}, dtype="float32")["0"]
    assert alone.context_of(np.arange(6)).tolist() == list(range(6)) and alone.left_out == {}
    sets = harvest_module(net, [torch.randn(2, 6, 3)], {"0": tmp_path / "b"}, dtype="float32")["0"]
    assert sets.context_of(np.arange(12)).tolist() == [0] * 6 + [1] * 6
