"""Signals as data: reading an engine's `signals.yaml`, checking it, and rendering its PromQL.

`python -m kintsugi.engines.catalogue --docs` writes docs/signals.md from it; `--check` fails when that page is stale.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from kintsugi.domain.signals import LOGS, Catalogue, Hurts, Kind, Role, Signal

COMPONENTS: Final = (
    "client",
    "query-engine",
    "planner-statistics",
    "lock-manager",
    "buffer-pool",
    "storage",
    "wal",
    "autovacuum",
    "connections",
    "pooler",
    "replication",
    "host-cpu",
    "host-memory",
    "host-io",
)
Source = Literal["kintsugi", "client", "postgres_exporter", "node_exporter", "logs"]
SOURCES: Final[tuple[Source, ...]] = get_args(Source)

GAUGE_INTERVALS: Final = 2.5
"""How many scrape intervals a gauge may be old: one lost scrape is bridged, two show as a gap."""

RATE_INTERVALS: Final = 4.0
"""How many scrape intervals a rate looks back: two samples are there even when one scrape is lost."""

_PLACEHOLDERS: Final = {"sel", "by", "gauge", "rate"}
_NAME: Final = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$"


class CatalogueError(ValueError):
    """A signals.yaml is wrong: which file, which signal and field, and what to write instead."""


def _component(value: Any) -> Any:
    if value not in COMPONENTS:
        raise ValueError(f"{value!r} is not a component; use one of {', '.join(COMPONENTS)}")
    return value


class _Entry(BaseModel):
    """One signal as it stands in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME, max_length=63)
    component: Annotated[str, BeforeValidator(_component)]
    unit: str = Field(min_length=1)
    kind: Kind
    hurts: Hurts
    role: Role
    floor: float = Field(gt=0, allow_inf_nan=False)
    description: str = Field(min_length=10, pattern=r"\.$")
    sources: Mapping[Source, str] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _templates(cls, sources: Mapping[str, str]) -> Mapping[str, str]:
        for source, template in sources.items():
            if problem := _words_problem(template) if source == LOGS else _template_problem(template):
                raise ValueError(f"{source}: {problem}")
        return sources

    def signal(self) -> Signal:
        """The value that the rest of Kintsugi works with."""
        return Signal(**dict(self))


class _File(BaseModel):
    """A whole signals.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field(min_length=1)
    signals: tuple[_Entry, ...] = Field(min_length=1)

    @field_validator("signals")
    @classmethod
    def _unique(cls, signals: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
        twice = [name for name, count in Counter(entry.name for entry in signals).items() if count > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there more than once; names are unique")
        return signals


@cache
def load(engine: str) -> Catalogue:
    """The catalogue of an engine that ships with Kintsugi (`postgresql`).

    Raises:
        CatalogueError: no such engine, or its signals.yaml is wrong; the message names the signal and the field.
    """
    file = resources.files("kintsugi.engines") / engine / "signals.yaml"
    if not re.fullmatch(_NAME, engine) or not file.is_file():
        raise CatalogueError(f"there is no catalogue for engine {engine!r}; Kintsugi knows postgresql")
    catalogue = parse(file.read_text(encoding="utf-8"), f"{engine}/signals.yaml")
    if catalogue.engine != engine:
        raise CatalogueError(f"{engine}/signals.yaml says engine: {catalogue.engine}; write engine: {engine}")
    return catalogue


def parse(text: str, where: str = "signals.yaml") -> Catalogue:
    """The catalogue that a YAML text describes; `where` names it in errors.

    Raises:
        CatalogueError: as `load`.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CatalogueError(f"{where} is not YAML: {error}") from None
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise CatalogueError("\n".join(_sentences(error, content, where))) from None
    return Catalogue(file.engine, tuple(entry.signal() for entry in file.signals))


def render(signal: Signal, source: str, group_labels: Sequence[str], selector: str, interval: float) -> str:
    """The PromQL of one signal for all selected databases at once, one series per combination of `group_labels`.

    Args:
        signal: which signal.
        source: which exporter's expression (one of `signal.exporters`).
        group_labels: the label names that tell databases apart, `("namespace", "service")` for example.
        selector: the body of a label selector that picks them, `namespace=~"shop|bank",service=~"orders|pay"`.
        interval: seconds between two scrapes; a gap shows after about 2.5 of them.
    """
    return Template(signal.sources[source]).substitute(
        sel=selector,
        by=", ".join(group_labels),
        gauge=_duration(GAUGE_INTERVALS * interval),
        rate=_duration(RATE_INTERVALS * interval),
    )


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _words_problem(words: str) -> str:
    """What is wrong with the classes of log lines that a signal counts; empty when nothing is."""
    wrong = [word for word in words.split() if not re.fullmatch(r"[a-z][a-zA-Z0-9_]*\*?", word)]
    if wrong or not words.split():
        return f"{' '.join(wrong) or 'nothing'} is no class of log lines; write some, error_* deadlock for example"
    return ""


def _template_problem(template: str) -> str:
    """What is wrong with a PromQL template; empty when nothing is."""
    if not Template(template).is_valid():
        return "a $ that starts no placeholder; write $$ for a plain one"
    unknown = set(Template(template).get_identifiers()) - _PLACEHOLDERS
    if unknown:
        return f"${', $'.join(sorted(unknown))} is no placeholder; there are $sel, $by, $gauge and $rate"
    selectors = re.findall(r"\{[^}]*\}", template)
    if not selectors or any(not body.startswith("{$sel") for body in selectors):
        return "each metric needs a selector that starts with $sel, or it would mix databases: metric{$sel,…}"
    if "by ($by" not in template:
        return "the expression does not group by ($by), so it would give one number for all databases"
    if "[$gauge]" not in template and "[$rate]" not in template:
        return "each metric needs a short range, last_over_time(metric{$sel}[$gauge]) or rate(…[$rate]), to show gaps"
    return ""


def _sentences(error: ValidationError, content: Any, where: str) -> list[str]:
    """One sentence per problem, naming the signal rather than its position."""
    sentences = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        if len(path) > 1 and path[0] == "signals":
            entry = content["signals"][int(path[1])]
            name = entry.get("name", f"number {int(path[1]) + 1}") if isinstance(entry, dict) else f"number {path[1]}"
            path = [f"signal {name}", *path[2:]]
        message = problem["msg"].removeprefix("Value error, ")
        sentences.append(f"{where}: {', '.join(path) or 'the file'}: {message}")
    return sentences


if __name__ == "__main__":
    from kintsugi.engines.catalogue_docs import main

    raise SystemExit(main())
