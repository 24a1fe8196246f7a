"""Harvest: run the model over its text and store the activations of one hook point, row by row."""

from sparsecode.harvest.harvest import harvest_activations
from sparsecode.harvest.hooks import hook_name
from sparsecode.harvest.windows import window_order, windows

__all__ = ["harvest_activations", "hook_name", "window_order", "windows"]
