"""Reading files as documents: every format and compression, every way a file can be bad, and the default corpus."""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecode.corpus import TextSettings, readers
from sparsecode.corpus.readers import SEPARATOR, Piece, read_file
from sparsecode.corpus.sources import find_sources, python_sources, required_distributions
from sparsecode.corpus.survey import survey_text
from sparsecode.errors import CorpusEmpty, CorpusUnreadable, MissingExtra, SparsecodeError
from sparsecode.pipeline.advice import advised

ROWS = [{"text": "first ä"}, {"text": "second\nline"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def raising(error: CorpusUnreadable) -> None:
    raise error


def joined(pieces: list[Piece]) -> list[str]:
    documents = [""]
    for piece in pieces:
        documents[-1] += piece.text
        if piece.ends:
            documents.append("")
    assert documents.pop() == "", "the last piece ends its document"
    return documents


def documents(path: Path, bad: Callable[[CorpusUnreadable], None] = raising) -> list[str]:
    return joined(list(read_file(path, "text", bad)))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ""])
def test_text_and_jsonl_read_plain_and_compressed(tmp_path: Path, suffix: str) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, "": bytes}
    pack = packers[suffix]
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(f"\ufeffone{SEPARATOR}two ä".encode()))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(("\n" + LINES).encode()))
    assert documents(tmp_path / f"a.txt{suffix}") == ["one", "two ä"]
    assert documents(tmp_path / f"b.jsonl{suffix}") == [row["text"] for row in ROWS]


def test_only_txt_holds_several_documents(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text(f"END = '{SEPARATOR}'\n")
    assert documents(source) == [f"END = '{SEPARATOR}'\n"]


def test_zst_reads_or_names_the_package(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    try:
        zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        path.write_bytes(b"")
        with pytest.raises(MissingExtra, match=r"a\.txt\.zst.*pip install backports\.zstd"):
            documents(path)
        return
    packed = zstd.compress(b"one two " * 1000)
    path.write_bytes(packed + packed)
    assert documents(path) == ["one two " * 2000]
    path.write_bytes(packed[:-5])
    with pytest.raises(CorpusUnreadable, match=r"not a whole \.zst file"):
        documents(path)


def test_parquet_reads_or_names_the_package(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 not really")
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(MissingExtra, match="pip install pyarrow"):
            documents(path)
        return
    with pytest.raises(CorpusUnreadable, match="not a parquet file"):
        documents(path)
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": ["one", None, "two"], "n": [1, 2, 3]}), path)
    with pytest.raises(CorpusUnreadable, match="row 2: 'text' is null"):
        documents(path)
    assert documents(path, lambda error: None) == ["one", "two"]
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert documents(tmp_path / "a.parquet.gz", lambda error: None) == ["one", "two"]
    with pytest.raises(CorpusUnreadable, match=r"no text under 'body' .found: text, n.*--text-key"):
        advised(list)(read_file(path, "body", raising))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"fine\0not", "binary.*byte 4"),
        ("a.txt", b"\xef\xbb\xbffine\xff", "not UTF-8.*byte 7"),
        ("a.txt", b"cut off \xe2\x82", "not UTF-8.*byte 8"),
        ("a.txt.gz", gzip.compress(b"text" * 999)[:-9], "not a whole .gz file"),
        ("a.txt.gz", b"no gzip", "not a whole .gz file"),
        ("a.txt.xz", lzma.compress(b"text" * 999)[:-9], "not a whole .xz file"),
        ("a.txt.xz", b"no xz at all", "not a whole .xz file"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "line 2: not JSON"),
        ("a.jsonl", b'{"body": "a"}', "line 1: no text under 'text' .found: body.*--text-key"),
        ("a.jsonl", b'{"text": 3}', "line 1: 'text' is a number, neither text nor a list of ids"),
        ("a.jsonl", b'{"text": null}', "line 1: 'text' is null, there is no text; leave it out.*--skip-bad"),
        ("a.jsonl", b"{}", "line 1: no text under 'text' .found: nothing"),
        ("a.jsonl", b"[1]", "line 1: no text under 'text' .found: a list instead"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: half a surrogate pair"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"text": "\xff"}', "line 1: not JSON"),
    ],
)
def test_bad_file_is_named_with_its_place(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusUnreadable, match=message) as raised:
        advised(documents)(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_place_counts_all_chunks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("ä".encode() * 50 + b"\xff")
    with mock.patch.object(readers, "_CHUNK", 7), pytest.raises(CorpusUnreadable, match="byte 100"):
        documents(tmp_path / "a.txt")


words = st.text(st.sampled_from("aé9 \n.\t'\U0001f600"), max_size=40)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(words, min_size=1, max_size=6), chunk=st.integers(1, 40), piece=st.integers(1, 9))
def test_streaming_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], chunk: int, piece: int
) -> None:
    path = tmp_path_factory.mktemp("stream") / "a.txt"
    path.write_bytes(SEPARATOR.join(parts).encode())
    with mock.patch.multiple(readers, _CHUNK=chunk, PIECE=piece, _LONGEST_WORD=3 * piece):
        assert documents(path) == parts


def corpus(*text: Path | str, skip_bad: bool = False) -> Any:
    config = TextSettings(text=tuple(str(path) for path in text))
    return survey_text(find_sources(config), skip_bad=skip_bad, advance=lambda size: None)


def names(*text: Path | str) -> list[str]:
    return [source.name for source in find_sources(TextSettings(text=tuple(map(str, text)))).sources]


def test_folders_globs_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "book"
    for name in ("b.txt", "deep/a.md", "deep/x.jsonl.gz", "deep/image.png", ".git/c.txt", "README"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    assert names(folder) == ["book/b.txt", "book/deep/a.md", "book/deep/x.jsonl.gz"]
    assert names(folder / "README") == ["README"]
    assert names(folder / "**" / "*.md") == ["a.md"]
    assert names(folder, folder / "b.txt", folder / "*.txt") == names(folder), "each file once"


def test_missing_and_empty_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "full.txt").write_text("text")
    with pytest.raises(CorpusUnreadable, match=r"gone\.txt: no such file"):
        corpus(tmp_path / "gone.txt")
    with pytest.raises(CorpusEmpty, match=r"none: no \.txt"):
        corpus(tmp_path / "none")
    with pytest.raises(CorpusEmpty, match="no file matches"):
        corpus(tmp_path / "*.rst")
    with pytest.raises(CorpusEmpty, match=r"blank\.txt: empty"):
        corpus(tmp_path / "blank.txt", tmp_path / "full.txt")
    assert len(corpus(tmp_path / "blank.txt", tmp_path / "full.txt", skip_bad=True).skipped) == 1
    assert corpus(tmp_path).skipped == [], "empty files inside a folder are ordinary"
    with pytest.raises(CorpusEmpty, match=r"1 skipped, the first: blank\.txt"):
        corpus(tmp_path / "blank.txt", skip_bad=True)


def test_skip_bad_counts_files_and_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    # The bad byte comes last: documents that were read before it must go again.
    (tmp_path / "b.txt").write_bytes(b"one" + SEPARATOR.encode() + b"two\xff")
    (tmp_path / "c.jsonl").write_text(LINES + "nonsense\n")
    with pytest.raises(SparsecodeError):
        corpus(tmp_path)
    survey = corpus(tmp_path, skip_bad=True)
    assert len(survey.skipped) == 2
    assert list(survey.sizes) == [4, len("first ä".encode()), len("second\nline")]
    assert list(survey.owner) == [0, 2, 2]


def test_hub_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TextSettings(hf_dataset="someone/texts:small")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"sparsecode\[hf\]"):
        list(find_sources(config).sources[0].pieces(raising))
    calls = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[dict[str, str]]:
        calls.append((args, kwargs))
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    source = find_sources(config).sources[0]
    assert joined(list(source.pieces(raising))) == [row["text"] for row in ROWS]
    assert calls == [(("someone/texts", "small"), {"split": "train"})]


def test_a_dataset_of_the_hub_is_never_asked_to_run_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library asked before its version 4.0, which has no such argument and runs none."""
    calls: list[bool | None] = []

    def load_dataset(
        name: str, configuration: str | None, split: str, trust_remote_code: bool | None = None
    ) -> list[dict[str, str]]:
        calls.append(trust_remote_code)
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(find_sources(TextSettings(hf_dataset="someone/texts")).sources[0].pieces(raising))
    assert calls == [False]


def test_default_corpus_is_the_standard_library_and_what_is_required() -> None:
    found = python_sources()
    listed = [source.name for source in found.sources]
    assert listed == sorted(listed)
    assert {"python/json/__init__.py", "click/core.py", "torch/nn/modules/linear.py", "sympy/core/add.py"} <= set(
        listed
    )
    assert not [name for name in listed if "/tests/" in name or "/test_" in name or name.startswith("/")]
    packages = {name.partition("/")[0] for name in listed}
    assert not packages & {"pytest", "_pytest", "mypy", "hypothesis", "sparsecode"}, "only what sparsecode needs"
    assert {item.metadata["Name"].lower() for item in required_distributions("sparsecode")} >= {
        "torch",
        "sympy",
        "numpy",
    }
    assert required_distributions("no-such-distribution") == []
