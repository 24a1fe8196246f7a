"""What a path holds, found by looking at it, as a JSON value; `lines` has the words for people.

`describe` returns {"kind": "run" | "dataset" | "dictionary" | "model", "path", ...}, or of a folder of several
{"kind": "datasets" | "dictionaries", "path", the several under that name, "left_out": what is broken among them}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from sparsecode.dictionary.files import common_name, files_of, names_in, read_description, whole
from sparsecode.errors import DictionaryInvalid, LeftOut, ModelInvalid, NotRecognised, SparsecodeError, StageMissing
from sparsecode.interop import Found, find_dictionaries, find_format, load_found, looks_like, not_recognised
from sparsecode.pipeline.advice import told
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.pipeline.preset import DEFAULT_PRESET, load_preset
from sparsecode.pipeline.recall import settings_for
from sparsecode.pipeline.run import Run, command_of
from sparsecode.pipeline.stale import stale

T = TypeVar("T")
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
        if (path / "config.json").is_file() and looks_like(path) is None:
            return _run(path)
        if inside := sorted(manifest.parent for manifest in path.glob("*/manifest.json")):
            held, left_out = _several(inside, _dataset)
            return {"kind": "datasets", "path": str(path), "datasets": held, "left_out": left_out}
        if several := find_dictionaries(path):
            held, left_out = _several(several, _found)
            return {"kind": "dictionaries", "path": str(path), "dictionaries": held, "left_out": left_out}
        if any(path.glob("*.pt")) or looks_like(path) is not None:
            raise not_recognised(path)
        raise NotRecognised(
            f"{path}: no run, dataset, model or dictionary is in this folder; 'sparsecode replicate' makes a run"
        )
    tensors = _dictionary_file(path)
    if tensors is None:
        if (foreign := find_format(path)) is not None:
            return _foreign(foreign)
        if path.is_file() and (_is_part(path) or (path.name == "config.yaml" and find_dictionaries(path))):
            return describe(path.parent)
        if looks_like(path) is not None:
            raise not_recognised(path)
        state = "not something that sparsecode wrote" if path.exists() else "no such file or folder"
        raise NotRecognised(f"{path}: {state}; name a run, a dataset or a dictionary")
    return _dictionary(tensors)


def sweep_need(found: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a sweep of the settings `given` would need, by hook point or on the dataset that was found.

    Raises:
        StageMissing: what was found holds no dataset.
        InvalidSetting: a setting that cannot be used.
    """
    from sparsecode.pipeline.plan import need
    from sparsecode.sweep.memory import device_memory

    datasets = {"dataset": [found], "run": found.get("datasets")}.get(found["kind"]) or []
    if not datasets:
        raise StageMissing(f"{found['path']}: no dataset to train on; what a sweep needs depends on its width")
    default = load_preset(DEFAULT_PRESET)
    if found["kind"] == "run":
        config = settings_for(Run(found["path"]), "train-dicts", given, default=default)
    else:
        config = default.stage("train-dicts").asked(**given)
    assert isinstance(config, TrainDictsConfig)
    needs = {dim: need(config, dim) for dim in sorted({dataset["activation_dim"] for dataset in datasets})}
    return {str(dim): own.as_json() | {"available_bytes": device_memory(own.device)} for dim, own in needs.items()}


def left_out_of(found: dict[str, Any]) -> tuple[list[tuple[str, str]], int]:
    """The broken ones among what `describe` found, with their reasons, and how many there were in all."""
    left_out = [(one["path"], one["reason"]) for one in found.get("left_out", [])]
    return left_out, len(left_out) + sum(len(found.get(name, [])) for name in ("datasets", "dictionaries"))


def _several(places: Iterable[T], look: Callable[[T], dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """What is at each of several places; those that are broken apart, with the reason."""
    held: list[dict[str, Any]] = []
    left_out = LeftOut()
    for place in places:
        with left_out.where(str(getattr(place, "path", place)), SparsecodeError):
            held.append(look(place))
    return held, [{"path": path, "reason": told(error)} for path, error in left_out.found]


def _found(one: Found) -> dict[str, Any]:
    own = _dictionary_file(one.path) if one.format == "sparsecode" else None
    return _foreign(one) if own is None else _dictionary(own)


def _run(path: Path) -> dict[str, Any]:
    run = Run(path)
    stages = run.config()["stages"]
    old = stale(run)
    commands = {key: list(found.commands) for key, found in old.items()}
    commands |= {key: [command_of(run, key, stages)] for key in stages if not run.is_done(key)}
    dictionaries, broken = _several([files_of(name)[0] for name in names_in(run.dictionaries_path)], _dictionary)
    manifests = sorted(run.activations_path.glob("*/manifest.json"))
    datasets, broken_sets = _several([manifest.parent for manifest in manifests], _dataset)
    return {
        "kind": "run",
        "path": str(path),
        "stages": {
            key: {name: record.get(name) for name in ("status", "started", "finished", "settings", "result")}
            | {"out_of_date": old[key].reason if key in old else None, "run": commands.get(key)}
            for key, record in stages.items()
        },
        "preset": preset.get("name") if isinstance(preset := run.config().get("preset"), dict) else None,
        "datasets": datasets,
        "dictionaries": dictionaries,
        "left_out": broken_sets + broken,
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
    from sparsecode.sweep.normalization import gamma

    dataset = Dataset(path)
    statistics = {key: own for key, own in dataset.statistics.items() if key != "mean"}  # as long as a row
    statistics["gamma"] = gamma(dataset.statistics)
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
    name = common_name(path)
    return files_of(name)[0] if whole(name) else None


def _dictionary(tensors: Path) -> dict[str, Any]:
    facts = tensors.with_suffix(".json")
    known = read_description(facts)
    held = {name: known.get(name) for name in FACTS}
    for name, kind in _KINDS.items():
        if held[name] is not None and not isinstance(held[name], kind):
            raise DictionaryInvalid(f"{facts}: '{name}' is {held[name]!r}, which no dictionary has; copy it again")
    normalization = _short(held["normalization"] or {})
    shapes = _shapes(tensors, DictionaryInvalid)
    said = [held["dict_size"], held["activation_dim"]]
    if shapes.get("W_enc") != said:
        raise DictionaryInvalid(
            f"{facts}: says {said[0]} features of {said[1]} dimensions, but W_enc in {tensors.name} is "
            f"{shapes.get('W_enc')}; the two files do not belong together"
        )
    trained = {"trained_as": str(known["kind"])} if "kind" in known else {}
    return {"kind": "dictionary", "path": str(tensors), "name": tensors.stem} | trained | held | {
        "normalization": normalization, "tensors": shapes, "bytes": tensors.stat().st_size
    }  # fmt: skip


def _short(normalization: dict[str, Any]) -> dict[str, Any]:
    """Without the mean, which is as long as a row, and each scale once."""
    found = {name: value for name, value in normalization.items() if name != "mean"}
    scale = found.get("scale")
    return found | ({"scale": sorted(set(scale))} if isinstance(scale, list) else {})


def _foreign(found: Found) -> dict[str, Any]:
    """A dictionary of another library, in the same words; its weights are read, since they say what it is."""
    dictionary = load_found(found)
    about = dictionary.meta | dictionary.about
    normalization = _short(dictionary.normalization)
    return {"kind": "dictionary", "path": str(found.path), "name": found.name, "library": found.format} | {
        name: about.get(name) for name in FACTS
    } | {
        "normalization": normalization,
        "tensors": {name: list(value.shape) for name, value in dictionary.tensors.items()},
        "bytes": sum(file.stat().st_size for file in found.files),
    }  # fmt: skip


FACTS = (
    "dict_size", "activation_dim", "output_dim", "activation", "k", "input_norm", "apply_b_dec_to_input", "transcoder",
    "l1", "seed", "hook_point", "hook_point_out", "dataset_fingerprint", "normalization", "loss", "samples_seen",
    "metrics", "stability", "sparsecode_version", "format",
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
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return {"kind": "model", "path": str(path), "config": config, "parameters": parameters, "tensors": shapes}


def _shapes(path: Path, broken: type[DictionaryInvalid] | type[ModelInvalid]) -> dict[str, list[int]]:
    """Shapes of a safetensors file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            return {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise broken(f"{path}: cannot be read ({error})") from error
