"""Text to tokens: sources (files to documents), tokenizer, tokens (memory-mapped)."""

from __future__ import annotations

from sparsecode.corpus.naming import as_recorded
from sparsecode.corpus.prepare import prepare_tokens
from sparsecode.corpus.tokens import Tokens, load_tokens

__all__ = ["Tokens", "as_recorded", "load_tokens", "prepare_tokens"]
