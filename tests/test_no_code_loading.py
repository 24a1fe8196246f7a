"""No file that sparsecode reads can run code: nothing that unpickles or evaluates is in the sources.

One place may read other libraries' state dicts: `torch.load(..., weights_only=True)` in the interop package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pickle", "_pickle", "cPickle", "pickletools", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy"}
BUILTINS = {"exec", "eval", "compile"}
# Functions of torch and numpy that unpickle, or write what only unpickling reads.
BANNED = {"torch.load", "torch.save", "torch.jit.load", "torch.package", "torch.hub.load", "numpy.load", "np.load"}


def sources() -> list[Path]:
    return sorted({file.resolve() for folder in ("python", "kernels") for file in (ROOT / folder).rglob("*.py")})


def banned(text: str) -> Iterator[str]:
    """What in `text` could run code from a file."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [dotted(node)]
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield f"line {node.lineno}: {node.id}"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and not _is(node.value, False):
            yield f"line {node.lineno}: allow_pickle"
        elif isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and not _is(node.value, False):
            yield f"line {node.lineno}: trust_remote_code"
        for name in names:
            if name.split(".")[0] in MODULES or name in BANNED:
                yield f"line {getattr(node, 'lineno', '?')}: {name}"


def dotted(node: ast.expr) -> str:
    """`torch.jit.load` of an attribute; empty where it does not start at a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def guarded_loads(text: str) -> int:
    """Calls of torch.load with weights_only=True; all others are banned."""
    return sum(
        isinstance(node, ast.Call)
        and dotted(node.func) == "torch.load"
        and any(keyword.arg == "weights_only" and _is(keyword.value, True) for keyword in node.keywords)
        for node in ast.walk(ast.parse(text))
    )


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_unpickles_or_evaluates(file: Path) -> None:
    text = file.read_text()
    found = list(banned(text))
    if "interop" in file.parts:
        guarded = guarded_loads(text)
        assert guarded <= 1
        loads = [what for what in found if what.endswith(": torch.load")]
        assert len(loads) == guarded, "torch.load without weights_only=True"
        found = [what for what in found if what not in loads]
    assert not found


def test_one_place_at_most_reads_state_dicts() -> None:
    assert sum(guarded_loads(file.read_text()) for file in sources()) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import joblib as j",
        "from pickle import loads",
        "from torch import load",
        "def f(p):\n    import torch\n    return torch.load(p)",
        "torch.load(p, weights_only=True)",
        "read = torch.load",
        "torch.save(x, p)",
        "torch.jit.load(p)",
        "np.load(p)",
        "f(p, allow_pickle=True)",
        "f(p, allow_pickle=flag)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)",
        "exec(text)",
        "run = eval",
        "compile(a, b, 'exec')",
    ],
)
def test_what_is_banned_is_found(text: str) -> None:
    assert list(banned(text))


@pytest.mark.parametrize(
    "text", ["model.eval()", "torch.compile(f)", "json.loads(t)", "load_file(p)", "re.compile('a')"]
)
def test_what_only_looks_alike_is_not(text: str) -> None:
    assert not list(banned(text))


def test_a_guarded_load_is_told_from_an_open_one() -> None:
    assert guarded_loads("torch.load(p, weights_only=True)") == 1
    assert guarded_loads("torch.load(p)") == guarded_loads("torch.load(p, weights_only=False)") == 0
