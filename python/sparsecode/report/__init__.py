"""Report: what a run found, on one page."""

from sparsecode.report.stage import write_report

__all__ = ["write_report"]
