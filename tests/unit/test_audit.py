"""The audit chain: continued over restarts, and every change to it shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kintsugi.shell.audit import AuditChain, verify

NOW = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)


def lines_of(path: Path, count: int = 4) -> list[str]:
    chain = AuditChain(path)
    for number in range(count):
        chain.append({"name": f"orders-{number}", "phase": "Executing", "by": "ann"}, NOW)
    return path.read_text().splitlines()


def test_an_untouched_chain_fits(tmp_path: Path) -> None:
    assert verify(lines_of(tmp_path / "audit")) is None


def test_a_restarted_operator_continues_the_chain(tmp_path: Path) -> None:
    lines_of(tmp_path / "audit")

    again = lines_of(tmp_path / "audit")

    assert len(again) == 8
    assert verify(again) is None


def test_a_changed_line_is_found(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "audit")
    lines[1] = lines[1].replace("ann", "eve")

    assert verify(lines) == 2


def test_a_line_changed_with_its_hash_made_anew_breaks_the_next_one(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "audit")
    forged = AuditChain(tmp_path / "forged")
    forged.append(json.loads(lines[0]) | {"by": "eve"}, NOW)
    lines[0] = (tmp_path / "forged").read_text().strip()

    assert verify(lines) in (1, 2)


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_removed_line_is_found(tmp_path: Path, removed: int) -> None:
    lines = lines_of(tmp_path / "audit")
    del lines[removed]

    assert verify(lines) == removed + 1


def test_two_lines_exchanged_are_found(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "audit")
    lines[1], lines[2] = lines[2], lines[1]

    assert verify(lines) == 2


@pytest.mark.parametrize("nonsense", ["", "no json", "[]", '"text"', '{"at": 1}'])
def test_what_is_no_line_of_ours_is_found(tmp_path: Path, nonsense: str) -> None:
    lines = lines_of(tmp_path / "audit")

    assert verify([*lines[:2], nonsense, *lines[2:]]) == 3


def test_a_line_cut_off_by_a_crash_does_not_stop_the_operator(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    lines_of(path, 2)
    path.write_text(path.read_text()[:-40])  # killed in the middle of writing

    AuditChain(path).append({"name": "later"}, NOW)

    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["name"] == "later"
    assert verify(lines) == 2  # and the torn line is told


def test_a_file_that_cannot_be_written_does_not_stop_what_is_to_be_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = AuditChain(tmp_path / "no such folder" / "audit")

    with caplog.at_level("INFO"):
        chain.append({"name": "orders-1"}, NOW)

    assert "orders-1" in caplog.text
    assert "can't be written" in caplog.text
