"""The tree of everything that can go wrong at a boundary. Every message says what happened, to what, what to do.

    ShellError
    ├── KubeError                 the API server refused or could not be asked
    │   ├── NotFoundError         the object is gone
    │   ├── ConflictError         somebody else changed it first; read it again
    │   ├── ForbiddenError        RBAC or an admission policy said no; the message has its words
    │   └── UnavailableError      no answer (down, timeout, 5xx)
    └── PrometheusError           Prometheus refused, could not be asked, or answered nonsense

Errors of SQL, PgBouncer and the experience store are in `shell/sql.py`, `shell/pgbouncer.py` and
`shell/experience/errors.py`, beside what raises them.
"""

from __future__ import annotations


class ShellError(Exception):
    """A boundary could not be crossed."""


class KubeError(ShellError):
    """The API server refused or could not be asked."""


class NotFoundError(KubeError):
    """The object is gone."""


class ConflictError(KubeError):
    """Somebody else changed the object first, or it exists already."""


class ForbiddenError(KubeError):
    """RBAC or an admission policy refused; the message has the API server's words."""


class InvalidError(KubeError):
    """The object was refused by its schema."""


class UnavailableError(KubeError):
    """No answer: the API server is down, too slow, or failing."""


class PrometheusError(ShellError):
    """Prometheus refused, could not be asked, or answered nonsense; `reason` is CamelCase for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
