"""Science: the claims of the seed experiment, tested on data, each with a verdict that can come out either way."""

from sparsecode.science.baselines_stage import fit_baselines, load_baselines
from sparsecode.science.stage import CLAIMS, check_claims, load_claims
from sparsecode.science.toy_stage import load_toy, toy_models

__all__ = ["CLAIMS", "check_claims", "fit_baselines", "load_baselines", "load_claims", "load_toy", "toy_models"]
