"""The audit chain: one JSON line per transition of an action, each with the hash of the one before.

Whoever removes or changes a line breaks the chain for everybody after it. The lines go to the log, and to a file where
one is configured (`audit` in the operator's configuration). `verify` finds the first line that does not fit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger("kintsugi.audit")

START = "0" * 64


class AuditChain:
    """Appends to the chain; the file, when there is one, is continued after a restart."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._last = START
        if path is not None and path.exists():
            self._continue(path)

    def append(self, entry: Mapping[str, Any], now: datetime) -> None:
        """Add one line."""
        body = {"at": now.astimezone(UTC).isoformat(timespec="milliseconds"), **entry, "previous": self._last}
        self._last = _hash(body)
        line = json.dumps({**body, "hash": self._last}, ensure_ascii=False)
        log.info("audit %s", line)
        if self._path is not None:
            try:
                with self._path.open("a") as file:
                    file.write(line + "\n")
            except OSError as error:
                log.error("the audit file %s can't be written (%s); the line stands in the log", self._path, error)

    def _continue(self, path: Path) -> None:
        """Go on after the last whole line; one torn by a crash stays, for `verify` to show."""
        text = path.read_text(errors="replace")
        for line in reversed(text.splitlines()):
            if (found := _hash_in(line)) is not None:
                self._last = found
                break
            log.warning("the audit file %s holds a line that is none: %.80s", path, line)
        if text and not text.endswith("\n"):
            with path.open("a") as file:
                file.write("\n")


def verify(lines: Iterable[str]) -> int | None:
    """The number (from 1) of the first line that was changed, or follows one that was removed; None when all fit."""
    previous = START
    for number, line in enumerate(lines, 1):
        try:
            body = json.loads(line)
            given = body.pop("hash")
        except (ValueError, KeyError, AttributeError, TypeError):
            return number
        if body.get("previous") != previous or _hash(body) != given:
            return number
        previous = given
    return None


def _hash_in(line: str) -> str | None:
    try:
        return str(json.loads(line)["hash"])
    except (ValueError, KeyError, TypeError):
        return None


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
