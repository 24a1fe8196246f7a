"""Compare: which features of a dictionary are found again in others, by max cosine similarity (MCS)."""

from sparsecode.comparison.comparing import compare
from sparsecode.comparison.comparison import Comparison, write_matches
from sparsecode.comparison.cosine import best_of_all, histogram, mcs, mcs_both, mmcs, nearest, share_above
from sparsecode.comparison.matching import encoder_cosines, matched_mcs, pw_mcc, shared
from sparsecode.comparison.members import fingerprint_of, load_members
from sparsecode.comparison.records import Entry, Relation

__all__ = [
    "Comparison",
    "Entry",
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
