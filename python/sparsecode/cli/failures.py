"""What a failure looks like on the command line: one line on stderr and an exit code.

0 done    1 a check failed    2 wrong usage    3 data or machine    130 interrupted
141 the reader of stdout left    143 terminated
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from sparsecode.errors import IoFailed, SparsecodeError
from sparsecode.pipeline.advice import advise

DEBUG = "sparsecode.debug"  # keys of ctx.meta, which a command shares with its group
FORCE = "sparsecode.force"

INTERRUPTED = 130  # as a shell reports a process that SIGINT ended
_PIPE_CLOSED = 141  # ... and SIGPIPE


@contextmanager
def told_in_one_line(ctx: click.Context) -> Iterator[None]:
    """Ends the command with the failure's exit code and one line; what was not foreseen keeps its traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A name that is not UTF-8, or a terminal that is not: told as well as it can be, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")

    def tell(line: str, code: int) -> None:
        if ctx.meta.get(DEBUG):
            traceback.print_exc()
        click.echo(line, err=True)
        ctx.exit(code)

    try:
        yield
        sys.stdout.flush()  # a reader that left is noticed here, not while the interpreter shuts down
    except SparsecodeError as error:
        advise(error)
        tell(f"sparsecode: {' '.join(str(error).split())}", error.exit_code)
    except BrokenPipeError:
        # What is still buffered has nowhere to go; without this the interpreter complains while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ctx.exit(_PIPE_CLOSED)
    except OSError as error:  # of the machine, not of this program, wherever a path is looked at
        if error.filename is None:
            raise
        owner = "ask its owner, or " if isinstance(error, PermissionError) else ""
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
        tell(f"sparsecode: {place}: {error.strerror}; {owner}name another place", IoFailed.exit_code)
    except RuntimeError as error:  # what pathlib makes of a link that leads to itself, before Python 3.13
        cause = error.__context__
        if not isinstance(cause, OSError) or cause.errno != errno.ELOOP:
            raise
        tell(f"sparsecode: {cause.filename}: a link that leads to itself; name another place", IoFailed.exit_code)
    except KeyboardInterrupt as error:
        again = "run the same command without --force" if ctx.meta.get(FORCE) else "run the same command again"
        # A progress line may be standing on the terminal: start on a new one.
        code = getattr(error, "exit_code", INTERRUPTED)
        ended = "interrupted" if code == INTERRUPTED else "terminated"
        tell(("\n" if sys.stderr.isatty() else "") + f"sparsecode: {ended}; {again}, it resumes", code)
