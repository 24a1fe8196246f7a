"""The folder that a browser opens: a page, and data in scripts, since a page from a disk may not fetch its neighbours.

FOLDER/index.html              the page, with its styles and its code; written last
FOLDER/data/run.js             the run and its dictionaries
FOLDER/data/tokens-P.js        texts of tokens, TOKENS of them in each part
FOLDER/data/SLUG/list-P.js     columns over LISTED features of a dictionary
FOLDER/data/SLUG/0007.js       SHARD features with all that is shown of each

Each script is a line `sparsecode.take("SLUG/0007", "...")` with base64 of gzip of JSON.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from sparsecode.checkpoint import write_bytes, write_text

FORMAT = 1
SHARD = 64  # features: about 160 kB of a run of twelve dictionaries
LISTED = 16_384  # features: half a MB
TOKENS = 65_536
PAGE, DATA = "index.html", "data"
_BEFORE, _AFTER = b'sparsecode.take("%s", "', b'");\n'


def write(folder: Path, name: str, value: Any) -> None:
    """Writes a script; the same value gives the same bytes."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    packed = base64.b64encode(gzip.compress(text, 9, mtime=0))
    write_bytes(folder / DATA / f"{name}.js", _BEFORE % name.encode() + packed + _AFTER)


def read(folder: Path, name: str) -> Any:
    """What a script holds."""
    data = (folder / DATA / f"{name}.js").read_bytes()
    packed = data.removeprefix(_BEFORE % name.encode()).removesuffix(_AFTER)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def write_page(folder: Path) -> None:
    """Writes the page itself."""
    parts = {name: (resources.files("sparsecode.browser") / f"page.{name}").read_text("utf-8")
             for name in ("html", "css", "js")}  # fmt: skip
    page = parts["html"].replace("/*CSS*/", parts["css"]).replace("/*JS*/", parts["js"])
    write_text(folder / PAGE, page)


def slugs(names: Iterable[str]) -> dict[str, str]:
    """A folder's name for each dictionary, all different, that every system and every address takes as it is."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")[-80:] or "_"
        slug, number = plain, 1
        while slug.lower() in {one.lower() for one in found.values()}:
            slug, number = f"{plain}~{number}", number + 1
        found[name] = slug
    return found


def parts(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Stretches of `size`, the last one shorter; one empty stretch of nothing."""
    return [values[start : start + size] for start in range(0, max(len(values), 1), size)]


def short(value: float, digits: int = 4) -> float | None:
    """A number with so many digits; None for what JSON cannot hold."""
    return float(f"{value:.{digits}g}") if value == value and abs(value) != float("inf") else None
