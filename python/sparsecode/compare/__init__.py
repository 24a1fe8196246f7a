"""Compare: which features of a dictionary are found again in others, by max cosine similarity (MCS)."""

from sparsecode.compare.matching import matched_mcs
from sparsecode.compare.mcs import BestMatches, mcs, mcs_both
from sparsecode.compare.members import Member, load_members
from sparsecode.compare.result import Comparison
from sparsecode.compare.stage import compare_dicts, compare_files
from sparsecode.compare.statistics import histogram, mmcs, share_above

__all__ = [
    "BestMatches",
    "Comparison",
    "Member",
    "compare_dicts",
    "compare_files",
    "histogram",
    "load_members",
    "matched_mcs",
    "mcs",
    "mcs_both",
    "mmcs",
    "share_above",
]
