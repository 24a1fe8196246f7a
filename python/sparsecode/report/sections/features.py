"""What the steadiest features respond to: the tokens on which they are most active."""

from __future__ import annotations

from sparsecode.report.blocks import Block, Examples, Section
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section:
    """Examples of the features that most dictionaries share."""
    listed = facts.comparison.record["steadiest"]
    others = len(facts.comparison.names) - 1
    summary = (
        f"{sum(entry['stability'] == 1 for entry in listed)} distinct features are found again in all {others} other "
        "dictionaries of the comparison."
        if others
        else "There is one dictionary only."
    )
    lead = []
    blocks: list[Block] = []
    if facts.examples:
        searched = facts.examples[0].searched
        caption = (
            f"The steadiest features, each with the strongest of {searched:,} tokens. The darker the mark, the "
            "stronger the activation; the number is that of the outlined token."
        )
        blocks.append(Examples("features", caption, [found.as_json() for found in facts.examples]))
    else:
        lead.append(f"No examples: {facts.examples_missing}.")
    return Section(
        "top-tokens",
        "What the steadiest features respond to",
        summary,
        lead,
        blocks,
        how="Features are ranked by the share of the other dictionaries in which they are found again, then by mean "
        "cosine; the same direction is listed once. A context that repeats is shown once.",
        numbers={"steadiest": listed},
    )
