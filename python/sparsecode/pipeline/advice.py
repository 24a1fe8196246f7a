"""What can be done about a failure, in the words of the command line.

The library says what is the matter; a `SparsecodeError` names its remedy, and here the remedies have their words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from sparsecode.errors import SparsecodeError

P = ParamSpec("P")
R = TypeVar("R")

REMEDIES = {
    "chat_messages": "--chat takes lists of messages with role and content, and --text-key names theirs",
    "chat_tables": "--chat takes tables of them, such as .jsonl",
    "consensus_data": "name the folder of a dataset with --dataset, or average the encoders with --refit none",
    "consensus_l1": "name it with --l1, or take averages with --refit none",
    "consensus_refit": "leave --refit at encoder",
    "consensus_support": "lower --support or --threshold",
    "convert_hf": "convert it --to hf and harvest that with --model",
    "device": "use --device auto or cpu",
    "device_cpu": "use --device cpu or another engine",
    "diverged": "its training diverged, lower --lr",
    "documents": "add --documents",
    "engine_cpu": "use --engine cpu",
    "engine_reference": "use --engine reference",
    "fast_tokenizer": "save its fast tokenizer there, or harvest batches of ids from Python",
    "force": "--force writes over it",
    "gpt": "run sparsecode train-gpt again",
    "harvest": "run: sparsecode harvest",
    "harvest_again": "harvest it again with --force",
    "harvest_model": "harvest the folder as it is with --model",
    "hf_stream": "--hf-stream goes with --hf-dataset, and with --max-text-mb: that much of it is read",
    "hook": "name the place with --hook",
    "model_dtype": "--model-dtype names the type to compute in",
    "module": "name modules with --module",
    "only_modules": "harvest can still read its modules, with --module",
    "other_run": "or choose another run with --run",
    "shard_rows": "name it with --shard-rows",
    "skip_bad": "leave it out, or skip what is unreadable with --skip-bad",
    "text": "--text takes files, folders and globs",
    "text_key": "name it by --text-key",
    "text_key_or_ids": "name it by --text-key, or ids of the tokenizer by --text-key input_ids",
    "tokenizer": "--tokenizer takes a tokenizer.json, or a folder with it or with encoder.json and vocab.bpe",
    "tokenizer_of_ids": "name the tokenizer that made them by --tokenizer",
    "tokens": "run sparsecode train-gpt --force to make the tokens again, or choose another run with --run",
}


def told(error: SparsecodeError) -> str:
    """What an error says, with the words of its remedy."""
    return str(error) if error.remedy is None else f"{error}; {REMEDIES[error.remedy]}"


def advise(error: SparsecodeError) -> None:
    """Adds the words of its remedy to an error, once."""
    error.args, error.remedy = (told(error),), None


def advised(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose failures say what can be done about them."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except SparsecodeError as error:
            advise(error)
            raise

    return wrapped


@contextmanager
def advice(what_next: str, *kinds: type[SparsecodeError]) -> Iterator[None]:
    """Adds to failures of some kinds what can be done here: "x holds NaN" becomes "x holds NaN; lower --lr"."""
    try:
        yield
    except kinds as error:
        error.args = (f"{error}; {what_next}",)
        raise
