"""A headless Chromium."""

from pathlib import Path


class BrowserError(Exception):
    """It."""


def screenshot(page: Path, picture: Path, *, width: int, dark: bool) -> None:
    """Take."""
