"""Evaluate dictionaries inside the model whose activations they were trained on."""

from sparsecode.evaluate.result import Evaluation, table
from sparsecode.evaluate.run import evaluate_run, load_dictionaries
from sparsecode.evaluate.splice import evaluate_dictionaries

__all__ = ["Evaluation", "evaluate_dictionaries", "evaluate_run", "load_dictionaries", "table"]
