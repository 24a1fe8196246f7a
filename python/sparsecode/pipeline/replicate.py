"""All stages, one after the other: what `sparsecode replicate` and `sparsecode.replicate` do."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sparsecode.pipeline import forecast
from sparsecode.pipeline.config import BaselinesConfig, HarvestConfig, InterpretConfig, TrainDictsConfig
from sparsecode.pipeline.hook_names import hook_name, single_configs
from sparsecode.pipeline.preset import DEFAULT_PRESET, SEEDED, load_preset
from sparsecode.pipeline.progress import say
from sparsecode.pipeline.recall import as_recorded, settings_for
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.settings import StageConfig
from sparsecode.pipeline.stale import stale
from sparsecode.pipeline.thin import thin as thin_lines
from sparsecode.watch import clock, human

# Stage, and the module of this package and the function that do it, in order.
STAGE_FUNCTIONS = {
    "train-gpt": ("train_gpt", "train_gpt"),
    "harvest": ("harvest", "harvest_activations"),
    "train-dicts": ("train_dicts", "train_dicts"),
    "compare": ("compare", "compare_dicts"),
    "claims": ("claims", "check_claims"),
    "baselines": ("baselines", "fit_baselines"),
    "interpret": ("interpret", "interpret_directions"),
    "toy": ("toy", "toy_models"),
    "report": ("report", "write_report"),
}


def replicate(
    run: str | Path | Run = DEFAULT_RUN,
    preset: str | None = None,
    *,
    seed: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs every stage that is not done yet, or whose inputs have changed since.

    Args:
        run: the run folder.
        preset: a preset's name, or the path of a TOML file; None: what the run has (`pipeline.recall`), and for a new
            one the preset called default.
        seed: of every stage that draws anything; dictionaries take it and those after it. The run remembers it as it
            does its preset. None: what the run or the preset has.
        force: do stages again that were done with other settings.
        quiet: print nothing.

    Returns:
        {"run", "preset": its name, "report": path of the page, "stages": {stage: its result}, "seconds": {stage: wall
        time}, "thin": {stage: its results that were trained too little}, "not_tested": {number of a claim: why}}, JSON
        values all.

    Raises:
        SparsecodeError: whatever a stage raises; what was done before stays, and the same call resumes.
    """
    named = None if preset is None else load_preset(preset)
    folder = Run(run, named)
    chosen = named or folder.remembered_preset() or load_preset(DEFAULT_PRESET)
    folder.preset = chosen if seed is None else chosen.seeded(seed)

    def settings(stage: str) -> StageConfig:
        given = {"seed": seed} if seed is not None and stage in SEEDED else {}
        return settings_for(folder, stage, given, preset=named, default=chosen)

    stages: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    configs = {stage: settings(stage) for stage in STAGE_FUNCTIONS}
    if not quiet and (left := _left(folder, force, configs)):
        say(
            f"replicate: about {clock(left)} if nothing else runs here and this machine is as fast as the one of the "
            "measurements, two cores with AMX; said again when its rate is known"
        )
    for stage in STAGE_FUNCTIONS:
        before = _finish_times(folder)
        started = time.monotonic()
        config = settings(stage)
        if isinstance(config, TrainDictsConfig | BaselinesConfig) and config.hook is None and config.dataset is None:
            config = config.changed(hook=stages["harvest"].get("hook_point"))  # the run may hold others as well
        again = force or _changed_since(folder, stage, config, quiet=quiet)
        if isinstance(config, InterpretConfig) and (again or not folder.is_done(stage)):
            config = config.changed(endpoint=None)  # nothing is sent anywhere, nor paid for, unless it is asked for
        found = stage_function(stage)(folder, config, force=again, quiet=quiet)
        stages[stage] = figures_of(found, folder, stage)
        seconds[stage] = round(time.monotonic() - started, 3)
        if _finish_times(folder) != before:  # a stage that was done has told so itself
            tell(stage, stages[stage], seconds[stage], quiet=quiet)
            speed = forecast.measured_speed(stage, configs, stages[stage], seconds[stage])
            if speed is not None and not quiet:
                say(f"replicate: about {clock(_left(folder, force, configs, stage, speed))} left at the rate seen here")
    if not quiet:
        for line in summary(folder, stages, sum(seconds.values())):
            say(line)
    return {
        "run": str(folder.path),
        "preset": chosen.name,
        "report": str(folder.report_path),
        "stages": stages,
        "seconds": seconds,
        "thin": thin_stages(stages),
        "not_tested": not_tested(stages),
    }


def _left(
    run: Run, force: bool, configs: Mapping[str, StageConfig], after: str | None = None, speed: float = 1.0
) -> float:
    """About how many seconds the stages after `after` (none: all) will take; those that are done take none."""
    names = list(STAGE_FUNCTIONS)
    ahead = names if after is None else names[names.index(after) + 1 :]
    done = {key.partition("/")[0] for key, record in run.config()["stages"].items() if record["status"] == "done"}
    return sum(forecast.seconds(stage, configs, speed) for stage in ahead if force or stage not in done)


def _changed_since(run: Run, stage: str, config: StageConfig, *, quiet: bool) -> bool:
    """Whether a finished stage of these very settings was done from what has changed since, and is to be done again."""
    stages, old = run.config()["stages"], stale(run)
    for key, asked in _asked(run, stage, config).items() if old else ():
        if key in old and run.is_done(key) and stages[key]["settings"] == asked.record():
            if not quiet:
                say(f"{key} is out of date, {old[key].reason}; doing it again")
            return True
    return False


def _asked(run: Run, stage: str, config: StageConfig) -> dict[str, StageConfig]:
    """The settings by the stages that they are for: those of a harvest by hook point, named as the run names it."""
    if not isinstance(config, HarvestConfig):
        return {stage: config}
    singles = {hook_name(single): single for single in single_configs(config)}
    return {f"harvest/{hook}": as_recorded(run, hook, single) for hook, single in singles.items()}


def stage_function(stage: str) -> Callable[..., Any]:
    """The function of a stage; its module is imported now, not before."""
    module, name = STAGE_FUNCTIONS[stage]
    function: Callable[..., Any] = getattr(importlib.import_module(f"sparsecode.pipeline.{module}"), name)
    return function


def tell(stage: str, result: Any, seconds: float | None = None, *, quiet: bool = False) -> None:
    """Prints the headline of a finished stage, and its results that are thin or were not tested."""
    if not quiet:
        say(headline(stage, result) + (f", in {clock(seconds)}" if seconds is not None else ""))
        for line in warnings(stage, result):
            say(line)


def warnings(stage: str, result: Any) -> list[str]:
    """A line for everything of a finished stage that was trained too little, and for every claim it did not test."""
    held = result if isinstance(result, Mapping) else {}
    thin = [f"{stage}: thin: {line}" for line in thin_lines(stage, held)]
    untested = (held.get("not_tested") or {}).items()
    return thin + [f"{stage}: claim {number} not tested: {reason}" for number, reason in untested]


def headline(stage: str, result: Any) -> str:
    """One line of a stage's result: the figures worth knowing; those that it does not hold are left out."""
    held = result if isinstance(result, Mapping) else {}
    parts = [spell(held[key]) for key, spell in _FIGURES[stage].items() if held.get(key) is not None]
    return f"{stage}: " + (", ".join(parts) or "done")


_FIGURES: dict[str, dict[str, Callable[[Any], str]]] = {
    "train-gpt": {
        "steps": lambda n: f"{human(n)} steps",
        "tokens_seen": lambda n: f"{human(n)} tokens",
        "val_loss": lambda x: f"validation loss {x:.3f}",
        "bits_per_byte": lambda x: f"{x:.3f} bits per byte",
    },
    "tokens": {  # of a model that was not trained here
        "model": lambda name: f"of {name}",
        "train_tokens": lambda n: f"{human(n)} for training",
        "val_tokens": lambda n: f"{human(n)} held out",
    },
    "harvest": {"hook_point": str, "rows": lambda n: f"{human(n)} rows"},
    "train-dicts": {
        "hook_point": str,
        "dictionaries": lambda names: f"{len(names)} dictionaries",
        "samples": lambda n: f"{human(n)} samples",
        "metrics": lambda by_name: _spans(by_name.values()),
        "eval_rows": lambda n: f"on {n} held-out rows",
    },
    "compare": {"dictionaries": lambda names: f"{len(names)} dictionaries compared"},
    "claims": {
        "verdicts": lambda found: ", ".join(f"{key} {verdict}" for key, verdict in found.items()),
    },
    "baselines": {
        "baselines": ", ".join,
        "eval_rows": lambda n: f"on {n} held-out rows",
    },
    "interpret": {
        "explained": lambda n: f"{n} directions",
        "verdict": str,
        "number": str,
        "asked": lambda found: f"{found['answers']:,} answers of a language model ({found['spent']})",
    },
    "browse": {
        "page": str,
        "features": lambda n: f"{n} features",
        "bytes": lambda n: f"{n / 1e6:.1f} MB",
    },
    "toy": {
        "dictionaries": lambda names: f"{len(names)} dictionaries",
        "samples": lambda n: f"{human(n)} samples",
        "mmcs_truth": lambda by_name: f"MMCS with the truth up to {max(by_name.values()):.3f}",
        "verdict": lambda word: f"claim 7 {word}",
    },
    "report": {"page": str, "bytes": lambda n: f"{n / 1e6:.1f} MB"},
}


def _spans(metrics: Iterable[Mapping[str, Any]]) -> str:
    """From the best to the worst dictionary of a sweep."""
    rows = list(metrics)
    spans = []
    for name, label, form in (("fvu", "FVU", ".3f"), ("l0", "L0", ".1f"), ("dead", "dead", "d")):
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            spans.append(f"{label} {min(values):{form}}-{max(values):{form}}")
    return ", ".join(spans)


def figures_of(found: Any, run: Run, stage: str) -> dict[str, Any]:
    """A stage's result as JSON values: what its function returned, or what it recorded in the run."""
    if isinstance(found, Mapping):
        return dict(found)
    return dict(run.config()["stages"].get(stage, {}).get("result") or {})


def summary(run: Run, stages: Mapping[str, Mapping[str, Any]], seconds: float) -> list[str]:
    """The last lines of `replicate`: the report's own sentences, what to hold against them, how long it all took, and
    where the page is.
    """
    lines = list(stages["report"].get("summary", []))
    lines += [f"thin: {stage}: {line}" for stage, found in thin_stages(stages).items() for line in found]
    if untested := not_tested(stages):
        lines.append(f"not tested: claim{'s' if len(untested) > 1 else ''} {', '.join(untested)}")
    return [*lines, f"all stages done in {clock(seconds)}", f"report: {run.report_path}"]


def thin_stages(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """By stage: what of it was trained too little, see `pipeline.thin`."""
    found = {stage: thin_lines(stage, result) for stage, result in stages.items()}
    return {stage: lines for stage, lines in found.items() if lines}


def not_tested(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Claims that were not tested, by number, and why."""
    return {number: why for result in stages.values() for number, why in (result.get("not_tested") or {}).items()}


def _finish_times(run: Run) -> dict[str, Any]:
    return {key: record.get("finished") for key, record in run.config()["stages"].items()}
