"""What explanations in words say: features beside neurons, other baselines and an untrained model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from sparsecode.report import charts
from sparsecode.report.blocks import Block, Column, Figure, Section, Table
from sparsecode.report.facts import Facts

LISTED = 10  # explanations of each group
HOW = (
    "An explanation is a list of at most five rules of one or two predicates over the text up to a token: the token, "
    "its word, the two before it, a word among the last eight, classes of tokens, and where it stands on its line, in "
    "quotes, in brackets and after repetition. It is found on one half of the contexts and predicts activations on the "
    "other; the score is the correlation of the two. Every direction is reduced to the same share of its strongest "
    "tokens, because dense directions get higher scores for being dense; the thresholds that directions have by "
    "themselves stand beside. Unseen: tokens that follow four others in a way that the fitting half does not have. "
    "Tokens: the score of a table with the mean of every token. Beyond the token: correlation after each token's mean "
    "is taken from both. Nothing found: no predicate did more than chance explains. The grammar sees the surface of "
    "text and no meaning: a low score does not say that a direction has none. Intervals are over directions (95 %, "
    "bootstrap), not over seeds."
)
ASKED = (
    "A language model was shown excerpts of the fitting half and said what active tokens have in common; with that it "
    "was asked about excerpts of the other half, among them some without activity that hold a token which is active "
    "elsewhere (hard). Detection: in which is it active? Fuzzing: is it active at the marked token? Both are balanced "
    "accuracies: 0.5 is chance. Simulation: correlation over the tokens of a few excerpts, which are not a sample of "
    "all. Intruder: which of five does not belong, without an explanation; chance is 0.2. Means are over complete "
    "directions; one with fewer than 80 % of its answers is incomplete, and no failed answer counts as wrong."
)
_MEASURES = {
    "correlation": Column("score", ".3f", "correlation of predicted and true activations"),
    "unseen_correlation": Column("unseen", ".3f", "score on tokens whose last five are not in the fitting half"),
    "token_table": Column("tokens", ".3f", "score of a table of all tokens"),
    "beyond_token": Column("beyond the token", ".3f"),
    "auroc": Column("AUROC", ".3f"),
    "precision": Column("precision", ".0%"),
    "recall": Column("recall", ".0%"),
}


def section(facts: Facts) -> Section | None:
    """The verdict, a table and a figure of the groups, and explanations; None where there are none."""
    record = facts.interpretations
    if record is None:
        return None
    verdict, rows = record["verdict"], record["rows"]
    blocks: list[Block | None] = [_groups(record), _asked(record), _figure(record), _explanations(record)]
    lead = [verdict["reason"], *map(str, record["missing"].values())]
    return Section(
        "interpretation",
        "Explanations in words",
        "Are features predicted better than other directions by explanations made from the text alone? "
        f"{verdict['verdict'].capitalize()} ({verdict['number']}).",
        lead,
        [block for block in blocks if block is not None],
        how=f"{rows['fitting']:,} rows to explain and {rows['scoring']:,} to score on, in {rows['contexts']:,} whole "
        f"contexts; {rows['unseen']:.0%} of the latter follow four tokens in a way that the former do not have. "
        + (f"{HOW} {ASKED}" if "endpoint" in record else HOW),
        numbers={key: record[key] for key in ("rows", "verdict", "over", "missing", "settings")},
    )


def explanations(record: Mapping[str, Any] | None) -> dict[tuple[str, int], str]:
    """By dictionary and feature, what a direction's explanation says and how well it predicts."""
    found: dict[tuple[str, int], str] = {}
    for one in () if record is None else record["directions"]:
        if "text" in one:
            found[one["dictionary"], one["feature"]] = f"{one['text']} (score {one['scores']['correlation']:.2f})"
        else:
            found.setdefault((one["dictionary"], one["feature"]), f"not explained: {one['left_out']}")
    return found


def _groups(record: Mapping[str, Any]) -> Table:
    columns = [
        Column("group"),
        Column("directions", ",d", "that were explained"),
        Column("left out", ",d", "active on too few rows"),
        Column("nothing found", ",d"),
        Column("density", ".2%", "median share of rows on which a direction is active by itself"),
        *_MEASURES.values(),
        Column("from", ".3f", "lower end of the score's interval"),
        Column("to", ".3f"),
        Column("own threshold", ".3f", "score where directions keep the threshold that they have by themselves"),
    ]
    embedded = any("embedding" in group for group in record["groups"])
    columns += [Column("embedding", ".3f", "AUROC of the example-embedding score; 0.5 by chance")] if embedded else []
    rows = []
    for group in record["groups"]:
        scores, native = group["scores"], group["native"]
        rows.append(
            [group["said"], group["explained"], sum(group["left_out"].values()), group["nothing_found"],
             group["density"], *(scores[name]["value"] if scores else None for name in _MEASURES),
             scores["correlation"]["low"] if scores else None, scores["correlation"]["high"] if scores else None,
             native["correlation"]["value"] if native else None,
             *([group.get("embedding", {}).get("value")] if embedded else [])]
        )  # fmt: skip
    caption = f"Means over directions, each reduced to its strongest {record['settings']['rate']:.2%} of tokens."
    return Table("interpretation-groups", caption, columns, rows)


def _asked(record: Mapping[str, Any]) -> Table | None:
    """What a language model's explanations score; None where none was asked."""
    groups = [(group["said"], group["llm"]) for group in record["groups"] if "llm" in group]
    names = list(dict.fromkeys(name for _, own in groups for name in own["scores"]))
    if not groups:
        return None
    columns = [Column("group"), Column("complete", ",d"), Column("of", ",d"), Column("nothing found", ",d")]
    rows = []
    for said, own in groups:
        scores = [own["scores"].get(name, {}) for name in names]
        values = [one.get(end) for one in scores for end in ("value", "low", "high")]
        rows.append([said, own["complete"], own["asked"], own["nothing_found"], *values])
    for title in (name.replace("_", ", ") for name in names):
        columns += [Column(title, ".3f"), Column(f"{title}: from", ".3f"), Column(f"{title}: to", ".3f")]
    about = record["endpoint"]
    left = f"; {about['left']:,} calls brought no answer" if about["left"] else ""
    caption = f"Explained and scored by {about['llm']} at {about['host']}, {about['answers']:,} answers{left}."
    return Table("interpretation-llm", caption, columns, rows)


def _figure(record: Mapping[str, Any]) -> Figure | None:
    """Scores of all directions: a point for each, beside boxes by group."""
    values = {
        group["said"]: [
            one["scores"]["correlation"] for one in record["directions"]
            if one["group"] == group["name"] and "scores" in one
        ]
        for group in record["groups"]
    }  # fmt: skip
    values = {name: own for name, own in values.items() if own}
    if not values:
        return None
    data, layout = charts.boxes(values, "correlation of predicted and true activations", -0.05, ".2f")
    rows = [[direction, *own] for direction, own in enumerate(zip_longest(*values.values()), 1)]
    return charts.figure(
        "interpretation",
        "Each point is a direction: how well the explanation that was found on one half of the text predicts its "
        "activations on the other half.",
        "Box plots of the scores of explanations by group of directions.",
        "Score of each direction.",
        {"direction": ",d"} | dict.fromkeys(values, ".3f"),
        rows,
        data,
        layout,
        height=max(320, 48 * len(values) + 120),
    )


def _explanations(record: Mapping[str, Any]) -> Table | None:
    """The first explanations of every group, in the order in which they were drawn."""
    rows = []
    for group in record["groups"]:
        own = [one for one in record["directions"] if one["group"] == group["name"] and "text" in one]
        rows += [[group["said"], one["dictionary"], one["feature"], one["text"], one["scores"]["correlation"],
                  one["scores"]["beyond_token"], *_said(record, one)] for one in own[:LISTED]]  # fmt: skip
    if not rows:
        return None
    columns = [Column("group"), Column("dictionary"), Column("feature", ",d"), Column("explanation"),
               Column("score", ".2f"), Column("beyond the token", ".2f")]  # fmt: skip
    columns += [Column("language model"), Column("detection", ".2f")] if "endpoint" in record else []
    return Table("explanations", f"Explanations of {LISTED} directions of each group", columns, rows, folded=True)


def _said(record: Mapping[str, Any], one: Mapping[str, Any]) -> list[Any]:
    """A language model's words for a direction and how well they detect it, where one was asked."""
    own = one.get("llm", {})
    said = own.get("explanation") or own.get("reason")
    return [said, own.get("scores", {}).get("detection")] if "endpoint" in record else []
