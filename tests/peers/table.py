"""What loads where, and the largest difference: `make interop`.

    python tests/peers/table.py FOLDER --libraries saelens=PYTHON dictionary_learning=PYTHON sparsify=PYTHON

Runs in the environment of sparsecode; PYTHON is the interpreter of an environment with the library.

1. Each library makes fresh dictionaries (new seeds) and encodes and decodes with them.
2. sparsecode reads them all and does the same: "theirs here".
3. sparsecode writes every dictionary, of its own (each kind, trained, under each normalisation) and of each library, in
   the format of each library that can say it, and each library loads those with its own loader: "ours there". What
   cannot be said is refused, and counted.

Fails if a difference is above 1e-5 (of values around 1) or a library cannot load what was written for it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sparsecode.errors import NotExpressible
from sparsecode.interop import load_dictionary, save_dictionary
from sparsecode.sweep import Dictionary

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))
from kind_sweeps import trained  # noqa: E402 (found through the line above)

FIXTURES = HERE.parent / "fixtures/interop"  # of libraries that are on no package index
TOLERANCE = 1e-5
B = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--libraries", nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    pythons = dict(entry.split("=") for entry in arguments.libraries)
    shutil.rmtree(arguments.folder, ignore_errors=True)
    theirs, ours = arguments.folder / "theirs", arguments.folder / "ours"
    for library, python in pythons.items():
        run(python, "make_fixtures.py", library, theirs, "--seed", arguments.seed)
    table = Table()
    print(f"\nseed {arguments.seed}\n\ntheirs here: dictionaries of each library, encoded and decoded by sparsecode")
    originals = {f"sparsecode-{name}": one for name, one in trained(arguments.seed).items()}
    cases = [case for library in pythons for case in sorted(theirs.glob(f"{library}-*"))]
    cases += [case for library in ("openai", "llamascopium") for case in sorted(FIXTURES.glob(f"{library}-*"))]
    for case in cases:
        originals[case.name] = load_dictionary(next(case.glob("autoencoder.pt"), case))
        expected = load_file(case / "expected.safetensors")
        table.add(case.name, "sparsecode", difference(originals[case.name], expected))
    print("\nours there: written by sparsecode, loaded, encoded and decoded by the library")
    for library, python in pythons.items():
        for name, dictionary in originals.items():
            try:
                write(dictionary, ours / library / name, library)
            except NotExpressible as error:
                table.refused[library][str(error)].append(name)
        run(python, "check_theirs.py", library, ours / library, arguments.folder / f"{library}.json")
        for name, found in json.loads((arguments.folder / f"{library}.json").read_text()).items():
            table.add(name, library, found)
    table.finish()


class Table:
    """Rows as they come, and at the end what was refused and one line for each pair of libraries."""

    def __init__(self) -> None:
        self.bad: list[str] = []
        self.refused: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._pairs: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, name: str, where: str, found: float | str) -> None:
        """Prints a row; what is not as it should be is remembered."""
        wrong = isinstance(found, str) or not found <= TOLERANCE
        figure = found if isinstance(found, str) else f"{found:.1e}"
        print(f"  {name:44} -> {where:20} {figure}{'   WRONG' if wrong else ''}", flush=True)
        if wrong:
            self.bad.append(f"{name} -> {where}: {figure}")
        else:
            self._pairs[_library(name), where].append(float(found))

    def finish(self) -> None:
        """Prints what was refused and the summary; ends with status 1 if anything was wrong."""
        print("\nrefused by sparsecode, since the format cannot say it")
        for library, reasons in self.refused.items():
            for reason, names in reasons.items():
                print(f"  -> {library}: {reason}: {', '.join(names)}")
        print("\nsummary: dictionaries, largest difference of codes and output, refused")
        for (source, where), found in sorted(self._pairs.items()):
            names = [name for group in self.refused[where].values() for name in group]
            refused = sum(_library(name) == source for name in names)
            print(f"  {source:20} -> {where:20} {len(found):3} {max(found):8.1e} {refused:3}")
        if self.bad:
            sys.exit("interop: " + "; ".join(self.bad))


def _library(name: str) -> str:
    return name.partition("-")[0]


def write(dictionary: Dictionary, folder: Path, library: str) -> None:
    """The dictionary in the library's format, and what it does with random activations."""
    save_dictionary(dictionary, folder, library)
    x = torch.randn(B, dictionary.activation_dim, generator=torch.Generator().manual_seed(1)) * dictionary.scale
    x = x + dictionary.mean if dictionary.mean is not None else x
    expected = {"x": x, "codes": dictionary.encode(x), "output": dictionary.reconstruct(x)}
    save_file(expected, folder / "expected.safetensors")


def difference(dictionary: Dictionary, expected: dict[str, torch.Tensor]) -> float:
    """The largest of codes and output."""
    pairs = [
        (dictionary.encode(expected["x"]), expected["codes"]),
        (dictionary.decode(expected["codes"], expected["x"]), expected["output"]),
        (dictionary.reconstruct(expected["x"]), expected["output"]),
    ]
    return max(float((a - b).abs().max()) for a, b in pairs)


def run(python: str, script: str, *arguments: object) -> None:
    """A script of this folder in another environment."""
    command = [python, "-W", "ignore", str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


if __name__ == "__main__":
    main()
