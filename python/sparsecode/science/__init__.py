"""Science: the claims of the seed experiment, measured, each with a verdict that can come out either way."""

from sparsecode.science.stage import CLAIMS, check_claims, load_claims

__all__ = ["CLAIMS", "check_claims", "load_claims"]
