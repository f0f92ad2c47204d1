"""A bundle is used whole and as it was made, or not at all; what is wrong with it is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi_ml import bundle, serving
from kintsugi_ml.bundle import BundleDamagedError, BundleError, BundleMissingError, BundleVersionError
from kintsugi_ml.detection import model as detection
from kintsugi_ml.detection.diagnose import Diagnosis

WEIGHTS = detection.SHIPPED.read_bytes()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    bundle.write(tmp_path, {bundle.DETECTION: WEIGHTS}, version="7", trained_on="a test")
    return tmp_path


def change(directory: Path, **changes: Any) -> None:
    path = directory / bundle.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_shipped_bundle_is_in_order_and_holds_the_weights_of_the_package() -> None:
    shipped = bundle.read()

    ours = {bundle.DETECTION: WEIGHTS}
    if (classes := detection.SHIPPED.with_name(bundle.DIAGNOSIS)).exists():
        ours[bundle.DIAGNOSIS] = classes.read_bytes()
    packed = {name: part.sha256 for name, part in shipped.manifest.files.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in ours.items()}
    assert packed == digests, "the weights were trained anew: make bundle"
    assert shipped.manifest.trained_on.startswith(shipped.detection.trained_on)


def test_what_is_written_is_read_back_with_a_name_that_tells_it_from_others(directory: Path, tmp_path: Path) -> None:
    read = bundle.read(directory)
    other = bundle.write(tmp_path / "other", {bundle.DETECTION: WEIGHTS}, version="7", trained_on="another test")

    assert read.name.startswith("7 (")
    assert read.manifest.digest != other.digest


def test_a_bundle_with_a_diagnosis_calls_faults_by_their_class(tmp_path: Path) -> None:
    weights = np.array([[4.0, 0.0], [0.0, 4.0]])
    diagnosis = Diagnosis(("lock", "load"), ("waiters", "calls"), weights, np.full(2, -4.0), 0.5, "a test")
    diagnosis.save(tmp_path / "saved.npz")
    files = {bundle.DETECTION: WEIGHTS, bundle.DIAGNOSIS: (tmp_path / "saved.npz").read_bytes()}
    bundle.write(tmp_path / "bundle", files, version="7", trained_on="a test")

    served = serving.load(tmp_path / "bundle")

    name, nearest, probability = served.classify(np.array([[0.0, 30.0]] * 5), ("calls", "waiters"))
    assert (name, nearest) == ("lock", "lock")
    assert probability > 0.9
    assert served.classify(np.zeros((5, 2)), ("calls", "waiters"))[0] == "unknown"


def test_a_bundle_without_a_diagnosis_knows_no_class(directory: Path) -> None:
    assert serving.load(directory).classify(np.full((5, 2), 30.0), ("calls", "waiters")) == ("unknown", "", 0.0)


def test_a_damaged_diagnosis_is_a_damaged_bundle(tmp_path: Path) -> None:
    files = {bundle.DETECTION: WEIGHTS, bundle.DIAGNOSIS: b"what it was"}
    bundle.write(tmp_path, files, version="7", trained_on="a test")
    (tmp_path / bundle.DIAGNOSIS).write_bytes(b"what it is!")

    with pytest.raises(BundleDamagedError):
        bundle.read(tmp_path)


def no_directory(directory: Path) -> None:
    (directory / bundle.DETECTION).unlink()
    (directory / bundle.MANIFEST).unlink()
    directory.rmdir()


def no_weights(directory: Path) -> None:
    (directory / bundle.DETECTION).unlink()


def one_bit(directory: Path) -> None:
    content = bytearray(WEIGHTS)
    content[len(content) // 2] ^= 1
    (directory / bundle.DETECTION).write_bytes(bytes(content))


def cut_short(directory: Path) -> None:
    (directory / bundle.DETECTION).write_bytes(WEIGHTS[:-100])


def no_json(directory: Path) -> None:
    (directory / bundle.MANIFEST).write_bytes(b"\xff\x00 half a manif")


def no_files(directory: Path) -> None:
    change(directory, files={})


def a_file_elsewhere(directory: Path) -> None:
    files = json.loads((directory / bundle.MANIFEST).read_text())["files"]
    change(directory, files=files | {"../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}})


def from_the_future(directory: Path) -> None:
    change(directory, format=bundle.FORMAT + 1, what_nobody_knows_yet=True)


def weights_of_another_version(directory: Path) -> None:
    content = b"no npz at all"
    bundle.write(directory, {bundle.DETECTION: content}, version="8", trained_on="another detector")


@pytest.mark.parametrize(
    ("spoil", "error", "reason"),
    [
        (no_directory, BundleMissingError, "BundleMissing"),
        (no_weights, BundleMissingError, "BundleMissing"),
        (one_bit, BundleDamagedError, "BundleDamaged"),
        (cut_short, BundleDamagedError, "BundleDamaged"),
        (no_json, BundleDamagedError, "BundleDamaged"),
        (no_files, BundleDamagedError, "BundleDamaged"),
        (a_file_elsewhere, BundleDamagedError, "BundleDamaged"),
        (from_the_future, BundleVersionError, "BundleWrongVersion"),
        (weights_of_another_version, BundleVersionError, "BundleWrongVersion"),
    ],
)
def test_a_bundle_that_is_not_as_it_was_made_is_refused_with_what_to_do(
    directory: Path, spoil: Callable[[Path], None], error: type[BundleError], reason: str
) -> None:
    spoil(directory)

    with pytest.raises(error) as caught:
        bundle.read(directory)

    assert caught.value.reason == reason
    assert ": " in str(caught.value)  # what happened, to what: what to do
    assert str(directory) in str(caught.value)


def test_an_interrupted_writer_leaves_no_bundle_that_could_be_read(directory: Path) -> None:
    (directory / bundle.DETECTION).write_bytes(b"the next version's file, whose manifest never came")

    with pytest.raises(BundleDamagedError):
        bundle.read(directory)
