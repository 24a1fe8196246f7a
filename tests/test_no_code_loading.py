"""No file that sparsecode reads can run code: nothing that unpickles or evaluates is in the sources.

One function may read other libraries' state dicts, by `torch.load(..., weights_only=True)`: EXCEPTION names it.
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


# The one exception: state dicts of other libraries, read with weights_only=True (the test below holds that) and, for
# dictionary_learning, which reads nothing else, written.
EXCEPTION = ("python/sparsecode/interop/state_dict.py", ["torch.load", "torch.save"])


def sources() -> list[Path]:
    return sorted({file.resolve() for folder in ("python", "kernels") for file in (ROOT / folder).rglob("*.py")})


def banned(text: str) -> Iterator[str]:
    """Calls in `text` that could run code from a file."""
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


def guarded_loads(text: str) -> list[str]:
    """The functions that call torch.load with weights_only=True, once for each call; all others are banned."""
    return [
        function.name
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and dotted(node.func) == "torch.load"
        and any(keyword.arg == "weights_only" and _is(keyword.value, True) for keyword in node.keywords)
    ]


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_unpickles_or_evaluates(file: Path) -> None:
    found = [what.partition(": ")[2] for what in banned(file.read_text())]
    assert found == (EXCEPTION[1] if file == ROOT / EXCEPTION[0] else [])


def test_one_function_alone_reads_state_dicts_and_builds_tensors_only() -> None:
    guarded = {file: guarded_loads(file.read_text()) for file in sources()}
    assert {file: names for file, names in guarded.items() if names} == {ROOT / EXCEPTION[0]: ["read_state_dict"]}


def open_loads(text: str) -> list[int]:
    """Lines that load a model, a tokenizer or a configuration without forbidding code that comes with it.

    Left to itself it asks the user at the terminal.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        asked = [one for one in (node.func, *node.args) if isinstance(one, ast.Attribute)]
        if any(one.attr == "from_pretrained" for one in asked) and not any(
            keyword.arg == "trust_remote_code" and _is(keyword.value, False) for keyword in node.keywords
        ):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_library_is_left_to_ask_whether_code_should_run(file: Path) -> None:
    assert open_loads(file.read_text()) == []


def test_a_load_that_would_ask_is_found() -> None:
    assert open_loads("AutoConfig.from_pretrained(name)") == [1]
    assert open_loads("partial(AutoModel.from_pretrained, name)") == [1]
    assert open_loads("AutoModel.from_pretrained(name, trust_remote_code=False)") == []


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
    assert guarded_loads("def f(p):\n    torch.load(p, weights_only=True)") == ["f"]
    assert guarded_loads("def f(p):\n    torch.load(p)\n    torch.load(p, weights_only=False)") == []
