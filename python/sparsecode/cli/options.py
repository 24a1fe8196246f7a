"""Click options made from the fields of the stages' settings, and the options that commands share.

The default that `--help` shows is what happens without the flag: the value of the preset called default.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from sparsecode.cli.failures import DEBUG, FORCE
from sparsecode.config import STAGES, StageConfig, load_preset
from sparsecode.run import DEFAULT_RUN

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_PRESET = "default"


class Number(click.ParamType):
    """A finite number of at least zero: 6000000, 6_000_000, 6M or 6e6. `none` unsets one that may be unset."""

    _SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}  # noqa: RUF012 (constant)

    def __init__(self, *, whole: bool, optional: bool) -> None:
        self.name = "whole number" if whole else "number"
        self._whole = whole
        self._optional = optional

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float | None:
        """The number that `value` spells."""
        text = str(value).strip()
        if self._optional and text.lower() == "none":
            return None
        try:
            return int(text) if self._whole else self._sane(float(text), text, param, ctx)
        except ValueError:
            pass
        scale = self._SUFFIXES.get(text[-1:], 1.0)
        try:
            number = self._sane(float(text[:-1] if scale > 1 else text) * scale, text, param, ctx)
        except ValueError:
            self.fail(f"{text!r} is not a {self.name}", param, ctx)
        if not self._whole:
            return number
        if number != int(number):
            self.fail(f"{text!r} is not a {self.name}", param, ctx)
        return int(number)

    def _sane(self, number: float, text: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not math.isfinite(number):
            self.fail(f"{text!r} is not a finite number", param, ctx)
        return number


class Command(click.Command):
    """A click command whose repeatable options take several values after one flag: `--text a b` is `--text a --text b`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spreads the values, then parses as click does."""
        flags = {name for param in self.params if isinstance(param, click.Option) and param.multiple for name in param.opts}
        return super().parse_args(ctx, _spread(ctx, args, flags))


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

    The decorated function is called with `config`, `run`, `force`, `quiet` and its own parameters: settings are the
    defaults, changed by the preset, changed by the flags.
    """
    shown = load_preset(DEFAULT_PRESET).stage(stage)
    fields = dataclasses.fields(STAGES[stage])

    def decorate(function: F) -> F:
        @click.pass_context
        @functools.wraps(function)
        def command(ctx: click.Context, /, **values: Any) -> Any:
            given = {}
            for field in fields:
                value = values.pop(field.name)
                if ctx.get_parameter_source(field.name) is not ParameterSource.DEFAULT:
                    given[field.name] = value
            config = load_preset(values.pop("preset")).stage(stage).changed(**given)
            return function(config=config, **values)

        decorated: Any = command
        for decorator in (debug_option, quiet_option, force_option, preset_option, run_option):
            decorated = decorator(decorated)
        for field in reversed(fields):
            decorated = _option(field, shown)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _option(field: dataclasses.Field[Any], shown: StageConfig) -> Callable[[F], F]:
    flag = f"--{field.name.replace('_', '-')}"
    kinds = {kind.strip() for kind in str(field.type).split("|")}
    default = getattr(shown, field.name)
    help = field.metadata["help"]
    if default is not None and default != ():
        spelled = ("on" if default else "off") if isinstance(default, bool) else default
        help += f"  [default: {spelled}]"
    settings: dict[str, Any] = {"help": help, "default": None}
    optional = "None" in kinds
    if "bool" in kinds:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, **settings)
    if "tuple[str, ...]" in kinds:
        return click.option(flag, field.name, multiple=True, metavar="PATH...", help=help)
    if field.metadata["choices"]:
        return click.option(flag, field.name, type=click.Choice(field.metadata["choices"]), **settings)
    if "float" in kinds or "int" in kinds:
        whole = "float" not in kinds
        metavar = "N" if whole else "X"
        return click.option(flag, field.name, type=Number(whole=whole, optional=optional), metavar=metavar, **settings)
    return click.option(flag, field.name, type=str, metavar="TEXT", **settings)


def _remember(key: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        ctx.meta[key] = value
        return value

    return callback


run_option = click.option(
    "--run",
    "run",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(DEFAULT_RUN),
    metavar="DIR",
    help=f"Run folder.  [default: {DEFAULT_RUN}]",
)
preset_option = click.option(
    "--preset",
    default=DEFAULT_PRESET,
    metavar="NAME",
    help=f"A preset's name, or a TOML file; flags beat it.  [default: {DEFAULT_PRESET}]",
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
