"""Compare: which features of a dictionary are found again in others, by max cosine similarity (MCS)."""

from sparsecode.comparison.comparing import compare
from sparsecode.comparison.consistency import encoder_cosines, pw_mcc, shared
from sparsecode.comparison.core import best_of_all, nearest
from sparsecode.comparison.loading import fingerprint_of
from sparsecode.comparison.matches import write_matches
from sparsecode.comparison.matching import Matching, matched_mcs
from sparsecode.comparison.mcs import BestMatches, mcs, mcs_both
from sparsecode.comparison.members import Member, load_members
from sparsecode.comparison.result import Comparison
from sparsecode.comparison.settings import CompareSettings
from sparsecode.comparison.statistics import histogram, mmcs, share_above

__all__ = [
    "BestMatches",
    "CompareSettings",
    "Comparison",
    "Matching",
    "Member",
    "best_of_all",
    "compare",
    "encoder_cosines",
    "fingerprint_of",
    "histogram",
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
