"""Harvest: run the model over its text and store the activations of one hook point, or of several, row by row."""

from sparsecode.harvest.anything import harvest_module
from sparsecode.harvest.harvest import harvest_activations
from sparsecode.harvest.hooks import hook_name, parse_layers
from sparsecode.harvest.windows import window_order, windows

__all__ = ["harvest_activations", "harvest_module", "hook_name", "parse_layers", "window_order", "windows"]
