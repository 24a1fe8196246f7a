"""The tests of a module are found by its name: those of sweep/start.py are in tests/sweep/test_start.py.

A topic may follow the name (test_cpu_idle.py tests cpu.py), and a subpackage counts as a module (test_gpu.py). What
concerns no single package is at the top.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "python/sparsecode"
# Folders that stand for no package: files that are read, what tests share, and what other programs run.
OTHERS = {"fixtures", "interpreted", "peers", "soak", "support"}
# Files that test several modules of their package together.
SEVERAL = {
    "cli/test_fuzz.py",  # every command
    "cli/test_paths.py",  # every command
    "kernels/test_gates.py",  # the machine code of every kernel
    "kernels/test_interpreter.py",  # what every kernel computes
}


def modules(package: Path) -> set[str]:
    """Names of the modules and subpackages of a package."""
    return {path.stem for path in package.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))} - {"__init__"}


def module_of(name: str, package: Path) -> str | None:
    """The module that a test file is named for: the longest name that fits."""
    topic = name.removesuffix(".py").removeprefix("test_")
    fitting = [module for module in modules(package) if f"{topic}_".startswith(f"{module}_")]
    return max(fitting, key=len, default=None) if name.startswith("test_") and name.endswith(".py") else None


def complaint(path: str) -> str | None:
    """What is wrong with the place or the name of a file in tests/; None where nothing is."""
    folder, _, name = path.rpartition("/")
    if not folder:
        home = module_of(name, PACKAGE)
        is_package = home is not None and (PACKAGE / home).is_dir()
        return f"{path}: belongs in tests/{home}/" if is_package else None
    if folder.split("/")[0] in OTHERS or path in SEVERAL:
        return None
    if not (PACKAGE / folder).is_dir():
        return f"{path}: sparsecode has no package {folder}"
    return None if module_of(name, PACKAGE / folder) else f"{path}: named for no module of sparsecode/{folder}"


def test_every_file_is_where_its_module_says() -> None:
    paths = sorted(file.relative_to(TESTS).as_posix() for file in TESTS.rglob("*.py"))
    assert len(paths) > 100
    assert [found for path in paths if (found := complaint(path))] == []


def test_exceptions_are_needed() -> None:
    for path in SEVERAL:
        file = TESTS / path
        assert file.exists() and module_of(file.name, PACKAGE / path.rpartition("/")[0]) is None, path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("test_sweep_start.py", "belongs in tests/sweep/"),
        ("test_report.py", "belongs in tests/report/"),
        ("sweep/test_begin.py", "named for no module of sparsecode/sweep"),
        ("sweep/test_startle.py", "named for no module"),
        ("sweep/helpers.py", "named for no module"),
        ("sweep/engine/test_cpu.py", "no package sweep/engine"),
    ],
)
def test_a_wrong_place_is_found(path: str, words: str) -> None:
    assert words in (complaint(path) or "")


@pytest.mark.parametrize("path", ["test_machine.py", "sweep/test_start_draws.py", "sweep/engines/gpu/test_cost.py"])
def test_a_right_place_is_not(path: str) -> None:
    assert complaint(path) is None


def test_the_longest_name_is_meant() -> None:
    assert module_of("test_figures_stability_tables.py", PACKAGE / "report") == "figures_stability"
