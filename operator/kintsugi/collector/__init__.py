"""`kintsugi collect`: a Prometheus exporter that serves the signal catalogue for many databases from one process.

`queries` is the SQL, `member` one server's lasting connection, `pooler` one PgBouncer, `scrape` brings them together
within a time budget, `exposition` is the text that Prometheus reads, `server` the HTTP server around it.
"""

from kintsugi.collector.server import main

__all__ = ["main"]
