"""What `describe` found, as lines for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsecode.cli.describe import FACTS
from sparsecode.cli.output import columns, size
from sparsecode.comparison.records import kind_order
from sparsecode.errors import DictionaryInvalid
from sparsecode.pipeline.replicate import headline


def lines(found: dict[str, Any]) -> list[str]:
    """What `describe` found, for people."""
    kinds: dict[str, Callable[[dict[str, Any]], list[str]]] = {
        "run": _run_lines, "dataset": _dataset_lines, "dictionary": _dictionary_lines, "model": _model_lines,
        "datasets": _datasets_lines, "dictionaries": _dictionaries_lines,
    }  # fmt: skip
    shown = kinds[found["kind"]](found)
    return shown + (["", *sweep_lines(found["sweep"])] if "sweep" in found else [])


def sweep_lines(needs: dict[str, Any]) -> list[str]:
    """The text for people, a line for every width."""
    return [
        f"sweep of {need['dictionaries']:,} dictionaries at width {int(dim):,}: about {size(need['memory_bytes'])} of "
        f"memory, {size(need['disk_bytes'])} of disk" + _fit(need)
        for dim, need in needs.items()
    ]


def _fit(need: dict[str, Any]) -> str:
    there = need["available_bytes"]
    if there is None:
        return ""
    place = "this machine has" if need["device"] == "cpu" else f"{need['device']} has"
    return f"; {place} {size(there)}" + (", too little" if need["memory_bytes"] > there else "")


def _run_lines(found: dict[str, Any]) -> list[str]:
    shown = [f"run {found['path']}, {size(found['bytes'])}"]
    for key, stage in found["stages"].items():
        family = key.partition("/")[0]
        figures = headline(family, stage["result"]).partition(": ")[2] if stage["result"] else ""
        state = "done" if stage["status"] == "done" else "begun, not finished"  # at work, or stopped: both are possible
        shown.append(f"  {key}: {state}" + (f", {figures}" if figures and figures != "done" else ""))
        if stage["out_of_date"]:
            shown.append(f"    out of date, {stage['out_of_date']}; run: {' && '.join(stage['run'])}")
    if found["preset"]:
        shown.insert(1, f"  preset: {found['preset']}")
    if not found["stages"]:
        shown.append("  nothing done yet; 'sparsecode train-gpt' is the first stage")
    for dataset in found["datasets"]:
        shown += ["", *_dataset_lines(dataset)]
    if found["dictionaries"]:
        shown += ["", "dictionaries (metrics on held-out rows)"]
        shown += ["  " + line for line in _metrics_table(found["dictionaries"])]
    if found["steadiest"]:
        rows = [[e["dictionary"], e["feature"], e["stability"], e["mean_cosine"]] for e in found["steadiest"]]
        shown += ["", "steadiest features (share of the other dictionaries in which they are found again)"]
        shown += ["  " + line for line in columns(rows, ["dictionary", "feature", "share", "mean cosine"])]
    if found["report"]:
        shown += ["", f"report {found['report']}"]
    return shown


def _datasets_lines(found: dict[str, Any]) -> list[str]:
    shown = [f"{len(found['datasets'])} datasets in {found['path']}"]
    for dataset in found["datasets"]:
        shown += ["", *_dataset_lines(dataset)]
    return shown


def _dictionaries_lines(found: dict[str, Any]) -> list[str]:
    """A row for each; `info` of one of them tells everything."""
    rows = [
        [_below(one, found["path"]), one.get("library", "sparsecode"),
         one["activation"] or "relu", one["dict_size"], one["activation_dim"], one["hook_point"] or "-",
         size(one["bytes"])]
        for one in found["dictionaries"]
    ]  # fmt: skip
    header = ["dictionary", "library", "activation", "features", "dimensions", "hook point", "size"]
    return [f"{len(rows)} dictionaries in {found['path']}", *("  " + line for line in columns(rows, header))]


def _below(one: dict[str, Any], folder: str) -> str:
    """What to call a dictionary beside others of its folder: this project's without the ending of its two files."""
    path: str = one["path"] if "library" in one else one["path"].removesuffix(".safetensors")
    return path.removeprefix(folder).lstrip("/")


def _metrics_table(dictionaries: list[dict[str, Any]]) -> list[str]:
    names = ("fvu", "l0", "dead", "mse")
    ordered = sorted(
        dictionaries,
        key=lambda d: (*kind_order(d.get("trained_as"), d["l1"]), d["dict_size"] or 0, d["seed"] or 0),
    )
    rows = [
        [entry["name"], entry["dict_size"], entry["l1"], entry["seed"]]
        + [(entry["metrics"] or {}).get(name) for name in names]
        for entry in ordered
    ]
    return columns(rows, ["name", "size", "L1", "seed", "FVU", "L0", "dead", "MSE"])


def _dataset_lines(found: dict[str, Any]) -> list[str]:
    state = "" if found["complete"] else ", not complete: the same harvest again resumes it"
    facts = [
        f"dataset {found['path']}{state}",
        f"  {found['rows']} rows of {found['activation_dim']} {found['dtype']} in {found['shards']} shards, "
        f"{size(found['bytes'])}",
    ]
    told = found["provenance"] | found["statistics"] | {"contexts": found["contexts"]}
    if found["left_out"]:
        told["left out"] = found["left_out"]
    return facts + [f"  {name}: {_plain(value)}" for name, value in told.items()]


def _dictionary_lines(found: dict[str, Any]) -> list[str]:
    plain = [
        f"  {name}: {_plain(found[name])}"
        for name in ("library", "trained_as", *FACTS, "tensors")
        if name != "stability" and found.get(name) not in (None, {}, [])
    ]
    return [f"dictionary {found['path']}, {size(found['bytes'])}", *plain, *_stability_lines(found)]


def _stability_lines(dictionary: dict[str, Any]) -> list[str]:
    """How steady a dictionary's features are; nothing where it was not compared."""
    found = dictionary["stability"]
    if not found:
        return []
    try:
        rows = [[entry["feature"], entry["stability"], entry["mean_cosine"]] for entry in found["steadiest"]]
        return [
            f"  stability: found again above {found['threshold']:g} in {found['mean']:.1%} of the other "
            f"{found['dictionaries']} dictionaries on average; {found['found_in_all']} features in all, "
            f"{found['found_in_none']} in none",
            *("    " + line for line in columns(rows, ["steadiest", "share", "mean cosine"])),
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DictionaryInvalid(
            f"{dictionary['path']}: its 'stability' is not what 'sparsecode compare' writes; compare again"
        ) from error


def _model_lines(found: dict[str, Any]) -> list[str]:
    facts = ", ".join(f"{name} {value}" for name, value in found["config"].items())
    return [f"model {found['path']}", f"  {found['parameters']} parameters: {facts}"]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
