"""The decoder of a format."""

from __future__ import annotations

from kintsugi.engines.postgresql.logs.csvlog import CsvLog
from kintsugi.engines.postgresql.logs.jsonlog import JsonLog
from kintsugi.engines.postgresql.logs.records import Decoder
from kintsugi.engines.postgresql.logs.stderr import Stderr


def decoder(format_: str, prefix: str | None = None, since: float = 0.0) -> Decoder:
    """A decoder of `jsonlog`, `csvlog` or `stderr`; `prefix` is the log_line_prefix of the last.

    What was logged before `since` (Unix s) is left out.

    Raises:
        LinePrefixError: the prefix can't be read lines with.
    """
    match format_:
        case "jsonlog":
            return JsonLog(since)
        case "csvlog":
            return CsvLog(since)
        case _:
            return Stderr(prefix, since)
