"""Sweeps of sparse dictionaries: many sizes, L1 coefficients and seeds, trained together on the same batches."""

from sparsecode.sweep.dictionary import Dictionary
from sparsecode.sweep.engines import Engine, StepStats, choose_engine
from sparsecode.sweep.settings import LossSettings, dictionary_name, grid, parse_l1, parse_sizes
from sparsecode.sweep.sweep import Sweep, initial_atoms
from sparsecode.sweep.train import train_dicts

__all__ = [
    "Dictionary",
    "Engine",
    "LossSettings",
    "StepStats",
    "Sweep",
    "choose_engine",
    "dictionary_name",
    "grid",
    "initial_atoms",
    "parse_l1",
    "parse_sizes",
    "train_dicts",
]
