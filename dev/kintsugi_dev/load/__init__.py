"""An order shop's clients: an open-loop load on PostgreSQL, in a process of its own, that knows what it was promised.

`schema` makes the shop's tables, `client` sends the requests, `measure` keeps latencies and the journal of acknowledged
writes, `process` starts all of it (`Load.start`), `lost_writes` counts afterwards what was acknowledged and is gone.
"""

from kintsugi_dev.load.measure import lost_writes
from kintsugi_dev.load.process import Load
from kintsugi_dev.load.schema import create_schema

__all__ = ["Load", "create_schema", "lost_writes"]
