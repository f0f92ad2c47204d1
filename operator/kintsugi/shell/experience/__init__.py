"""The experience store: examples and outcomes in one SQLite file, or in any database that SQLAlchemy speaks to.

`store.py` is what others use; the rest are its parts. Everything here blocks: loops call it in a thread.
"""

from kintsugi.shell.experience.errors import (
    BusyExperienceError,
    CorruptExperienceError,
    ExperienceError,
    ExperienceUrlError,
    FullExperienceError,
    NewerExperienceError,
    ReadOnlyExperienceError,
    UnavailableExperienceError,
)
from kintsugi.shell.experience.store import PER_CLASS, ExperienceStore, Held

__all__ = [
    "PER_CLASS",
    "BusyExperienceError",
    "CorruptExperienceError",
    "ExperienceError",
    "ExperienceStore",
    "ExperienceUrlError",
    "FullExperienceError",
    "Held",
    "NewerExperienceError",
    "ReadOnlyExperienceError",
    "UnavailableExperienceError",
]
