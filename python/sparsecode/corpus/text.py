"""Which text, and how it becomes tokens: what the functions of this package are told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """A text, its split and its tokenizer.

    Attributes:
        text: files, folders or globs; none: the Python sources installed here.
        text_key: key or column of the text in tables.
        hf_dataset: a Hugging Face dataset instead of files.
        hf_stream: read the first `max_text_mb` of it as a stream.
        skip_bad: skip and count unreadable files instead of stopping.
        max_text_mb: use at most this many MB, a fixed choice of documents.
        val_fraction: share of documents held out.
        tokenizer: a tokenizer.json, or a folder with GPT-2's encoder.json and vocab.bpe.
        vocab_size: tokens in the byte-level BPE that is trained where no tokenizer is given.
    """

    text: tuple[str, ...] = ()
    text_key: str = "text"
    hf_dataset: str | None = None
    hf_stream: bool = False
    skip_bad: bool = False
    max_text_mb: int | None = None
    val_fraction: float = 0.02
    tokenizer: str | None = None
    vocab_size: int = 4096
