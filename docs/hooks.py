"""What `make docs` adds to the pages of this folder: those of the repository's root, and the reference of the package.

A package has a page in the reference where its `__init__.py` says in `__all__` what is public.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
PACKAGE = ROOT / "python/sparsecode"
PUBLIC = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py") if "__all__" in file.read_text())
MODULES = ["sparsecode", "sparsecode.errors", *(f"sparsecode.{name}" for name in PUBLIC)]


def on_config(config: MkDocsConfig) -> None:
    """Lists the reference in the navigation."""
    assert config.nav is not None
    config.nav.append({"Reference": [{name: f"reference/{name}.md"} for name in MODULES]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages, with links as they are from here."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/)", "](index.md)").replace('src="docs/', 'src="')
        text = text.replace("](docs/", "](").replace("](CONTRIBUTING.md", "](contributing.md")
        files.append(File.generated(config, page, content=text))
    for name in MODULES:
        files.append(File.generated(config, f"reference/{name}.md", content=f"# {name}\n\n::: {name}\n"))
