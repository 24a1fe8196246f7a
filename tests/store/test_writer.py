"""What is written is what is read: types, shapes, statistics, foreign readers, resuming, merging."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from sparsecode.errors import (
    DatasetComplete,
    DatasetMissing,
    InvalidArgument,
    ManifestInvalid,
    NonFiniteActivation,
    RunLocked,
    SettingsDiffer,
)
from sparsecode.store import Dataset, DatasetWriter, merge_datasets, read_header

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def rows(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) * 3 + 0.5


def write(
    path: Path, x: torch.Tensor, *, dtype: str = "float16", batch: int = 100, shard_bytes: int = 1 << 14, **more: Any
) -> Dataset:
    tokens = torch.arange(len(x))
    settings: dict[str, Any] = {"provenance": {"hook_point": "blocks.0.mlp.hook_post"}, "durable": False} | more
    with DatasetWriter(path, activation_dim=x.shape[1], dtype=dtype, shard_bytes=shard_bytes, **settings) as writer:
        for start in range(0, len(x), batch):
            writer.append(x[start : start + batch], tokens[start : start + batch])
        return writer.finish()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_rows_and_tokens_come_back_as_torch_would_round_them(
    tmp_path: Path, dtype: str, given: torch.dtype, dim: int
) -> None:
    x = rows(501, dim).to(given)
    dataset = write(tmp_path, x, dtype=dtype, shard_bytes=100 * (dim * 4 + 4))
    expected = x.float().to(DTYPES[dtype])
    assert torch.equal(dataset.read_stored(0, 501), expected)
    assert torch.equal(dataset.read(17, 403), expected[17:403].float())
    assert (dataset.tokens(17, 403) == np.arange(17, 403)).all()
    assert dataset.read(5, 5).shape == (0, dim)
    assert len(dataset.shards) > 2 and sum(shard.rows for shard in dataset.shards) == dataset.rows == 501
    assert dataset.complete and dataset.verify() == []


@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_any_safetensors_reader_opens_a_shard(tmp_path: Path, access: Any) -> None:
    for dtype in DTYPES:
        # 3 rows of 3 values: the tokens begin at an odd multiple of two bytes.
        for n, dim in [(3, 3), (100, 16)]:
            path = tmp_path / f"{dtype}-{n}"
            x = rows(n, dim).to(DTYPES[dtype])
            write(path, x, dtype=dtype)
            shard = path / "shard-00000.safetensors"
            for loaded in (safetensors.torch.load_file(shard), safetensors.torch.load(shard.read_bytes())):
                assert set(loaded) == {"activations", "tokens"}
                assert torch.equal(loaded["activations"], x)
                assert loaded["tokens"].tolist() == list(range(n))
            if dtype != "bfloat16":
                assert (safetensors.numpy.load_file(shard)["activations"] == x.numpy()).all()
            assert read_header(shard) == (n, dim, dtype)
            header = shard.read_bytes()[:8]
            assert (8 + int.from_bytes(header, "little")) % 64 == 0
            assert torch.equal(Dataset(path, access=access).read_stored(0, n), x)


def test_statistics_are_those_of_the_stored_rows(tmp_path: Path) -> None:
    x = rows(1000, 13)
    dataset = write(tmp_path, x)
    stored = dataset.read(0, 1000).double()
    found = dataset.statistics
    mean = stored.mean(0)
    assert torch.allclose(torch.tensor(found["mean"], dtype=torch.float64), mean, rtol=1e-6)
    assert found["rms"] == pytest.approx(stored.square().mean().sqrt().item(), rel=1e-6)
    assert found["variance"] == pytest.approx((stored - mean).square().mean().item(), rel=1e-6)
    assert found["non_finite"] == 0


def test_the_same_rows_give_the_same_bytes_whatever_threads_and_batches(tmp_path: Path) -> None:
    x = rows(30_000, 32)
    folders = []
    for threads, batch in [(1, 30_000), (2, 30_000), (2, 7001), (1, 999)]:
        folders.append(tmp_path / f"{threads}-{batch}")
        write(folders[-1], x, threads=threads, batch=batch, shard_bytes=1 << 20)
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["manifest.json", "shard-00000.safetensors", "shard-00001.safetensors"]
    for other in folders[1:]:
        assert sorted(path.name for path in other.iterdir()) == names
        for name in names:
            assert (other / name).read_bytes() == (folders[0] / name).read_bytes()


def test_an_interrupted_writer_goes_on_after_its_last_complete_shard(tmp_path: Path) -> None:
    x = rows(1000, 8)
    whole = write(tmp_path / "whole", x, shard_bytes=200 * 20)
    settings: dict[str, Any] = {
        "activation_dim": 8,
        "dtype": "float16",
        "shard_bytes": 200 * 20,
        "provenance": {"hook_point": "blocks.0.mlp.hook_post"},
    }
    path = tmp_path / "parts"
    tokens = torch.arange(1000)
    done = 0
    for _ in range(20):
        with DatasetWriter(path, **settings) as writer:
            assert writer.rows == done
            assert not Dataset(path).complete and Dataset(path).rows == done
            stop = min(done + 330, 1000)
            writer.append(x[done:stop], tokens[done:stop])
            done = writer.rows
            if stop == 1000:
                dataset = writer.finish()
                break
    assert dataset.fingerprint == whole.fingerprint
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (path / file.name).read_bytes()
    with DatasetWriter(path, **settings) as writer:  # opening a complete one is harmless
        assert writer.rows == 1000 and writer.finish().rows == 1000
    with DatasetWriter(path, **settings) as writer, pytest.raises(DatasetComplete):
        writer.append(x[:1], tokens[:1])


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"activation_dim": 8, "dtype": "float16", "provenance": {"seed": 1, "hook_point": "a"}}
    DatasetWriter(tmp_path, **settings).close()
    changes: list[dict[str, Any]] = [
        {"activation_dim": 9},
        {"dtype": "float32"},
        {"provenance": {"seed": 2, "hook_point": "a"}},
        {"provenance": {"seed": 1}},
        {"shard_bytes": 1 << 20},
    ]
    for change in changes:
        with pytest.raises(SettingsDiffer, match="not"):
            DatasetWriter(tmp_path, **(settings | change))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"activation_dim": 8, "dtype": "float16", "provenance": {}}
    with DatasetWriter(tmp_path, **settings), pytest.raises(RunLocked):
        DatasetWriter(tmp_path, **settings)
    DatasetWriter(tmp_path, **settings).close()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinities_are_refused_or_dropped(tmp_path: Path, dtype: str, bad: float) -> None:
    x = rows(700, 5)
    x[613, 3] = bad
    with pytest.raises(NonFiniteActivation, match=r"shard 3, row 613: the activation of dimension 3"):
        write(tmp_path / "error", x, dtype=dtype, shard_bytes=200 * (5 * DTYPES[dtype].itemsize + 4))
    dataset = write(tmp_path / "drop", x, dtype=dtype, non_finite="drop")
    assert dataset.rows == 699 and dataset.statistics["non_finite"] == 1
    kept = torch.cat([x[:613], x[614:]]).to(DTYPES[dtype])
    assert torch.equal(dataset.read_stored(0, 699), kept)
    assert 613 not in dataset.tokens(0, 699)


def test_a_value_too_large_for_the_type_is_named(tmp_path: Path) -> None:
    x = rows(10, 5)
    x[4, 2] = 70000.0
    with pytest.raises(NonFiniteActivation, match="too large for float16; store as bfloat16 or float32"):
        write(tmp_path, x)


def test_after_a_refused_batch_the_writer_goes_on(tmp_path: Path) -> None:
    x = rows(10, 5)
    with DatasetWriter(tmp_path, activation_dim=5, dtype="float16", provenance={}) as writer:
        writer.append(x, torch.arange(10))
        with pytest.raises(NonFiniteActivation):
            writer.append(x * float("nan"), torch.arange(10))
        writer.append(x, torch.arange(10))
        assert writer.finish().rows == 20


@pytest.mark.parametrize(
    ("activations", "tokens"),
    [
        (torch.zeros(3, 4), torch.zeros(3, dtype=torch.int32)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int32)),
        (torch.zeros(3, 5, dtype=torch.int32), torch.zeros(3, dtype=torch.int32)),
        (torch.zeros(3, 5), torch.zeros(4, dtype=torch.int32)),
        (torch.zeros(3, 5), torch.zeros(3)),
        (torch.zeros(3, 5), torch.full((3,), 2**31)),
        (torch.zeros(3, 5), np.full(3, -(2**31) - 1)),
        (np.zeros((3, 5), np.float32), torch.zeros(3, dtype=torch.int32)),
        ([[0.0] * 5] * 3, torch.zeros(3, dtype=torch.int32)),
    ],
)
def test_batches_that_do_not_fit_are_refused(tmp_path: Path, activations: Any, tokens: Any) -> None:
    writer = DatasetWriter(tmp_path, activation_dim=5, dtype="float16", provenance={})
    with writer, pytest.raises(InvalidArgument):
        writer.append(activations, tokens)


def test_strided_empty_and_uint16_input_is_taken(tmp_path: Path) -> None:
    x = rows(20, 10)
    with DatasetWriter(tmp_path, activation_dim=5, dtype="float32", provenance={}) as writer:
        writer.append(x[::2, ::2], np.arange(10, dtype=np.uint16))
        writer.append(x[:0, :5], np.arange(0))
        writer.append(x[:, 5:].requires_grad_(), torch.arange(20)[:, None][:, 0])
        dataset = writer.finish()
    assert torch.equal(dataset.read(0, 30), torch.cat([x[::2, ::2], x[:, 5:]]))


def test_a_dataset_without_rows_is_a_dataset(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, activation_dim=5, dtype="float16", provenance={}) as writer:
        dataset = writer.finish()
    assert dataset.rows == 0 and dataset.complete and dataset.read(0, 0).shape == (0, 5) and dataset.verify() == []


def test_missing_foreign_and_impossible(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="no dataset here"):
        Dataset(tmp_path / "nowhere")
    (tmp_path / "shard-00000.safetensors").write_bytes(b"mine")
    with pytest.raises(ManifestInvalid, match="no manifest"):
        DatasetWriter(tmp_path, activation_dim=5, dtype="float16", provenance={})
    assert (tmp_path / "shard-00000.safetensors").read_bytes() == b"mine"
    changes: list[dict[str, Any]] = [
        {"activation_dim": 0},
        {"dtype": "int8"},
        {"provenance": {"x": float("nan")}},
        {"shard_bytes": 0},
    ]
    for change in changes:
        settings: dict[str, Any] = {"activation_dim": 5, "dtype": "float16", "provenance": {}} | change
        with pytest.raises(InvalidArgument):
            DatasetWriter(tmp_path / "new", **settings)


def test_provenance_comes_back_as_it_was(tmp_path: Path) -> None:
    provenance = {"text": 'ünï\n"', "number": 0.1 + 0.2, "big": 2**63, "list": [1, None, True, {"a": [-1.5e300]}]}
    assert write(tmp_path, rows(3, 2), provenance=provenance).provenance == provenance
    assert json.loads((tmp_path / "manifest.json").read_text())["provenance"] == provenance


def test_merging_gives_the_rows_in_order(tmp_path: Path) -> None:
    x = rows(900, 6)
    write(tmp_path / "a", x[:500], shard_bytes=90 * 16)
    b = rows(401, 6, seed=1)
    b[7, 0] = float("nan")
    write(tmp_path / "b", b, shard_bytes=70 * 16, non_finite="drop")
    merged = merge_datasets(tmp_path / "c", [tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    expected = torch.cat([x[:500], b[:7], b[8:], x[:500]]).half()
    assert merged.complete and torch.equal(merged.read_stored(0, 1400), expected) and merged.verify() == []
    assert merged.provenance == Dataset(tmp_path / "a").provenance
    assert merged.statistics["non_finite"] == 1
    assert {shard.rows for shard in merged.shards[:-1]} == {90}


def test_merging_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", rows(50, 6))
    write(tmp_path / "b", rows(50, 6), provenance={"hook_point": "blocks.1.mlp.hook_post"})
    DatasetWriter(tmp_path / "c", activation_dim=6, dtype="float16", provenance={}).close()
    with pytest.raises(SettingsDiffer, match="hook_point"):
        merge_datasets(tmp_path / "new", [tmp_path / "a", tmp_path / "b"])
    for destination, sources in [("new", ["c"]), ("new", []), ("a", ["a"]), ("b", ["a"])]:
        with pytest.raises(InvalidArgument):
            merge_datasets(tmp_path / destination, [tmp_path / source for source in sources])
    assert not (tmp_path / "new").exists()
