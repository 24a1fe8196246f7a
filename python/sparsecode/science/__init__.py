"""What is claimed of the dictionaries, tested on data: toy models with known features, and baselines."""

from sparsecode.science.toy_stage import load_toy, toy_models

__all__ = ["load_toy", "toy_models"]
