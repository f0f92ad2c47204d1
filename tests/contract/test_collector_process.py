"""`kintsugi collect` as users run it: a process with a configuration file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kintsugi_dev.servers import Database, PostgreSQL, free_port, http
from kintsugi_dev.servers.process import Process

COMMAND = [sys.executable, "-m", "kintsugi.cli.main", "collect"]


def a_file(path: Path, server: PostgreSQL, database: str = "postgres") -> Path:
    content = {
        "databases": [
            {
                "name": "orders",
                "namespace": "shop",
                "labels": {"service": "orders-db", "tier": "critical"},
                "database": database,
                "username": "kintsugi_monitor",
                "password": "monitor",
                "tls": "disable",
                "members": [{"name": "orders-0", "host": server.host, "port": server.port}],
            }
        ]
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_it_serves_every_database_with_its_labels_and_ends_on_sigterm(database: Database, tmp_path: Path) -> None:
    database.create_roles()
    file = a_file(tmp_path / "collector.yaml", database.server, database.name)
    address = f"127.0.0.1:{free_port()}"
    process = Process.start("collector", [*COMMAND, "--config", file, "--listen", address], log=tmp_path / "log")
    process.wait_ready(lambda: http.answers(f"http://{address}/healthz"))

    text = http.get(f"http://{address}/metrics")[1].decode()
    process.popen.send_signal(signal.SIGTERM)
    status = process.popen.wait(10)

    labels = 'member="orders-0",namespace="shop",role="primary",service="orders-db",tier="critical"'
    assert f"kintsugi_pg_up{{{labels}}} 1.0" in text
    assert "process_cpu_seconds_total" in text
    assert status == 0, process.tail()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("databases: []", "databases: Tuple should have at least 1 item"),
        ("databases: [{nmae: orders}]", "databases.0.nmae: Extra inputs are not permitted"),
        ("{", "is not YAML"),
    ],
    ids=["no database", "a misspelt field", "no YAML"],
)
def test_a_wrong_file_ends_it_with_status_2_and_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(text)
    done = subprocess.run([*COMMAND, "--config", file], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named(postgres: PostgreSQL, tmp_path: Path) -> None:
    file = a_file(tmp_path / "collector.yaml", postgres)
    listen = f"{postgres.host}:{postgres.port}"
    command = [*COMMAND, "--config", str(file), "--listen", listen]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert f"can't listen on {listen}" in done.stderr
