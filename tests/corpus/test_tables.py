"""Structured files are read as such, whatever their names, or refused, but never read as prose."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecode.corpus import TextSettings, readers
from sparsecode.corpus.readers import read_file
from sparsecode.corpus.sources import find_sources
from sparsecode.corpus.survey import survey_text
from sparsecode.errors import CorpusUnreadable
from sparsecode.pipeline.advice import advised

TEXTS = ["first ä", 'second\n"line", with comma', "", "\U0001f600 [fourth] {}"]
ROWS = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
LIST = json.dumps(ROWS, ensure_ascii=False, indent=1)


def quoted(cell: object) -> str:
    return '"' + str(cell).replace('"', '""') + '"'


def delimited(separator: str) -> str:
    lines = [f"id{separator}text", *(f"{row['id']}{separator}{quoted(row['text'])}" for row in ROWS)]
    return "\r\n".join(lines) + "\r\n"


def raising(error: CorpusUnreadable) -> None:
    raise error


def documents(path: Path, key: str = "text", bad: Callable[[CorpusUnreadable], None] = raising) -> list[str]:
    found = [""]
    for piece in read_file(path, key, bad):
        found[-1] += piece.text
        if piece.ends:
            found.append("")
    assert found.pop() == ""
    return found


FORMS = {
    "a.json": LIST,
    "one-line.json": json.dumps(ROWS),
    "lines.json": LINES,
    "pretty.json": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "strings.json": json.dumps(TEXTS),
    "a.ndjson": LINES,
    "a.jsonlines": LINES,
    "lines.txt": LINES,
    "list.txt": LIST,
    "no-ending": LINES,
    "a.data": LIST,
    "a.csv": delimited(","),
    "semicolon.csv": delimited(";"),
    "a.tsv": delimited("\t"),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".GZ"])
def test_every_form_gives_its_texts(tmp_path: Path, name: str, suffix: str) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {
        "": bytes, ".gz": gzip.compress, ".GZ": gzip.compress, ".xz": lzma.compress,
    }  # fmt: skip
    pack = packers[suffix]
    path = tmp_path / (name + suffix)
    if "." not in name and suffix:
        pytest.skip("compression is told by the last ending, what is inside by the one before")
    path.write_bytes(pack(FORMS[name].encode()))
    assert documents(path) == TEXTS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "lines.txt", "prose.txt", "prose.md"])
def test_a_byte_order_mark_says_how_the_text_is_encoded(tmp_path: Path, name: str, encoding: str) -> None:
    text = {"a.jsonl": LINES, "prose.txt": "Prosa ä\n", "prose.md": "Prosa ä\n"}.get(name) or FORMS[name]
    mark = "\ufeff" if encoding.endswith("-be") else ""
    (tmp_path / name).write_bytes((mark + text).encode(encoding))
    assert documents(tmp_path / name) == (["Prosa ä\n"] if "prose" in name else TEXTS)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "{not json}\n{at all}\n"), ("a.txt", "[1] A footnote.\n"), ("a.txt", '{"a": 1}\nand prose after it'),
     ("a.md", LINES), ("a.py", "[{}]\n"), ("a.txt", "id,text\n1,prose\n")],
)  # fmt: skip
def test_prose_stays_prose(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert documents(tmp_path / name) == [text]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[{"text": "a"}, {"text": ', "record 2: not JSON"),
        ("a.json", '[{"text": "a"} {"text": "b"}]', "record 1: not JSON .no comma after it"),
        ("a.json", '[{"text": "a"}] and more', "record 1: not JSON .something stands after the list"),
        ("a.json", '[{"text": "a"}', "record 1: not JSON .no comma"),
        ("a.json", '{"data": [{"text": "a"}]}', "line 1: no text under 'text' .found: data"),
        ("a.json", '{"text": ["a", "b"]}', "'text' is a list, neither text nor"),
        ("a.json", '[{"text": null}]', "record 1: 'text' is null"),
        ("a.json", "[3]", "found: a number instead of an object"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.json", "prose", "record 1: not JSON"),
        ("a.txt", '{"body": "a"}\n{"body": "b"}\n', "no text under 'text' .found: body.; name it by --text-key"),
        ("a.csv", "id,body\n1,a\n", "no text under 'text' .found: id, body.*--text-key"),
        ("a.csv", "id,text\n1,a, b\n", "line 2: 3 cells under 2 names; quote the text"),
        ("a.csv", 'id,text\n1,"a', "line 2: not CSV"),
        ("a.csv", "text,text\na,b\n", "2 columns are called 'text'"),
        ("a.jsonl", '{"input_ids": [1]}', "ids of the tokenizer by --text-key input_ids"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusUnreadable, match=message) as raised:
        advised(documents)(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_that_are_skipped_are_told_and_the_others_are_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "a"}\nnonsense\n{"text": null}\n{"text": "b"}\n')
    (tmp_path / "b.csv").write_text("id,text\n1,a\n2,b,c\n3,d\n")
    told: list[CorpusUnreadable] = []
    assert documents(tmp_path / "a.json", bad=told.append) == ["a", "b"]
    assert documents(tmp_path / "b.csv", bad=told.append) == ["a", "d"]
    assert [str(error).split(": ")[1] for error in told] == ["line 2", "line 3", "line 3"]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=12), max_size=6), chunk=st.integers(1, 30), indent=st.sampled_from([None, 2]))
def test_a_list_is_read_in_pieces_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], chunk: int, indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps([{"text": text} for text in texts], indent=indent))
    with mock.patch.object(readers, "_CHUNK", chunk):
        assert documents(path) == texts


def test_tables_in_a_folder_count(tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.tsv"):
        (tmp_path / name).write_text(FORMS[name])
    (tmp_path / "b.txt").write_text("prose")
    sources = find_sources(TextSettings(text=(str(tmp_path),)))
    survey = survey_text(sources, skip_bad=False, advance=lambda size: None)
    assert int((survey.sizes > 0).sum()) == 3 * sum(bool(text) for text in TEXTS) + 1


def test_runs_that_lie_among_the_text_are_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.")
    for name, record in (("run", {"format": 1, "stages": {}}), ("other", {"text": "A record."})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(record))
        (tmp_path / name / "report.json").write_text(json.dumps({"text": "Another."}))
    found = [source.name for source in find_sources(TextSettings(text=(str(tmp_path),))).sources]
    assert [name.partition("/")[2] for name in found] == ["a.txt", "other/config.json", "other/report.json"]
