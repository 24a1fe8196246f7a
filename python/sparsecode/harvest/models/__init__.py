"""Models whose activations can be read and changed by name: the project's own GPT, Hugging Face's, and any module."""

from sparsecode.harvest.models.families import FAMILIES, Family
from sparsecode.harvest.models.language import LanguageModel
from sparsecode.harvest.models.loading import load_model, own_model
from sparsecode.harvest.models.places import Place, change_place, module_paths, read_places

__all__ = [
    "FAMILIES",
    "Family",
    "LanguageModel",
    "Place",
    "change_place",
    "load_model",
    "module_paths",
    "own_model",
    "read_places",
]
