"""Data flows one way: checks from the sources which package may import which.

    corpus -> gpt -> harvest -> sweep -> compare -> science -> report

A stage imports from stages to its left, from the store, and from the leaves. The store and the kernels know no stage.
interop knows the dictionary alone. The command line and the pipeline know everything, and nothing knows them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python/sparsecode"
STAGES = ["corpus", "gpt", "harvest", "sweep", "compare", "science", "report"]
LEAVES = {"config", "errors", "run", "recall", "stale", "checkpoint", "progress", "machine", "_core"}
TOPS = {"cli", "pipeline", "forecast", "__main__"}

ALLOWED: dict[str, set[str]] = dict.fromkeys(LEAVES, LEAVES)
ALLOWED["store"] = LEAVES
ALLOWED["kernels"] = set()
for place, stage in enumerate(STAGES):
    ALLOWED[stage] = LEAVES | {"store", "kernels"} | set(STAGES[:place])
# Other libraries' formats: between the dictionary (and the GPT), which it makes, and the stages that take any of them.
ALLOWED["interop"] = LEAVES | {"sweep.dictionary", "gpt"}
for taker in ("compare", "science", "report"):
    ALLOWED[taker] = ALLOWED[taker] | {"interop"}
for top in TOPS:
    ALLOWED[top] = LEAVES | set(STAGES) | TOPS | {"store", "kernels", "interop"}
# The package's root re-exports names when they are first used: it imports no stage itself (see below).
ALLOWED["__init__"] = LEAVES
# Models of other libraries become the project's GPT and back.
ALLOWED["interop"] = ALLOWED["interop"] | {"gpt"}
# Dictionaries inside their model: right of both, and nothing but the command line asks for it.
ALLOWED["evaluate"] = LEAVES | {"store", "corpus", "gpt", "harvest", "sweep"}
for top in TOPS:
    ALLOWED[top] = ALLOWED[top] | {"evaluate"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def owner(file: Path) -> str:
    """The stage, leaf or top that a file belongs to."""
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else file.stem


def imported(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Dotted names under sparsecode that a module imports, type checking and function bodies included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                home = module.split(".")[: None if is_package else -1]
                home = home[: len(home) - node.level + 1]
                base = ".".join([*home, base] if base else home)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def violations(text: str, owner: str, module: str, *, is_package: bool = False) -> list[str]:
    """Imports in `text` that `owner` may not make."""
    found = []
    for name in imported(ast.parse(text), module, is_package=is_package):
        parts = name.split(".")
        if parts[0] != "sparsecode" or len(parts) == 1:
            continue
        target = parts[1]
        if target not in ALLOWED or target == owner:
            continue  # a name that the root gives (sparsecode.__version__), or a neighbour
        if target not in ALLOWED[owner] and ".".join(parts[1:3]) not in ALLOWED[owner]:
            found.append(f"{module} ({owner}) imports {name}")
    return found


def without_type_checking(text: str) -> str:
    """The source without its `if TYPE_CHECKING:` blocks."""
    tree = ast.parse(text)
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    ]
    return ast.unparse(tree)


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_left(file: Path) -> None:
    assert owner(file) in ALLOWED, f"{file.relative_to(ROOT)}: new at the top level; say in ALLOWED what it may know"
    text = file.read_text()
    if owner(file) == "__init__":
        text = without_type_checking(text)
    inner = file.relative_to(PACKAGE).with_suffix("").parts
    module = ".".join(("sparsecode", *(inner[:-1] if file.stem == "__init__" else inner)))
    assert not violations(text, owner(file), module, is_package=file.stem == "__init__")


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("corpus", "from sparsecode.gpt import GPT"),
        ("gpt", "import sparsecode.harvest"),
        ("store", "from sparsecode.sweep.dictionary import Dictionary"),
        ("config", "from sparsecode.corpus import tokens"),
        ("sweep", "from sparsecode.cli import main"),
        ("sweep", "def f():\n    from sparsecode import compare"),
        ("sweep", "from ..report import page"),
        ("sweep", "from .. import report"),
        ("compare", "if TYPE_CHECKING:\n    from sparsecode.report import page"),
        ("harvest", "import importlib\nimportlib.import_module('sparsecode.sweep')"),
        ("interop", "from sparsecode.sweep import train_dicts"),
        ("interop", "from sparsecode.compare import load_members"),
        ("sweep", "from sparsecode.interop import load_dictionary"),
        ("kernels", "from sparsecode.sweep import Sweep"),
        ("report", "from sparsecode.pipeline import replicate"),
    ],
)
def test_a_wrong_import_is_found(owner: str, text: str) -> None:
    assert violations(text, owner, f"sparsecode.{owner}.module")


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("report", "from sparsecode.corpus import Tokens\nfrom sparsecode.science import claims"),
        (
            "sweep",
            "from sparsecode.kernels import forward\nfrom sparsecode.store import Dataset\nfrom .settings import x",
        ),
        ("interop", "from sparsecode.sweep.dictionary import Dictionary"),
        ("compare", "from sparsecode.interop import load_dictionary"),
        ("harvest", "import sparsecode\nfrom sparsecode import errors"),
        ("cli", "from sparsecode.report import write_report\nfrom sparsecode.pipeline import replicate"),
    ],
)
def test_a_right_import_is_not(owner: str, text: str) -> None:
    assert not violations(text, owner, f"sparsecode.{owner}.module")


def test_the_leaves_load_without_torch() -> None:
    leaves = sorted(LEAVES - {"_core"})
    script = (
        f"import sys\nfrom sparsecode import {', '.join(leaves)}\nassert not {{'torch', 'numpy'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_rust_core_knows_no_python() -> None:
    outside = [file for file in (ROOT / "src").rglob("*.rs") if file.relative_to(ROOT / "src").parts[0] != "python"]
    assert len(outside) > 5
    assert not [str(file.relative_to(ROOT)) for file in outside if "pyo3" in file.read_text()]
