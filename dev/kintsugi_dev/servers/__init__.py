"""Real servers as local processes on 127.0.0.1: PostgreSQL, PgBouncer, Prometheus, exporters and a Service's relay.

Each runs unprivileged in a directory of its own on a free port, is ready when `start` returns, and ends with us.
"""

from kintsugi_dev.servers.binaries import postgres_binaries
from kintsugi_dev.servers.certificates import Certificates
from kintsugi_dev.servers.database import Database, fresh_database
from kintsugi_dev.servers.directories import cache_directory, server_directory
from kintsugi_dev.servers.errors import ClosedDirectoryError, MissingProgramError, ServerError, StartError
from kintsugi_dev.servers.postgresql import PostgreSQL
from kintsugi_dev.servers.process import Process, free_port

__all__ = [
    "Certificates",
    "ClosedDirectoryError",
    "Database",
    "MissingProgramError",
    "PostgreSQL",
    "Process",
    "ServerError",
    "StartError",
    "cache_directory",
    "free_port",
    "fresh_database",
    "postgres_binaries",
    "server_directory",
]
