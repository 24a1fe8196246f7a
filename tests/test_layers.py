"""Data flows one way: checks from the sources which package may import which.

The library takes data and returns objects; the pipeline and the command line take run folders, settings and flags. So
nothing below `pipeline` knows a run, a stage's settings or a flag, and nothing there writes to a terminal. No two
modules import each other, not even through others.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python/sparsecode"

# Each package or module at the top level, and what it may import beside itself; a dotted name allows that module alone.
ALLOWED: dict[str, set[str]] = {
    # leaves, which load neither torch nor numpy
    "_core": set(),
    "errors": set(),
    "version": set(),
    "watch": set(),
    "records": set(),
    "machine": {"errors"},
    "world": {"errors", "machine"},
    "checkpoint": {"errors"},
    "kernels": set(),
    # the library, from rows on disk to pages
    "store": {"_core", "errors", "machine"},
    "corpus": {"checkpoint", "errors", "watch"},
    "gpt": {"_core", "checkpoint", "errors"},
    "harvest": {"checkpoint", "corpus", "errors", "gpt", "machine", "store", "version", "watch"},
    "dictionary": {"checkpoint", "errors", "machine"},
    "sweep": {"_core", "checkpoint", "dictionary", "errors", "kernels", "machine", "store", "watch", "world"},
    "interop": {"checkpoint", "dictionary", "errors", "gpt"},
    "comparison": {"_core", "checkpoint", "dictionary", "errors", "interop", "machine", "records", "sweep", "watch"},
    "consensus": {"_core", "comparison", "dictionary", "errors", "machine", "records", "sweep", "watch"},
    "evaluation": {"dictionary", "errors", "harvest", "machine", "sweep"},
    "science": {"comparison", "dictionary", "errors", "machine", "records", "store", "sweep", "watch"},
    "interpretation": {"checkpoint", "comparison", "corpus", "dictionary", "errors", "gpt", "harvest", "records",
                       "science", "store", "sweep", "watch"},
    "browser": {"checkpoint", "comparison", "corpus", "dictionary", "errors", "gpt", "harvest", "interpretation",
                "science", "watch"},
    "report": {"checkpoint", "comparison", "consensus", "records", "science"},
    # the application
    "pipeline": {"_core", "browser", "checkpoint", "comparison", "consensus", "corpus", "dictionary", "errors",
                 "evaluation", "gpt", "harvest", "interop", "interpretation", "machine", "records", "report", "science",
                 "store", "sweep", "version", "watch", "world"},
    "cli": {"_core", "browser", "checkpoint", "comparison", "consensus", "dictionary", "errors", "evaluation",
            "interop", "machine", "pipeline", "records", "store", "sweep"},
    "__main__": {"cli"},
    "run": {"pipeline"},  # an old name
    "__init__": {"errors", "version"},  # it gives the other names when they are first used
}  # fmt: skip
APPLICATION = {"pipeline", "cli", "__main__", "run"}
WITHOUT_TORCH = (
    "errors", "version", "watch", "records", "machine", "checkpoint", "pipeline.settings", "pipeline.config",
    "pipeline.preset", "pipeline.run", "pipeline.opening", "pipeline.recall", "pipeline.stale", "pipeline.progress",
    "pipeline.advice", "dictionary.files", "interop.formats",
)  # fmt: skip

FLAG = re.compile(r"(?<![\w-])--[a-z]|sparsecode (?:train-|harvest|compare|claims|baselines|toy|report|eval)")
WRITES = re.compile(r"(?<![.\w])print\(|\bsys\.std(?:out|err)\b")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def owner(file: Path) -> str:
    """The package or module at the top level that a file belongs to."""
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else file.stem


def module_of(file: Path) -> str:
    """Its dotted name."""
    parts = ("sparsecode", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Dotted names that a module imports, type checking and function bodies included."""
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
        if parts[0] != "sparsecode" or len(parts) == 1 or parts[1] == owner or parts[1] not in ALLOWED:
            continue
        if parts[1] not in ALLOWED[owner] and ".".join(parts[1:3]) not in ALLOWED[owner]:
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


def words(text: str) -> list[str]:
    """Every string of a source that is no docstring."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs]  # fmt: skip


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    left = {module: set(imports) for module, imports in edges.items()}
    while free := [module for module, imports in left.items() if not imports & left.keys()]:
        for module in free:
            del left[module]
    while free := [module for module in left if not any(module in imports for imports in left.values())]:
        for module in free:
            del left[module]
    return [sorted(left)] if left else []


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    assert owner(file) in ALLOWED, f"{file.relative_to(ROOT)}: new at the top level; say in ALLOWED what it may know"
    text = file.read_text()
    if owner(file) == "__init__":
        text = without_type_checking(text)
    assert not violations(text, owner(file), module_of(file), is_package=file.stem == "__init__")


def test_no_module_imports_itself_through_others() -> None:
    modules = {module_of(file): file for file in sources() if owner(file) != "__init__"}

    def known(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    edges = {
        module: {known(name) for name in imported(ast.parse(file.read_text()), module, is_package=False)} - {module, ""}
        for module, file in modules.items()
    }
    assert circles(edges) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


@pytest.mark.parametrize(
    "file",
    [file for file in sources() if owner(file) not in APPLICATION | {"kernels", "__init__"}],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_the_library_names_no_flag_and_writes_to_no_terminal(file: Path) -> None:
    text = file.read_text()
    if file.name != "export.py":  # which calls a browser, whose flags these are
        assert [found for found in words(text) if FLAG.search(found)] == []
    assert not WRITES.search(text)


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("corpus", "from sparsecode.gpt import GPT"),
        ("gpt", "import sparsecode.harvest"),
        ("store", "from sparsecode.dictionary import Dictionary"),
        ("corpus", "from sparsecode.pipeline.config import TrainGptConfig"),
        ("sweep", "from sparsecode.pipeline.run import Run"),
        ("sweep", "from sparsecode.cli import main"),
        ("sweep", "def f():\n    from sparsecode import comparison"),
        ("sweep", "from ..report import page"),
        ("sweep", "from .. import report"),
        ("comparison", "if TYPE_CHECKING:\n    from sparsecode.report import page"),
        ("harvest", "import importlib\nimportlib.import_module('sparsecode.sweep')"),
        ("interop", "from sparsecode.sweep import Sweep"),
        ("dictionary", "from sparsecode.sweep import Sweep"),
        ("interop", "from sparsecode.comparison import load_members"),
        ("sweep", "from sparsecode.interop import load_dictionary"),
        ("kernels", "from sparsecode.sweep import Sweep"),
        ("report", "from sparsecode.pipeline.replicate import replicate"),
    ],
)
def test_a_wrong_import_is_found(owner: str, text: str) -> None:
    assert violations(text, owner, f"sparsecode.{owner}.module")


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("report", "from sparsecode.comparison import Comparison\nfrom sparsecode.science.claims import judge"),
        (
            "sweep",
            "from sparsecode.kernels import forward\nfrom sparsecode.store import Dataset\nfrom .settings import x",
        ),
        ("interop", "from sparsecode.dictionary import Dictionary"),
        ("comparison", "from sparsecode.interop import load_dictionary"),
        ("harvest", "import sparsecode\nfrom sparsecode import errors"),
        ("cli", "from sparsecode.pipeline.report import write_report"),
    ],
)
def test_a_right_import_is_not(owner: str, text: str) -> None:
    assert not violations(text, owner, f"sparsecode.{owner}.module")


def test_a_flag_is_found_and_a_docstring_may_name_one() -> None:
    assert [bool(FLAG.search(text)) for text in ("lower --lr", "run: sparsecode harvest", "a -- b", "x--y")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert words('"""--lr"""\nx = "--lr"') == ["--lr"]


def test_help_loads_without_torch() -> None:
    script = (
        f"import importlib, sys\nfor name in {WITHOUT_TORCH}:\n    importlib.import_module('sparsecode.' + name)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_rust_core_knows_no_python() -> None:
    outside = [file for file in (ROOT / "src").rglob("*.rs") if file.relative_to(ROOT / "src").parts[0] != "python"]
    assert len(outside) > 5
    assert not [str(file.relative_to(ROOT)) for file in outside if "pyo3" in file.read_text()]
    assert not FLAG.search((ROOT / "src/error.rs").read_text())
