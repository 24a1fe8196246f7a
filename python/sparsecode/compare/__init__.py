"""Compare: which features of a dictionary are found again in others, by max cosine similarity (MCS)."""

from sparsecode.compare.consistency import encoder_cosines, pw_mcc, shared
from sparsecode.compare.core import best_of_all, nearest
from sparsecode.compare.matches import write_matches
from sparsecode.compare.matching import Matching, matched_mcs
from sparsecode.compare.mcs import BestMatches, mcs, mcs_both
from sparsecode.compare.members import Member, load_members
from sparsecode.compare.result import Comparison
from sparsecode.compare.stage import compare_dicts, compare_files, fingerprint_of, load_comparison
from sparsecode.compare.statistics import histogram, mmcs, share_above

__all__ = [
    "BestMatches",
    "Comparison",
    "Matching",
    "Member",
    "best_of_all",
    "compare_dicts",
    "compare_files",
    "encoder_cosines",
    "fingerprint_of",
    "histogram",
    "load_comparison",
    "load_members",
    "matched_mcs",
    "mcs",
    "mcs_both",
    "mmcs",
    "nearest",
    "pw_mcc",
    "share_above",
    "shared",
    "write_matches",
]
