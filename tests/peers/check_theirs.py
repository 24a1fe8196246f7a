"""Loads, in a library's environment and with its own loader, what sparsecode wrote for it.

    python tests/peers/check_theirs.py LIBRARY FOLDER OUT.json

Every folder in FOLDER has the library's files and expected.safetensors (x, codes, output by sparsecode). The result:
{case: largest difference of codes and output, or the error}.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from safetensors.torch import load_file


def difference(peer: object, case: Path) -> float | str:
    """The largest, or what the library raised."""
    expected = load_file(case / "expected.safetensors")
    try:
        codes, output = peer.use(peer.load(case), expected["x"])
    except Exception as error:  # whatever it raises is what a user would see
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    return max(float((codes - expected["codes"]).abs().max()), float((output - expected["output"]).abs().max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    peer = importlib.import_module(f"libraries.{arguments.library}_peer")
    cases = sorted(case for case in arguments.folder.iterdir() if case.is_dir())
    found = {case.name: difference(peer, case) for case in cases}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
