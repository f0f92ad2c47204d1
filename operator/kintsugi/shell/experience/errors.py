"""What can go wrong with the experience store. The operator goes on without it, and says so in a condition.

ExperienceError
├── ExperienceUrlError            the URL is none, or its driver is not installed
├── CorruptExperienceError        the file is damaged, or no experience store
├── ReadOnlyExperienceError       it may not be written
├── FullExperienceError           no space is left
├── BusyExperienceError           another process held it for too long
├── NewerExperienceError          a newer version of Kintsugi has written it
├── DuplicateExperienceError      another process has just written the same row; the store's methods return False
└── UnavailableExperienceError    it can't be reached, or failed in another way
"""

from __future__ import annotations

import sqlite3
from typing import ClassVar

from sqlalchemy.exc import DBAPIError, IntegrityError

from kintsugi.shell.errors import ShellError

REFUSED_BY_POSTGRESQL = {"25006": "read-only", "42501": "read-only", "53100": "full", "55P03": "busy"}
"""SQLSTATEs: read_only_sql_transaction, insufficient_privilege, disk_full, lock_not_available."""


class ExperienceError(ShellError):
    """Something about the experience store; `reason` is CamelCase for a condition."""

    reason: ClassVar[str] = "Unavailable"


class ExperienceUrlError(ExperienceError):
    """The URL is none, or nothing is installed that speaks to such a database."""

    reason = "WrongUrl"


class CorruptExperienceError(ExperienceError):
    """The file is damaged, or something else than an experience store."""

    reason = "Corrupt"


class ReadOnlyExperienceError(ExperienceError):
    """It may not be written."""

    reason = "ReadOnly"


class FullExperienceError(ExperienceError):
    """No space is left for it."""

    reason = "Full"


class BusyExperienceError(ExperienceError):
    """Another process held it for too long."""

    reason = "Busy"


class NewerExperienceError(ExperienceError):
    """A newer version of Kintsugi has written it."""

    reason = "NewerSchema"


class DuplicateExperienceError(ExperienceError):
    """Another process has written the same row between our look and our write."""

    reason = "Duplicate"


class UnavailableExperienceError(ExperienceError):
    """It can't be reached, or failed in another way."""


def typed(error: DBAPIError, where: str) -> ExperienceError:
    """The error of ours that a driver's error means; `where` is the URL without its password."""
    if isinstance(error, IntegrityError):
        return DuplicateExperienceError(f"another process has just written the same into {where}; read it again")
    original = error.orig
    words = (str(original).strip().splitlines() or [type(original).__name__])[0]
    name = getattr(original, "sqlite_errorname", "") if isinstance(original, sqlite3.Error) else ""
    kind = _of_sqlite(name) if name else REFUSED_BY_POSTGRESQL.get(str(getattr(original, "sqlstate", "")), "")
    match kind:
        case "corrupt":
            return CorruptExperienceError(
                f"the experience store {where} is damaged ({words}); move the file away and a new one is begun: labels "
                "and ended actions that are still in Kubernetes are read again"
            )
        case "read-only":
            return ReadOnlyExperienceError(
                f"the experience store {where} can't be written ({words}); let the operator's user write it, or change "
                "experience.url"
            )
        case "full":
            return FullExperienceError(f"no space is left for the experience store {where} ({words}); give it more")
        case "busy":
            return BusyExperienceError(
                f"another process holds the experience store {where} ({words}); it is tried again, but see who does"
            )
    return UnavailableExperienceError(
        f"the experience store {where} can't be used ({words}); check experience.url, and that its directory or server "
        "is there"
    )


def _of_sqlite(name: str) -> str:
    """SQLite's own word for it, as a kind; extended codes begin with the basic one."""
    kinds = {
        "SQLITE_CORRUPT": "corrupt",
        "SQLITE_NOTADB": "corrupt",
        "SQLITE_READONLY": "read-only",
        "SQLITE_FULL": "full",
        "SQLITE_BUSY": "busy",
        "SQLITE_LOCKED": "busy",
    }
    return next((kind for code, kind in kinds.items() if name.startswith(code)), "")
