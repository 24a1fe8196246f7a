"""Report: what a run found, on one page."""

from sparsecode.report.stage import write_report
from sparsecode.report.toy_page import toy

__all__ = ["toy", "write_report"]
