"""The native core (Rust). Arrays cross as objects with the buffer protocol: numpy views of CPU tensors, no copies."""

from os import PathLike
from typing import Self, final

__all__ = ["FileLock"]

@final
class FileLock:
    """An exclusive lock on a file, held from construction until `release`; freed when its process dies.

    Raises:
        RunLocked: another process holds it.
        IoFailed: the file cannot be opened.
    """

    def __new__(cls, path: str | PathLike[str]) -> Self: ...
    @staticmethod
    def wait(path: str | PathLike[str]) -> FileLock:
        """The same, waiting for as long as another process holds it."""

    def release(self) -> None:
        """Frees the lock; a second call does nothing."""
