"""Text to tokens: survey, choose, train a tokenizer, encode on all cores, commit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from sparsecode.checkpoint import os_failure, write_atomic, write_json, write_text
from sparsecode.corpus.given import GivenIds
from sparsecode.corpus.readers import Piece
from sparsecode.corpus.sources import Sources, find_sources
from sparsecode.corpus.survey import Plan, Survey, plan_text, read_chosen, survey_text
from sparsecode.corpus.text import TextSettings
from sparsecode.corpus.tokenizer import end_of_document, prepared, read_tokenizer, train_tokenizer, vocabulary_size
from sparsecode.corpus.tokens import FOLDER, FORMAT, SIDES, TOKENIZER, Tokens, digest_of, load_tokens, read_header
from sparsecode.corpus.whole import OVERLAP, Spelled, Whole
from sparsecode.errors import CorpusEmpty, InvalidSetting, RunInvalid, TokenizerInvalid, in_a_line
from sparsecode.watch import UNWATCHED, Watch, human

# 5, 10, 20 and 40 MB of the default corpus give 3.23, 3.263, 3.264 and 3.277 bytes per held-out token.
_SAMPLE_BYTES = 10_000_000
_BATCH = 1 << 22  # characters encoded in one call: the library's records take some 100 bytes per token
_SKIPPED_SHOWN = 20


@dataclass(frozen=True)
class ModelTokenizer:
    """The tokenizer of a model, for encoding text in its tokens.

    Attributes:
        json: its tokenizer.json; the flags of its added tokens say which of them are recognised in a text.
        end: the token between documents, added if the tokenizer does not have it.
        watched: names of tokens to count where the text spells them.
        template: the chat template, for the record.
    """

    json: str
    end: str
    watched: tuple[str, ...] = ()
    template: str = ""


def prepare_tokens(
    home: str | os.PathLike[str],
    config: TextSettings,
    *,
    model: ModelTokenizer | None = None,
    watch: Watch = UNWATCHED,
) -> Tokens:
    """Builds HOME/tokenizer.json and HOME/tokens/, or reuses them where settings and text are the same.

    Args:
        home: the folder; no other process may be at work there.
        config: text, tokenizer and split.
        model: the tokenizer instead, of a model.
        watch: told what is read and made.

    Raises:
        CorpusEmpty, CorpusUnreadable: see `survey_text`.
        TokenizerInvalid: see `read_tokenizer`.
        MissingExtra: an optional package is needed for this input.
        InvalidSetting: an impossible share or size, or ids as text without the tokenizer that made them.
    """
    if not 0 < config.val_fraction < 1:
        raise InvalidSetting(f"val-fraction {config.val_fraction}: must lie between 0 and 1")
    if config.max_text_mb is not None and config.max_text_mb < 1:
        raise InvalidSetting(f"max-text-mb {config.max_text_mb}: must be at least 1")
    end = model.end if model else None
    given = read_tokenizer(config.tokenizer) if config.tokenizer else None
    if model:
        given = prepared(Tokenizer.from_str(model.json), end)[0]
    settings = {
        "max_text_mb": config.max_text_mb,
        "val_fraction": config.val_fraction,
        "vocab_size": None if given else config.vocab_size,
        "tokenizer": digest_of(given.to_str().encode()) if given else None,
        "sample_bytes": None if given else _SAMPLE_BYTES,
    }
    if model:
        # Only values that differ from the implicit ones of earlier versions.
        settings |= {} if end == end_of_document(Tokenizer.from_str(model.json)) else {"end": end}
        settings |= {"template": digest_of(model.template.encode())} if model.template else {}
    folder, kept = Path(home) / FOLDER, Path(home) / TOKENIZER
    sources = find_sources(config)
    state = text_state(sources, config)
    header = _old_header(home)
    if header and header["settings"] == settings and header["state"] == state:
        return _reused(home, watch)

    with watch.task("reading text", None, "bytes") as progress:
        survey = survey_text(sources, skip_bad=config.skip_bad, advance=progress.advance)
    most = None if config.max_text_mb is None else config.max_text_mb * 1_000_000
    plan = plan_text(survey, max_bytes=most, val_fraction=config.val_fraction, sample_bytes=_SAMPLE_BYTES)
    if header and header["settings"] == settings and header["text"] == plan.fingerprint:
        write_json(folder / "tokens.json", header | {"state": state})
        return _reused(home, watch)

    corpus = _describe(survey, plan)
    _tell(corpus, plan, watch)
    # From here until tokens.json is written again, the folder does not count as complete.
    _remove(folder / "tokens.json")
    tokenizer = given or _trained(survey, plan, config.vocab_size, watch)
    made = _encode(folder, survey, plan, tokenizer, end, model.watched if model else (), watch)
    text = tokenizer.to_str(pretty=True)
    write_text(kept, text)
    corpus |= made.pop("corpus")
    fingerprint = digest_of("\n".join([made.pop("digests"), digest_of(text.encode())]).encode())
    write_json(
        folder / "tokens.json",
        {"format": FORMAT, "fingerprint": fingerprint, "tokenizer": digest_of(text.encode())}
        | made
        | {"corpus": corpus, "settings": settings, "text": plan.fingerprint, "state": state},
    )
    tokens = load_tokens(home)
    watch.note(
        f"tokens: {human(len(tokens.train))} for training, {human(len(tokens.val))} held out, "
        f"vocabulary {tokens.vocab_size}"
    )
    return tokens


def _old_header(home: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What an earlier preparation recorded, where all its files can still be used."""
    try:
        header = read_header(home)
        if header:
            load_tokens(home)
    except RunInvalid:
        return None
    return header


def _reused(home: str | os.PathLike[str], watch: Watch) -> Tokens:
    watch.note("tokens: already made from the same text with the same settings")
    return load_tokens(home)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise os_failure(path, error) from error


def text_state(sources: Sources, config: TextSettings) -> str:
    """Changes when a file is added, removed or written, without reading any."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{config.text_key}\n{config.skip_bad}\n".encode())
    for source in sources.sources:
        digest.update(f"{source.name}\n{source.state()}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _describe(survey: Survey, plan: Plan) -> dict[str, Any]:
    used = np.flatnonzero(plan.take)
    return {
        "description": survey.sources.description,
        "documents": plan.documents,
        "bytes": int(plan.take.sum()),
        "files": len(np.unique(survey.owner[used])),
        "fingerprint": plan.fingerprint,
        "available_documents": int(np.count_nonzero(survey.sizes)),
        "available_bytes": int(survey.sizes.sum()),
        "skipped": len(survey.skipped),
        "skipped_first": survey.skipped[:_SKIPPED_SHOWN],
        "val_documents": int(np.count_nonzero(plan.validation)) if plan.tail is None else 1,
        "split": "by document" if plan.tail is None else "tail of the only document",
    }


def _tell(corpus: dict[str, Any], plan: Plan, watch: Watch) -> None:
    chosen = "" if corpus["bytes"] == corpus["available_bytes"] else f" of {human(corpus['available_bytes'])}"
    documents = f"{corpus['documents']} document" + "s" * (corpus["documents"] != 1)
    watch.note(f"corpus: {documents}, {human(corpus['bytes'])}{chosen} bytes: {corpus['description']}")
    if corpus["skipped"]:
        watch.note(f"corpus: {corpus['skipped']} unreadable skipped, the first: {corpus['skipped_first'][0]}")
    if plan.tail is not None:
        watch.note("corpus: a single document; its tail is the validation text")


def _trained(survey: Survey, plan: Plan, vocab_size: int, watch: Watch) -> Tokenizer:
    with watch.task("training the tokenizer", int(plan.sample.sum()), "bytes") as progress:

        def text() -> Iterator[str]:
            for _, piece in read_chosen(survey, plan.sample):
                if piece.ids is not None:
                    raise InvalidSetting("the text is ids already", remedy="tokenizer_of_ids")
                yield piece.text
                progress.advance(piece.size)

        return train_tokenizer(text(), vocab_size)


def _encode(
    folder: Path,
    survey: Survey,
    plan: Plan,
    tokenizer: Tokenizer,
    end: str | None,
    watched: tuple[str, ...],
    watch: Watch,
) -> dict[str, Any]:
    """Writes train.bin and val.bin; returns what tokens.json says of them."""
    size = vocabulary_size(tokenizer)
    dtype = "<u2" if size <= 1 << 16 else "<u4"
    _, eot = prepared(tokenizer, end)
    given, spelled = GivenIds(tokenizer, eot, size), Spelled(watched)
    writers: dict[str, _Writer] = {}

    def write_all(train: Path, val: Path) -> None:
        with train.open("wb") as train_file, val.open("wb") as val_file:
            for side, file in zip(SIDES, (train_file, val_file), strict=True):
                writers[side] = _Writer(file, dtype, eot)
            with watch.task("encoding", int(plan.take.sum()), "bytes") as progress:
                for parts, made in _encoded(tokenizer, _parts(survey, plan)):
                    for part, ids in zip(parts, made, strict=True):
                        writer, piece = writers["val" if part.held_out else "train"], part.piece
                        if piece.ids is None:
                            spelled.look(piece.text)
                            writer.add(ids, piece.ends, piece.size)
                        else:
                            own = given.document(piece.ids, survey.sources.description)
                            writer.add(own, piece.ends, given.text_bytes(own))
                    progress.advance(sum(part.piece.size for part in parts))
        for side, writer in writers.items():
            if not writer.tokens:
                raise CorpusEmpty(f"{survey.sources.description}: too little text, no {side} document; give more")

    # Both files are whole before either gets its name.
    write_atomic(
        folder / "val.bin", lambda val: write_atomic(folder / "train.bin", lambda train: write_all(train, val))
    )
    return {
        "dtype": dtype,
        "vocab_size": size,
        "eot": eot,
        **{f"{side}_tokens": writer.tokens for side, writer in writers.items()},
        **{f"{side}_bytes": writer.bytes for side, writer in writers.items()},
        "corpus": {f"{side}_documents": writer.documents for side, writer in writers.items()} | spelled.record(),
        "digests": " ".join(writer.digest.hexdigest() for writer in writers.values()),
    }


@dataclass(frozen=True)
class _Part:
    """A stretch of text for one side; `before` is the end of what comes before it in its document."""

    piece: Piece
    held_out: bool
    before: str = ""


def _parts(survey: Survey, plan: Plan) -> Iterator[_Part]:
    """The chosen text in order, each stretch with its side; of a single document the end is held out."""
    seen = 0
    for number, piece in read_chosen(survey, plan.take):
        if plan.tail is None:
            yield _Part(piece, bool(plan.validation[number]))
            continue
        before, after = piece.split(plan.tail - seen, least=0 if seen else 1)
        seen += piece.size
        if before.size:
            yield _Part(replace(before, ends=bool(after.size) or piece.ends or seen == plan.tail), False)
        if after.size:
            yield _Part(after, True)


def _encoded(tokenizer: Tokenizer, parts: Iterator[_Part]) -> Iterator[tuple[list[_Part], list[list[int]]]]:
    """Parts with their ids, encoded batch after batch on all cores; None for parts that are ids already.

    While a batch is encoded, the one before is written and the next is read.
    """
    whole = Whole(tokenizer)
    waiting: tuple[list[_Part], Future[list[Encoding | None]]] | None = None

    def finished(parts: list[_Part], started: Future[list[Encoding | None]]) -> tuple[list[_Part], list[list[int]]]:
        encodings = started.result()
        return parts, [
            [] if encoding is None else whole.add(part.before, part.piece.text, part.piece.ends, encoding)
            for part, encoding in zip(parts, encodings, strict=True)
        ]

    with ThreadPoolExecutor(1, "encode") as pool:
        for batch in _batches(_overlapping(parts)):
            started = pool.submit(_read, tokenizer, batch)
            if waiting:
                yield finished(*waiting)
            waiting = batch, started
        if waiting:
            yield finished(*waiting)


def _read(tokenizer: Tokenizer, parts: list[_Part]) -> list[Encoding | None]:
    """The encoding of each part together with the text before it; with offsets where a document has several parts.

    None for parts that are ids already.
    """
    several = [bool(part.before) or not part.piece.ends for part in parts]
    found: list[Encoding | None] = [None] * len(parts)
    try:
        for among, encode in ((False, tokenizer.encode_batch_fast), (True, tokenizer.encode_batch)):
            places = [place for place, one in enumerate(several) if one == among and parts[place].piece.ids is None]
            texts = [parts[place].before + parts[place].piece.text for place in places]
            for place, encoding in zip(places, encode(texts, add_special_tokens=False), strict=True):
                found[place] = encoding
    except Exception as error:  # the native library raises bare Exception: a word is unknown, say, and no token for it
        raise TokenizerInvalid(
            f"the tokenizer cannot encode the text ({in_a_line(error)}); give it a token for unknown ones"
        ) from error
    return found


def _overlapping(parts: Iterator[_Part]) -> Iterator[_Part]:
    """The parts, each with the end of what comes before it in its document."""
    before = ""
    for part in parts:
        yield replace(part, before=before) if before else part
        before = "" if part.piece.ends else (before + part.piece.text)[-OVERLAP:]


def _batches(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    batch: list[_Part] = []
    held = 0
    for part in parts:
        batch.append(part)
        held += part.piece.size
        if held >= _BATCH:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class _Writer:
    """One side's file."""

    def __init__(self, file: IO[bytes], dtype: str, eot: int) -> None:
        self.file = file
        self.dtype = dtype
        self.end = np.array([eot], dtype)
        self.digest = hashlib.blake2b(digest_size=16)
        self.tokens = self.bytes = self.documents = 0

    def add(self, ids: Sequence[int] | NDArray[np.int64], ends: bool, size: int) -> None:
        tokens = np.array(ids, self.dtype)
        if ends:
            tokens = np.append(tokens, self.end)
            self.documents += 1
        data = tokens.tobytes()
        self.file.write(data)
        self.digest.update(data)
        self.tokens += len(tokens)
        self.bytes += size
