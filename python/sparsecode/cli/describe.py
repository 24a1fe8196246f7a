"""What a path holds, found by looking at it: as a JSON value, and as lines for people.

`describe` returns {"kind": "run" | "dataset" | "dictionary" | "model", "path", ...}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsecode.cli.output import columns, size
from sparsecode.errors import DictionaryInvalid, ModelInvalid, NotRecognised
from sparsecode.interop import Found, find_dictionaries, find_format, load_found, not_recognised
from sparsecode.pipeline import headline
from sparsecode.run import Run

SHOWN = 10  # steadiest features of a run: the comparison's record has more


def describe(path: Path) -> dict[str, Any]:
    """What is at `path`.

    Raises:
        NotRecognised: nothing is there, or nothing that sparsecode writes.
        RunInvalid, DictionaryInvalid, ModelInvalid: it is of a known kind and broken.
    """
    if path.is_dir():
        if (path / "manifest.json").is_file():
            return _dataset(path)
        if (path / "model.safetensors").is_file():
            return _model(path)
        if (foreign := find_format(path)) is not None:
            return _foreign(foreign)
        if (path / "config.json").is_file():
            return _run(path)
        inside = sorted(str(manifest.parent) for manifest in path.glob("*/manifest.json"))
        if inside:
            raise NotRecognised(f"{path}: a folder of datasets; name one of them: {', '.join(inside)}")
        if find_dictionaries(path) or any(path.glob("*.pt")):
            raise not_recognised(path)
        raise NotRecognised(
            f"{path}: no run, dataset, model or dictionary is in this folder; 'sparsecode replicate' makes a run"
        )
    tensors = _dictionary_file(path)
    if tensors is None:
        if (foreign := find_format(path)) is not None:
            return _foreign(foreign)
        if path.is_file() and _is_part(path):
            return describe(path.parent)
        state = "not something that sparsecode wrote" if path.exists() else "no such file or folder"
        raise NotRecognised(f"{path}: {state}; name a run, a dataset or a dictionary")
    return _dictionary(tensors)


def lines(found: dict[str, Any]) -> list[str]:
    """What `describe` found, for people."""
    return {"run": _run_lines, "dataset": _dataset_lines, "dictionary": _dictionary_lines, "model": _model_lines}[
        found["kind"]
    ](found)


def _run(path: Path) -> dict[str, Any]:
    run = Run(path)
    stages = run.config()["stages"]
    dictionaries = sorted(run.dictionaries_path.glob("*.safetensors"))
    return {
        "kind": "run",
        "path": str(path),
        "stages": {
            key: {name: record.get(name) for name in ("status", "started", "finished", "settings", "result")}
            for key, record in stages.items()
        },
        "datasets": [_dataset(manifest.parent) for manifest in sorted(run.activations_path.glob("*/manifest.json"))],
        "dictionaries": [_dictionary(file) for file in dictionaries if file.with_suffix(".json").is_file()],
        "steadiest": _steadiest(run),
        "report": str(run.report_path) if run.report_path.is_file() else None,
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    }


def _steadiest(run: Run) -> list[dict[str, Any]]:
    """The features that most dictionaries share, as `compare` recorded them."""
    try:
        listed = json.loads(run.comparison_path.read_text())["steadiest"]
        return [dict(entry) for entry in listed[:SHOWN]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _dataset(path: Path) -> dict[str, Any]:
    from sparsecode.store import Dataset

    dataset = Dataset(path)
    statistics = dict(dataset.statistics)
    statistics.pop("mean", None)  # as long as a row
    return {
        "kind": "dataset",
        "path": str(path),
        "complete": dataset.complete,
        "rows": dataset.rows,
        "activation_dim": dataset.activation_dim,
        "dtype": dataset.dtype,
        "shards": len(dataset.shards),
        "bytes": sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
        "fingerprint": dataset.fingerprint,
        "provenance": dict(dataset.provenance),
        "statistics": statistics,
        "left_out": dataset.left_out,
        "contexts": _contexts(dataset),
    }


def _contexts(dataset: Any) -> str:
    """How a dataset says which rows belong to one context."""
    if dataset.contexts_stored:
        return "numbered"
    return f"{dataset.provenance['context']} rows each" if dataset.contexts_known else "unknown"


def _is_part(path: Path) -> bool:
    """Whether a file is one of those of a dataset, a model or a run, which are folders."""
    if path.suffix == ".safetensors" and (path.parent / "manifest.json").is_file():
        return True
    return path.name in ("manifest.json", "model.safetensors", "config.json")


def _dictionary_file(path: Path) -> Path | None:
    """The tensors' file of the dictionary that `path` names: either of its two files, or their common name."""
    base = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    tensors, facts = (base.with_name(base.name + ending) for ending in (".safetensors", ".json"))
    return tensors if tensors.is_file() and facts.is_file() else None


def _dictionary(tensors: Path) -> dict[str, Any]:
    from sparsecode.sweep.dictionary_files import read_description

    facts = tensors.with_suffix(".json")
    known = read_description(facts)
    held = {name: known.get(name) for name in _FACTS}
    for name, kind in _KINDS.items():
        if held[name] is not None and not isinstance(held[name], kind):
            raise DictionaryInvalid(f"{facts}: '{name}' is {held[name]!r}, which no dictionary has; copy it again")
    normalization = dict(held["normalization"] or {})
    normalization.pop("mean", None)
    shapes = _shapes(tensors, DictionaryInvalid)
    said = [held["dict_size"], held["activation_dim"]]
    if shapes.get("W_enc") != said:
        raise DictionaryInvalid(
            f"{facts}: says {said[0]} features of {said[1]} dimensions, but W_enc in {tensors.name} is "
            f"{shapes.get('W_enc')}; the two files do not belong together"
        )
    return {"kind": "dictionary", "path": str(tensors), "name": tensors.stem} | held | {
        "normalization": normalization, "tensors": shapes, "bytes": tensors.stat().st_size
    }  # fmt: skip


def _foreign(found: Found) -> dict[str, Any]:
    """A dictionary of another library, in the same words; its weights are read, since they say what it is."""
    dictionary = load_found(found)
    about = dictionary.meta
    normalization = dict(dictionary.normalization)
    normalization.pop("mean")
    shown = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "r_mag", "b_mag", "W_skip")
    held = {name: getattr(dictionary, name) for name in shown}
    tensors = {name: list(value.shape) for name, value in held.items() if value is not None}
    files = [found.path] if found.path.is_file() else [file for file in found.path.iterdir() if file.is_file()]
    return {"kind": "dictionary", "path": str(found.path), "name": found.name, "library": found.format} | {
        name: getattr(dictionary, name, about.get(name)) for name in _FACTS
    } | {
        "normalization": normalization, "tensors": tensors, "bytes": sum(file.stat().st_size for file in files),
    }  # fmt: skip


_FACTS = (
    "dict_size", "activation_dim", "output_dim", "activation", "k", "input_norm", "apply_b_dec_to_input", "transcoder",
    "l1", "seed", "hook_point", "dataset_fingerprint", "normalization", "loss", "samples_seen", "metrics", "stability",
    "sparsecode_version", "format",
)  # fmt: skip


_KINDS: dict[str, Any] = {
    "metrics": dict, "stability": dict, "normalization": dict, "l1": int | float, "seed": int,
}  # fmt: skip


def _model(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelInvalid(f"{path / 'config.json'}: cannot be read ({error})") from error
    shapes = _shapes(path / "model.safetensors", ModelInvalid)
    parameters = 0
    for shape in shapes.values():
        count = 1
        for extent in shape:
            count *= extent
        parameters += count
    return {"kind": "model", "path": str(path), "config": config, "parameters": parameters, "tensors": shapes}


def _shapes(path: Path, broken: type[DictionaryInvalid] | type[ModelInvalid]) -> dict[str, list[int]]:
    """Shapes of a safetensors file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            return {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise broken(f"{path}: cannot be read ({error})") from error


def _run_lines(found: dict[str, Any]) -> list[str]:
    shown = [f"run {found['path']}, {size(found['bytes'])}"]
    for key, stage in found["stages"].items():
        family = key.partition("/")[0]
        figures = headline(family, stage["result"]).partition(": ")[2] if stage["result"] else ""
        state = "done" if stage["status"] == "done" else "begun, not finished"  # at work, or stopped: both are possible
        shown.append(f"  {key}: {state}" + (f", {figures}" if figures and figures != "done" else ""))
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


def _metrics_table(dictionaries: list[dict[str, Any]]) -> list[str]:
    names = ("fvu", "l0", "dead", "mse")
    ordered = sorted(dictionaries, key=lambda d: (d["l1"] or 0, d["dict_size"] or 0, d["seed"] or 0))
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
        for name in ("library", *_FACTS, "tensors")
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
