"""The report of a run as one self-contained HTML page: pure functions from a recorded run to text."""

from kintsugi_dev.demo.report.page import page

__all__ = ["page"]
