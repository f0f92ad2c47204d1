"""What can go wrong with a development cluster.

ClusterError
├── MissingToolError   a program that the cluster needs is not there
├── NotReadyError      a part of the cluster did not come up in time
└── CommandError       kubectl, helm, kwokctl or kind said no (carries the command and its output)
"""

from __future__ import annotations

from collections.abc import Sequence


class ClusterError(Exception):
    """Any trouble with a development cluster; the message says what happened, to what, and what to do."""


class MissingToolError(ClusterError):
    """A program that the cluster needs is not there."""


class NotReadyError(ClusterError):
    """A part of the cluster did not come up in time."""


class CommandError(ClusterError):
    """A command against the cluster ended with a status other than 0.

    Attributes:
        command: the program's name and its arguments.
        status: its exit status.
        output: what it wrote to standard error (and to standard output, if that was all it wrote).
    """

    def __init__(self, command: Sequence[str], status: int, output: str) -> None:
        self.command = tuple(command)
        self.status = status
        self.output = output.strip()
        super().__init__(f"`{' '.join(self.command)}` ended with status {status}: {self.output or 'no message'}")
