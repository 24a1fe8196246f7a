"""Evaluate dictionaries inside the model whose activations they were trained on."""

from sparsecode.evaluation.result import Evaluation, table
from sparsecode.evaluation.splice import evaluate_dictionaries

__all__ = ["Evaluation", "evaluate_dictionaries", "table"]
