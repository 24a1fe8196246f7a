"""`sparsecode verify`: stored bytes against the digests written beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparsecode.cli.options import debug_option, json_option, run_option
from sparsecode.errors import CheckFailed, NotRecognised, SparsecodeError
from sparsecode.pipeline.advice import told


@click.command("verify")
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@run_option
@json_option
@debug_option
def command(dataset: Path | None, run: Path, as_json: bool) -> None:
    """Check stored activations against their digests.

    Reads every shard of DATASET, or of all datasets of the run folder DATASET or --run, or of a folder of datasets.
    Exit code 1 where a shard is not what was written; the shards are listed.
    """
    from sparsecode.cli.output import print_json

    found = [_verified(folder) for folder in _datasets(dataset or run)]
    if as_json:
        print_json({"datasets": found})
    else:
        click.echo("\n".join(line for entry in found for line in _lines(entry)))
    bad = sum(bool(entry["damage"]) for entry in found)
    if bad:
        what = "dataset is" if bad == 1 else "datasets are"
        raise CheckFailed(f"{bad} {what} not what was written; harvest again with --force, or restore a copy")


def _datasets(path: Path) -> list[Path]:
    if (path / "manifest.json").is_file():
        return [path]
    found = (path.glob(f"{folder}*/manifest.json") for folder in ("activations/", ""))
    inside = sorted(manifest.parent for manifests in found for manifest in manifests)
    if not inside:
        raise NotRecognised(f"{path}: no dataset, and no run that holds one; 'sparsecode harvest' makes them")
    return inside


def _verified(folder: Path) -> dict[str, Any]:
    """{"path", "damage": [{"shard", "message"}]} and the facts of a dataset that can be opened."""
    from sparsecode.store import Dataset, dataset_damage

    try:
        dataset = Dataset(folder)
    except SparsecodeError as unopened:  # opening checks the manifest and every shard's length and header
        try:
            damage = dataset_damage(folder)
        except SparsecodeError:  # the manifest itself
            damage = []
        listed = [{"shard": shard, "message": message} for shard, message in damage]
        return {"path": str(folder), "damage": listed or [{"shard": None, "message": told(unopened)}]}
    return {
        "path": str(folder),
        "complete": dataset.complete,
        "rows": dataset.rows,
        "shards": len(dataset.shards),
        "fingerprint": dataset.fingerprint,
        "damage": [{"shard": shard, "message": message} for shard, message in dataset.damage()],
    }


def _lines(entry: dict[str, Any]) -> list[str]:
    damage = [f"  {one['message']}" for one in entry["damage"]]
    if "rows" not in entry:
        return [f"{entry['path']}: cannot be opened", *damage]
    state = "complete" if entry["complete"] else "not complete yet"
    verdict = f"{len(damage)} bad" if damage else "all as written"
    return [f"{entry['path']}: {entry['shards']} shards, {entry['rows']} rows, {state}, {verdict}", *damage]
