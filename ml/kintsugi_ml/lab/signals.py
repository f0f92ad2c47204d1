"""Which signals a run records: those of PostgreSQL's catalogue that Prometheus can be asked for.

What is counted in the server's log has a track of its own (logs.py), as fine as the lines are.
"""

from __future__ import annotations

from functools import cache

from kintsugi.domain.signals import Catalogue
from kintsugi.engines import catalogue


@cache
def recorded() -> Catalogue:
    """The signals, in the catalogue's order."""
    known = catalogue.load("postgresql")
    return Catalogue(known.engine, tuple(signal for signal in known if signal.exporters))
