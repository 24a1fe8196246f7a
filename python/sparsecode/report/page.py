"""Renders a report: turns sections into one self-contained HTML page that needs no network."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from sparsecode.report.blocks import Examples, Figure, Section, Table
from sparsecode.report.thinness import Banner

_SPACES = "\u00a0\u2002\u2003\u2007\u2009\u202f\u3000"  # spaces in French, typeset and Chinese text
_INVISIBLE = {"\n": "⏎", "\t": "⇥", "\r": "␍"} | dict.fromkeys(_SPACES, "␣")
_JOINERS = {"\u200c", "\u200d"}  # joiners in Persian, Hindi and emoji, invisible by themselves


def render(title: str, subtitle: str, sections: Sequence[Section], banner: Banner | None = None) -> str:
    """The page as HTML. Plotly, which it contains compressed (2 MB instead of 5), draws figures in the browser."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.lstrip_blocks = True
    environment.tests |= {
        "figure": lambda block: isinstance(block, Figure),
        "table": lambda block: isinstance(block, Table),
        "examples": lambda block: isinstance(block, Examples),
    }
    environment.filters |= {"visible": visible, "strength": strength}
    blocks = [block for section in sections for block in section.blocks]
    drawn = [block for block in blocks if isinstance(block, Figure)]
    return environment.get_template("template.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        banner=banner,
        claims=[(section, section.claim) for section in sections if section.claim],
        specs={figure.id: {"data": figure.data, "layout": figure.layout} for figure in drawn},
        plotly=_plotly() if drawn else "",
        css=_file("page.css"),
        js=_file("page.js"),
    )


def visible(token: str) -> str:
    """A token's text with signs for line ends and tabs, and open boxes for spaces that are alone or in a long run."""
    if token and set(token) == {" "}:
        return "␣" * len(token) if len(token) < 3 else f"␣×{len(token)}"
    short = re.sub(" {3,}", lambda run: f"␣×{len(run[0])}", token)
    return "".join(
        _INVISIBLE.get(letter, letter if letter.isprintable() or letter in _JOINERS else "�") for letter in short
    )


def strength(activation: float, peak: float) -> int:
    """Darkness of a token's mark, in per cent of the darkest."""
    return round(100 * max(0.0, min(1.0, activation / peak))) if peak > 0 else 0


def _file(name: str) -> str:
    return (resources.files("sparsecode.report") / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js as base64 of gzip; the same bytes every time."""
    from plotly.offline import get_plotlyjs

    source: Any = get_plotlyjs()
    return base64.b64encode(gzip.compress(source.encode(), 9, mtime=0)).decode()
