"""The operator as a process: wrong configuration is one line, it comes up without a database, and ends when told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kintsugi_dev.cluster import Cluster
from kintsugi_dev.servers import eventually
from kintsugi_dev.servers.http import get
from kintsugi_dev.servers.process import Process

RUN = [sys.executable, "-m", "kintsugi.cli.main", "run"]


def ended(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ceiling: {mode: Berserk}", "ceiling.mode"),
        ("ceilng: {mode: Observe}", "ceilng"),  # a misspelt boundary must never be ignored
        ("listen: nowhere", "listen"),
        ("paused: maybe", "paused"),
        ("a: [", "config.yaml is wrong"),
        ("- a list", "is wrong"),
    ],
)
def test_a_wrong_configuration_ends_with_what_is_wrong_in_it(
    written: Callable[[str], Path], text: str, says: str
) -> None:
    done = ended("--config", written(text))

    assert done.returncode == 2
    assert done.stderr.startswith("kintsugi: the configuration ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    done = ended("--config", tmp_path / "nowhere.yaml")

    assert done.returncode == 2
    assert f"{tmp_path / 'nowhere.yaml'} can't be read (No such file or directory); check --config" in done.stderr


def test_without_a_cluster_to_log_in_to_it_says_so(tmp_path: Path) -> None:
    done = ended("--kubeconfig", tmp_path / "nowhere")

    assert done.returncode == 2
    assert "no Kubernetes to log in to" in done.stderr
    assert "check --kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def running(directory: Path, kubeconfig: Path, config: Mapping[str, Any]) -> Iterator[tuple[Process, str]]:
    """The operator, and where it serves."""
    (directory / "config.yaml").write_text(yaml.safe_dump({"listen": "127.0.0.1:0"} | dict(config)))
    port = directory / "port"
    command: list[str | Path] = [*RUN, "--config", directory / "config.yaml", "--kubeconfig", kubeconfig]
    command += ["--port-file", port]
    process = Process.start("operator", command, log=directory / "operator.log")
    try:
        process.wait_ready(lambda: port.exists() and bool(port.read_text()), timeout=60)
        yield process, f"http://127.0.0.1:{port.read_text()}"
    finally:
        process.kill()


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path) -> Path:
    return cluster.service_account_kubeconfig("kintsugi-system", "kintsugi", tmp_path / "kubeconfig")


def test_it_becomes_ready_serves_metrics_and_ends_within_seconds_of_sigterm(tmp_path: Path, kubeconfig: Path) -> None:
    with running(tmp_path, kubeconfig, {"namespaces": ["default"]}) as (process, url):
        assert eventually(lambda: get(f"{url}/readyz")[0] == 200, 30), process.tail()
        assert get(f"{url}/healthz")[0] == 200
        metrics = get(f"{url}/metrics")[1].decode()
        assert 'kintsugi_databases{phase="Healthy"}' in metrics

        began = time.monotonic()
        process.popen.terminate()
        process.popen.wait(20)

        assert time.monotonic() - began < 10
        assert process.popen.returncode == 0, process.tail()
        assert "Traceback" not in process.log.read_text()


def test_a_port_that_is_taken_is_named(tmp_path: Path, kubeconfig: Path) -> None:
    with running(tmp_path, kubeconfig, {"namespaces": ["default"]}) as (_, url):
        address = url.removeprefix("http://")
        (tmp_path / "second.yaml").write_text(f"listen: {address}")

        done = ended("--config", tmp_path / "second.yaml", "--kubeconfig", kubeconfig)

    assert done.returncode == 2
    assert f"{address} can't be listened on" in done.stderr


def test_it_waits_for_an_api_server_that_comes_up_later(cluster: Cluster, tmp_path: Path, kubeconfig: Path) -> None:
    cluster.stop_apiserver()
    try:
        with running(tmp_path, kubeconfig, {"namespaces": ["default"]}) as (process, url):
            time.sleep(5)
            assert process.running, process.tail()
            assert get(f"{url}/readyz")[0] == 503
            cluster.start_apiserver()

            assert eventually(lambda: get(f"{url}/readyz")[0] == 200, 30), process.tail()
    finally:
        cluster.start_apiserver()
