"""Every failure has its own class in Rust and in Python, and a message."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from sparsecode import errors
from sparsecode.errors import SparsecodeError

ROOT = Path(__file__).parents[1]
CLASSES = {
    name: found
    for name, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__ and issubclass(found, Exception)
}


def rust_classes() -> set[str]:
    """Names that the functions `class` of the core's errors give."""
    text = "\n".join(file.read_text() for file in (ROOT / "src").rglob("*.rs"))
    bodies = re.findall(r"fn class\(&self\) -> &'static str \{(.*?)\n    \}", text, re.DOTALL)
    return {name for body in bodies for name in re.findall(r'=> "(\w+)"', body)}


def test_each_name_that_rust_gives_is_a_python_class() -> None:
    assert rust_classes() >= {"RunLocked", "OutOfSpace", "IoFailed", "InvalidArgument"}  # the patterns still match
    assert rust_classes() <= CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_is_documented_and_ends_with_a_known_code(name: str) -> None:
    found = CLASSES[name]
    assert issubclass(found, SparsecodeError)
    assert "__doc__" in vars(found), "its own docstring, not one inherited"
    assert (found.__doc__ or "").strip()
    assert found.exit_code in {1, 2, 3}


def test_no_class_is_defined_twice() -> None:
    names = [node.name for node in ast.parse(inspect.getsource(errors)).body if isinstance(node, ast.ClassDef)]
    assert sorted(names) == sorted(set(names))


def test_each_class_is_used() -> None:
    sources = [*(ROOT / "python").rglob("*.py"), *(ROOT / "src").rglob("*.rs")]
    text = "\n".join(file.read_text() for file in sources if file.name != "errors.py")
    bases = {base.id for node in ast.walk(ast.parse(inspect.getsource(errors))) if isinstance(node, ast.ClassDef)
             for base in node.bases if isinstance(base, ast.Name)}  # fmt: skip
    unused = {name for name in CLASSES if not re.search(rf"\b{name}\b", text)} - bases
    assert not unused


def test_messages_of_the_core_arrive(tmp_path: Path) -> None:
    from sparsecode._core import FileLock

    held = FileLock(tmp_path / "lock")
    with pytest.raises(errors.RunLocked, match="another process is writing here"):
        FileLock(tmp_path / "lock")
    held.release()
    with pytest.raises(errors.IoFailed):
        FileLock(tmp_path / "none" / "lock")
