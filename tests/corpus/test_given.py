"""Text that is already tokenised, from every kind of table; datasets saved to disk, and streams."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from sparsecode.corpus import TextSettings, Tokens, prepare_tokens
from sparsecode.corpus.given import GivenIds
from sparsecode.corpus.saved import saved_files
from sparsecode.corpus.sources import find_sources
from sparsecode.corpus.tokenizer import prepared, train_tokenizer, vocabulary_size
from sparsecode.errors import CorpusUnreadable, InvalidSetting, IoFailed, SparsecodeError
from sparsecode.pipeline.advice import advised

TEXTS = [f"Story {number}: {'once upon a time ' * (number % 7 + 1)}é {number * number}.\n" for number in range(40)]
TOKENIZER = train_tokenizer(iter(TEXTS), 300)
END = prepared(TOKENIZER)[1]


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


def prepare(run: Path, text: Path | str, **settings: Any) -> Tokens:
    config = TextSettings(text=(str(text),), val_fraction=0.2, **{"text_key": "input_ids"} | settings)
    return prepare_tokens(run, config)


def split(tokens: Tokens) -> tuple[list[str], list[str]]:
    train, val = (
        [tokens.decode(ids[:-1]) for ids in np.split(side, np.flatnonzero(side == tokens.eot) + 1)[:-1]]
        for side in (tokens.train, tokens.val)
    )
    return train, val


def rows(*, padded: bool = False, ended: bool = False) -> Iterator[dict[str, Any]]:
    for text in TEXTS:
        ids = ids_of(text) + [END] * ended
        width = 200 if padded else len(ids)
        mask = [1] * len(ids) + [0] * (width - len(ids))
        yield {"input_ids": ids + [END] * (width - len(ids)), "attention_mask": mask, "labels": ids}


@pytest.mark.parametrize(("padded", "ended"), [(False, False), (False, True), (True, False), (True, True)])
def test_ids_come_back_as_the_documents_they_were(tmp_path: Path, tokenizer: str, padded: bool, ended: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(padded=padded, ended=ended)))
    tokens = prepare(tmp_path / "run", path, tokenizer=tokenizer)
    train, val = split(tokens)
    assert sorted(train + val) == sorted(TEXTS)
    assert val and tokens.val_bytes == sum(len(text.encode()) for text in val)


def test_a_single_document_of_ids_has_its_end_held_out(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"input_ids": ids_of("".join(TEXTS))}]))
    tokens = prepare(tmp_path / "run", tmp_path / "a.json", tokenizer=tokenizer)
    (train,), (val,) = split(tokens)
    assert train + val == "".join(TEXTS)
    assert len(val) < len(train) / 2
    most = prepare(tmp_path / "less", tmp_path / "a.json", tokenizer=tokenizer, max_text_mb=1)
    assert most.fingerprint == tokens.fingerprint


def test_ids_need_the_tokenizer_that_made_them(tmp_path: Path, tokenizer: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    with pytest.raises(InvalidSetting, match="name the tokenizer that made them by --tokenizer"):
        advised(prepare)(tmp_path / "run", path)
    path.write_text('{"input_ids": [1, 2]}\n{"input_ids": [1, 999]}\n')
    with pytest.raises(CorpusUnreadable, match="id 999, the tokenizer 300 tokens; another tokenizer made it"):
        prepare(tmp_path / "run", path, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [[1, 2], [3]]}, "'input_ids' is a list, neither text nor a list of ids"),
        ({"input_ids": [1.5]}, "neither text nor"),
        ({"input_ids": [-100, 3]}, "neither text nor"),
        ({"input_ids": "1 2"}, "is text, not ids"),
        ({"input_ids": [1, 2], "attention_mask": [1]}, "'attention_mask' does not fit"),
        ({"input_ids": None}, "'input_ids' is null"),
        ({"text": "a"}, "no text under 'input_ids' .found: text"),
    ],
)
def test_what_are_no_ids_is_named(tmp_path: Path, tokenizer: str, row: dict[str, Any], message: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(CorpusUnreadable, match=message):
        prepare(tmp_path / "run", tmp_path / "a.jsonl", tokenizer=tokenizer)


def test_what_the_tokenizer_put_around_a_document_is_taken_off() -> None:
    framed = type(TOKENIZER).from_str(TOKENIZER.to_str())
    framed.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", END)]
    )
    given = GivenIds(framed, END, vocabulary_size(framed))
    own = ids_of(TEXTS[3])
    for around in (own, [END, *own], [*own, END], [END, *own, END], [END, *own, END, END]):
        assert given.document(np.array(around), "here").tolist() == own
    assert given.text_bytes(np.array(own)) == len(TEXTS[3].encode())


def state(folder: Path, *files: str, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files]} | more))
    (folder / "dataset_info.json").write_text("{}")


def test_a_saved_dataset_is_found_by_its_description(tmp_path: Path) -> None:
    assert saved_files(tmp_path) is None
    names = ("data-00000-of-00002.arrow", "data-00001-of-00002.arrow")
    state(tmp_path / "train", *names)
    with pytest.raises(CorpusUnreadable, match=r"data-00000-of-00002\.arrow of the saved dataset is missing"):
        saved_files(tmp_path / "train")
    for name in (*names, "cache-12.arrow"):
        (tmp_path / "train" / name).write_bytes(b"")
    assert saved_files(tmp_path / "train") == [tmp_path / "train" / name for name in names]
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert saved_files(tmp_path) == [tmp_path / "train" / name for name in names]
    inside = [source.name for source in find_sources(TextSettings(text=(str(tmp_path.parent),))).sources]
    assert [name.rpartition("/")[2] for name in inside if tmp_path.name in name] == list(names)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test"]}')
    with pytest.raises(CorpusUnreadable, match="without a split train; name the folder of one: test"):
        saved_files(tmp_path)
    state(tmp_path / "train", *names, _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(CorpusUnreadable, match="flatten_indices"):
        saved_files(tmp_path / "train")
    (tmp_path / "train" / "state.json").write_text('{"_data_files": [3]}')
    with pytest.raises(CorpusUnreadable, match="does not name the files"):
        saved_files(tmp_path / "train")


@pytest.mark.parametrize("form", ["stream.arrow", "file.arrow", "file.feather", "a.parquet", "saved"])
def test_arrow_and_parquet_hold_text_and_ids(tmp_path: Path, tokenizer: str, form: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"text": TEXTS, **{key: [row[key] for row in rows(padded=True)]
                                          for key in ("input_ids", "attention_mask")}})  # fmt: skip
    path = tmp_path / form
    if form == "saved":
        state(path, "data.arrow")
    if form == "a.parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    else:
        make = arrow.ipc.new_stream if form in ("stream.arrow", "saved") else arrow.ipc.new_file
        with make(str(path / "data.arrow" if form == "saved" else path), table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    for key in ("text", "input_ids"):
        train, val = split(prepare(tmp_path / f"run-{key}", path, tokenizer=tokenizer, text_key=key))
        assert sorted(train + val) == sorted(TEXTS)
    with pytest.raises(CorpusUnreadable, match=r"no text under 'body' .found: text, input_ids, attention_mask"):
        prepare(tmp_path / "other", path, tokenizer=tokenizer, text_key="body")


def test_files_as_datasets_saves_them_are_read(tmp_path: Path, tokenizer: str) -> None:
    """Arrow streams with its description beside them, written without the library."""
    arrow = pytest.importorskip("pyarrow")
    state(tmp_path / "saved", "data-00000-of-00002.arrow", "data-00001-of-00002.arrow")
    for number, texts in enumerate((TEXTS[:7], TEXTS[7:])):
        table = arrow.table({"text": texts})
        path = tmp_path / "saved" / f"data-0000{number}-of-00002.arrow"
        with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    train, val = split(prepare(tmp_path / "run", tmp_path / "saved", tokenizer=tokenizer, text_key="text"))
    assert sorted(train + val) == sorted(TEXTS)


@pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")  # dill, of which `datasets` makes its fingerprints
def test_a_dataset_that_datasets_saved_is_read(tmp_path: Path, tokenizer: str) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"text": TEXTS})
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole.select(range(39, -1, -1)), "test": whole}).save_to_disk(tmp_path / "splits")
    for name in ("one", "splits"):
        train, val = split(prepare(tmp_path / f"run-{name}", tmp_path / name, tokenizer=tokenizer, text_key="text"))
        assert sorted(train + val) == sorted(TEXTS)
    config = TextSettings(hf_dataset=str(tmp_path / "one"))
    assert len(find_sources(config).sources) == 1


def test_a_stream_is_read_once_and_as_far_as_asked(
    tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def endless() -> Iterator[dict[str, Any]]:
        number = 0
        while True:
            drawn.append(number)
            yield {"text": f"{number} " + "word " * 20_000} if number != 2 else {"text": None}
            number += 1

    def load_dataset(*args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        assert (args, kwargs) == (("someone/texts", "small"), {"split": "train", "streaming": True})
        return endless()

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    settings: dict[str, Any] = {"hf_dataset": "someone/texts:small", "hf_stream": True, "tokenizer": tokenizer}
    config = TextSettings(max_text_mb=1, val_fraction=0.2, **settings)
    with pytest.raises(CorpusUnreadable, match="row 2: 'text' is null"):
        prepare_tokens(tmp_path / "run", config)
    drawn.clear()
    tokens = prepare_tokens(tmp_path / "run", replace(config, skip_bad=True))
    assert drawn == list(range(12)), "once: ten of 100 kB, the one that is null, and the one after the end"
    assert (tokens.corpus["documents"], tokens.corpus["skipped"]) == (10, 1)
    assert "its first 1 MB" in tokens.corpus["description"]
    for wrong in ({"max_text_mb": None}, {"max_text_mb": 1, "hf_dataset": None}):
        with pytest.raises(InvalidSetting, match="--hf-stream goes with"):
            advised(find_sources)(replace(config, **wrong))


def test_a_stream_that_breaks_off_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[dict[str, str]]:
        yield {"text": "a"}
        raise ConnectionError("gone\naway")

    module = types.SimpleNamespace(load_dataset=lambda *args, **kwargs: broken())
    monkeypatch.setitem(sys.modules, "datasets", module)
    source = find_sources(TextSettings(hf_dataset="x", hf_stream=True, max_text_mb=1)).sources[0]

    def fail(error: SparsecodeError) -> None:
        raise error

    with pytest.raises(IoFailed, match=r"the stream broke off \(gone away\); run the command again"):
        list(source.pieces(fail))
