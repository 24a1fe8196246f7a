"""Tokens as text for people: tokens that form one character together are decoded together."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

_BROKEN = "\ufffd"  # what a decoder writes for bytes that form no whole character
_MOST_BYTES = 4  # of a character in UTF-8, hence its most tokens


def token_texts(tokenizer: Tokenizer, ids: Sequence[int], peak: int, start: int, stop: int) -> list[str]:
    """The texts of ids[start:stop], decoded with those around them; joined they are the text.

    Where several tokens form one character, it is shown at ids[peak] if that is among them, else at the first of those
    shown, and the others are empty. Bytes that still form no whole character show as `\\xe2\\x80`.
    """
    texts = [""] * len(ids)
    for first, behind, text in _groups(tokenizer, ids):
        shown = [place for place in range(first, behind) if start <= place < stop]
        if shown:
            texts[peak if peak in shown else shown[0]] = text
    return texts[start:stop]


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A single token; part of a character shows as its bytes, `\\xe2\\x80`."""
    data = part_of_character(tokenizer, token)
    if data is not None:
        return data.decode(errors="backslashreplace")
    return str(tokenizer.decode([int(token)], skip_special_tokens=False))


def part_of_character(tokenizer: Tokenizer, token: int) -> bytes | None:
    """The bytes of a token that is no whole character by itself; None of all others, and where they are unknown."""
    if _BROKEN not in str(tokenizer.decode([int(token)], skip_special_tokens=False)):
        return None
    symbols = tokenizer.id_to_token(int(token)) or ""
    if len(symbols) == 6 and symbols.startswith("<0x") and symbols.endswith(">"):  # SentencePiece's bytes
        return bytes([int(symbols[3:5], 16)])
    table = symbol_bytes()
    return bytes(table[symbol] for symbol in symbols) if all(symbol in table for symbol in symbols) else None


def _groups(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int, str]]:
    """(first, one past the last, text) of the shortest runs of tokens that decode to whole characters.

    A run's text is found by decoding everything before it as well, because not every kind of tokenizer has the spaces
    between words in its tokens. A token that no run completes is a run of its own.
    """
    found: list[tuple[int, int, str]] = []
    known, first, shown = 0, 0, ""  # ids[known:first] are decoded to `shown`
    while first < len(ids):
        for behind in range(first + 1, min(first + _MOST_BYTES, len(ids)) + 1):
            whole = str(tokenizer.decode([int(token) for token in ids[known:behind]], skip_special_tokens=False))
            if whole.startswith(shown) and _BROKEN not in whole[len(shown) :]:
                found.append((first, behind, whole[len(shown) :]))
                first, shown = behind, whole
                break
        else:
            found.append((first, first + 1, token_text(tokenizer, ids[first])))
            known, first, shown = first + 1, first + 1, ""
    return found


def symbol_bytes() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable ones stand for themselves, the others follow from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
