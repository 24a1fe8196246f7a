"""The report of a run whose features are known: the page and the JSON say the same."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

import sparsecode
from fake_run import TRUE, FakeDataset, dictionary, fake_starts, fake_sweeps, make_fake_run
from sparsecode import store
from sparsecode.errors import StageMissing
from sparsecode.pipeline import sweeps
from sparsecode.pipeline.config import ReportConfig
from sparsecode.pipeline.report import gather
from sparsecode.pipeline.run import Run
from sparsecode.report.blocks import Section
from sparsecode.report.page import render, strength, visible
from sparsecode.report.sections import ORDER, claim2
from sparsecode.science.claims.c2_bimodality import Distribution, Modes, Shape
from sparsecode.science.claims.verdicts import Finding, Verdict

FIGURES = {
    "found-again", "counts-by-l1", "mcs-histograms", "mcs-by-l1", "consistency", "l0-maps", "mmcs-maps", "growth-curve",
    "growth-by-l1", "participation", "mmcs", "agreement", "motion", "stability-histograms", "fvu-l0", "gpt-loss",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, FakeDataset, dict[str, Any]]:
    run, dataset = make_fake_run(tmp_path_factory.mktemp("report") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: dataset, raising=False)
        patch.setattr(sweeps, "train_both", lambda run, *_, **__: fake_sweeps(run))
        patch.setattr(sweeps, "train_starts", lambda run, *_, **__: fake_starts(run))
        sparsecode.compare_dicts(run, quiet=True)
        sparsecode.check_claims(run, quiet=True, directions=10, contexts=8, draws=100)
        result = sparsecode.write_report(run, quiet=True, features=8, tokens=5, images=False)
    return run, dataset, result


class Reader(HTMLParser):
    """Collects tables by id as rows of text, headings, and everything that would be fetched."""

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
                        digits = len(text.partition(".")[2].rstrip("%"))
                        last = 10.0 ** -(digits + 2 * text.endswith("%")) if "e" not in text else 0
                        assert number == pytest.approx(value, abs=max(0.51 * last, 0.0051))
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
    assert len(page.encode()) == result["bytes"] < 3_000_000
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
    assert set(specs) == FIGURES
    for spec in specs.values():
        go.Figure(json.loads(re.sub(r'"@\w+"', '"#123456"', json.dumps(spec))))  # raises at unknown properties


def test_examples_are_the_tokens_of_the_feature(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, dataset, _ = made
    features = json.loads(run.report_path.with_suffix(".json").read_text())["sections"]["top-tokens"]["features"]
    assert 5 <= len(features["features"]) <= 8, "half of the smallest dictionary was put in everywhere"
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


def test_each_figure_has_its_numbers_as_csv(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, _, result = made
    report = json.loads(run.report_path.with_suffix(".json").read_text())
    assert set(result["figures"]) == {f"{name}.csv" for name in FIGURES} and result["pictures_missing"]
    blocks = {key: block for section in report["sections"].values() for key, block in section.items()}
    for name in FIGURES:
        with (run.figures_path / f"{name}.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == list(blocks[name]["rows"][0])
        for texts, values in zip(rows[1:], blocks[name]["rows"], strict=True):
            assert texts == ["" if value is None else str(value) for value in values.values()]


def test_agreement_and_stability_are_what_was_put_in(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, _, _ = made
    sections = json.loads(run.report_path.with_suffix(".json").read_text())["sections"]
    rows = {(row["dictionary"], row["with"]): row for row in sections["recurrence"]["agreement"]["rows"]}
    record = json.loads(run.comparison_path.read_text())["matched"]
    assert {" -> ".join(pair) for pair in rows} == set(record)
    for (a, b), row in rows.items():
        size, told = int(re.findall(r"n(\d+)_", a)[0]), record[f"{a} -> {b}"]["consistency"]
        assert row["pairs"] == size and row["shared"] == min(size // 2, TRUE), "the half of the atoms that both hold"
        assert (row["PW-MCC"], row["absolute"]) == (told["pw_mcc"], told["pw_mcc_absolute"])
        assert row["low"] < row["PW-MCC"] < row["high"] and row["share from"] < row["share"] < row["share to"]
        assert row["of live"] > row["PW-MCC"], "dead features are random directions"
    stability = sections["stability"]
    others = stability["numbers"]["dictionaries"]
    assert others == 7 and stability["steadiest"]["rows"][0]["found again"] == 1
    bins = stability["stability-histograms"]["rows"]
    for size in (16, 32, 64, 128):
        own = [row for row in bins if row["size"] == size]
        assert [row["stability"] for row in own] == pytest.approx([i / others for i in range(others + 1)])
        assert sum(row["live"] + row["dead"] for row in own) == 2 * size
    by_name = {row["dictionary"]: row for row in stability["stability-by-dictionary"]["rows"]}
    smallest = next(row for name, row in by_name.items() if name.startswith("n16_"))
    assert smallest["in all"] == 8 and smallest["in none"] == smallest["live"] - 8 and not smallest["dead found again"]
    assert smallest["mean stability"] == pytest.approx(8 / smallest["live"])
    assert smallest["from"] < smallest["mean stability"] < smallest["to"]


def test_every_claim_is_judged_on_top_as_in_its_section(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, _, _ = made
    page = run.report_path.read_text()
    report = json.loads(run.report_path.with_suffix(".json").read_text())
    claims = json.loads(run.claims_path.read_text())["claims"]
    table = Reader(page).tables["claims"][1:]
    judged = [section["claim"] for section in report["sections"].values() if "claim" in section]
    assert [row[1] for row in table] == [claim["verdict"] for claim in judged]
    assert [claim["verdict"] for claim in judged] == [claim["verdict"] for claim in claims.values()]
    assert [claim["text"] for claim in judged] == [claim["claim"] for claim in claims.values()]
    for number, section in zip(claims, (s for s in report["sections"].values() if "claim" in s), strict=True):
        assert section["numbers"] == {k: v for k, v in claims[number]["numbers"].items() if k != "examples"}


def test_without_claims_the_page_says_how_to_test_them(tmp_path: Path) -> None:
    run, _ = make_fake_run(tmp_path / "run")
    comparison = sparsecode.compare_dicts(run, quiet=True)
    sections = [section for make in ORDER if (section := make(gather(run, ReportConfig(), comparison))) is not None]
    page = render("t", "s", sections)
    rows = Reader(page).tables["claims"][1:]
    assert len(rows) == 6 and {row[1] for row in rows} == {"not tested"}
    assert f"run: sparsecode claims --run {run.path}" in page
    assert "found-again" in page, "what needs the comparison only is there"


def test_a_claim_gets_its_row_on_top() -> None:
    claim: Finding[None] = Finding("MMCS rises, then plateaus", Verdict("not reproduced", "", "slope 0.2 ± 0.1"))
    page = render("t", "s", [Section("rise", "Rise", claim=claim), Section("plain", "Plain")])
    rows = Reader(page).tables["claims"]
    assert rows[1:] == [["MMCS rises, then plateaus", "not reproduced", "slope 0.2 ± 0.1"]]
    assert page.index('id="claims"') < page.index("<h2")
    assert "claims" not in Reader(render("t", "s", [Section("plain", "Plain")])).tables


def test_one_mode_is_said_to_be_one() -> None:
    fit = Modes((0.4, 0.9), (0.1, 0.1), (0.6, 0.4), 5.0, 0.0)
    all_of_them = Shape(0.01, 0.0, fit, True, 64)
    row = Distribution("run", "n64", 64, 0.1, 0, True, {}, 34, 30, [], [], 0.01, 0.5, fit, False, all_of_them)
    said = claim2._summary([row, replace(row, p=0.7, sweep="plain")])
    assert "p from 0.50 to 0.50" in said and "of all features of n64, 30 dead ones among them, 40%" in said
    one_mode = replace(row, everything=replace(all_of_them, bimodal=False))
    assert claim2._summary([one_mode]).endswith("0.50).")
    assert claim2._summary([replace(row, bimodal=True)]).startswith("Of the live features of n64, 40% come back")
    assert claim2._summary([replace(row, modes=None)]) == ""


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
        sparsecode.write_report(run, quiet=True, images=False)
        for page in (run.report_path, run.report_path.with_suffix(".json")):
            page.unlink()
            sparsecode.write_report(run, quiet=True, images=False)
            assert page.is_file()
    assert found.record["mmcs"]["all"] == [[1.0]] and found.record["steadiest"] == []
    assert "n16" in found.table()
    page = run.report_path.read_text()
    assert "There is one dictionary only." in page and "stability" not in Reader(page).tables
