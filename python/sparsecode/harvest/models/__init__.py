"""Models whose activations can be read and changed by name: the project's own GPT, Hugging Face's, and any module."""

from sparsecode.harvest.models.language import LanguageModel
from sparsecode.harvest.models.loading import load_model, own_model
from sparsecode.harvest.models.taps import Tap, read_taps

__all__ = [
    "LanguageModel",
    "Tap",
    "load_model",
    "own_model",
    "read_taps",
]
