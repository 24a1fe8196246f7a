"""Which features are found again: the question of the experiment."""

from __future__ import annotations

from sparsecode.report import figures
from sparsecode.report.blocks import Block, Section
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section:
    """MMCS between all pairs, histograms of MCS, how far atoms moved."""
    lead, summary = [], ""
    best = facts.best()
    if best is not None:
        entry, relation = best
        found = entry[relation]["mcs"]["all"]
        width = facts.dimensions
        judged = "more than" if found["above"] > width else "as many as" if found["above"] == width else "fewer than"
        summary = (
            f"{found['above']:,} of the {entry['dict_size']:,} features of {entry['name']} are found again in "
            f"{entry[relation]['dictionary']}, {judged} the {width} dimensions of the space."
        )
        lead.append(
            f"A feature is found again where its cosine with an atom of the other dictionary is above "
            f"{facts.threshold:g}. Most are in {entry['name']}, compared with {entry[relation]['dictionary']} "
            f"({figures.RELATIONS[relation]}): {found['above']:,} of {entry['dict_size']:,}. Its features reach a mean "
            f"of {found['mean']:.2f}; random directions would reach {entry[relation]['chance_mmcs']:.2f}."
        )
    candidates = [
        figures.found_again(facts),
        figures.mcs_histograms(facts),
        figures.mmcs_heat_map(facts),
        figures.how_far_atoms_moved(facts),
    ]
    blocks: list[Block] = [figure for figure in candidates if figure is not None]
    return Section(
        "recurrence",
        "Features that are found again",
        summary,
        lead,
        blocks,
        how="Each atom of a dictionary is compared with all atoms of another; its largest cosine is its max cosine "
        "similarity (MCS), their mean the MMCS. Products are exact in float32. Live features are those that fired "
        "on the held-out rows.",
        numbers={
            "mmcs": facts.comparison.record["mmcs"] | {"order": facts.comparison.names},
            "dictionaries": {
                entry["name"]: {key: entry[key] for key in figures.RELATIONS} for entry in facts.dictionaries
            },
        },
    )
