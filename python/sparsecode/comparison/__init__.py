"""Compare: which features of a dictionary are found again in others, by max cosine similarity (MCS)."""

from sparsecode.comparison.comparing import compare
from sparsecode.comparison.comparison import Comparison, write_matches
from sparsecode.comparison.cosine import BestMatches, best_of_all, histogram, mcs, mcs_both, mmcs, nearest, share_above
from sparsecode.comparison.matching import Matching, encoder_cosines, matched_mcs, pw_mcc, shared
from sparsecode.comparison.members import Member, fingerprint_of, load_members
from sparsecode.comparison.records import CompareSettings, Entry, Nearest, Relation

__all__ = [
    "BestMatches",
    "CompareSettings",
    "Comparison",
    "Entry",
    "Matching",
    "Member",
    "Nearest",
    "Relation",
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
