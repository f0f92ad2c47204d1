"""`log_line_prefix` as a regular expression."""

from __future__ import annotations

import re
from typing import Final

OFFICIAL: Final = "%m [%p] "
"""PostgreSQL's own default, and so the official image's."""
DEBIAN: Final = "%m [%p] %q%u@%d "
"""Debian's and Ubuntu's packages'; lines with the official prefix match it, too, as if of background processes."""

_STAMP: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_NAME: Final = r".{0,64}?"
_PATTERNS: Final = {
    "m": rf"(?P<time>{_STAMP}\.\d{{3}} [^\s\]\)]+?)",
    "t": rf"(?P<time>{_STAMP} [^\s\]\)]+?)",
    "n": r"(?P<epoch>\d{9,11}\.\d{3})",
    "e": r"(?P<state>[0-9A-Z]{5})",
    "a": _NAME,
    "u": _NAME,
    "d": _NAME,
    "b": r"[a-zA-Z ]{0,40}?",
    "r": r"\S{0,80}?",
    "h": r"\S{0,80}?",
    "L": r"\S{0,80}?",
    "p": r"\d+",
    "P": r"\d*",
    "i": r"[A-Z /]{0,40}?",
    "c": r"[0-9a-f]+\.[0-9a-f]+",
    "l": r"\d+",
    "s": rf"{_STAMP} \S+?",
    "v": r"[\d/]*",
    "x": r"\d+",
    "Q": r"-?\d+",
}
"""What each escape writes (https://www.postgresql.org/docs/current/runtime-config-logging.html#GUC-LOG-LINE-PREFIX)."""
_ESCAPE: Final = re.compile(r"%(-?\d*)(.)", re.S)

_SEVERITY: Final = (
    "DEBUG[1-5]?|INFO|NOTICE|WARNING|ERROR|LOG|FATAL|PANIC|DETAIL|HINT|QUERY|CONTEXT|STATEMENT|LOCATION|BACKTRACE"
)
_REST: Final = rf"(?P<severity>{_SEVERITY}):  (?:(?P<verbose>[0-9A-Z]{{5}}): )?(?P<message>.*)"


class LinePrefixError(ValueError):
    """A log_line_prefix can't be read lines with: why, and what to write instead."""


def header(prefix: str) -> re.Pattern[str]:
    """What the first line of a message matches: `time` or `epoch`, `state` or `verbose`, `severity`, `message`.

    Raises:
        LinePrefixError: the prefix has an escape that PostgreSQL does not know, twice the same time, or no time.
    """
    pattern, at, optional = "", 0, 0
    for escape in _ESCAPE.finditer(prefix):
        pattern += re.escape(prefix[at : escape.start()])
        at = escape.end()
        letter = escape.group(2)
        if letter == "q":
            # Background processes stop here.
            pattern += "(?:"
            optional += 1
        else:
            pattern += _padded(_escaped(letter, prefix), escape.group(1))
    pattern += re.escape(prefix[at:]) + ")??" * optional
    if "(?P<time>" not in pattern and "(?P<epoch>" not in pattern:
        raise LinePrefixError(f"log_line_prefix {prefix!r} has no time; add %m to it, as in '%m [%p] '")
    try:
        return re.compile(pattern + _REST, re.S)
    except re.error as error:
        raise LinePrefixError(f"log_line_prefix {prefix!r} names the same twice ({error}); name it once") from error


def _escaped(letter: str, prefix: str) -> str:
    if letter == "%":
        return "%"
    if letter not in _PATTERNS:
        raise LinePrefixError(
            f"log_line_prefix {prefix!r} has %{letter}, which means nothing; copy the server's setting"
        )
    return _PATTERNS[letter]


def _padded(pattern: str, width: str) -> str:
    """`%10u` is filled up with spaces on the left, `%-10u` on the right."""
    if not width:
        return pattern
    return rf"{pattern} {{0,64}}?" if width.startswith("-") else rf" {{0,64}}?{pattern}"
