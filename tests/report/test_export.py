"""The report in a real browser: it draws, without errors, without network, and nothing is wider than the window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import sparsecode
from fake_run import fake_starts, fake_sweeps, make_fake_run
from sparsecode import store
from sparsecode.comparison import Comparison
from sparsecode.pipeline import sweeps
from sparsecode.pipeline.config import ReportConfig
from sparsecode.pipeline.report import gather
from sparsecode.pipeline.run import Run
from sparsecode.report import export
from sparsecode.report.sections import ORDER

CHROMIUM = shutil.which("chromium")
WIDTHS = (360, 1440)

# Runs before the page's own scripts; reports once every figure is drawn, or after ten seconds.
SPY = """<script>
const errors = [];
const note = (text) => errors.push(String(text));
addEventListener("error", (event) => note(event.message || event.target.outerHTML), true);
addEventListener("unhandledrejection", (event) => note(event.reason));
addEventListener("securitypolicyviolation", (event) => note("blocked: " + event.blockedURI));
for (const level of ["error", "warn"]) console[level] = (...words) => note(words.join(" "));
addEventListener("load", async () => {
  const wait = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));
  for (let i = 0; i < 100 && !document.documentElement.dataset.drawn; i++) await wait(100);
  await wait(300);
  const wide = [...document.querySelectorAll("body *")]
    .filter((element) => !element.closest(".scroll, svg") && element.getBoundingClientRect().right > innerWidth + 0.5)
    .map((element) => element.outerHTML.slice(0, 80));
  parent.postMessage({
    width: innerWidth, content: document.documentElement.scrollWidth, wide, errors,
    drawn: [...document.querySelectorAll(".plot")].filter((plot) => plot.querySelector(".main-svg")).length,
    figures: document.querySelectorAll("figure").length,
    background: getComputedStyle(document.body).backgroundColor,
  }, "*");
});
</script>"""

FRAME = """<!DOCTYPE html><title>frames</title><body><pre id="said"></pre><script>
const said = [];
addEventListener("message", (event) => {
  said.push(event.data);
  document.getElementById("said").textContent = JSON.stringify(said);
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    run, dataset = make_fake_run(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: dataset, raising=False)
        patch.setattr(sweeps, "train_both", lambda run, *_, **__: fake_sweeps(run))
        patch.setattr(sweeps, "train_starts", lambda run, *_, **__: fake_starts(run))
        sparsecode.compare_dicts(run, quiet=True)
        sparsecode.check_claims(run, quiet=True, directions=10, contexts=8, draws=100)
        sparsecode.write_report(run, quiet=True, images=False)
    return run.path / "report.html"


def look(page: Path, folder: Path, *, dark: bool = False, spoil: str = "") -> list[dict[str, Any]]:
    """What the page reports in frames of WIDTHS (Chromium's own windows are at least 500 wide)."""
    assert CHROMIUM is not None
    spied = folder / "spied.html"
    spied.write_text(page.read_text().replace("<head>", "<head>" + SPY, 1).replace("</main>", spoil + "</main>", 1))
    frames = "".join(f'<iframe src="{spied.name}" style="border:0;width:{w}px;height:900px"></iframe>' for w in WIDTHS)
    (folder / "frames.html").write_text(FRAME + frames)
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=60000",
        f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        (folder / "frames.html").as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    said = re.search(r'<pre id="said">(.*?)</pre>', dom, re.DOTALL)
    assert said is not None, dom[-2000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(said[1]))
    return sorted(found, key=lambda window: int(window["width"]))


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (apt-get install chromium)")


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_draws_without_errors_and_fits(page: Path, tmp_path: Path, dark: bool) -> None:
    windows = look(page, tmp_path, dark=dark)
    assert [window["width"] for window in windows] == list(WIDTHS)
    for window in windows:
        assert window["errors"] == []
        assert window["drawn"] == window["figures"] == 16
        assert window["content"] <= window["width"]
        assert window["wide"] == []
        red = int(re.findall(r"\d+", window["background"])[0])
        assert (red < 80) == dark


@needs_chromium
def test_the_look_sees_what_is_wrong(page: Path, tmp_path: Path) -> None:
    spoil = (
        '<div style="width: 2000px">wide</div><img src="https://example.org/x.png" alt="">'
        "<script>console.error('said so'); throw new Error('broken')</script>"
    )
    for window in look(page, tmp_path, spoil=spoil):
        assert window["content"] > window["width"]
        assert len(window["wide"]) >= 1
        said = " ".join(window["errors"])
        assert "said so" in said and "broken" in said and "blocked: https://example.org" in said


@needs_chromium
def test_each_figure_becomes_a_picture(page: Path, tmp_path: Path) -> None:
    run = Run(page.parent)
    facts = gather(run, ReportConfig(), Comparison.load(run.comparison_path))
    figures = export.figures_of([section for make in ORDER if (section := make(facts)) is not None])
    names, why = export.write_png(page.read_text(), figures, tmp_path)
    assert why is None and len(names) == 16
    for figure in figures:
        data = (tmp_path / f"{figure.id}.png").read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 10_000, figure.id
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        assert (width, height) == (export.WIDTH * export.SCALE, figure.height * export.SCALE)


def test_without_a_browser_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    names, why = export.write_png("<body></body>", [], tmp_path)
    assert names == [] and why is not None and "chromium" in why
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    names, why = export.write_png("<body></body>", [], tmp_path)
    assert names == [] and why is not None and "failed" in why
