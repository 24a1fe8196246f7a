"""Adds to the pages of this folder what `make docs` shows beside them: the root's pages, the notebooks, the reference.

A package has a page in the reference if its `__init__.py` says in `__all__` what is public.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
NOTEBOOKS = {file.stem: file for file in sorted((ROOT / "examples").glob("*.py")) if "\n# %%" in file.read_text()}
PUBLIC = [file.parent.name for file in ROOT.glob("python/sparsecode/*/__init__.py") if "__all__" in file.read_text()]
MODULES = ["sparsecode", "sparsecode.errors", *(f"sparsecode.{name}" for name in sorted(PUBLIC))]


class Doctests(Extension):
    """Puts the examples in docstrings into fences."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Changes the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^>>> .*?(?=\n\n|\Z)", r"```pycon\n\g<0>\n```", obj.docstring.value, flags=re.MULTILINE | re.DOTALL
            )


def on_config(config: MkDocsConfig) -> None:
    """Lists the added pages in the navigation."""
    assert config.nav is not None
    config.nav.insert(1, {"Notebooks": [f"examples/{name}.md" for name in NOTEBOOKS]})
    config.nav.append({"Reference": [{name: f"reference/{name}.md"} for name in MODULES]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages, with links relative to this folder."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/)", "](index.md)").replace('src="docs/', 'src="')
        text = text.replace("](docs/", "](").replace("](CONTRIBUTING.md", "](contributing.md")
        files.append(File.generated(config, page, content=re.sub(r"(\]\(examples/\w+)\.py\)", r"\1.md)", text)))
    for name, file in NOTEBOOKS.items():
        files.append(File.generated(config, f"examples/{name}.md", content=as_markdown(file.read_text())))
    for name in MODULES:
        files.append(File.generated(config, f"reference/{name}.md", content=f"# {name}\n\n::: {name}\n"))


def as_markdown(notebook: str) -> str:
    """The cells of a notebook of percent format: text, and code in fences."""
    _, *parts = re.split(r"^# %%(.*)\n", notebook, flags=re.MULTILINE)
    cells = []
    for kind, cell in zip(parts[::2], parts[1::2], strict=True):
        text = re.sub(r"^# ?", "", cell, flags=re.MULTILINE)
        cells.append(text if "[markdown]" in kind else f"```python\n{cell.strip()}\n```\n")
    return "\n".join(cells)
