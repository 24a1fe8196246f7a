"""The contents of the wheel and of the source distribution, and the version."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = sorted(path.name for path in (ROOT / "kernels").glob("*.py"))
PRESETS = sorted(path.name for path in (ROOT / "python/sparsecode/pipeline/presets").glob("*.toml"))


def maturin(*arguments: str) -> None:
    command = [sys.executable, "-m", "maturin", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    maturin("build", "--release", "--out", str(out), "--interpreter", sys.executable)
    (path,) = out.glob("*.whl")
    assert "abi3" in path.name
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("sdist")
    maturin("sdist", "--out", str(out))
    (path,) = out.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


@pytest.mark.slow
def test_wheel_holds_extension_stub_kernels_presets_and_typing_marker(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    expected = ["_core.pyi", "py.typed", "cli/__init__.py", "report/template.html"]
    expected += [f"kernels/{name}" for name in KERNELS] + [f"pipeline/presets/{name}" for name in PRESETS]
    assert KERNELS and PRESETS
    assert [name for name in expected if f"sparsecode/{name}" not in names] == []
    assert [name for name in names if name.startswith("sparsecode/_core.") and not name.endswith(".pyi")]
    foreign = [name for name in names if not name.startswith(("sparsecode/", "sparsecode-"))]
    assert foreign == []


@pytest.mark.slow
def test_wheel_licence_travels(wheel: zipfile.ZipFile) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.slow
def test_sdist_holds_all_that_a_build_needs(sdist: list[str]) -> None:
    expected = ["Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "LICENSE"]
    for folder, endings in (("src", (".rs",)), ("python", (".py", ".pyi", ".toml", ".html", ".css", ".js", ".typed"))):
        files = [path for path in (ROOT / folder).rglob("*") if path.suffix in endings or path.name == "py.typed"]
        assert len(files) > 20
        expected += [path.relative_to(ROOT).as_posix() for path in files]
    expected += [f"kernels/{name}" for name in KERNELS]
    assert [name for name in expected if name not in sdist] == []
    kernels = {f"python/sparsecode/kernels/{name}" for name in KERNELS}
    assert "python/sparsecode/kernels" in sdist or kernels <= set(sdist)


def test_citation_names_the_version() -> None:
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
