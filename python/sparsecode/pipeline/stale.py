"""Which stages read what others wrote, and whether that is still what they read.

Each stage's record holds fingerprints of its inputs. Here they are compared with what is in the run now:

    harvest       the GPT (train-gpt), the tokens (train-gpt, or `tokens` of another model)
    train-dicts   the dataset (harvest, or the folder named with --dataset)
    compare       the dictionaries (train-dicts)
    consensus     the comparison (compare), the dataset
    claims        the comparison (compare), the dataset
    baselines     the dataset, the dictionaries where they were trained on it
    interpret     the comparison, the dataset, and baselines and claims where there are any
    browse        the comparison, the dataset, and baselines and explanations where there are any
    report        the comparison, and the consensus, claims, baselines, explanations and toy models where there are any

A stage is out of date as well where one that it reads is, or is not finished any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsecode.errors import SparsecodeError, StageStale
from sparsecode.pipeline.run import Run, command_of

OPTIONAL = ("consensus", "claims", "baselines", "interpret", "toy")  # a report shows those that are there
INTERPRETED = ("claims", "baselines")  # ... and interpret explains
_NEEDED = ("train-gpt", "train-dicts", "compare")  # a stage that has read one of these had it in its own run
BROWSED = ("baselines", "interpret")  # ... and browse shows
_BESIDE = ("consensus", "claims", "interpret", "browse")  # they read the data that the dictionaries were trained on
_ORDER = (
    "tokens",
    "train-gpt",
    "harvest",
    "train-dicts",
    "compare",
    "consensus",
    "claims",
    "baselines",
    "interpret",
    "browse",
    "toy",
    "report",
)


@dataclass(frozen=True)
class Stale:
    """Why a stage is out of date, and the commands that mend it, the first thing to run first."""

    reason: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Where an input comes from, and its fingerprint now; None where that cannot be told."""

    stage: str
    now: str | None


def digest(path: Path) -> str:
    """Fingerprint of a small file; empty where it is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def optional_digests(run: Run, keys: Iterable[str] = OPTIONAL) -> dict[str, str]:
    """Fingerprints of what a report, or another stage, shows where the run has it; empty where it has not."""
    files = {
        "consensus": run.consensus_path, "claims": run.claims_path,
        "baselines": run.path / "baselines" / "baselines.json",
        "interpret": run.path / "interpret" / "interpretations.json", "toy": run.path / "toy" / "toy.json",
    }  # fmt: skip
    stages = run.config()["stages"]
    return {key: digest(files[key]) if _done(stages, key) else "" for key in keys}


def dictionaries_of(stages: Mapping[str, Any], dataset: str | None = None) -> str | None:
    """The fingerprint of the run's dictionaries as `train-dicts` recorded it; empty where they are of another dataset.

    None where an older version trained them.
    """
    result = _result(stages, "train-dicts")
    if dataset is not None and result.get("dataset_fingerprint") != dataset:
        return ""
    return result.get("fingerprint")


def stale(run: Run) -> dict[str, Stale]:
    """The stages that are out of date, in the order of the pipeline."""
    stages = run.config()["stages"]
    found: dict[str, Stale] = {}
    for key in sorted(stages, key=lambda key: _ORDER.index(family(key)) if family(key) in _ORDER else len(_ORDER)):
        inputs = stages[key].get("inputs") or {}
        reasons: list[str] = []
        first: list[str] = []
        for name, source in _sources(run, key, stages).items():
            if inputs.get(name):
                why, before = _why(source, inputs[name], stages, found, run)
                reasons += [why] if why else []
                first += before
            elif name in inputs and source.now:
                reasons.append(f"{source.stage} was done since")
        if reasons:
            own = command_of(run, key, stages, force=True)
            found[key] = Stale(reasons[0], tuple(dict.fromkeys([*first, own])))
    return found


def family(key: str) -> str:
    """The command of a stage: `harvest` of `harvest/blocks.2.mlp.hook_post`."""
    return key.partition("/")[0]


def require(run: Run, keys: Iterable[str], *, own: str | None = None) -> None:
    """Refuses to read stages that are out of date.

    Args:
        run: the run.
        keys: the stages that are read; those that it has not are none of this function's business.
        own: the stage that reads them, where it is one.

    Raises:
        StageStale: the message holds every command that mends it.
    """
    found = stale(run)
    wrong = [key for key in keys if key in found]
    if wrong:
        commands = list(dict.fromkeys(command for key in wrong for command in found[key].commands))
        stages = run.config()["stages"]
        if own is not None and own in stages:
            commands.append(command_of(run, own, stages, force=True))
        raise StageStale(
            f"{run.path}: {wrong[0]} is out of date, {found[wrong[0]].reason}; run: {' && '.join(commands)}"
        )


def _why(
    source: _Source, was: str, stages: Mapping[str, Any], found: Mapping[str, Stale], run: Run
) -> tuple[str, tuple[str, ...]]:
    """Why an input is not what it was, and what to run before the stage itself; empty where nothing is wrong."""
    if source.stage in found:
        return f"as is {source.stage}, which it reads", found[source.stage].commands
    if not _done(stages, source.stage) and (source.stage in stages or source.stage in _NEEDED):
        state = "was begun again and is not finished" if source.stage in stages else "is gone"
        return f"{source.stage} {state}", (command_of(run, source.stage, stages),)
    if source.now is not None and source.now != was:
        return f"{source.stage} changed since", ()
    return "", ()


def _sources(run: Run, key: str, stages: Mapping[str, Any]) -> dict[str, _Source]:
    """Inputs of a stage by the name that its record has for them."""
    match family(key):
        case "harvest" if "gpt" in (stages[key].get("inputs") or {}):
            trained = _result(stages, "train-gpt")
            return {
                "gpt": _Source("train-gpt", trained.get("fingerprint")),
                "tokens": _Source("train-gpt", trained.get("tokens_fingerprint")),
            }
        case "harvest":
            return {"tokens": _Source("tokens", _result(stages, "tokens").get("tokens_fingerprint"))}
        case "train-dicts":
            return _data(run, key, stages)
        case "compare":
            return {"sweep": _Source("train-dicts", dictionaries_of(stages))}
        case "consensus" | "claims":
            return {
                "comparison": _Source("compare", digest(run.comparison_path) or None),
                "activations": _dataset(run, key, stages),
            }
        case "baselines":
            own = stages[key].get("inputs", {}).get("dataset")
            return {
                "dataset": _dataset(run, key, stages),
                "sweep": _Source("train-dicts", dictionaries_of(stages, own)),
            }
        case "interpret" | "browse":
            optional = optional_digests(run, INTERPRETED if key == "interpret" else BROWSED)
            return {
                "comparison": _Source("compare", digest(run.comparison_path) or None),
                "activations": _dataset(run, key, stages),
            } | {name: _Source(name, value) for name, value in optional.items()}
        case "report":
            optional = optional_digests(run)
            return {"comparison": _Source("compare", digest(run.comparison_path) or None)} | {
                name: _Source(name, value) for name, value in optional.items()
            }
    return {}


def _data(run: Run, key: str, stages: Mapping[str, Any]) -> dict[str, _Source]:
    """The datasets that dictionaries are trained on, by the names of `plan.Data.inputs`."""
    told = stages[key].get("beside") or {}
    first, *others = (told.get("hook") or "").split(",")
    if told.get("dataset") or not (others or told.get("target")):
        found = {"dataset": _dataset(run, key, stages)}
        return found | (
            {"target": _Source("the dataset", _fingerprint(Path(told["target"])))} if told.get("target") else {}
        )
    hooks = {"dataset": first} | {f"dataset/{hook}": hook for hook in others}
    hooks |= {"target": told["target"]} if told.get("target") else {}
    return {
        name: _Source(f"harvest/{hook}", _result(stages, f"harvest/{hook}").get("fingerprint"))
        for name, hook in hooks.items()
    }


def _dataset(run: Run, key: str, stages: Mapping[str, Any]) -> _Source:
    """The dataset that a stage reads: a folder it was told, or one harvested in the run."""
    record = stages[key]
    told = record.get("beside") or {}
    trained = (stages.get("train-dicts") or {}).get("beside") or {}
    folder = told.get("dataset") or (trained.get("dataset") if key in _BESIDE else None)
    if folder:
        return _Source("the dataset", _fingerprint(Path(folder)))
    if key in _BESIDE:  # which do without where there is none any more
        source = f"harvest/{_result(stages, 'train-dicts').get('hook_point')}"
        return _Source(source, _fingerprint(run.activations_path / source.partition("/")[2]))
    source = f"harvest/{told.get('hook') or _result(stages, key).get('hook_point')}"
    return _Source(source, _result(stages, source).get("fingerprint"))


def _fingerprint(folder: Path) -> str | None:
    from sparsecode import _core

    try:
        return str(_core.Dataset(folder, "mmap", "never").fingerprint)
    except SparsecodeError:  # gone or broken: reading it reports that
        return None


def _done(stages: Mapping[str, Any], key: str) -> bool:
    return (stages.get(key) or {}).get("status") == "done"


def _result(stages: Mapping[str, Any], key: str) -> dict[str, Any]:
    return dict((stages.get(key) or {}).get("result") or {}) if _done(stages, key) else {}
