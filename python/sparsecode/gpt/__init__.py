"""A small transformer, trained on the user's own text, whose inner values can be read by name."""

from sparsecode.gpt.files import gpt_fingerprint, load_gpt, save_gpt
from sparsecode.gpt.model import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig", "gpt_fingerprint", "load_gpt", "save_gpt"]
