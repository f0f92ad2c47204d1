"""The learned models as one versioned file set that is checked by hash before anything in it is used.

    bundles/shipped/manifest.json   what it is: format, version, what it was trained on, each file with its SHA-256
    bundles/shipped/detection.npz   the detector's weights
    bundles/shipped/diagnosis.npz   what fault classes look like; a bundle may lack it

    BundleError
    ├── BundleMissingError   there is no bundle, or a file of it is gone
    ├── BundleDamagedError   a file is not the one that the manifest names, or can't be read
    └── BundleVersionError   made for another version of Kintsugi

Every message says what to do. `make bundle` makes the shipped one from the weights that are in the package.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi_ml.detection import diagnose
from kintsugi_ml.detection import model as detection
from kintsugi_ml.detection.errors import ModelError

FORMAT: Final = 1
"""Of the manifest and of what stands in the files; the weights have a format of their own as well."""

MANIFEST: Final = "manifest.json"
DETECTION: Final = "detection.npz"
DIAGNOSIS: Final = "diagnosis.npz"
SHIPPED: Final = Path(__file__).parent / "bundles" / "shipped"

MOST_BYTES: Final = 512 * 1024 * 1024
"""Of one file: what is larger is no bundle of ours."""


class BundleError(Exception):
    """The bundle can't be used; `reason` is one CamelCase word for a condition."""

    reason: ClassVar[str] = "BundleUnusable"


class BundleMissingError(BundleError):
    """There is no bundle, or a file of it is gone."""

    reason = "BundleMissing"


class BundleDamagedError(BundleError):
    """A file is not the one that the manifest names, or can't be read."""

    reason = "BundleDamaged"


class BundleVersionError(BundleError):
    """It was made for another version of Kintsugi."""

    reason = "BundleWrongVersion"


class Part(BaseModel):
    """One file of a bundle: its SHA-256 in hex, and its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=MOST_BYTES)


class Manifest(BaseModel):
    """What a bundle is. `files` are by their names, which are plain: a bundle reaches nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    version: str = Field(min_length=1, max_length=63)
    trained_on: str
    files: Mapping[str, Part]

    def text(self) -> str:
        """As it stands in the file; the same manifest always gives the same text."""
        return self.model_dump_json(indent=1) + "\n"

    @property
    def digest(self) -> str:
        """Twelve digits of the hash over the manifest, and so over every file that it names."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was read and found in order; without a `diagnosis`, every fault is of an unknown class."""

    manifest: Manifest
    detection: detection.Model
    diagnosis: diagnose.Diagnosis | None

    @property
    def name(self) -> str:
        """Version and hash, as people see it in a status: `1 (3f9c0a7d21be)`."""
        return f"{self.manifest.version} ({self.manifest.digest})"


def write(directory: Path, files: Mapping[str, bytes], *, version: str, trained_on: str) -> Manifest:
    """Write a bundle: the files first and the manifest last, so that half a bundle is none."""
    parts = {
        name: Part(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in sorted(files.items())
    }
    manifest = Manifest(format=FORMAT, version=version, trained_on=trained_on, files=parts)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**files, MANIFEST: manifest.text().encode()}.items():
        partial = directory / f".{name}.{os.getpid()}.tmp"
        partial.write_bytes(content)
        partial.replace(directory / name)
    return manifest


def read(directory: Path = SHIPPED) -> Bundle:
    """Read a bundle, after every file has been found to be what the manifest says.

    Raises:
        BundleMissingError: there is none, or a file of it is gone.
        BundleDamagedError: a file differs from what the manifest says, or can't be read.
        BundleVersionError: another version of Kintsugi made it.
    """
    manifest = _manifest(directory)
    for name, part in manifest.files.items():
        _check(directory, name, part)
    try:
        model = detection.load(directory / DETECTION)
        classes = diagnose.load(directory / DIAGNOSIS) if DIAGNOSIS in manifest.files else None
    except ModelError as error:
        # Its bytes are those that the manifest names: it is whole, but for another version of the detector.
        raise BundleVersionError(f"the bundle in {directory} does not fit this version of Kintsugi: {error}") from error
    return Bundle(manifest, model, classes)


def _manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleMissingError(
            f"there is no bundle in {directory} ({MANIFEST} is missing): correct the path, or install the package again"
        ) from None
    except OSError as error:
        raise BundleDamagedError(f"{path} can't be read ({error.strerror}): check who may read it") from error
    try:
        manifest = _Any.model_validate_json(content)
    except ValidationError as error:
        raise _damaged(path, f"it is no manifest: {_first(error)}") from None
    if manifest.format != FORMAT:
        raise BundleVersionError(
            f"the bundle in {directory} has format {manifest.format}, this version of Kintsugi reads {FORMAT}:"
            " use the bundle that came with it"
        )
    try:
        checked = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _damaged(path, _first(error)) from None
    if DETECTION not in checked.files:
        raise _damaged(path, f"it names no {DETECTION}")
    return checked


class _Any(BaseModel):
    """What a manifest of every format has."""

    format: int


def _check(directory: Path, name: str, part: Part) -> None:
    """Whether a file is the one that is meant."""
    path = directory / name
    if Path(name).name != name or name == MANIFEST:
        raise _damaged(directory / MANIFEST, f"it names the file {name!r}, which is no plain name")
    try:
        if path.stat().st_size != part.bytes:
            raise _damaged(path, f"it has {path.stat().st_size} bytes, not {part.bytes}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleMissingError(f"{path} is missing, which the bundle's manifest names: copy it there again") from None
    except OSError as error:
        raise BundleDamagedError(f"{path} can't be read ({error.strerror}): check who may read it") from error
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise _damaged(path, "its SHA-256 is not the one in the manifest")


def _damaged(path: Path, what: str) -> BundleDamagedError:
    return BundleDamagedError(f"{path} is damaged ({what}): copy it there again, or install the package again")


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg']}" if where else str(found["msg"])


def make(version: str, directory: Path = SHIPPED) -> Manifest:
    """Make the shipped bundle from the weights in the package; those of the diagnosis where there are some.

    Raises:
        ModelError: these weights can't be used.
    """
    files, trained_on = {DETECTION: detection.SHIPPED.read_bytes()}, detection.load().trained_on
    classes = detection.SHIPPED.with_name(DIAGNOSIS)
    if classes.exists():
        files[DIAGNOSIS] = classes.read_bytes()
        trained_on += f"; classes: {diagnose.load(classes).trained_on}"
    return write(directory, files, version=version, trained_on=trained_on)


if __name__ == "__main__":
    made = make(sys.argv[1])
    sys.stdout.write(f"{SHIPPED}: {made.version} ({made.digest})\n")
