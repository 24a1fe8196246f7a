"""Damaged, swapped, truncated and hostile files give a named error, never a wrong row (promises 1-5, 7, 15, 21, 27)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import store_trials as trials
from sparsecode import errors
from sparsecode.errors import InvalidName, ShardCorrupt, ShardMissing, ShardTruncated
from sparsecode.store import ActivationStream, Dataset, dataset_damage, read_header

FIXTURES = Path(__file__).parents[1] / "fixtures"
ACCESS = trials.ACCESS


def small(path: Path, *, n: int = 50, seed: int = 0, shard_rows: int = 20) -> Path:
    return trials.write_small(path, n=n, seed=seed, shard_rows=shard_rows).path


def first_batch(path: Path, access: Literal["mmap", "pread"] = "mmap") -> torch.Tensor:
    with ActivationStream(Dataset(path, access=access), batch_size=4, prefetch=0) as stream:
        return next(stream)


@pytest.mark.parametrize("access", ACCESS)
def test_a_shard_truncated_at_any_byte_is_named(tmp_path: Path, access: Any) -> None:
    shard = small(tmp_path / "data") / "shard-00001.safetensors"
    whole = shard.read_bytes()
    for cut in range(len(whole)):
        shard.write_bytes(whole[:cut])
        with pytest.raises(ShardTruncated, match=f"{cut} of {len(whole)} bytes"):
            Dataset(tmp_path / "data", access=access)


def test_any_flipped_bit_is_noticed_before_a_row_is_handed_out(tmp_path: Path) -> None:
    """400 of the 10,000 flips that `make soak` tries, over every file of the dataset."""
    folder = small(tmp_path / "data")
    assert trials.flip_bits(folder, 400, seed=0) == 400
    first_batch(folder)


def test_reading_notices_damage_only_where_it_reads_and_verify_lists_it(tmp_path: Path) -> None:
    folder = small(tmp_path / "data", n=100)
    for index in (1, 3):
        shard = folder / f"shard-0000{index}.safetensors"
        damaged = bytearray(shard.read_bytes())
        damaged[-1] ^= 1
        shard.write_bytes(damaged)
    for access in ACCESS:
        dataset = Dataset(folder, access=access)
        assert dataset.read(0, 20).shape == dataset.read(40, 60).shape == (20, 3)
        for start in (19, 20, 60):
            with pytest.raises(ShardCorrupt, match="rows 0 to 20 do not fit"):
                dataset.read(start, start + 2)
        with pytest.raises(ShardCorrupt):
            dataset.tokens(20, 21)
        assert dataset.verify() == ["shard-00001.safetensors", "shard-00003.safetensors"]
        assert "restore it from a copy" in dataset.damage()[0][1]
    assert Dataset(folder, verify="never").read(0, 100).shape == (100, 3)


def test_all_damage_is_listed_even_where_the_dataset_cannot_be_opened(tmp_path: Path) -> None:
    folder = small(tmp_path / "data", n=100)
    assert dataset_damage(folder) == []
    names = [f"shard-0000{index}.safetensors" for index in range(5)]
    (folder / names[0]).unlink()
    os.truncate(folder / names[2], 600)
    flipped = bytearray((folder / names[3]).read_bytes())
    flipped[-1] ^= 1
    (folder / names[3]).write_bytes(flipped)
    found = dataset_damage(folder)
    assert [name for name, _ in found] == [names[0], names[2], names[3]]
    for (_, message), expected in zip(found, ["missing", "truncated", "do not fit"], strict=True):
        assert expected in message
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ShardCorrupt):
        dataset_damage(folder)


def test_verify_always_notices_what_changes_later(tmp_path: Path) -> None:
    folder = small(tmp_path / "data")
    kept, watched = Dataset(folder), Dataset(folder, verify="always")
    kept.read(0, 50)
    watched.read(0, 50)
    shard = folder / "shard-00000.safetensors"
    with shard.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x77")
    kept.read(0, 50)
    with pytest.raises(ShardCorrupt):
        watched.read(0, 50)


def test_swapped_stale_renamed_zeroed_and_lost_shards_are_named(tmp_path: Path) -> None:
    folder = small(tmp_path / "data")
    backup = tmp_path / "backup"
    shutil.copytree(folder, backup)
    a, b, c = (folder / f"shard-0000{i}.safetensors" for i in range(3))
    stale = small(tmp_path / "other", seed=1) / a.name

    def restore() -> None:
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)

    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    with pytest.raises(ShardCorrupt):  # the header is the same, the rows are not
        first_batch(folder)
    restore()
    shutil.copy(stale, a)
    with pytest.raises(ShardCorrupt):
        first_batch(folder)
    restore()
    content = a.read_bytes()
    for zeros in (1, 100, len(content) - 512, len(content)):
        a.write_bytes(content[: len(content) - zeros] + bytes(zeros))
        if content[-zeros:] != bytes(zeros):
            with pytest.raises(ShardCorrupt):
                first_batch(folder)
    restore()
    c.write_bytes(c.read_bytes() + b"\0")
    with pytest.raises(ShardCorrupt, match="1 bytes too long"):
        Dataset(folder)
    restore()
    shutil.copy(backup / "shard-00000.safetensors", b)
    with pytest.raises(ShardCorrupt):  # one shard twice: its digest is bound to its place
        first_batch(folder)
    restore()
    b.unlink()
    with pytest.raises(ShardMissing, match=b.name):
        Dataset(folder)
    restore()
    assert Dataset(folder).verify() == []


def test_a_manifest_of_another_dataset_is_noticed(tmp_path: Path) -> None:
    folder, other = small(tmp_path / "data"), small(tmp_path / "other", seed=1)
    shutil.copy(other / "manifest.json", folder / "manifest.json")
    with pytest.raises(ShardCorrupt):
        first_batch(folder)


@pytest.mark.parametrize("access", ACCESS)
def test_links_folders_and_fifos_are_not_shards(tmp_path: Path, access: Any) -> None:
    folder = small(tmp_path / "data")
    shard = folder / "shard-00001.safetensors"
    shard.rename(tmp_path / "outside")
    shard.symlink_to("../outside")
    with pytest.raises(InvalidName, match="symbolic link"):
        Dataset(folder, access=access)
    shard.unlink()
    shard.mkdir()
    with pytest.raises(ShardCorrupt, match="not a regular file"):
        Dataset(folder, access=access)
    shard.rmdir()
    os.mkfifo(shard)
    with pytest.raises(ShardCorrupt, match="not a regular file"):
        Dataset(folder, access=access)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b'{"activations":{},"activations":{}}', "HeaderDuplicateKey"),
        (b"[" * 5000, "HeaderNotJson"),
        (b'{"a":' * 5000, "HeaderTooDeep"),
        (b'{"\xff":1}', "HeaderNotUtf8"),
        (b'{"tokens":{"dtype":"I32","shape":[-1],"data_offsets":[0,4]}}', "HeaderNegative"),
        (b'{"tokens":{"dtype":"I32","shape":[99999999999999999999],"data_offsets":[0,4]}}', "HeaderOverflow"),
        (b'{"tokens":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}', "HeaderDtype"),
        (b'{"tokens":{"dtype":"I32","shape":[2],"data_offsets":[0,4]}}', "HeaderShape"),
        (b'{"tokens":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}', "HeaderTensors"),
        (b'{"tokens":{"dtype":"I32","shape":[1],"data_offsets":[2,6]}}', "HeaderHole"),
        (
            b'{"activations":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},'
            b'"tokens":{"dtype":"I32","shape":[1],"data_offsets":[2,6]}}',
            "HeaderOverlap",
        ),
    ],
)
def test_each_bad_header_has_its_class(tmp_path: Path, header: bytes, name: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(errors.HeaderInvalid) as caught:
        read_header(path)
    assert type(caught.value) is getattr(errors, name)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_an_absurd_header_length_costs_nothing(tmp_path: Path) -> None:
    for length in (0, 64 * 1024 + 1, 2**63 - 1):
        (tmp_path / str(length)).write_bytes(length.to_bytes(8, "little") + bytes(100))
    script = f"""
        import resource
        from pathlib import Path
        from sparsecode.errors import HeaderLength
        from sparsecode.store import read_header
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))
        for path in Path({str(tmp_path)!r}).iterdir():
            try:
                read_header(path)
            except HeaderLength:
                continue
            raise AssertionError("accepted")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_fixtures_of_every_format_are_read_for_ever() -> None:
    folders = sorted(path for path in FIXTURES.glob("activations-v*") if path.is_dir())
    assert [folder.name.split("-")[1] for folder in folders] == ["v1"] * len(folders) and len(folders) >= 3
    for folder in folders:
        expected = json.loads((folder.parent / f"{folder.name}.json").read_text())
        for access in ACCESS:
            dataset = Dataset(folder, access=access)
            assert dataset.complete and dataset.verify() == []
            for name in ("rows", "activation_dim", "dtype", "provenance", "fingerprint"):
                assert getattr(dataset, name) == expected[name], name
            assert dataset.read(0, dataset.rows).tolist() == expected["values"]
            assert dataset.tokens(0, dataset.rows).tolist() == expected["tokens"]
            assert {k: v for k, v in dataset.statistics.items() if k != "mean"} == expected["statistics"]


def test_a_read_only_folder_streams(tmp_path: Path) -> None:
    folder = small(tmp_path / "data")
    expected = Dataset(folder).read(0, 50).sum(dim=0)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    try:
        before = sorted(folder.iterdir())
        for access in ACCESS:
            with ActivationStream(Dataset(folder, access=access), batch_size=50) as stream:
                assert torch.allclose(next(stream).sum(dim=0), expected, atol=1e-5)
        assert sorted(folder.iterdir()) == before
    finally:
        folder.chmod(0o755)


def test_a_file_truncated_while_it_is_read_is_an_error_and_the_process_lives(tmp_path: Path) -> None:
    folder = small(tmp_path / "data", n=2000, shard_rows=2000)
    shard = folder / "shard-00000.safetensors"
    whole = shard.read_bytes()
    dataset = Dataset(folder, access="pread")
    with ActivationStream(dataset, batch_size=16, prefetch=2) as stream:
        next(stream)
        os.truncate(shard, 600)
        with pytest.raises(ShardTruncated):
            for _ in range(200):
                next(stream)
        position = stream.position
        shard.write_bytes(whole)  # put back: the stream goes on where it stood
        next(stream)
        assert stream.position == position + 16


def test_a_mapped_file_that_became_shorter_is_noticed_at_the_next_look(tmp_path: Path) -> None:
    folder = small(tmp_path / "data", n=2000, shard_rows=2000)
    dataset = Dataset(folder, verify="never")
    with ActivationStream(dataset, batch_size=4, prefetch=0) as stream:
        os.truncate(folder / "shard-00000.safetensors", 12_512)  # the rest of its last page is still mapped
        with pytest.raises(ShardTruncated):
            next(stream)
    with pytest.raises(ShardTruncated):
        dataset.read(0, 1)


def test_messages_are_one_line_with_the_next_step(tmp_path: Path) -> None:
    folder = small(tmp_path / "data")
    shard = folder / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ShardTruncated) as caught:
        Dataset(folder)
    assert str(caught.value) == (f"{shard}: truncated: 711 of 712 bytes; restore it from a copy, or harvest again")
