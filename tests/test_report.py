"""The report of a run whose features are known: what the page says is what the JSON says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

import sparsecode
from fake_run import TRUE, FakeDataset, dictionary, make_fake_run
from sparsecode import store
from sparsecode.config import ReportConfig
from sparsecode.errors import StageMissing
from sparsecode.report.blocks import Claim, Section
from sparsecode.report.examples import select, top_rows
from sparsecode.report.page import render, strength, visible
from sparsecode.report.sections import ORDER
from sparsecode.report.stage import gather
from sparsecode.run import Run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, FakeDataset, dict[str, Any]]:
    run, dataset = make_fake_run(tmp_path_factory.mktemp("report") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: dataset, raising=False)
        sparsecode.compare_dicts(run, quiet=True)
        result = sparsecode.write_report(run, quiet=True, features=8, tokens=5)
    return run, dataset, result


class Reader(HTMLParser):
    """Tables by id as rows of texts, headings, and whatever would be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.headings: list[str] = []
        self.fetched: list[str] = []
        self._rows: list[list[str]] = []
        self._into: list[str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.fetched += [value for key in ("src", "href") if (value := found.get(key)) and value[0] != "#"]
        if tag == "table":
            self._rows = self.tables[found["id"] or ""] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th") and self._rows:
            self._rows[-1].append("")
            self._into = self._rows[-1]
        elif tag in ("h1", "h2", "h3"):
            self.headings.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "table"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def test_the_page_says_what_the_json_says(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, _, result = made
    page, report = run.report_path.read_text(), json.loads(run.report_path.with_suffix(".json").read_text())
    tables = Reader(page).tables
    compared = 0
    for section in report["sections"].values():
        if section["summary"]:
            assert section["summary"].replace("&", "&amp;") in page
        for block_id, block in section.items():
            if not isinstance(block, dict) or "rows" not in block:
                continue
            shown = tables.get(block_id) or tables[f"{block_id}-numbers"]
            assert shown[0] == list(block["rows"][0])
            for texts, values in zip(shown[1:], block["rows"], strict=True):
                for text, value in zip(texts, values.values(), strict=True):
                    if isinstance(value, int | float):
                        number = float(text.rstrip("%").replace(",", "")) / (100 if text.endswith("%") else 1)
                        assert number == pytest.approx(value, abs=0.005)
                        compared += 1
                    else:
                        assert text == ("–" if value is None else value)
    assert compared > 500
    assert list(report["summary"].values()) == result["summary"]
    sweep = report["sections"]["dictionaries"]["sweep"]["rows"]
    assert [row["size"] for row in sweep] == [16, 32, 64, 128] * 2
    assert sweep[0]["above 0.9"] == 0.5, "half of the features were put in"


def test_the_page_stands_alone(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, _, result = made
    page = run.report_path.read_text()
    assert len(page.encode()) == result["bytes"] < 2_500_000
    reader = Reader(page)
    assert set(reader.fetched) == {"data:,"}
    assert reader.headings[0] == "h1" and reader.headings.count("h1") == 1
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_figures_are_plotly_figures(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    page = made[0].report_path.read_text()
    specs = json.loads(re.findall(r'id="specs">(.*?)</script>', page)[0])
    css = page[page.index("<style>") : page.index("</style>")]
    names = set(re.findall(r'"@(\w+)"', json.dumps(specs)))
    assert {name for name in names if css.count(f"--{name}:") != 2} == set(), "each colour is set for light and dark"
    assert set(specs) == {"found-again", "mcs-histograms", "mmcs", "motion", "fvu-l0", "gpt-loss"}
    for spec in specs.values():
        go.Figure(json.loads(re.sub(r'"@\w+"', '"#123456"', json.dumps(spec))))  # raises at unknown properties


def test_examples_are_the_tokens_of_the_feature(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, dataset, _ = made
    features = json.loads(run.report_path.with_suffix(".json").read_text())["sections"]["top-tokens"]["features"]
    assert len(features["features"]) == 8
    shown = 0
    for feature in features["features"]:
        size, seed = re.findall(r"n(\d+)_.*_s(\d+)", feature["dictionary"])[0]
        true = int(dictionary(int(size), int(seed))[1][feature["feature"]])
        strengths = [example["activation"] for example in feature["examples"]]
        assert strengths == sorted(strengths, reverse=True)
        for example in feature["examples"]:
            assert len(example["tokens"]) == len(example["activations"]) <= 16
            assert example["activations"][example["peak"]] == pytest.approx(example["activation"])
            if example["activation"] > 0.9:
                assert int(dataset.ids[example["row"]]) % TRUE == true
                shown += 1
    assert shown > 10


@pytest.mark.parametrize("chunk", [7, 100, 4096])
def test_streaming_top_k_equals_sorting_everything(made: tuple[Run, FakeDataset, dict[str, Any]], chunk: int) -> None:
    _, dataset, _ = made
    parts = [select(dictionary(32, 0)[0], [3, 1]), select(dictionary(64, 1)[0], [5])]
    rows = 1000
    top = top_rows(dataset, parts, 6, rows, chunk=chunk)
    for f, (n, seed, feature) in enumerate([(32, 0, 3), (32, 0, 1), (64, 1, 5)]):
        codes = dictionary(n, seed)[0].encode(dataset.read(0, rows))[:, feature]
        expected = codes.sort(descending=True, stable=True)
        torch.testing.assert_close(top.values[f], expected.values[:6], atol=1e-5, rtol=0)
        positive = top.rows[f] >= 0
        torch.testing.assert_close(codes[top.rows[f][positive]], top.values[f][positive], atol=1e-5, rtol=0)
        assert int(top.fired[f]) == int((codes > 0).sum())


def test_a_feature_that_never_fires_has_no_rows(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    silent = select(dictionary(16, 0)[0], [0])
    silent.b_enc -= 100
    top = top_rows(made[1], [silent], 3, 50)
    assert top.rows.tolist() == [[-1, -1, -1]] and top.fired.tolist() == [0]


def test_other_text_means_no_examples_but_a_report(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, dataset, _ = made
    strange = FakeDataset(dataset.activations, np.array(dataset.ids), {**dataset.provenance, "tokens_fingerprint": "x"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: strange, raising=False)
        facts = gather(run, ReportConfig(), sparsecode.compare_dicts(run, quiet=True), quiet=True)
    assert facts.examples == []
    sections = [section for make in ORDER if (section := make(facts)) is not None]
    page = render("t", "s", sections)
    assert "not harvested from this run" in page


def test_a_claim_gets_its_row_on_top() -> None:
    claim = Claim("MMCS rises, then plateaus", "not reproduced", "slope 0.2 ± 0.1")
    page = render("t", "s", [Section("rise", "Rise", claim=claim), Section("plain", "Plain")])
    rows = Reader(page).tables["claims"]
    assert rows[1:] == [["MMCS rises, then plateaus", "not reproduced", "slope 0.2 ± 0.1"]]
    assert page.index('id="claims"') < page.index("<h2")
    assert "claims" not in Reader(render("t", "s", [Section("plain", "Plain")])).tables


def test_text_is_escaped_and_visible() -> None:
    page = render("<b>", "</script>", [Section("a", "<i>", "<u>")])
    assert "<i>" not in page and "<u>" not in page and "&lt;u&gt;" in page
    assert [visible(token) for token in (" a", "\n\n", "\t", "  ", " " * 8, "\x00", "é", "\n      x")] == [
        " a", "⏎⏎", "⇥", "␣␣", "␣×8", "�", "é", "⏎␣×6x",
    ]  # fmt: skip
    assert [strength(value, 2.0) for value in (-1.0, 0.0, 1.0, 2.0, 3.0)] == [0, 0, 50, 100, 100]
    assert strength(1.0, 0.0) == 0


def test_needs_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="sparsecode compare"):
        sparsecode.write_report(tmp_path)


def test_one_dictionary_alone_has_a_report(tmp_path: Path) -> None:
    run, dataset = make_fake_run(tmp_path / "run", sizes=(16,), seeds=(0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: dataset, raising=False)
        found = sparsecode.compare_dicts(run, quiet=True)
        sparsecode.write_report(run, quiet=True)
        run.report_path.unlink()
        sparsecode.write_report(run, quiet=True)
    assert found.record["mmcs"]["all"] == [[1.0]] and found.record["steadiest"] == []
    assert "n16" in found.table()
    assert "There is one dictionary only." in run.report_path.read_text()
