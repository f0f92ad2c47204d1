"""The operator as a process: kopf's watches feed the registry, the hub runs the loops, an HTTP port tells how it is.

kopf only watches. It never patches an object (DESIGN §11): the operator has no right to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import kopf
import yaml
from kubernetes import client
from kubernetes.config import ConfigException
from pydantic import Field, ValidationError

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import GROUP, VERSION, Model
from kintsugi.api.policy import HealingPolicy
from kintsugi.loops.hub import Hub
from kintsugi.shell.experience import PER_CLASS, ExperienceStore
from kintsugi.shell.kube import Kube, load_api_client
from kintsugi.shell.models import load as load_models
from kintsugi.shell.telemetry import OperatorMetrics, Pulse, log_json, serve
from kintsugi.stages.policy import Ceiling

log = logging.getLogger(__name__)

PLURALS = (MonitoredDatabase.PLURAL, HealingPolicy.PLURAL, HealingAction.PLURAL)


EXPERIENCE_URL = "KINTSUGI_EXPERIENCE_URL"


class ExperienceConfig(Model):
    """Where experience is kept (docs/experience.md); a URL with a password belongs into the environment instead."""

    url: str = Field(default="", description=f"Any SQLAlchemy URL; empty: the environment's {EXPERIENCE_URL}.")
    per_class: int = Field(default=PER_CLASS, ge=1, le=1000, description="Examples per database, kind and class.")

    def store(self) -> ExperienceStore:
        """The store, not opened yet.

        Raises:
            ExperienceUrlError: the URL is none, or its driver is not installed.
        """
        return ExperienceStore(self.url or os.environ.get(EXPERIENCE_URL, ""), per_class=self.per_class)


class ModelsConfig(Model):
    """The learned models (docs/detection.md)."""

    detector: Literal["Learned", "Statistical"] = Field(
        default="Learned", description="What judges databases that say nothing in spec.detector."
    )
    bundle: Path | None = Field(default=None, description="A folder with a bundle; unset: the one that came along.")


class OperatorConfig(Model):
    """What the person who installs the operator decides (the chart's values), from a YAML file."""

    ceiling: Ceiling = Ceiling()
    namespaces: tuple[str, ...] = Field(default=(), description="Only these; all of them when empty.")
    paused: bool = Field(default=False, description="The global kill switch.")
    audit: Path | None = Field(default=None, description="A file for the audit chain, beside the log.")
    experience: ExperienceConfig | None = Field(default=None, description="Where experience is kept; nowhere if unset.")
    models: ModelsConfig = ModelsConfig()
    listen: str = Field(default="0.0.0.0:8080", pattern=r"^[^:]*:[0-9]+$")

    def capped(self) -> Ceiling:
        """The ceiling, with the kill switch in it."""
        return self.ceiling.model_copy(update={"paused": self.paused or self.ceiling.paused})


class ConfigError(Exception):
    """The operator's own configuration is wrong: where, and what to do."""


def load_config(path: Path | None) -> OperatorConfig:
    """The configuration from a file; the defaults without one.

    Raises:
        ConfigError: the file is missing or wrong; it says where.
    """
    if path is None:
        return OperatorConfig()
    try:
        return OperatorConfig.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise ConfigError(f"the configuration {path} can't be read ({error.strerror}); check --config") from error
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"the configuration {path} is wrong: {error}") from error


async def run(config: OperatorConfig, *, kubeconfig: str | None = None, port_file: Path | None = None) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    log_json()
    api = _api_client(kubeconfig)
    kube = Kube(api)
    metrics, pulse = OperatorMetrics(), Pulse()
    identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}/{os.getpid()}"
    hub = Hub(
        kube,
        config.capped(),
        metrics,
        pulse,
        identity=identity,
        audit=config.audit,
        namespaces=config.namespaces,
        experience=config.experience.store if config.experience else None,
        learned=config.models.detector == "Learned",
        load_models=partial(load_models, config.models.bundle),
    )
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    host, _, port = config.listen.rpartition(":")
    try:
        runner, taken = await serve(host, int(port), metrics, pulse)
    except OSError as error:
        raise ConfigError(f"{config.listen} can't be listened on ({error.strerror}); change `listen`") from error
    if port_file:
        await asyncio.to_thread(port_file.write_text, str(taken))
    try:
        await _until(stop, hub.run(), watch(hub, api.configuration, config.namespaces, stop))
    finally:
        await runner.cleanup()
        await hub.close()
        kube.close()


def _api_client(kubeconfig: str | None) -> client.ApiClient:
    try:
        return load_api_client(kubeconfig)
    except ConfigException as error:
        where = kubeconfig or "neither a pod's ServiceAccount nor $KUBECONFIG"
        raise ConfigError(f"no Kubernetes to log in to: {where} ({error}); check --kubeconfig") from error


async def _until(stop: asyncio.Event, *work: Any) -> None:
    """Run all work until `stop` is set or one part ends; raise the error of one."""
    tasks = [asyncio.ensure_future(part) for part in work]
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in tasks if task.done()]
    stop.set()
    for task in (*tasks, stopping):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
    for task in ended:
        task.result()


async def watch(hub: Hub, configuration: client.Configuration, namespaces: Sequence[str], stop: asyncio.Event) -> None:
    """Watch the three kinds with kopf and hand what changes to the hub, until `stop` is set."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(configuration)

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.queueing.worker_limit = 64
        settings.queueing.idle_timeout = 0.1
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 3
        settings.watching.connect_timeout = 3
        settings.watching.inactivity_timeout = 30
        settings.posting.enabled = False
        settings.peering.standalone = True
        settings.scanning.disabled = True  # no listing of CRDs and namespaces: our kinds are known

    for plural in PLURALS:
        kopf.on.event(GROUP, VERSION, plural, registry=registry)(_handler(hub, plural))
    await kopf.operator(
        registry=registry,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )


def _handler(hub: Hub, plural: str) -> Any:
    async def on_event(event: Mapping[str, Any], **_: Any) -> None:  # a plain function would run in a thread
        hub.on_event(plural, str(event.get("type") or ""), event["object"])

    return on_event


def _connection(configuration: client.Configuration) -> kopf.ConnectionInfo:
    """Kopf's credentials from those of the official client, so that there is one way of logging in."""
    header = configuration.get_api_key_with_prefix("authorization") or configuration.get_api_key_with_prefix(
        "BearerToken"
    )
    scheme, _, token = (header or "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme or None,
        token=token or None,
    )
