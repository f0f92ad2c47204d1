"""What was learned about one database: labelled windows of its metrics, and what came of each action on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kintsugi.domain.actions import Objectives
from kintsugi.domain.frame import Frame


class LabelKind(StrEnum):
    """What a window of metrics shows."""

    ANOMALY = "anomaly"
    NORMAL = "normal"


class Source(StrEnum):
    """Who says so: a verified outcome of an action, or a person."""

    OUTCOME = "outcome"
    PERSON = "person"


class Fate(StrEnum):
    """What became of something that a person once said: taken in once, it is not taken in again by itself."""

    KEPT = "kept"
    GAVE_WAY = "gave-way"
    """To newer examples of the same class."""
    TAKEN_BACK = "taken-back"
    """By a person's other word about its time, or by `forget`; perhaps before it was ever kept."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled interval of one database (its uid), `start <= time < end` in Unix seconds.

    `window` `[T, S]` are the samples in it, `reference` `[R, S]` the newest fault-free ones from before it: together
    they are what a detector adapts from. `fault_class` is empty where nobody named one; for a normal example it is a
    word for what it was (`backup`). `who` is a user name as the API server knows it, `action` the uid of the action
    that it comes from; one of them may be empty. `id` comes from the content, so that the same one is kept once.
    """

    id: str
    database: str
    start: float
    end: float
    kind: LabelKind
    fault_class: str
    source: Source
    who: str
    action: str
    window: Frame
    reference: Frame


@dataclass(frozen=True, slots=True)
class Trial:
    """One action and what came of it: what a policy and a predictor learn from.

    `action` and `database` are uids, `name` is `namespace/name` of the action, `kind` what kind of action it was.
    `verdict` is the outcome in a word (`Healed`, …), empty where none was reached; `phase` how the action ended.
    `predicted` and `measured` are per objective, -1 (harm) to 1 (help); `measured` has None where nothing could be
    measured. `propensity` is the probability with which the chooser picked it. `ended` is in Unix seconds.
    """

    action: str
    database: str
    name: str
    kind: str
    incident: str
    evidence: Mapping[str, Any]
    forecast: Mapping[str, Any]
    propensity: float
    predicted: Objectives
    measured: Mapping[str, float | None]
    verdict: str
    phase: str
    ended: float
