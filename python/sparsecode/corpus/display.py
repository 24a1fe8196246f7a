"""Tokens as text for people: those that make one character together are decoded together."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

_BROKEN = "\ufffd"  # what a decoder writes for bytes that are no whole character
_MOST_BYTES = 4  # of a character in UTF-8: it is made of no more tokens


def token_texts(tokenizer: Tokenizer, ids: Sequence[int], peak: int, start: int, stop: int) -> list[str]:
    """The texts of ids[start:stop], decoded with those around them; joined they are the text.

    Where several tokens make one character, it stands at ids[peak] if that is among them, else at the first of those
    shown, and the others are empty. Bytes that are no whole character even so show as `\\xe2\\x80`.
    """
    texts = [""] * len(ids)
    for first, behind, text in _groups(tokenizer, ids):
        shown = [place for place in range(first, behind) if start <= place < stop]
        if shown:
            texts[peak if peak in shown else shown[0]] = text
    return texts[start:stop]


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """One token by itself; part of a character shows as its bytes, `\\xe2\\x80`."""
    text = str(tokenizer.decode([int(token)], skip_special_tokens=False))
    if _BROKEN not in text:
        return text
    symbols = tokenizer.id_to_token(int(token)) or ""
    if len(symbols) == 6 and symbols.startswith("<0x") and symbols.endswith(">"):  # SentencePiece's bytes
        return bytes([int(symbols[3:5], 16)]).decode(errors="backslashreplace")
    table = symbol_bytes()
    if not all(symbol in table for symbol in symbols):
        return text
    return bytes(table[symbol] for symbol in symbols).decode(errors="backslashreplace")


def _groups(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int, str]]:
    """(first, behind the last, text) of the shortest runs of tokens that are decoded to whole characters.

    What a run adds to the text is found by decoding all that is before it as well: spaces that belong between words are
    not in the tokens themselves for every kind of tokenizer. A token that no run makes whole stands by itself.
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
