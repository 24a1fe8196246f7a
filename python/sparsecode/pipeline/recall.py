"""What a call does not say is taken from the run: the settings of a stage, from what is known of them.

A setting that is given beats everything. For the rest, the first of these that there is decides as a whole:

1. the preset that the call names;
2. what the run recorded for the stage;
3. the preset that the run remembers, the last one named there: for stages that were not begun yet;
4. the command line's preset called default, or from Python the settings' own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from sparsecode.errors import InvalidSetting, RunInvalid
from sparsecode.pipeline.config import STAGES, HarvestConfig, Preset, StageConfig
from sparsecode.pipeline.hook_names import hook_names
from sparsecode.pipeline.run import Run

_HARVEST = "harvest/"
_NAMING = ("layer", "site", "hook", "module")  # settings that say which hook points

S = TypeVar("S", bound=StageConfig)


def recalled(run: Run, kind: type[S], config: S | None, given: Mapping[str, Any]) -> S:
    """The settings that a stage's function was called with: `config` changed by `given`; without it, `settings_for`."""
    if config is not None:
        return config.changed(**given)
    stage = next(name for name, own in STAGES.items() if own is kind)
    return cast(S, settings_for(run, stage, given))


def settings_for(
    run: Run,
    stage: str,
    given: Mapping[str, Any],
    *,
    preset: Preset | None = None,
    default: Preset | None = None,
) -> StageConfig:
    """The settings of a stage for a call that says `given`.

    Args:
        run: the run, which need not exist.
        stage: its name.
        given: what the call says; None only unsets.
        preset: the one that the call names.
        default: decides where nothing else does; None: the settings' own defaults.

    Raises:
        InvalidSetting: a value that cannot be used.
        RunInvalid: the run's record cannot be read.
    """
    if preset is not None:
        return preset.stage(stage).asked(**given)
    record = run.config()["stages"].get(stage)
    base: StageConfig | None = None if record is None else settings_of(run, stage, record)
    if stage == "harvest":
        base = _harvest(run, given)
    if base is None:
        remembered = run.remembered_preset() or default
        base = STAGES[stage]() if remembered is None else remembered.stage(stage)
    return base.asked(**given)


def settings_of(run: Run, key: str, record: Mapping[str, Any]) -> StageConfig:
    """The settings in a stage's record.

    Raises:
        RunInvalid: they are not what this version takes.
    """
    try:
        return STAGES[key.partition("/")[0]].recorded(record, f"'{key}'")
    except InvalidSetting as error:
        raise RunInvalid(f"{run.config_path}: {error}; say it with a flag and --force, or name --preset") from error


def as_recorded(run: Run, hook: str, config: HarvestConfig) -> HarvestConfig:
    """Settings for one hook point that name it as the run's record does: by its layer, its own name or its module."""
    record = run.config()["stages"].get(_HARVEST + hook)
    if record is None:
        return config
    known = settings_of(run, _HARVEST + hook, record)
    return config.changed(**{name: getattr(known, name) for name in _NAMING})


def _harvest(run: Run, given: Mapping[str, Any]) -> HarvestConfig | None:
    """Settings of the hook points that are meant; where none is named, of all that the run has."""
    records = {key: record for key, record in run.config()["stages"].items() if key.startswith(_HARVEST)}
    if not records:
        return None
    order = sorted(records, key=lambda key: str(records[key].get("started", "")))  # stable: by what was begun last
    known = {key: cast(HarvestConfig, settings_of(run, key, records[key])) for key in order}
    latest = known[order[-1]]
    if any(given.get(name) is not None for name in _NAMING):
        meant = hook_names(latest.asked(**given))
        return next((known[_HARVEST + hook] for hook in meant if _HARVEST + hook in known), latest)
    alike = {key: config for key, config in known.items() if _unnamed(config) == _unnamed(latest)}
    names = tuple(key.removeprefix(_HARVEST) for key in alike)
    if len(alike) == 1 or len({bool(config.module) for config in alike.values()}) > 1:
        return latest
    return latest.changed(module=names) if latest.module else latest.changed(hook=",".join(names), module=())


def _unnamed(config: HarvestConfig) -> HarvestConfig:
    default = HarvestConfig()
    return config.changed(**{name: getattr(default, name) for name in _NAMING})
