"""Report: what was found, on one page."""
