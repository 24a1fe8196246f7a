"""What is claimed of the dictionaries, tested on data: toy models with known features, and baselines."""

from sparsecode.science.baselines_stage import fit_baselines, load_baselines
from sparsecode.science.toy_stage import load_toy, toy_models

__all__ = ["fit_baselines", "load_baselines", "load_toy", "toy_models"]
