"""Gathers everything about every feature of several dictionaries, and writes it into a browser's folder.

A dictionary is done once its first list is there; a folder without its page is half written, and goes on from there.

Shape letters: D dimensions of a row, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.browser import folder as files
from sparsecode.browser.effects import Effects
from sparsecode.browser.folder import short
from sparsecode.browser.gather import BEFORE, BINS_OF_BAND, EXAMPLES, Gathered, Rows, Text, gather, read_text
from sparsecode.browser.neighbours import Neighbours, Together, find_neighbours, find_together, shares
from sparsecode.comparison.members import member_of
from sparsecode.dictionary import Dictionary
from sparsecode.watch import UNWATCHED, Watch

TOGETHER_ROWS = 32_768  # rows for correlations of codes: features that fire on 0.1 % of them fire 33 times
NEAR, AMONG, COMPONENTS, LOGITS = 8, 8, 5, 10  # how many are listed of each kind
TOKENS_LISTED = 3  # of a feature in the list, strongest and raised ones: what the search looks through
TRAINED, BASELINE, OTHER = "trained", "baseline", "other"

EffectsOf = Callable[[Tensor, Callable[[int], Any]], Effects]  # of atoms [F, D] at their peaks


@dataclass(frozen=True, kw_only=True)
class BrowseSettings:
    """What is shown of each feature.

    Attributes:
        features: "all", or "live": only those that are active on the rows that are read.
        rows: most rows to read.
        contexts: strongest distinct contexts.
        bands: equal stretches of strength with examples of their own.
        seed: of the draw of examples.
    """

    features: str = "all"
    rows: int = 1_000_000
    contexts: int = 12
    bands: int = 4
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Shown:
    """One dictionary.

    Attributes:
        dictionary: reads the dataset's activations.
        kind: TRAINED, BASELINE or OTHER.
        labels: words and their score by feature, None where they have none.
        found: [F] in how many of `among` dictionaries each feature is found again, where that is known.
        among: how many those are.
    """

    dictionary: Dictionary
    kind: str = TRAINED
    labels: Mapping[int, tuple[str, float | None]] = field(default_factory=dict)
    found: Tensor | None = None
    among: int = 0


def browse(
    folder: Path,
    dataset: Rows,
    texts: Sequence[Any],
    shown: Mapping[str, Shown],
    settings: BrowseSettings,
    about: Mapping[str, Any],
    *,
    effects: Mapping[str, EffectsOf] | None = None,
    threshold: float = 0.9,
    watch: Watch = UNWATCHED,
) -> dict[str, Any]:
    """Writes the folder, and goes on with one that was begun with the same settings and inputs.

    Args:
        folder: where to.
        dataset: activations that every dictionary reads, with their tokens.
        texts: of every token, see `texts.token_table`.
        shown: dictionaries by name.
        settings: what to show.
        about: the run, as JSON values.
        effects: how features act on the logits, by the name of the way.
        threshold: cosine above which a feature counts as found again, where `Shown.found` does not say.
        watch: what it is watched with.

    Returns:
        {"dictionaries", "features", "bytes": of the folder}.
    """
    text = read_text(dataset, settings.rows)
    slugs = files.slugs(shown)
    pairs = len(shown) * (len(shown) - 1) // 2
    with watch.task("browse: neighbours", pairs, "pairs of dictionaries") as progress:
        near = find_neighbours(
            {name: member_of(own.dictionary, name) for name, own in shown.items()}, NEAR, progress.advance
        )
    listed: list[dict[str, Any]] = []
    for name, own in shown.items():
        if not (folder / files.DATA / slugs[name] / "list-0.js").is_file():
            one = _One(dataset, text, own, near[name], settings, threshold, shown)
            _write(folder, slugs[name], one, name, effects or {}, watch)
        listed.append(files.read(folder, f"{slugs[name]}/list-0")["about"] | {"name": name, "slug": slugs[name]})
    for part, some in enumerate(files.parts(texts, files.TOKENS)):
        files.write(folder, f"tokens-{part}", some)
    run = {
        "format": files.FORMAT,
        "settings": asdict(settings),
        "rows": text.rows,
        "contexts_known": text.known,
        "tokens": -(-len(texts) // files.TOKENS),
        "token_part": files.TOKENS,
        "shard": files.SHARD,
        "list_part": files.LISTED,
        "threshold": threshold,
        "together_rows": min(TOGETHER_ROWS, dataset.rows),
        "bins_of_band": BINS_OF_BAND,
        "examples": EXAMPLES,
        "dictionaries": listed,
    }
    files.write(folder, "run", run | dict(about))
    files.write_page(folder)
    return {
        "dictionaries": list(shown),
        "features": sum(one["shown"] for one in listed),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    }


@dataclass(frozen=True, eq=False)
class _One:
    """A dictionary with what it is read beside."""

    dataset: Rows
    text: Text
    shown: Shown
    near: Neighbours
    settings: BrowseSettings
    threshold: float
    all: Mapping[str, Shown]


def _write(folder: Path, slug: str, one: _One, name: str, effects: Mapping[str, EffectsOf], watch: Watch) -> None:
    """Gathers one dictionary and writes its scripts, the first list last."""
    dictionary, settings = one.shown.dictionary, one.settings
    with watch.task(f"browse: {name}", 2 * one.text.rows, "rows") as progress:
        found = gather(
            one.dataset, dictionary, one.text, contexts=settings.contexts, bands=settings.bands, seed=settings.seed,
            advance=progress.advance,
        )  # fmt: skip
    live = found.peak > 0
    features = np.flatnonzero(live) if settings.features == "live" else np.arange(len(live))
    together = find_together(one.dataset, dictionary, min(TOGETHER_ROWS, one.text.rows), AMONG, COMPONENTS)
    made: dict[str, Effects] = {}
    if not dictionary.transcoder:
        height = torch.from_numpy(np.where(live, found.peak, 1))[:, None] * dictionary.scale
        for way, of in effects.items():
            with watch.task(f"browse: {name}: {way} effects", dictionary.dict_size, "features") as progress:
                made[way] = of(dictionary.W_dec * height, progress.advance)
    record = _Records(one, found, together, made)
    for part, some in enumerate(files.parts(features.tolist(), files.SHARD)):
        files.write(folder, f"{slug}/{part:04d}", [record.feature(f) for f in some])
    lists = files.parts(features.tolist(), files.LISTED)
    for part in reversed(range(len(lists))):
        own: dict[str, Any] = {"columns": record.columns(np.array(lists[part], np.int64))}
        if part == 0:
            own["about"] = {
                "kind": one.shown.kind, "size": dictionary.dict_size, "shown": len(features), "lists": len(lists),
                "live": int(live.sum()), "activation": dictionary.activation.name, "effects": list(made),
                "others": list(one.near.others), "among": record.among,
                "l1": dictionary.meta.get("l1"), "seed": dictionary.meta.get("seed"),
                "source": dictionary.meta.get("source"),
                "metrics": {key: short(value) for key, value in (dictionary.meta.get("metrics") or {}).items()
                            if key in ("fvu", "l0") and isinstance(value, int | float)},
            }  # fmt: skip
        files.write(folder, f"{slug}/list-{part}", own)


class _Records:
    """What the scripts hold of each feature, as JSON values."""

    def __init__(self, one: _One, found: Gathered, together: Together, effects: Mapping[str, Effects]) -> None:
        self._one, self._found, self._together, self._effects = one, found, together, effects
        self._density = found.density
        self._shares = shares(one.shown.dictionary.W_dec, COMPONENTS)
        self._again, self.among = self._found_again()
        others = [other.nearest.values for name, other in one.near.others.items() if one.all[name].kind != BASELINE]
        self._best = torch.stack(others).amax(0) if others else torch.full((len(found.peak),), torch.nan)

    def _found_again(self) -> tuple[Tensor | None, int]:
        shown = self._one.shown
        if shown.found is not None:
            return shown.found, shown.among
        compared = [other.nearest.values for name, other in self._one.near.others.items()
                    if self._one.all[name].kind == TRAINED]  # fmt: skip
        if not compared:
            return None, 0
        return (torch.stack(compared) > self._one.threshold).sum(0), len(compared)

    def columns(self, features: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
        """Columns of a list."""
        labels, again = self._one.shown.labels, self._again
        said = [labels.get(int(f), ("", None)) for f in features]
        raised = next(iter(self._effects.values())).raised[0] if self._effects else None
        return {
            "feature": features.tolist(),
            "density": [short(value, 3) for value in self._density[features].tolist()],
            "peak": [short(value) for value in self._found.peak[features].tolist()],
            "found": None if again is None else again[features].tolist(),
            "cosine": [short(value, 3) for value in self._best[features].tolist()],
            "score": [score for _, score in said],
            "label": [words for words, _ in said],
            "top": [self._top(int(f)) for f in features],
            "raised": None if raised is None else raised[features, :TOKENS_LISTED].tolist(),
        }

    def _top(self, f: int) -> list[int]:
        """The tokens of the strongest contexts, each once."""
        rows = self._found.rows[f, : self._found.strongest]
        return list(dict.fromkeys(self._one.text.ids[rows[rows >= 0]].tolist()))[:TOKENS_LISTED]

    def feature(self, f: int) -> dict[str, Any]:
        """All of one feature; docs/browser.md names the keys."""
        found, near, strongest = self._found, self._one.near, self._found.strongest
        at, inside = self._one.text.around(found.rows[f])
        contexts = [self._context(f, slot, at[slot], inside[slot]) for slot in range(len(at))]
        bands = range(strongest, len(contexts), EXAMPLES)
        return {
            "f": f,
            "h": found.counts[f].tolist(),
            "s": [one for one in contexts[:strongest] if one],
            "b": [[one for one in contexts[start : start + EXAMPLES] if one] for start in bands],
            "n": _pairs(near.own[0][f], near.own[1][f]),
            "o": [[*_pair(other.nearest.indices[f], other.nearest.values[f]),
                   *_pair(other.partner.indices[f], other.partner.values[f])] for other in near.others.values()],
            "t": _pairs(*(own[f] for own in self._together.features)),
            "u": _pairs(*(own[f] for own in self._shares)),
            "v": _pairs(*(own[f] for own in self._together.components)),
            "e": {way: [*_column(own.raised, f), *_column(own.lowered, f)] for way, own in self._effects.items()},
        }  # fmt: skip

    def _context(self, f: int, slot: int, at: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]) -> list[Any] | None:
        """[row, code there, tokens before it, ids, strengths in hexadecimal]."""
        row = int(self._found.rows[f, slot])
        if row < 0:
            return None
        ids = self._one.text.ids[at[inside]].tolist()
        code = short(float(self._found.values[f, slot]))
        return [row, code, int(inside[:BEFORE].sum()), ids, self._found.strengths[f, slot][inside].tobytes().hex()]


def _pair(index: Any, value: Any) -> list[Any]:
    return [int(index), short(float(value), 3)]


def _pairs(indices: Any, values: Any) -> list[list[Any]]:
    return [_pair(i, value) for i, value in zip(indices, values, strict=True) if int(i) >= 0]


def _column(own: tuple[Tensor, Tensor], f: int) -> tuple[list[int], list[Any]]:
    return own[0][f].tolist(), [short(value, 3) for value in own[1][f].tolist()]
