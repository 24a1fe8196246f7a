"""The version of this package, as it was installed."""

from __future__ import annotations

from importlib.metadata import version as _version


def version() -> str:
    """Such as "0.2.0"."""
    return _version("sparsecode")
