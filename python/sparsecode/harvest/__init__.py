"""Harvest: run a model over text and store the activations of its hook points, row by row."""

from sparsecode.harvest.anything import harvest_module
from sparsecode.harvest.windows import window_order, windows

__all__ = ["harvest_module", "window_order", "windows"]
