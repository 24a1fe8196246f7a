"""`.pt` files: tensors are read, everything else is refused by name, and nothing in the file runs."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsecode.errors import DictionaryInvalid, PickleRefused
from sparsecode.interop import find_dictionaries, find_format, load_dictionary
from sparsecode.interop.state_dict import read_state_dict, write_state_dict

FIXTURE = Path(__file__).parents[1] / "fixtures/interop/dictionary_learning-AutoEncoder/ae.pt"


class Planted:
    """Unpickling it would create a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def archive_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {part.filename: archive.read(part) for part in archive.infolist()}


def write_archive(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def with_pickle(path: Path, value: object) -> Path:
    """A well-formed .pt file whose pickle holds `value`."""
    parts = archive_of(FIXTURE)
    name = next(name for name in parts if name.endswith("data.pkl"))
    return write_archive(path, parts | {name: pickle.dumps(value)})


def test_the_plant_would_go_off_in_an_open_reader(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Planted(tmp_path / "mark")))  # noqa: S301 (what the next test must not see happen)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["ae.pt", "autoencoder.pt"])
def test_a_malicious_file_is_refused_and_does_not_run(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    with_pickle(tmp_path / name, {"encoder.weight": Planted(mark), "pre_bias": torch.ones(1).tolist()})
    for read in (read_state_dict, load_dictionary):
        with pytest.raises(PickleRefused, match="not a file of tensors alone") as raised:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)
    assert not mark.exists()
    find_dictionaries(tmp_path)
    find_format(tmp_path / name)
    assert not mark.exists()


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "old.pt"
    path.write_bytes(pickle.dumps({"a": Planted(mark)}))
    with pytest.raises(PickleRefused, match=r"not a \.pt file of PyTorch 1\.6 or later"):
        read_state_dict(path)
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(PickleRefused, match=r"not a \.pt file of PyTorch 1\.6 or later"):
        read_state_dict(path)
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "module.pt")
    with pytest.raises(PickleRefused, match=r"Save its state_dict\(\) again"):
        read_state_dict(tmp_path / "module.pt")


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    parts = archive_of(FIXTURE) | {"archive/data/9": bytes(64 << 20)}
    bomb = write_archive(tmp_path / "bomb.pt", parts, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(PickleRefused, match="unpacks to more than"):
        read_state_dict(bomb)


def test_parts_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    # Two entries of the table of contents may point at the same bytes: stored, and yet more than the file.
    path = write_archive(tmp_path / "twice.pt", {"archive/data/0": bytes(4096)})
    data = path.read_bytes()
    directory = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[directory:end]
    twice = bytearray(data[:directory] + entry * 3 + data[end:])
    for offset in (8, 10):  # entries on this disk, entries in all
        twice[-22 + offset : -22 + offset + 2] = (3).to_bytes(2, "little")
    twice[-22 + 12 : -22 + 16] = (3 * len(entry)).to_bytes(4, "little")
    path.write_bytes(twice)
    with pytest.raises(PickleRefused, match="unpacks to more than"):
        read_state_dict(path)


def test_a_tensor_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "huge.pt")
    assert (tmp_path / "huge.pt").stat().st_size < 4096
    with pytest.raises(PickleRefused, match="claims 4000000000000 bytes"):
        read_state_dict(tmp_path / "huge.pt")


def test_a_huge_pickle_is_refused(tmp_path: Path) -> None:
    parts = archive_of(FIXTURE)
    name = next(name for name in parts if name.endswith("data.pkl"))
    write_archive(tmp_path / "long.pt", parts | {name: bytes(17 << 20)})
    with pytest.raises(PickleRefused, match="its pickle is larger than 16 MB"):
        read_state_dict(tmp_path / "long.pt")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**9,), check_invariants=True),
        lambda: torch.empty(10**9, device="meta"),
    ],
    ids=["sparse", "meta"],
)
def test_a_tensor_that_is_none_is_refused(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    torch.save({"a": [make()]}, tmp_path / "odd.pt")
    with pytest.raises(PickleRefused):
        read_state_dict(tmp_path / "odd.pt")


def test_containers_within_themselves_end(tmp_path: Path) -> None:
    laughs: dict[str, Any] = {"w": torch.ones(1)}
    for _ in range(60):
        laughs = {"a": laughs, "b": laughs}
    laughs["self"] = laughs
    torch.save(laughs, tmp_path / "laughs.pt")
    assert read_state_dict(tmp_path / "laughs.pt").keys() == {"a", "b", "self"}


@pytest.mark.parametrize("cut", [0, 10, 500, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "ae.pt").write_bytes(FIXTURE.read_bytes()[:cut])
    with pytest.raises(PickleRefused, match="cut short"):
        read_state_dict(tmp_path / "ae.pt")


def test_a_damaged_pickle_is_named_before_it_is_looked_at(tmp_path: Path) -> None:
    data = bytearray((FIXTURE.parents[1] / "openai-topk/autoencoder.pt").read_bytes())
    data[data.index(b"latent_bias")] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(PickleRefused, match="its pickle cannot be read"):
        find_format(tmp_path / "a.pt")


def test_what_is_no_state_dict_is_named(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(DictionaryInvalid, match="holds a list"):
        read_state_dict(tmp_path / "list.pt")
    with pytest.raises(DictionaryInvalid, match="no such file"):
        read_state_dict(tmp_path / "none.pt")
    torch.save({"params": torch.ones(1), "step": 3}, tmp_path / "optimizer.pt")
    with pytest.raises(DictionaryInvalid, match="no class of dictionary_learning"):
        load_dictionary(tmp_path / "optimizer.pt")


def test_tensors_numbers_and_strings_come_back(tmp_path: Path) -> None:
    held = {"w": torch.arange(6.0).reshape(2, 3), "activation": "TopK", "settings": {"k": 3}}
    torch.save(held, tmp_path / "a.pt")
    found = read_state_dict(tmp_path / "a.pt")
    assert torch.equal(found["w"], held["w"])  # type: ignore[arg-type]
    assert (found["activation"], found["settings"]) == ("TopK", {"k": 3})
    write_state_dict(tmp_path / "b.pt", {"w": held["w"].T})  # type: ignore[attr-defined]
    assert torch.equal(read_state_dict(tmp_path / "b.pt")["w"], held["w"].T)  # type: ignore[attr-defined]
    assert torch.load(io.BytesIO((tmp_path / "b.pt").read_bytes()), weights_only=True).keys() == {"w"}
