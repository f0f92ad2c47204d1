"""What the data set says about itself: one entry per run, how the runs are split, and what their columns mean.

    DatasetError
    ├── MissingDatasetError  there is no manifest where one was looked for
    ├── WrongVersionError    the manifest is of another version than this code reads
    └── DamagedFileError     a file is missing, cut short, changed, or not what it should be

Reading needs pydantic, numpy and pyarrow only, so that training can import it without the lab's servers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kintsugi.domain.signals import Hurts
from kintsugi_ml.lab.parts import Form, Parts

VERSION: Final = "lab-v1"
FILE: Final = "manifest.json"
NULL: Final = "null"
"""The `fault` of a run in which nothing was injected."""
NOTHING: Final = "nothing"
"""The action of a run in which no remedy was tried."""

TOGETHER_SECONDS: Final = 0.5
"""Onsets this close are simultaneous: four samples of the truth track, half the window its rates look back."""

Status = Literal["counts", "gate-failed", "void", "crashed", "skipped"]
"""counts: to be used. gate-failed: was not felt. void: others used the machine. skipped: can't be had here."""


class DatasetError(Exception):
    """The data set can't be used: what happened, to which file, what to do."""


class MissingDatasetError(DatasetError):
    """There is no manifest."""


class WrongVersionError(DatasetError):
    """The manifest is of another version."""


class DamagedFileError(DatasetError):
    """A file is missing, cut short, changed, or not what it should be."""


def _measured(value: Any) -> Any:
    """JSON knows no NaN: what could not be measured is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_measured)]
_RunFile = Annotated[str, Field(pattern=r"^(runs|truth|logs)/[A-Za-z0-9._+-]+$")]


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Open(BaseModel):
    """Written by others, who may know more than what is read here; that is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)


class GateEntry(_Open):
    """Whether the fault was felt. Factors are fault part / normal part, above 1 where it hurts."""

    passed: bool
    client_factor: Number = None
    signal_factor: Number = None
    sentence: str = ""


class RemedyEntry(_Open):
    """What was tried; `started` and `ended` in Unix seconds. The action `nothing` is one, too."""

    action: str
    right: bool = False
    ok: bool = True
    started: Number = None
    ended: Number = None


class OwnSignalEntry(_Known):
    """What came of the class' own signal, see `outcome.OwnSignal`."""

    name: str
    before: float
    during: float
    settled: Number = None
    felt: bool
    restored_after: Number = None


class OutcomeEntry(_Open):
    """What came of it, see `outcome.Outcome`; `restored_after` in seconds from the remedy, None: not before the end."""

    felt: bool = True
    restored_after: Number = None
    harm: bool = False
    own_signal: OwnSignalEntry | None = None


class Skipped(_Known):
    """A class that could not be had, and why, in a sentence."""

    fault: str
    reason: str


class MeasureEntry(_Known):
    """A column of the truth track: see `truth.measures.Measure`."""

    name: str
    component: str
    unit: str
    hurts: Hurts
    floor: float
    origin: str = ""
    decides: bool = True


class Entry(_Known):
    """One run. Times in Unix seconds, onsets and `returned` in seconds since the injection."""

    id: str = Field(pattern=r"^[A-Za-z0-9._+-]+$")
    fault: str
    form: Form
    workload: str
    level: Literal["low", "high"]
    pattern: str
    severity: float
    seed: int
    server: int
    second: str | None = None
    noise: str | None = None
    root: str | None = None
    negative: bool = False
    status: Status
    reason: str | None = None
    injected_at: Number = None
    lifted_at: Number = None
    parts: Parts | None = None
    gate: GateEntry | None = None
    remedy: RemedyEntry | None = None
    outcome: OutcomeEntry | None = None
    onsets: dict[str, Number] = Field(default_factory=dict)
    returned: dict[str, Number] = Field(default_factory=dict)
    foreign_cpu: Number = None
    file: _RunFile | None = None
    sha256: str | None = None
    truth_file: _RunFile | None = None
    truth_sha256: str | None = None
    log_file: _RunFile | None = None
    log_sha256: str | None = None
    lines_file: _RunFile | None = None
    lines_sha256: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the run is one of the data set's examples."""
        return self.status == "counts"

    @property
    def classes(self) -> tuple[str, ...]:
        """The fault classes in it: none for a null run, two for a compound one."""
        return () if self.fault == NULL else (self.fault, *((self.second,) if self.second else ()))

    def movers(self) -> list[tuple[str, float]]:
        """The components that left their band, with seconds since the injection, first one first."""
        moved = [(component, onset) for component, onset in self.onsets.items() if onset is not None]
        return sorted(moved, key=lambda item: (item[1], item[0]))

    def first_movers(self) -> frozenset[str]:
        """The component that moved first and those so close behind that the sampling can't tell."""
        movers = self.movers()
        return frozenset(component for component, onset in movers if onset - movers[0][1] <= TOGETHER_SECONDS)

    def files(self) -> Iterator[tuple[str, str]]:
        """Its files with their SHA-256."""
        pairs = (
            (self.file, self.sha256),
            (self.truth_file, self.truth_sha256),
            (self.log_file, self.log_sha256),
            (self.lines_file, self.lines_sha256),
        )
        yield from ((name, digest or "") for name, digest in pairs if name is not None)


class Manifest(_Known):
    """The whole data set. `splits` names the ids of the runs in each; only runs that count are in any."""

    version: str
    created: str
    splits: dict[str, list[str]]
    components: list[str]
    signals: list[str]
    measures: list[MeasureEntry]
    skipped: list[Skipped]
    runs: list[Entry]

    def counting(self) -> list[Entry]:
        """The runs that count."""
        return [run for run in self.runs if run.counts]

    def split(self, name: str) -> list[Entry]:
        """The runs of a split, in the manifest's order; KeyError with the names there are."""
        if name not in self.splits:
            raise KeyError(f"there is no split {name!r}; there are {', '.join(self.splits)}")
        wanted = set(self.splits[name])
        return [run for run in self.runs if run.id in wanted]


def load(directory: Path, *, verify: bool = True) -> Manifest:
    """The manifest of the data set in `directory`, every file of it checked against its SHA-256.

    Raises:
        MissingDatasetError: there is none.
        WrongVersionError: it is another version's.
        DamagedFileError: the manifest or one of the files is missing, cut short or changed; the message names it.
    """
    path = directory / FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise MissingDatasetError(f"there is no {path}; run `make lab-card` to assemble it from the runs") from None
    manifest = parse(text, path)
    if verify:
        for run in manifest.runs:
            for name, digest in run.files():
                check_file(directory / name, digest)
    return manifest


def parse(text: bytes, path: Path) -> Manifest:
    """A manifest from its JSON; `path` names it in errors. Raises as `load`."""
    try:
        version = _Version.model_validate_json(text).version
        if version != VERSION:
            raise WrongVersionError(
                f"{path} is version {version!r} and this code reads {VERSION}; check out the matching code"
            )
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise DamagedFileError(f"{path} is damaged{_problem(error)}; get it again with git checkout") from None


def parse_entry(path: Path) -> Entry:
    """The entry of one run from its JSON file. Raises DamagedFileError."""
    try:
        return Entry.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DamagedFileError(f"{path} is damaged{_problem(error)}; delete it and record the run again") from None


def _problem(error: ValidationError) -> str:
    """Where the first problem is, and which."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f" at {where}: {problem['msg']}" if where else f": {problem['msg']}"


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def check_file(path: Path, expected: str) -> None:
    """Raise DamagedFileError when the file is missing or is not the one that was recorded."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFileError(f"{path} is missing; get it again with git checkout, or record the run again") from None
    if digest(content) != expected:
        raise DamagedFileError(
            f"{path} is not the file that the manifest describes ({len(content)} bytes, another SHA-256): "
            "cut short or changed; get it again with git checkout, or run `make lab-card` if you recorded it anew"
        )


class _Version(BaseModel):
    version: str
