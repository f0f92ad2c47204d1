"""Real faults for a real database: each is a small class that injects itself and can be lifted again."""

from kintsugi_dev.faults.base import Fault
from kintsugi_dev.faults.blocking_transaction import BlockingTransaction
from kintsugi_dev.faults.dropped_index import DroppedIndex
from kintsugi_dev.faults.exhausted_pool import ExhaustedPool
from kintsugi_dev.faults.killed_primary import KilledPrimary

__all__ = ["BlockingTransaction", "DroppedIndex", "ExhaustedPool", "Fault", "KilledPrimary"]
