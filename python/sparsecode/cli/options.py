"""Click options made from the fields of the stages' settings, and the options that commands share.

The default that `--help` shows is what happens without the flag in a new run: the value of the preset called default.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from sparsecode.cli.failures import DEBUG, FORCE, INTERRUPTED
from sparsecode.pipeline.config import STAGES
from sparsecode.pipeline.preset import DEFAULT_PRESET, load_preset, preset_names
from sparsecode.pipeline.recall import settings_for
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.settings import StageConfig, kinds_of

F = TypeVar("F", bound=Callable[..., Any])


_SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}


def number(text: str, *, whole: bool, optional: bool) -> int | float | None:
    """The finite number that a flag's value spells: 6000000, 6_000_000, 6M or 6e6; `none` where it may be unset.

    Raises:
        click.BadParameter: it spells none.
    """
    text = text.strip()
    if optional and text.lower() == "none":
        return None
    scale = _SUFFIXES.get(text[-1:])
    try:
        if whole and scale is None and text.replace("_", "").removeprefix("-").isdigit():
            return int(text)  # exact, however long
        value = float(text[:-1]) * scale if scale else float(text)
        # 4.35M is 4349999.9999999995 in binary: what is whole but for rounding is whole.
        if math.isfinite(value) and (not whole or abs(value - round(value)) < 1e-6):
            return round(value) if whole else value
    except ValueError:
        pass
    raise click.BadParameter(f"{text!r} is not a {'whole ' if whole else ''}number")


class Command(click.Command):
    """A command whose repeatable options take several values after one flag: `--text a b` is `--text a --text b`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spreads the values, then parses as click does."""
        flags = {
            name for param in self.params if isinstance(param, click.Option) and param.multiple for name in param.opts
        }
        return super().parse_args(ctx, _spread(ctx, args, flags))


class RankedCommand(Command):
    """A command that several processes may do together: what ends one of them ends all, and is said once."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Reads the command line as click does."""
        with _said_once():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Does the command as click does."""
        with _said_once():
            return super().invoke(ctx)


@contextmanager
def _said_once() -> Iterator[None]:
    try:
        yield
    except (click.exceptions.Exit, click.Abort):
        raise
    except BaseException as error:
        from sparsecode.pipeline import ranks

        code = getattr(error, "exit_code", INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1)
        silent = ranks.silent(error)
        if ranks.several():
            atexit.register(_leave, code)
        if silent:
            raise click.exceptions.Exit(code) from error
        raise


def _leave(code: int) -> None:
    """Ends the process although threads wait for another one, which the libraries of a group would wait for."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _spread(ctx: click.Context, args: list[str], flags: set[str]) -> list[str]:
    spread: list[str] = []
    flag: str | None = None
    values = 0
    for index, arg in enumerate([*args, "--"]):
        if arg.startswith("-") and arg != "-":
            if flag is not None and values == 0:
                ctx.fail(f"option '{flag}' needs at least one value")
            if arg == "--":
                return spread + args[index:]
            flag, values = arg if arg in flags else None, 0
        elif flag is not None:
            values += 1
            if values > 1:
                spread.append(flag)
        spread.append(arg)
    return spread


def stage_options(stage: str) -> Callable[[F], F]:
    """Adds an option for each setting of `stage`, and --run, --preset, --force, --quiet and --debug.

    The decorated function is called with `config`, `run`, `force`, `quiet` and its own parameters: settings are those
    of the preset that is named, else those that the run has (`pipeline.recall`), changed by the flags; `none` unsets
    what may be unset.
    """
    default = load_preset(DEFAULT_PRESET)

    def chosen(values: dict[str, Any], given: dict[str, Any]) -> StageConfig:
        named = values.pop("preset")
        preset = None if named is None else load_preset(named)
        run = Run(values["run"], preset)
        if preset is not None:
            values["run"] = run
        return settings_for(run, stage, given, preset=preset, default=default)

    options = (debug_option, quiet_option, force_option, preset_option, run_option)
    return _settings(STAGES[stage], default.stage(stage), chosen, options)


def settings_options(kind: type[StageConfig]) -> Callable[[F], F]:
    """Adds an option for each setting of a command that no run remembers, which is called with them as `config`."""
    return _settings(kind, kind(), lambda _, given: kind().changed(**given))


def _settings(
    kind: type[StageConfig],
    shown: StageConfig,
    chosen: Callable[[dict[str, Any], dict[str, Any]], StageConfig],
    others: Iterable[Callable[[Any], Any]] = (),
) -> Callable[[F], F]:
    """Adds an option for each setting, and `others`.

    Args:
        kind: the settings.
        shown: the defaults that `--help` shows.
        chosen: from the other parameters and the settings that were given, those to call the command with.
        others: decorators, the last of them first in the help.
    """
    fields = dataclasses.fields(kind)

    def decorate(function: F) -> F:
        @click.pass_context
        @functools.wraps(function)
        def command(ctx: click.Context, /, **values: Any) -> Any:
            given = {}
            for field in fields:
                value = values.pop(field.name)
                if ctx.get_parameter_source(field.name) is not ParameterSource.DEFAULT:
                    given[field.name] = value
            config = chosen(values, given)
            return function(**values, config=config)

        decorated: Any = command
        for decorator in others:
            decorated = decorator(decorated)
        for field in reversed(fields):
            decorated = _option(field, shown)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _option(field: dataclasses.Field[Any], shown: StageConfig) -> Callable[[F], F]:
    flag, kinds, about = f"--{field.name.replace('_', '-')}", kinds_of(field), field.metadata
    optional = NoneType in kinds
    default = getattr(shown, field.name)
    help = about["help"]
    if about["shown"] is not None:
        help += f"  [default: {about['shown']}]" * bool(about["shown"])
    elif default is not None and default != ():
        spelled = ("on" if default else "off") if isinstance(default, bool) else default
        help += f"  [default: {spelled}]"
    if bool in kinds:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, help=help, default=None)
    if tuple[str, ...] in kinds:
        return click.option(flag, field.name, multiple=True, metavar=f"{about['metavar']}...", help=help)
    settings: dict[str, Any] = {"help": help, "default": None}
    if about["several"] and about["choices"]:
        settings |= {"metavar": f"[{'|'.join(about['choices'])}],..."}
    elif about["choices"]:
        settings |= {"type": click.Choice(about["choices"])}
    elif kinds == {int, str}:
        settings |= {"metavar": "N,...", "callback": _read(lambda text: int(text) if text.isdecimal() else text)}
    elif kinds & {int, float}:
        whole = float not in kinds
        spell = functools.partial(number, whole=whole, optional=optional)
        settings |= {"metavar": "N" if whole else "X", "callback": _read(spell)}
    else:
        settings |= {"metavar": "TEXT", "callback": _read(lambda text: None if optional and text == "none" else text)}
    return click.option(flag, field.name, **{"type": str} | settings)


def _read(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    return lambda _, __, value: None if value is None else read(value)


def _remember(key: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        ctx.meta[key] = value
        return value

    return callback


def _folder(_: click.Context, __: click.Parameter, value: str) -> Path:
    Run(value).check_place()
    return Path(value)


run_option = click.option(
    "--run",
    "run",
    type=click.Path(file_okay=False),
    callback=_folder,
    default=DEFAULT_RUN,
    metavar="DIR",
    help=f"Run folder.  [default: {DEFAULT_RUN}]",
)
preset_option = click.option(
    "--preset",
    default=None,
    envvar="SPARSECODE_PRESET",
    metavar="NAME",
    help=f"{', '.join(preset_names())}, or a TOML file; flags beat it.  "
    f"[default: $SPARSECODE_PRESET, or what the run has, or {DEFAULT_PRESET}]",
)
seed_option = click.option(
    "--seed",
    type=str,
    metavar="N",
    callback=_read(functools.partial(number, whole=True, optional=False)),
    help="Seed of the GPT, the harvest, the dictionaries (the first of theirs), claims, baselines, explanations and "
    "toy models.  "
    "[default: what the run has, or the preset: 0]",
)
force_option = click.option(
    "--force", is_flag=True, callback=_remember(FORCE), help="Do it again although it was done with other settings."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress, only errors.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember(DEBUG),
    help="Show the traceback of an error.",
)
