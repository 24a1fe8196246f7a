"""How a run's record names its text, so that another way to type its path does not make it another text."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sparsecode.corpus.prepare import text_state
from sparsecode.corpus.sources import find_sources
from sparsecode.corpus.text import TextSettings
from sparsecode.corpus.tokenizer import read_tokenizer
from sparsecode.corpus.tokens import digest_of, read_header
from sparsecode.errors import SparsecodeError
from sparsecode.pipeline.config import TextConfig, TrainGptConfig
from sparsecode.pipeline.run import Run

C = TypeVar("C", TrainGptConfig, TextConfig)


def as_recorded(run: Run, key: str, config: C) -> C:
    """The settings with text and tokenizer as the run's record names them if they are the same, else by full paths.

    A text is the same if its paths lead to the same files, or if the files there have the names, sizes and times of
    those that the run's tokens were made from: a run and its text may move together.

    Args:
        run: the run.
        key: the stage that records the settings.
        config: its settings, as given.
    """
    before = run.config()["stages"].get(key, {}).get("settings", {})
    text = before.get("text")
    if isinstance(text, list) and config.text and _same_text(run, text, config):
        config = replace(config, text=tuple(text))
    else:
        config = replace(config, text=tuple(sorted({full_path(given) for given in config.text})))
    if isinstance(config, TrainGptConfig) and config.tokenizer is not None:
        held = before.get("tokenizer")
        same = isinstance(held, str) and _same_tokenizer(run, held, config.tokenizer)
        config = config.changed(tokenizer=held if same else full_path(config.tokenizer))
    return config


def full_path(given: str) -> str:
    """An absolute path or glob, with links to folders followed; a file that is a link keeps its own name and ending."""
    path = Path(given).expanduser()
    if glob.has_magic(str(path)) and not path.exists():
        parts = path.absolute().parts
        first = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        return str(Path(*parts[:first]).resolve().joinpath(*parts[first:]))
    if path.is_dir() or path.name in ("", ".."):
        return str(path.resolve())
    return str(path.absolute().parent.resolve() / path.name)


def _same_text(run: Run, text: list[str], config: TrainGptConfig | TextConfig) -> bool:
    if list(config.text) == text or _targets(text) == _targets(config.text):
        return True
    try:
        header = read_header(run)
        asked = {name: getattr(config, name) for name in ("text", "text_key", "skip_bad")}
        wanted = TextSettings(**asked)
        return header is not None and header["state"] == text_state(find_sources(wanted), wanted)
    except SparsecodeError:  # reading the text reports what is wrong with it
        return False


def _targets(text: Sequence[str]) -> set[str]:
    """The targets of paths; a glob, whose files may change, stays as it is."""
    full = [Path(full_path(given)) for given in text]
    return {str(path.resolve() if path.exists() else path) for path in full}


def _same_tokenizer(run: Run, held: str, given: str) -> bool:
    if held == given or _targets([held]) == _targets([given]):
        return True
    try:
        header = read_header(run)
        return header is not None and header["settings"].get("tokenizer") == digest_of(
            read_tokenizer(given).to_str().encode()
        )
    except SparsecodeError:
        return False
