"""Stitching of two dictionary files over held-out rows of the activations that they were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsecode.comparison.members import fingerprint, places
from sparsecode.consensus.stitching import Stitched, stitch, stitched
from sparsecode.consensus.voters import Voter, voter_of
from sparsecode.dictionary.files import files_of
from sparsecode.errors import InvalidSetting, LeftOut
from sparsecode.interop import load_found
from sparsecode.machine import versions
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.claims import dataset_path
from sparsecode.pipeline.run import Run
from sparsecode.store import Dataset
from sparsecode.sweep.batches import rows_held_out

FORMAT = 1
_HELD_OUT = 65_536


@dataclass(frozen=True, eq=False)
class Stitching:
    """Two dictionaries and what was found of them; `record` is what is printed as JSON."""

    small: Voter
    large: Voter
    found: Stitched
    record: dict[str, Any]

    def save(self, steps: int, out: Path) -> list[Path]:
        """Writes the dictionary after so many steps of the path, OUT.safetensors and OUT.json.

        Raises:
            InvalidSetting: the path is shorter, the file is there already, or it cannot be written as one dictionary.
        """
        if not 0 <= steps <= len(self.found.steps):
            raise InvalidSetting(f"stitch: --at {steps} is not from 0 to {len(self.found.steps)}, the path's steps")
        files = list(files_of(out))
        for file in files:
            if file.exists():
                raise InvalidSetting(f"{file}: is there already; choose another name")
        stitched(self.small, self.large, self.found.steps[:steps]).save(out)
        return files


@advised
def stitch_files(
    small: str | Path,
    large: str | Path,
    *,
    dataset: str | Path | None = None,
    rows: int = 16_384,
    threshold: float = 0.7,
) -> Stitching:
    """What the larger dictionary has that the smaller one lacks.

    Args:
        small, large: paths of dictionaries of any known format.
        dataset: the activations; None: those of the run that the smaller one is in.
        rows: how many, of those at the end that nothing trains on.
        threshold: cosine above which features are swapped as a group.

    Raises:
        InvalidSetting: activations are not named, or are of another width, or features compete.
        DictionaryInvalid, NotExpressible: a dictionary cannot be used.
    """
    voters = []
    for path in (Path(small), Path(large)):
        found = places([path], LeftOut(None))
        if len(found) != 1:
            raise InvalidSetting(f"{path}: holds {len(found)} dictionaries; name one of them")
        voters.append(voter_of(load_found(found[0]), str(path), fingerprint(found[0].path)))
    if voters[0].fingerprint == voters[1].fingerprint:
        raise InvalidSetting(f"{small} and {large} are the same dictionary")
    data = Dataset(_dataset(Path(small)) if dataset is None else dataset)
    for voter in voters:
        if voter.atoms.shape[1] != data.activation_dim:
            raise InvalidSetting(
                f"{data.path}: its rows have {data.activation_dim} dimensions, the atoms of {voter.name} "
                f"{voter.atoms.shape[1]}"
            )
    first = data.rows - rows_held_out(_HELD_OUT, data.rows)
    x = data.read(first, min(data.rows, first + rows))
    result = stitch(voters[0], voters[1], x, threshold)
    record = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "small": {"path": str(small), "fingerprint": voters[0].fingerprint},
        "large": {"path": str(large), "fingerprint": voters[1].fingerprint},
        "rows": len(x),
        "threshold": threshold,
        "steps": len(result.steps),
        **result.record(),
    }
    return Stitching(voters[0], voters[1], result, record)


def _dataset(path: Path) -> Path:
    """The activations of the run that a dictionary is in.

    Raises:
        InvalidSetting: it is in none.
    """
    folder = path.absolute().parent.parent
    if not (folder / "config.json").is_file():
        raise InvalidSetting(f"{path}: is in no run; name the folder of its activations with --dataset")
    return dataset_path(Run(folder), None)
