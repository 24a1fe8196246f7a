"""Sweeps of sparse dictionaries: many sizes, L1 coefficients and seeds, trained together on the same batches."""

from sparsecode.dictionary import Dictionary
from sparsecode.sweep.engines import Engine, StepStats, choose_engine
from sparsecode.sweep.fitting import fit
from sparsecode.sweep.initial import initial_atoms
from sparsecode.sweep.reconstruction import Reconstruction, evaluate
from sparsecode.sweep.settings import LossSettings, dictionary_name, grid, parse_l1, parse_sizes, rates
from sparsecode.sweep.start import Start, begin
from sparsecode.sweep.sweep import Sweep
from sparsecode.sweep.trainer import Trainer

__all__ = [
    "Dictionary",
    "Engine",
    "LossSettings",
    "Reconstruction",
    "Start",
    "StepStats",
    "Sweep",
    "Trainer",
    "begin",
    "choose_engine",
    "dictionary_name",
    "evaluate",
    "fit",
    "grid",
    "initial_atoms",
    "parse_l1",
    "parse_sizes",
    "rates",
]
