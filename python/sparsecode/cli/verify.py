"""`sparsecode verify`: stored bytes against the digests written beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparsecode.cli.options import debug_option, json_option, run_option
from sparsecode.errors import CheckFailed, NotRecognised


@click.command("verify")
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@run_option
@json_option
@debug_option
def command(dataset: Path | None, run: Path, as_json: bool) -> None:
    """Check stored activations against their digests.

    Reads every shard of DATASET, or of all datasets of the run folder DATASET or --run. Exit code 1 where a shard is
    not what was written; the shards are listed.
    """
    from sparsecode.cli.output import print_json

    found = [_verified(folder) for folder in _datasets(dataset or run)]
    if as_json:
        print_json({"datasets": found})
    for entry in found:
        if not as_json:
            state = "complete" if entry["complete"] else "not complete yet"
            click.echo(f"{entry['path']}: {entry['shards']} shards, {entry['rows']} rows, {state}")
    bad = [f"{entry['path']}: {', '.join(entry['bad_shards'])}" for entry in found if entry["bad_shards"]]
    if bad:
        raise CheckFailed(f"{'; '.join(bad)}: not what was written; harvest again with --force, or restore a copy")


def _datasets(path: Path) -> list[Path]:
    if (path / "manifest.json").is_file():
        return [path]
    inside = sorted(manifest.parent for manifest in path.glob("activations/*/manifest.json"))
    if not inside:
        raise NotRecognised(f"{path}: no dataset, and no run that holds one; 'sparsecode harvest' makes them")
    return inside


def _verified(folder: Path) -> dict[str, Any]:
    from sparsecode.store import Dataset

    dataset = Dataset(folder)
    bad = [str(shard) for shard in dataset.verify()]
    return {
        "path": str(folder),
        "complete": dataset.complete,
        "rows": dataset.rows,
        "shards": len(dataset.shards),
        "fingerprint": dataset.fingerprint,
        "bad_shards": bad,
    }
