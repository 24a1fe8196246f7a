"""Every way sparsecode can fail: one class each, under `SparsecodeError`.

A message is one line: what happened and where, and what to do next; the words of a command line are added above.
The Rust core raises the classes of the same name (`src/error.rs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager


class SparsecodeError(Exception):
    """Base of every foreseen failure. Exit code 3: something is wrong with the data or the machine.

    Attributes:
        remedy: what would help, as a name of `pipeline.advice`, which knows how this is said on a command line; None
            where the message says it all.
    """

    exit_code = 3
    remedy: str | None = None

    def __init__(self, *args: object, remedy: str | None = None) -> None:
        super().__init__(*args)
        if remedy is not None:
            self.remedy = remedy


def in_a_line(error: Exception) -> str:
    """What another library's error says, in one line and not at length; its class where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class LeftOut:
    """Those of several things that cannot be used, in `found` with their errors, so that the others can be.

    Args:
        tell: called with the name and the error of each; None: the first error is raised instead.
    """

    def __init__(self, tell: Callable[[str, SparsecodeError], object] | None = lambda *_: None) -> None:
        self.found: list[tuple[str, SparsecodeError]] = []
        self._tell = tell

    def put(self, name: str, error: SparsecodeError) -> None:
        """Leaves one out. Raises its error where nothing may be left out."""
        if self._tell is None:
            raise error
        self.found.append((name, error))
        self._tell(name, error)

    @contextmanager
    def where(self, name: str, *kinds: type[SparsecodeError]) -> Iterator[None]:
        """Leaves one out where what is done with it fails in one of these ways."""
        try:
            yield
        except kinds as error:
            self.put(name, error)

    def check(self, left: Sized, least: int = 1) -> None:
        """Raises the first error where fewer than `least` are left because of it."""
        if self.found and len(left) < least:
            raise self.found[0][1]


class CheckFailed(SparsecodeError):
    """A check that was asked for did not pass (`verify`, `doctor`)."""

    exit_code = 1


class InvalidSetting(SparsecodeError):
    """A setting from a flag, a preset or a call has a value that cannot be used."""

    exit_code = 2


class InvalidArgument(SparsecodeError):
    """A size, shape or value passed to the native core does not fit."""


class InvalidName(SparsecodeError):
    """A name would leave its folder or cannot be a file name."""


# Runs and stages


class StageMissing(SparsecodeError):
    """A stage needs what an earlier one makes."""


class SettingsDiffer(SparsecodeError):
    """A stage was done, or begun, with other settings or from other inputs."""


class StageStale(SettingsDiffer):
    """What a stage was done from has changed since."""


class RunLocked(SparsecodeError):
    """Another process is writing to the same place."""

    remedy = "other_run"


class RankLost(SparsecodeError):
    """Another process of the same work failed, ended or does not answer; what was last saved is gone on from."""


class NotRecognised(SparsecodeError):
    """A path holds nothing that sparsecode wrote or can read."""


class SomeLeftOut(SparsecodeError):
    """Some of several dictionaries or datasets cannot be used: they were listed with reasons, the rest was done."""


class RunInvalid(SparsecodeError):
    """A run folder's files are not what they should be."""


class CheckpointCorrupt(SparsecodeError):
    """A saved training state cannot be read back."""


# The operating system


class OutOfSpace(SparsecodeError):
    """The disk is full; what was complete before stays complete."""


class IoFailed(SparsecodeError):
    """The operating system refused a read or write."""


class MissingExtra(SparsecodeError):
    """An optional package is needed for this input."""


class EndpointFailed(SparsecodeError):
    """An endpoint accepts no call, or answers none."""


# The activation store


class DatasetMissing(SparsecodeError):
    """There is no dataset in this folder."""

    remedy = "harvest"


class DatasetComplete(SparsecodeError):
    """A dataset that is complete cannot be written to."""


class FormatTooNew(SparsecodeError):
    """Written by a later version in a format that this one does not know."""


class ManifestInvalid(SparsecodeError):
    """A manifest's digest is right, but its contents contradict each other."""


class ShardMissing(SparsecodeError):
    """A shard that the manifest lists is not there."""


class ShardTruncated(SparsecodeError):
    """A shard is shorter than it must be."""


class ShardCorrupt(SparsecodeError):
    """A shard's or the manifest's bytes are not the ones that were written."""


class ContextsUnknown(SparsecodeError):
    """A dataset does not say which of its rows belong to one context."""


class NonFiniteActivation(SparsecodeError):
    """An activation is NaN or infinite, or too large for the type on disk."""


class HeaderInvalid(SparsecodeError):
    """A shard's header is not one that sparsecode writes; each way has a class below."""


class HeaderLength(HeaderInvalid):
    """The header's length is zero or beyond the limit."""


class HeaderNotUtf8(HeaderInvalid):
    """The header is not UTF-8."""


class HeaderNotJson(HeaderInvalid):
    """The header is not a JSON object."""


class HeaderDuplicateKey(HeaderInvalid):
    """A key appears twice in an object of the header."""


class HeaderTooDeep(HeaderInvalid):
    """The header's objects are nested too deeply."""


class HeaderNegative(HeaderInvalid):
    """A size or offset is negative."""


class HeaderOverflow(HeaderInvalid):
    """A size or offset, or a product of sizes, exceeds 64 bits."""


class HeaderDtype(HeaderInvalid):
    """A tensor's dtype is not one that the store knows."""


class HeaderShape(HeaderInvalid):
    """A shape does not fit a shard, or its offsets."""


class HeaderTensors(HeaderInvalid):
    """A tensor is missing, or one too many is there."""


class HeaderOverlap(HeaderInvalid):
    """Two tensors share bytes."""


class HeaderHole(HeaderInvalid):
    """Bytes between tensors belong to none."""


# Text


class CorpusEmpty(SparsecodeError):
    """There is no text to train on."""


class CorpusUnreadable(SparsecodeError):
    """A text file is binary, undecodable or broken."""


class TokenizerInvalid(SparsecodeError):
    """A tokenizer file cannot be used."""


# Models and dictionaries


class ModelInvalid(SparsecodeError):
    """A model's files do not describe a model this program can run."""


class WeightsMissing(ModelInvalid):
    """Weights that a model is about to use are not in its files."""


class TokensUnknown(ModelInvalid):
    """A text holds tokens that the model has no embedding for."""


class TrainingDiverged(SparsecodeError):
    """A training ran into NaN or infinities: that of the GPT, or of every dictionary of a sweep."""


class HookUnknown(SparsecodeError):
    """The model has no hook point of that name."""


class DictionaryInvalid(SparsecodeError):
    """A dictionary's files are missing, broken or contradict each other."""


class ZeroAtom(DictionaryInvalid):
    """An atom has no direction: its norm is zero or not finite."""


class PickleRefused(DictionaryInvalid):
    """A `.pt` file holds more than tensors, would run code, or unpacks to more than its own size."""


class NotExpressible(SparsecodeError):
    """A format has no way to say what a dictionary or model does."""


class DatasetUnfit(SparsecodeError):
    """Dictionaries cannot be trained on a dataset: it is not finished, has too few rows, or rows all the same."""
