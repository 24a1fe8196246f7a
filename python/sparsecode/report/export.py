"""Exports each figure of a report: its numbers as CSV, and a picture as PNG, drawn by a headless Chromium."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sparsecode.checkpoint import write_bytes, write_text
from sparsecode.report.blocks import Figure, Section

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, SCALE = 900, 2  # of a PNG: 1,800 pixels wide
LIMIT = 120  # seconds for all figures of a page


def figures_of(sections: Sequence[Section]) -> list[Figure]:
    """All figures of a report, in order."""
    return [block for section in sections for block in section.blocks if isinstance(block, Figure)]


def write_csv(figures: Sequence[Figure], folder: Path) -> list[str]:
    """Writes ID.csv for each figure; returns the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.title for column in figure.table.columns])
        writer.writerows(["" if value is None else value for value in row] for row in figure.table.rows)
        write_text(folder / f"{figure.id}.csv", text.getvalue())
    return [f"{figure.id}.csv" for figure in figures]


def browser() -> str | None:
    """The first of BROWSERS on PATH."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def write_png(page: str, figures: Sequence[Figure], folder: Path) -> tuple[list[str], str | None]:
    """Writes ID.png for each figure of a page, in its light colours.

    Returns:
        The names written, and why there are none; a missing or failing browser is not an error.
    """
    program = browser()
    if program is None:
        return [], f"no picture files: none of {', '.join(BROWSERS)} is on PATH"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {figure.id: figure.height for figure in figures}
    with tempfile.TemporaryDirectory() as place:
        drawn = Path(place) / "page.html"
        drawn.write_text(page.replace("</body>", _DRAW.replace("SIZES", json.dumps(sizes)) + "</body>", 1))
        command = [
            program, "--headless=new", "--disable-gpu", "--dump-dom", "--virtual-time-budget=60000",
            f"--user-data-dir={place}/profile", "--blink-settings=preferredColorScheme=1",
            *(["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []),  # a sandbox needs another user
            drawn.as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True, errors="replace")
        except (OSError, subprocess.SubprocessError) as error:
            return [], f"no picture files: {Path(program).name} failed ({type(error).__name__})"
    found = re.search(r'<pre id="pictures">(.*?)</pre>', done.stdout, re.DOTALL)
    pictures: dict[str, str] = json.loads(html.unescape(found[1])) if found else {}
    for name, picture in pictures.items():
        write_bytes(folder / f"{name}.png", base64.b64decode(picture.partition(",")[2]))
    missing = sorted(sizes.keys() - pictures.keys())
    why = f"no picture of {', '.join(missing)}: {Path(program).name} did not draw it" if missing else None
    return [f"{name}.png" for name in sizes if name in pictures], why


# The page draws itself; then every figure is drawn once more into a picture, and all of them are written where
# --dump-dom shows them.
_DRAW = f"""<script>
addEventListener("load", async () => {{
  const sizes = SIZES;
  const wait = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));
  for (let i = 0; i < 300 && !document.documentElement.dataset.drawn; i++) await wait(100);
  const pictures = {{}};
  const paper = getComputedStyle(document.body).backgroundColor;
  for (const plot of document.querySelectorAll(".plot")) {{
    const layout = {{ ...plot.layout, paper_bgcolor: paper, width: {WIDTH}, height: sizes[plot.dataset.figure] }};
    const figure = {{ data: plot.data, layout: layout }};
    pictures[plot.dataset.figure] = await Plotly.toImage(
      figure, {{ format: "png", width: {WIDTH}, height: sizes[plot.dataset.figure], scale: {SCALE} }});
  }}
  const said = document.createElement("pre");
  said.id = "pictures";
  said.textContent = JSON.stringify(pictures);
  document.body.replaceChildren(said);
}});
</script>
"""
