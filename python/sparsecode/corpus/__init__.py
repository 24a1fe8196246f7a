"""Text to tokens: sources (files to documents), tokenizer, tokens (memory-mapped)."""

from __future__ import annotations

from sparsecode.corpus.prepare import prepare_tokens
from sparsecode.corpus.text import TextSettings
from sparsecode.corpus.tokens import Tokens, load_tokens

__all__ = ["TextSettings", "Tokens", "load_tokens", "prepare_tokens"]
