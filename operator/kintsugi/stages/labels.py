"""Labels: what a person says about an interval of a database's past, as an annotation.

    kubectl annotate mdb/orders kintsugi.dev/label='anomaly:lock-contention@2026-01-02T03:04:00Z/PT2M'

Several are separated by `;`. Before the `@` stands `anomaly`, `normal` or `forget` (what is kept about the interval is
dropped), the first two perhaps with a class or a word; behind it an ISO 8601 interval: start/duration or start/end.
The admission policies stamp who said so; a label without a name is not believed, since it would poison training.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kintsugi.api.meta import LABEL, LABELLED_BY
from kintsugi.domain.experience import LabelKind
from kintsugi.domain.text import human

LONGEST: Final = timedelta(hours=1)
"""An interval is one thing that happened; what is longer is several, or how the database is now."""

OLDEST: Final = timedelta(days=7)
"""Most Prometheus installations keep no more at full resolution, and a person remembers no more."""

MOST: Final = 64
"""Labels in one annotation."""

LONGEST_TEXT: Final = 16_384
"""Characters in one annotation."""

FORGET: Final = "forget"
FORM: Final = "anomaly:lock-contention@2026-01-02T03:04:00Z/PT2M"

_WORD: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DURATION: Final = re.compile(r"P(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,6}(?:\.\d{1,6})?)S)?)?")
_SHOWN: Final = 60  # characters of a person's text that a message repeats


class LabelError(ValueError):
    """A label that can't be believed: what it says, what is wrong with it, and how to write it."""


class TooEarlyError(LabelError):
    """It is about the future; once that is past, the label is as good as any."""


@dataclass(frozen=True, slots=True)
class Label:
    """What one person says about one interval; `kind` None means: forget what is kept about it."""

    kind: LabelKind | None
    fault_class: str
    start: datetime
    end: datetime
    who: str

    @property
    def id(self) -> str:
        """From the content, the name left out: the same thing said twice, or by somebody else, is the same label."""
        content = f"{self.kind or FORGET}:{self.fault_class}@{self.start.timestamp():.3f}/{self.end.timestamp():.3f}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def overlaps(self, start: float, end: float) -> bool:
        """Whether it says anything about a part of `start <= time < end` (Unix seconds)."""
        return self.start.timestamp() < end and start < self.end.timestamp()

    def __str__(self) -> str:
        what = self.kind.value if self.kind else FORGET
        colon = ":" if self.fault_class else ""
        return f"{what}{colon}{self.fault_class}@{_text(self.start)}/{_text(self.end)}"


@dataclass(frozen=True, slots=True)
class Labels:
    """Everything that an annotation says: what can be believed, in order, and a sentence for each that can't be."""

    labels: tuple[Label, ...] = ()
    problems: tuple[str, ...] = ()


def read_labels(annotations: Mapping[str, str]) -> Labels:
    """The labels of a database; one that is wrong costs only itself. What a later one contradicts is left out."""
    text = annotations.get(LABEL, "")
    if not text.strip():
        return Labels()
    who = annotations.get(LABELLED_BY, "")
    if not who:
        return Labels(
            problems=(
                f"{LABEL} carries no name: it was set without the admission policies; install them, set it again",
            )
        )
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if len(text) > LONGEST_TEXT or len(parts) > MOST:
        return Labels(
            problems=(f"{LABEL} holds {len(parts)} labels; keep the newest {MOST}: older ones are known already",)
        )
    labels: list[Label] = []
    problems: list[str] = []
    for part in parts:
        try:
            labels.append(parse_label(part, who))
        except LabelError as error:
            problems.append(str(error))
    return Labels(_last_word(labels), tuple(problems))


def parse_label(text: str, who: str) -> Label:
    """One label.

    Raises:
        LabelError: it is not one; the message repeats it and says how to write it.
    """
    what, at, interval = text.partition("@")
    if not at:
        raise LabelError(f"label {_shown(text)} names no interval; write it like {FORM}")
    kind, fault_class = _kind(what.strip(), text)
    start, end = _interval(interval.strip(), text)
    if end <= start:
        raise LabelError(f"label {_shown(text)} ends before it begins; write start/end or start/duration")
    if end - start > LONGEST:
        raise LabelError(
            f"label {_shown(text)} lasts {human(end - start)}, {human(LONGEST)} is the most; label the worst of it"
        )
    return Label(kind, fault_class, start, end, who)


def check_time(label: Label, now: datetime) -> None:
    """Whether a label that is not kept yet can be taken in now.

    Raises:
        TooEarlyError: it lies in the future.
        LabelError: it lies too far back.
    """
    if label.end > now:
        raise TooEarlyError(f"label {label} ends {human(label.end - now)} from now; label what has happened")
    if now - label.start > OLDEST:
        raise LabelError(f"label {label} is {human(now - label.start)} old, {human(OLDEST)} is the most; remove it")


def _kind(what: str, text: str) -> tuple[LabelKind | None, str]:
    word, colon, fault_class = what.partition(":")
    if word not in (*LabelKind, FORGET) or (word == FORGET and colon):
        raise LabelError(f"label {_shown(text)} must begin with anomaly, normal or forget; write it like {FORM}")
    if colon and not _WORD.fullmatch(fault_class):
        raise LabelError(
            f"label {_shown(text)}: {_shown(fault_class)} is no class; use small letters, digits and -, 63 at most"
        )
    return (None if word == FORGET else LabelKind(word)), fault_class


def _interval(interval: str, text: str) -> tuple[datetime, datetime]:
    first, slash, second = interval.partition("/")
    if not slash:
        raise LabelError(f"label {_shown(text)} has no end; write start/duration, as in {FORM}")
    start = _instant(first, text)
    if not second.startswith("P"):
        return start, _instant(second, text)
    try:
        return start, start + _duration(second, text)
    except OverflowError as error:
        raise LabelError(f"label {_shown(text)} ends beyond all calendars; write it like {FORM}") from error


def _instant(word: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(word)
        if found.tzinfo is not None:
            found.timestamp()
            return found
    except (ValueError, OverflowError) as error:
        raise LabelError(
            f"label {_shown(text)}: {_shown(word)} is no time; write it like 2026-01-02T03:04:00Z"
        ) from error
    raise LabelError(f"label {_shown(text)}: {_shown(word)} names no time zone; end it with Z, or with +01:00")


def _duration(word: str, text: str) -> timedelta:
    match = _DURATION.fullmatch(word)
    if match is None or not any(match.groups()):
        raise LabelError(f"label {_shown(text)}: {_shown(word)} is no duration; write it like PT2M or PT90S")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _last_word(labels: list[Label]) -> tuple[Label, ...]:
    """Without those that a later one takes back: one about the same interval, or a `forget` that touches it."""
    kept: list[Label] = []
    for label in labels:
        start, end = label.start.timestamp(), label.end.timestamp()
        kept = [
            one
            for one in kept
            if (one.start, one.end) != (label.start, label.end)
            and not (label.kind is None and one.kind is not None and one.overlaps(start, end))
        ]
        kept.append(label)
    return tuple(kept)


def _shown(text: str) -> str:
    """A person's text, quoted and cut: what comes from outside must not fill a status."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _text(at: datetime) -> str:
    return at.isoformat(timespec="auto").replace("+00:00", "Z")
