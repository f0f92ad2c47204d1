"""The operator's own configuration: what it says reaches the loops."""

from __future__ import annotations

from typing import Any

import pytest

from kintsugi import app
from kintsugi.app import EXPERIENCE_URL, ExperienceConfig, OperatorConfig
from kintsugi_dev.memory import MemoryKube


class ReachedError(Exception):
    """The hub would be made now."""


async def made(monkeypatch: pytest.MonkeyPatch, config: OperatorConfig) -> tuple[Any, ...]:
    """What the hub is made of with this configuration: the ceiling, and where experience is kept."""
    found: list[Any] = []

    def hub(_: Any, ceiling: Any, *__: Any, experience: Any, **___: Any) -> None:
        found.extend((ceiling, experience))
        raise ReachedError

    monkeypatch.setattr(app, "Hub", hub)
    monkeypatch.setattr(app, "log_json", lambda: None)
    monkeypatch.setattr(app, "_api_client", lambda _: MemoryKube().api)
    with pytest.raises(ReachedError):
        await app.run(config)
    return tuple(found)


@pytest.mark.parametrize("paused", [True, False])
async def test_the_global_off_switch_reaches_every_policy(monkeypatch: pytest.MonkeyPatch, paused: bool) -> None:
    ceiling, _ = await made(monkeypatch, OperatorConfig(paused=paused))

    assert ceiling.paused is paused


async def test_without_a_place_for_it_no_experience_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await made(monkeypatch, OperatorConfig()))[1] is None


async def test_a_url_with_a_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXPERIENCE_URL, "postgresql://kintsugi:hush@db/experience")
    _, store = await made(monkeypatch, OperatorConfig(experience=ExperienceConfig()))

    assert store().where == "postgresql+psycopg://kintsugi:***@db/experience"


async def test_a_url_in_the_configuration_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OperatorConfig.model_validate({"experience": {"url": "sqlite:////tmp/x.db", "perClass": 5}})

    assert (await made(monkeypatch, config))[1]().where == "sqlite:////tmp/x.db"
