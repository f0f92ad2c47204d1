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
            lines = path.read_text().splitlines()
            self._last = json.loads(lines[-1])["hash"] if lines else START

    def append(self, entry: Mapping[str, Any], now: datetime) -> None:
        """Add one line."""
        body = {"at": now.astimezone(UTC).isoformat(timespec="milliseconds"), **entry, "previous": self._last}
        self._last = _hash(body)
        line = json.dumps({**body, "hash": self._last}, ensure_ascii=False)
        log.info("audit %s", line)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(line + "\n")
                file.flush()


def verify(lines: Iterable[str]) -> int | None:
    """The number (from 1) of the first line that was changed, or follows one that was removed; None when all fit."""
    previous = START
    for number, line in enumerate(lines, 1):
        try:
            body = json.loads(line)
            given = body.pop("hash")
        except (ValueError, KeyError, AttributeError):
            return number
        if body.get("previous") != previous or _hash(body) != given:
            return number
        previous = given
    return None


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
