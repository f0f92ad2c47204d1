"""What makes each signal of the catalogue move, on real servers: proof that a signal says what it claims.

`world` starts PostgreSQL with a replica, PgBouncer, a client load and the collector; `phases` has the stimuli, grouped
by what can happen at once; `table` says which one moves which signal, and how far; `recording` plays all of it under a
real Prometheus and keeps what every signal did.
"""

from kintsugi_dev.stimuli.recording import Recording, record
from kintsugi_dev.stimuli.table import STIMULI, Stimulus

__all__ = ["STIMULI", "Recording", "Stimulus", "record"]
