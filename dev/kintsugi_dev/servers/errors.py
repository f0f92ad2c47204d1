"""What can go wrong with a local server.

ServerError                 anything below
├── MissingProgramError     the server's program is not on this machine and could not be fetched
├── StartError              the process ended, or was not ready in time; carries the tail of its log
└── ClosedDirectoryError    the directory cannot be entered by the user that the server runs as
"""

from __future__ import annotations


class ServerError(Exception):
    """A local server could not do what was asked of it."""


class MissingProgramError(ServerError):
    """A server's program is not on this machine and could not be fetched."""


class StartError(ServerError):
    """A server ended at its start, or was not ready in time; the message ends with its log's tail."""


class ClosedDirectoryError(ServerError):
    """A directory cannot be entered by the unprivileged user that the server runs as."""
