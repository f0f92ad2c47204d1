"""The page."""

from kintsugi_dev.demo.record import Run


def page(run: Run) -> str:
    """Page."""
    return "todo"
