"""A browser's folder of one dictionary with two features, written by hand: every number of it is known."""

from __future__ import annotations

from pathlib import Path

import torch

from sparsecode.browser import folder as files
from sparsecode.dictionary import Dictionary

ATOMS = torch.tensor([[0.5, 0.0, -0.5], [0.0, 1.0, 0.0]])
# index of the row, code there, tokens before it, ids, strengths
STRONGEST = [[9, 2.0, 1, [1, 2, 3], "00ff33"], [70, 1.5, 0, [4, 0], "bf00"]]
BANDS = [[[30, 0.25, 2, [3, 3, 1], "000020"]], [[9, 2.0, 1, [1, 2, 3], "00ff33"]]]


def write(folder: Path) -> dict[str, Dictionary]:
    """Writes the folder; the dictionary by its slug."""
    files.write(folder, "tokens-0", [" a", "</b>", "\0", "é", [240, 159]])
    columns = {
        "feature": [0, 1], "density": [0.003, 0], "peak": [2.0, 0.0], "found": [1, 0], "cosine": [0.95, 0.1],
        "score": [0.5, None], "label": ["the token `é`", ""], "top": [[2, 4], []], "raised": [[1], [2]],
    }  # fmt: skip
    files.write(folder, "n2/list-0", {"columns": columns})
    live = {
        "f": 0, "h": [2, 1, 0, 1], "s": STRONGEST, "b": BANDS, "n": [[1, 0.1]], "o": [], "t": [[1, 0.25]],
        "u": [[0, 0.5], [2, -0.5]], "v": [[2, -0.75], [1, 0.125]], "e": {"direct": [[1, 3], [2.5, 1.0], [0], [-0.5]]},
    }  # fmt: skip
    dead = {"f": 1, "h": [0, 0, 0, 0], "s": [], "b": [[], []], "n": [[0, 0.1]], "o": [], "t": [], "u": [[1, 1.0]],
            "v": [], "e": {"direct": [[2], [1.0], [3], [-1.0]]}}  # fmt: skip
    files.write(folder, "n2/0000", [live, dead])
    about = {"name": "n2_s0", "slug": "n2", "size": 2, "shown": 2, "lists": 1, "activation": "relu"}
    files.write(folder, "run", {
        "tokens": 1, "rows": 1280, "hook": "blocks.2.mlp.hook_post", "model": "sparsecode-gpt",
        "subtitle": "Features of a test.", "dataset_fingerprint": "abc", "dictionaries": [about],
    })  # fmt: skip
    return {"n2": Dictionary(ATOMS, torch.zeros(2), ATOMS)}
