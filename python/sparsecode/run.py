"""Where `Run` was before 0.2: `sparsecode.Run` now. This module goes with 0.3."""

from sparsecode.pipeline.run import DEFAULT_RUN, Run

__all__ = ["DEFAULT_RUN", "Run"]
