"""Explains and scores directions of several groups on the same rows, and says what the groups say.

Shape letters: R rows of the sample, F directions, D activation dimension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecode.dictionary import Dictionary
from sparsecode.interpretation.atoms import Atoms, find_atoms
from sparsecode.interpretation.control import Control
from sparsecode.interpretation.endpoint.judging import Judged
from sparsecode.interpretation.groups import CONTROL, Chosen, Direction, add_all, codes, most_rows
from sparsecode.interpretation.rules import Explanation, explain
from sparsecode.interpretation.sample import Sample, chunks, draw
from sparsecode.interpretation.scores import Scorer, Scores, native, reduced
from sparsecode.interpretation.verdict import RANDOM, differences, judge, said
from sparsecode.interpretation.vocabulary import Vocabulary
from sparsecode.interpretation.words import NOTHING, text_of
from sparsecode.records import as_json
from sparsecode.science.claims.verdicts import Verdict
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.tables import csv_of
from sparsecode.store import Dataset
from sparsecode.watch import UNWATCHED, Watch

EXAMPLES = "examples"  # directions that are explained for a reader and belong to no group
LEAST_ACTIVE = 20  # rows of a half: a correlation with fewer is that of single rows
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class InterpretSettings:
    """How directions are explained and scored.

    Attributes:
        directions: most directions of a group.
        rate: share of tokens that every direction is reduced to, its strongest.
        rows: of the sample, half of them to fit on and half to score on.
        draws: resamples of a bootstrap interval.
        seed: of the halves, of the directions and of the control.
    """

    directions: int = 48
    rate: float = 0.01
    rows: int = 60_000
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Interpreted:
    """One direction, its explanation and its scores.

    Attributes:
        direction: which it is.
        density: share of the sample's rows on which it is active.
        threshold: what its strongest tokens pass, in its own units.
        left_out: why it was not explained; empty where it was.
        explanation, scores: of the strongest tokens.
        native_explanation, native_scores: of all rows on which it is active.
        judged: what a language model said of it; None where none was asked.
        embedding: its example-embedding score; None where no sentence encoder read it.
    """

    direction: Direction
    density: float
    threshold: float
    left_out: str = ""
    explanation: Explanation | None = None
    scores: Scores | None = None
    native_explanation: Explanation | None = None
    native_scores: Scores | None = None
    judged: Judged | None = None
    embedding: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For interpretations.json."""
        found: dict[str, Any] = asdict(self.direction) | {"density": _short(self.density)}
        if self.explanation is None or self.scores is None:
            return found | {"left_out": self.left_out}
        found |= {"threshold": _short(self.threshold), "text": text_of(self.explanation), **self.explanation.as_json()}
        found["scores"] = _shortened(self.scores)
        if self.native_explanation is not None and self.native_scores is not None:
            found["native"] = {"text": text_of(self.native_explanation), "scores": _shortened(self.native_scores)}
        if self.embedding is not None:
            found["embedding"] = _short(self.embedding)
        return found if self.judged is None else found | {"llm": self.judged.as_json()}


@dataclass(frozen=True)
class Interpretations:
    """Everything that was found.

    Attributes:
        settings: how.
        rows: what of the text was read: rows of each half, contexts, predicates, the share of unseen 5-grams.
        directions: of all groups, in their order, examples last.
        over: by how much the group that is judged is above each other, in mean score.
        verdict: what that says.
    """

    settings: InterpretSettings
    rows: dict[str, Any]
    directions: list[Interpreted]
    over: dict[str, Interval] = field(default_factory=dict)
    verdict: Verdict | None = None

    def as_json(self) -> dict[str, Any]:
        """The content of interpretations.json, without where the data came from."""
        return {
            "rows": self.rows,
            "verdict": None if self.verdict is None else as_json(self.verdict),
            "groups": [self._group(name) for name in self._names()],
            "over": {group: as_json(found) for group, found in self.over.items()},
            "directions": [one.as_json() for one in self.directions],
        }

    def table(self) -> str:
        """A line for each direction, as CSV."""
        asked = any(one.judged is not None for one in self.directions)
        embedded = any(one.embedding is not None for one in self.directions)
        measures = self._measures() if asked else None
        return csv_of([_flat(one, measures, embedded) for one in self.directions])

    def with_judged(self, judged: Mapping[Direction, Judged]) -> Interpretations:
        """These, and what a language model said."""
        own = [replace(one, judged=judged.get(one.direction)) for one in self.directions]
        return replace(self, directions=own)

    def with_embedding(self, scores: Mapping[Direction, float]) -> Interpretations:
        """These, and example-embedding scores."""
        return replace(self, directions=[replace(one, embedding=scores.get(one.direction)) for one in self.directions])

    def _measures(self) -> list[str]:
        """The measures of a language model's scores, if there are any."""
        known = [one.judged.scores for one in self.directions if one.judged is not None]
        return list(dict.fromkeys(name for scores in known for name in scores))

    def _names(self) -> list[str]:
        names = dict.fromkeys(one.direction.group for one in self.directions)
        return [name for name in names if name != EXAMPLES]

    def _group(self, name: str) -> dict[str, Any]:
        """Means of a group with their 95 % intervals over directions, and what was left out."""
        own = [one for one in self.directions if one.direction.group == name]
        done = [one for one in own if one.scores is not None]
        return (
            {
                "name": name,
                "said": said(name),
                "drawn": len(own),
                "explained": len(done),
                "left_out": dict(Counter(one.left_out for one in own if one.left_out)),
                "nothing_found": sum(not one.explanation.rules for one in done if one.explanation is not None),
                "density": _short(float(np.median([one.density for one in own]))),
                "scores": self._means([one.scores for one in done]),
                "native": self._means([one.native_scores for one in done]),
            }
            | self._group_of_judged([one.judged for one in own if one.judged is not None])
            | self._means_of({"embedding": [one.embedding for one in own if one.embedding is not None]})
        )

    def _group_of_judged(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """Means of a language model's scores over the complete directions, and over how many each is."""
        if not judged:
            return {}
        done = [one for one in judged if not one.reason]
        known = {name: [one.scores[name] for one in done if name in one.scores] for name in self._measures()}
        return {"llm": {
            "asked": len(judged),
            "complete": len(done),
            "incomplete": dict(Counter(one.reason for one in judged if one.reason)),
            "nothing_found": sum(one.explanation == NOTHING for one in done),
            "scores": self._means_of(known),
        }}  # fmt: skip

    def _means_of(self, values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """The mean of each of several measures with its interval, and of how many directions it is."""
        return {name: as_json(bootstrap.interval(own, draws=self.settings.draws)) | {"of": len(own)}
                for name, own in values.items() if own}  # fmt: skip

    def _means(self, scores: Sequence[Scores | None]) -> dict[str, Any]:
        known = [one for one in scores if one is not None]
        if not known:
            return {}
        return {
            measure: as_json(bootstrap.interval([getattr(one, measure) for one in known], draws=self.settings.draws))
            for measure in Scores.__dataclass_fields__
        }


def interpret(
    dataset: Dataset,
    vocabulary: Vocabulary,
    chosen: Chosen,
    settings: InterpretSettings,
    control: tuple[Control, Dictionary] | None = None,
    watch: Watch = UNWATCHED,
    look: Callable[[Direction, Array, Sample], None] = lambda *_: None,
) -> Interpretations:
    """Explains every direction on one half of the same rows and scores it on the other.

    Args:
        dataset: where the rows are.
        vocabulary: of its tokens.
        chosen: the groups, those called EXAMPLES for a reader alone.
        settings: how.
        control: the untrained control and a dictionary of its activations; None: none.
        watch: what it is watched with.
        look: called with every direction of a group that was explained, its activations [R], reduced to the strongest,
            and the sample.

    Raises:
        ContextsUnknown: the dataset does not say which rows belong together.
        DatasetUnfit: there are too few contexts.
    """
    sample = draw(dataset, settings.rows, settings.seed)
    atoms = find_atoms(sample, vocabulary)
    scorer = Scorer.of(sample, atoms, settings.seed)
    read = [(chosen, chunks(dataset, sample, most_rows(chosen.dictionaries)))] if chosen.groups else []
    if control is not None:
        beside = Chosen()
        add_all(beside, CONTROL, control[1], settings.directions, settings.seed)
        read.append((beside, control[0].chunks(sample)))
    found: list[Interpreted] = []
    with watch.task("interpret", sum(len(own.directions) for own, _ in read), "directions") as progress:
        for own, parts in read:
            wanted = _wanted(own)
            values = codes(wanted, own.dictionaries, parts, sample)
            for one in own.directions:
                activations = values[one.dictionary][:, wanted[one.dictionary].index(one.feature)]
                found.append(interpreted(one, activations, sample, atoms, scorer, settings.rate))
                if found[-1].scores is not None and one.group != EXAMPLES:
                    look(one, _strongest(activations, sample, settings.rate), sample)
                progress.advance(1)
    found.sort(key=lambda one: one.direction.group == EXAMPLES)
    rows = {
        "fitting": int(sample.fitting.sum()),
        "scoring": int((~sample.fitting).sum()),
        "contexts": len(sample.contexts),
        "repeated_contexts": sample.repeated,
        "predicates": len(atoms.atoms),
        "unseen": _short(float(scorer.unseen.mean())),
    }
    scores = _by_group(found, "correlation")
    over = differences(scores, settings.draws)
    verdict = judge(scores, over, _by_group(found, "token_table").get(RANDOM, []))
    return Interpretations(settings, rows, found, over, verdict)


def interpreted(
    direction: Direction,
    activations: npt.NDArray[np.floating[Any]],
    sample: Sample,
    atoms: Atoms,
    scorer: Scorer,
    rate: float,
) -> Interpreted:
    """One direction, from its activations [R] at all rows of the sample.

    It depends on nothing else: not on other directions, and its explanation not on the scoring half.
    """
    own = activations.astype(np.float64)
    fitting, scoring = own[sample.fitting], own[~sample.fitting]
    density = float((own > 0).mean())
    z, z_scoring, threshold = reduced(fitting, scoring, rate)
    for half, values in (("fitting", z), ("scoring", z_scoring)):
        if (values > 0).sum() < LEAST_ACTIVE:
            why = f"active on fewer than {LEAST_ACTIVE} rows of the {half} half"
            return Interpreted(direction, density, threshold, why)
    a, a_scoring = native(fitting, scoring)
    explanation, natively = explain(atoms, z), explain(atoms, a)
    return Interpreted(
        direction, density, threshold, "", explanation, scorer.score(explanation, z, z_scoring), natively,
        scorer.score(natively, a, a_scoring),
    )  # fmt: skip


def _strongest(activations: npt.NDArray[np.floating[Any]], sample: Sample, rate: float) -> Array:
    """[R] `reduced` of both halves, in the order of the rows."""
    a, z = activations.astype(np.float64), np.empty(sample.rows)
    z[sample.fitting], z[~sample.fitting], _ = reduced(a[sample.fitting], a[~sample.fitting], rate)
    return z


def _wanted(chosen: Chosen) -> dict[str, list[int]]:
    """The features of each dictionary that some group has, each once."""
    found: dict[str, list[int]] = {}
    for one in chosen.directions:
        own = found.setdefault(one.dictionary, [])
        if one.feature not in own:
            own.append(one.feature)
    return found


def _by_group(found: Sequence[Interpreted], measure: str) -> dict[str, list[float]]:
    """By group, a measure of each direction that was explained; without examples."""
    values: dict[str, list[float]] = {}
    for one in found:
        if one.scores is not None and one.direction.group != EXAMPLES:
            values.setdefault(one.direction.group, []).append(float(getattr(one.scores, measure)))
    return values


def _flat(one: Interpreted, measures: Sequence[str] | None, embedded: bool) -> Mapping[str, Any]:
    """A direction as cells of a table; what was left out has empty ones.

    Args:
        one: the direction.
        measures: of a language model; None: none was asked.
        embedded: whether a sentence encoder read any direction.
    """
    record = one.as_json()
    scores, natively, llm = (record.get(name, {}) for name in ("scores", "native", "llm"))
    said = {"embedding": record.get("embedding")} if embedded else {}
    said |= {f"llm_{name}": llm.get("scores", {}).get(name) for name in measures or ()}
    if measures is not None:
        said |= {"llm_reason": llm.get("reason"), "llm_text": llm.get("explanation")}
    return (
        {key: record[key] for key in ("group", "dictionary", "feature", "density")}
        | {"threshold": record.get("threshold"), "left_out": record.get("left_out", "")}
        | {name: scores.get(name) for name in Scores.__dataclass_fields__}
        | {f"native_{name}": natively.get("scores", {}).get(name) for name in ("correlation", "auroc")}
        | {"text": record.get("text"), "native_text": natively.get("text")}
        | said
    )


def _shortened(scores: Scores) -> dict[str, float]:
    return {name: _short(value) for name, value in asdict(scores).items()}


def _short(value: float) -> float:
    return round(value, 6)
