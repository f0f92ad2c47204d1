"""A transaction that locks the busiest accounts and is then left open: its client waits for something else."""

from __future__ import annotations

from typing import ClassVar

from kintsugi_dev.faults.base import Fault
from kintsugi_dev.faults.sessions import HeldSession

HOT = "UPDATE customers SET balance = balance WHERE id <= 200"


class BlockingTransaction(Fault):
    """Someone opened a transaction, updated the hot rows, and went for coffee."""

    name: ClassVar[str] = "blocking-transaction"
    title: ClassVar[str] = "a transaction locks the busiest accounts and stays open"

    def __init__(self, dsn: str) -> None:
        self._session = HeldSession(dsn, ["BEGIN", HOT], "nightly-correction")

    def inject(self) -> None:
        """Take the locks."""
        self._session.open()

    def lift(self) -> None:
        """Roll back."""
        self._session.close()
