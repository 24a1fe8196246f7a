"""The native core has floors, and no circles: who imports whom is read from the `use` lines of `src/`.

A folder imports from folders below it alone, and no two files need each other, directly or round others. Tests inside
the sources are left out. A folder's `mod.rs` that only re-exports its files needs none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
# From the ground up; those of one floor do not know each other.
FLOORS = [
    {"error", "cpu", "threads"},
    {"dtype", "lock", "vector"},
    {"stored"},
    {"shard"},
    {"stream"},
    {"engine", "compare", "consensus", "lm"},
    {"python"},
    {"lib"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def files() -> dict[str, str]:
    """Sources without comments and tests, by module: `engine::adam` for engine/adam.rs, `engine` for engine/mod.rs."""
    found = {}
    for file in sorted(SRC.rglob("*.rs")):
        parts = file.relative_to(SRC).with_suffix("").parts
        if "tests" not in parts:
            text = re.sub(r"//[^\n]*", "", file.read_text()).split("#[cfg(test)]\nmod tests {")[0]
            found["::".join(parts[:-1] if parts[-1] == "mod" else parts)] = text.partition("#[cfg(test)]\n#[allow")[0]
    return found


def expanded(path: str) -> Iterator[str]:
    """The single paths of `a::{b, c::{d, e}}`."""
    head, brace, rest = re.sub(r"\s", "", path).partition("{")
    if not brace:
        yield head.partition("as ")[0]
        return
    depth, start, inner = 0, 0, rest[: rest.rindex("}")]
    for at, letter in enumerate(inner + ","):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and not depth:
            if inner[start:at]:
                yield from expanded(head + inner[start:at])
            start = at + 1


def imports(module: str, text: str, known: set[str], *, is_folder: bool) -> set[str]:
    """Modules of the crate that a file names, in `use` lines or elsewhere; re-exports by a folder do not count."""
    wanted: set[str] = set()
    uses = re.findall(r"^\s*(pub(?:\([^)]*\))? )?use ([^;]+);", text, re.MULTILINE)
    paths = [one for public, path in uses for one in expanded(path) if not (public and is_folder)]
    rest = re.sub(r"^\s*(?:pub[^;]* )?use [^;]+;", "", text, flags=re.MULTILINE)
    paths += re.findall(r"(?:crate|super)(?:::\w+)+", rest)
    home = module.split("::") if is_folder else module.split("::")[:-1]
    for path in paths:
        parts = path.split("::")
        if parts[0] == "crate":
            parts = parts[1:]
        elif parts[0] in ("super", "self"):
            above = home if parts[0] == "self" or not is_folder else home[:-1]
            parts = above + parts[1:]
        elif is_folder and "::".join([*home, parts[0]]) in known:
            parts = home + parts
        else:
            continue
        while parts and "::".join(parts) not in known:
            parts = parts[:-1]
        if parts and "::".join(parts) != module:
            wanted.add("::".join(parts))
    return wanted


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """What each module imports."""
    known = set(sources) - {"lib"}
    folders = {"::".join(module.split("::")[:-1]) for module in known}
    return {module: imports(module, text, known, is_folder=module in folders) for module, text in sources.items()}


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports of a room on the same floor or a higher one."""
    found = []
    for module, wanted in edges.items():
        own = module.partition("::")[0]
        others = {name for name in wanted if name.partition("::")[0] != own}
        found += [f"{module} imports {name}" for name in others if FLOOR[name.partition("::")[0]] >= FLOOR[own]]
    return sorted(found)


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that need each other, if there are any."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_has_a_floor() -> None:
    assert {module.partition("::")[0] for module in files()} == set(FLOOR)


def test_imports_point_down() -> None:
    assert not upward(graph(files()))


def test_no_two_files_need_each_other() -> None:
    assert not circle(graph(files()))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("vector::dot", "use crate::engine::Engine;"),
        ("compare::best", "use crate::engine::team::Team;"),
        ("shard::open", "use crate::{error::Error, stream::Stream};"),
        ("cpu", "fn f() { crate::vector::isa::NAMES; }"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, line: str) -> None:
    sources = files()
    sources[module] += line
    assert upward(graph(sources))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("vector::tile", "use super::screening::Screening;"),
        ("engine::codes", "use crate::engine::{adam::Adam, dense::DenseRows};"),
        ("shard::open", "fn f(d: &super::dataset::Dataset) {}"),
        ("vector", "use isa::Isa;\nuse x::Y;"),
    ],
)
def test_a_circle_is_found(module: str, line: str) -> None:
    sources = files()
    sources[module] += f"\n{line}"
    if module == "vector":
        sources["vector::isa"] += "\nuse super::something;"
    assert circle(graph(sources))
