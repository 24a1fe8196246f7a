"""Harvest: which rows are stored, in which order, and that a resumed harvest has the bytes of an unbroken one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsecode.errors import HookUnknown, InvalidSetting, SettingsDiffer, StageMissing
from sparsecode.gpt import load_gpt
from sparsecode.harvest import rows as rows_module
from sparsecode.harvest.contexts import packed
from sparsecode.harvest.models import own_model
from sparsecode.harvest.models.language import NO_FRAME
from sparsecode.pipeline.config import HarvestConfig
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.hook_names import hook_name
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.store import Dataset
from sparsecode.store.parts import PartWriter

CONTEXT, D_MLP = 16, 32
ROWS = 7 * CONTEXT + 5  # not a multiple of anything


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a tiny GPT, trained for two steps on a few sentences."""
    folder = tmp_path_factory.mktemp("harvest")
    for number in range(12):
        text = " ".join(f"sentence {number} says {word * number} again." for word in range(40))
        (folder / f"{number}.txt").write_text(text)
    train_gpt(
        folder / "run", text=(str(folder),), vocab_size=300, n_layer=3, n_head=2, d_model=8, context=CONTEXT,
        batch_size=2, steps=2, val_tokens=64, val_fraction=0.2, device="cpu", quiet=True,
    )  # fmt: skip
    return Run(folder / "run")


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A fresh run that shares the trained model and tokens."""
    path = tmp_path / "run"
    path.mkdir()
    for part in ("gpt", "tokens", "tokenizer.json"):
        (path / part).symlink_to((trained.path / part).resolve())
    record = trained.config()
    record["stages"] = {"train-gpt": record["stages"]["train-gpt"]}
    (path / "config.json").write_text(json.dumps(record))
    return Run(path)


def settings(**changes: object) -> HarvestConfig:
    return HarvestConfig(rows=ROWS, batch_size=2, dtype="float32", device="cpu").changed(**changes)


def test_hook_names_follow_transformer_lens() -> None:
    names = {site: hook_name(HarvestConfig(layer=4, site=site)) for site in ("mlp", "resid", "mlp_out", "attn")}
    assert names == {
        "mlp": "blocks.4.mlp.hook_post",
        "resid": "blocks.4.hook_resid_post",
        "mlp_out": "blocks.4.hook_mlp_out",
        "attn": "blocks.4.attn.hook_z",
    }
    assert hook_name(HarvestConfig(hook="blocks.0.hook_resid_pre")) == "blocks.0.hook_resid_pre"


def test_order_is_a_permutation_of_whole_contexts_and_depends_on_the_seed_alone() -> None:
    tokens = np.arange(10 * CONTEXT + 3, dtype=np.uint16)
    order = packed(tokens, CONTEXT, NO_FRAME, frozenset()).order(5)
    assert sorted(order) == list(range(10))
    whole = packed(tokens[: 10 * CONTEXT], CONTEXT, NO_FRAME, frozenset())
    assert (order == whole.order(5)).all()
    assert (order != whole.order(6)).any()


def test_contexts_hold_consecutive_tokens() -> None:
    contexts = packed(np.arange(100, dtype=np.uint16), 20, NO_FRAME, frozenset())
    batches = [batch.ids for batch in contexts.batches(np.array([3, 0, 2, 1, 4]), 59)]
    assert [ids[:, 0].tolist() for ids in batches] == [[60, 0], [40, 20], [80]]
    assert all((np.diff(ids, axis=1) == 1).all() for ids in batches)


@pytest.mark.parametrize("hook", ["blocks.2.mlp.hook_post", "blocks.0.hook_resid_post", "blocks.1.attn.hook_z"])
def test_rows_are_the_activations_of_their_own_tokens(run: Run, hook: str) -> None:
    result = harvest_activations(run, settings(hook=hook), quiet=True)
    dataset = Dataset(run.path / result["path"])
    assert (dataset.rows, dataset.complete) == (ROWS, True)
    model = load_gpt(run.gpt_path)
    tokens = torch.from_numpy(dataset.tokens(0, 7 * CONTEXT).astype(np.int64)).reshape(7, CONTEXT)
    with torch.inference_mode():
        expected = own_model(model).read({"input_ids": tokens}, [hook])[hook].reshape(7 * CONTEXT, -1)
    torch.testing.assert_close(dataset.read(0, 7 * CONTEXT), expected, rtol=1e-5, atol=1e-6)
    assert dataset.provenance["hook_point"] == hook
    assert dataset.provenance["context"] == CONTEXT


def test_a_harvest_stopped_anywhere_resumes_to_the_same_dataset(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shards of a few rows, so that stops fall between and within shards.
    class SmallShards(PartWriter):
        def __init__(self, path: Path, **options: object) -> None:
            super().__init__(path, **(options | {"shard_bytes": 10 * D_MLP * 4}))  # type: ignore[arg-type]

    monkeypatch.setattr(rows_module, "PartWriter", SmallShards)
    unbroken = harvest_activations(run, settings(), quiet=True)
    plain = rows_module.activation_rows
    for stop_after in range(4):

        def broken(*arguments: object, stop: int = stop_after, **options: object) -> object:
            for number, batch in enumerate(plain(*arguments, **options)):  # type: ignore[arg-type]
                if number == stop:
                    raise KeyboardInterrupt
                yield batch

        with monkeypatch.context() as patch:
            patch.setattr(rows_module, "activation_rows", broken)
            with pytest.raises(KeyboardInterrupt):
                harvest_activations(run, settings(), force=True, quiet=True)
        assert run.config()["stages"]["harvest/blocks.2.mlp.hook_post"]["status"] == "running"
        resumed = harvest_activations(run, settings(), quiet=True)
        assert resumed["fingerprint"] == unbroken["fingerprint"]


def test_done_harvests_are_not_repeated_and_other_settings_are_named(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = harvest_activations(run, settings(), quiet=True)
    capsys.readouterr()
    assert harvest_activations(run, settings(), quiet=True) == first
    assert capsys.readouterr().err == ""
    assert harvest_activations(run, settings()) == first
    assert "already done" in capsys.readouterr().err
    with pytest.raises(SettingsDiffer, match=r"dtype \"float32\", not \"float16\".*--force"):
        harvest_activations(run, settings(dtype="float16"), quiet=True)
    again = harvest_activations(run, settings(dtype="float16"), force=True, quiet=True)
    assert again["fingerprint"] != first["fingerprint"]


def test_more_rows_than_text_stores_what_there_is_and_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = harvest_activations(run, settings(rows=10**9))
    assert result["rows"] < 10**9
    assert result["rows"] % CONTEXT == 0
    assert f"holds {result['rows']} rows" in capsys.readouterr().err


def test_missing_model_and_unknown_hook_are_one_clear_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="train-gpt was not run; run: sparsecode train-gpt --run"):
        harvest_activations(tmp_path / "empty")
    with pytest.raises(
        HookUnknown, match=r"no hook point 'blocks.9.mlp.hook_post'; there are blocks.L.X with L 0 to 2"
    ):
        harvest_activations(run, settings(layer=9), quiet=True)


def test_a_dataset_that_was_deleted_is_harvested_again_with_the_same_bytes(run: Run) -> None:
    config = settings(layer=1)
    before = harvest_activations(run, config, quiet=True)
    folder = run.path / before["path"]
    shutil.rmtree(folder)
    with pytest.raises(StageMissing, match=r"is gone; run: sparsecode harvest --hook blocks\.1"):
        train_dicts(run, sizes="4", quiet=True)
    assert harvest_activations(run, config, quiet=True)["fingerprint"] == before["fingerprint"]
    assert Dataset(folder).rows == ROWS


@pytest.mark.parametrize(
    "change", [{"text": ("book.txt",)}, {"context": 8}, {"documents": True}, {"hf_dataset": "x"}, {"skip_bad": True}]
)
def test_what_goes_with_another_model_is_not_ignored(run: Run, change: dict[str, object]) -> None:
    flag = next(iter(change)).replace("_", "-")
    with pytest.raises(InvalidSetting, match=f"--{flag} goes with --model"):
        harvest_activations(run, settings(**change), quiet=True)
