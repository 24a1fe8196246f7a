"""Harvest: run a model over text and store the activations of its hook points, row by row."""

from sparsecode.harvest.module import harvest_module

__all__ = ["harvest_module"]
