"""Real servers as local processes on 127.0.0.1: PostgreSQL, PgBouncer, Prometheus, Loki, exporters and a
Service's relay.

Each runs unprivileged in a directory of its own on a free port, is ready when `start` returns, and ends with us.
"""

from kintsugi_dev.servers.binaries import postgres_binaries
from kintsugi_dev.servers.certificates import Certificates
from kintsugi_dev.servers.database import Database, fresh_database
from kintsugi_dev.servers.directories import cache_directory, server_directory
from kintsugi_dev.servers.errors import ClosedDirectoryError, MissingProgramError, ServerError, StartError
from kintsugi_dev.servers.exporters import NodeExporter, PostgresExporter
from kintsugi_dev.servers.loki import Loki
from kintsugi_dev.servers.pgbouncer import PgBouncer
from kintsugi_dev.servers.postgresql import PostgreSQL
from kintsugi_dev.servers.process import eventually, free_port
from kintsugi_dev.servers.prometheus import BearerProxy, Prometheus, Scrape
from kintsugi_dev.servers.service_relay import ServiceRelay

__all__ = [
    "BearerProxy",
    "Certificates",
    "ClosedDirectoryError",
    "Database",
    "Loki",
    "MissingProgramError",
    "NodeExporter",
    "PgBouncer",
    "PostgreSQL",
    "PostgresExporter",
    "Prometheus",
    "Scrape",
    "ServerError",
    "ServiceRelay",
    "StartError",
    "cache_directory",
    "eventually",
    "free_port",
    "fresh_database",
    "postgres_binaries",
    "server_directory",
]
