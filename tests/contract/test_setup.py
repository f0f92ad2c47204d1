"""`dev/setup.sh`: silent when there is nothing to do; what can't be had is named in one line, with what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SETUP = Path(__file__).parents[2] / "dev/setup.sh"
JUST_ENOUGH_TO_RUN = ("bash", "env", "dirname", "mkdir", "flock", "id", "python3", "sha256sum")


def setup(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SETUP], env=os.environ | environment, capture_output=True, text=True, check=False)


def test_a_second_setup_has_nothing_to_do_and_says_nothing() -> None:
    setup()
    again = setup()
    assert again.returncode == 0
    assert again.stderr == ""


def test_missing_packages_on_a_machine_without_apt_are_named(tmp_path: Path) -> None:
    for program in JUST_ENOUGH_TO_RUN:
        (tmp_path / program).symlink_to(shutil.which(program) or program)
    done = setup(PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "no apt-get; install what Debian 12 calls" in done.stderr
    assert "npm" in done.stderr
    assert len(done.stderr.splitlines()) == 1
