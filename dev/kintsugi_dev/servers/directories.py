"""Where servers keep their files: directories that their unprivileged user can enter, and the cache of binaries."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from kintsugi_dev.servers.errors import ClosedDirectoryError
from kintsugi_dev.servers.process import run_as, server_user


@contextmanager
def server_directory(prefix: str = "kintsugi-") -> Iterator[Path]:
    """A fresh temporary directory that servers can use, removed at the end.

    pytest's `tmp_path` is closed to other users; when we are root, servers run as another user.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def prepare(directory: Path) -> Path:
    """Make `directory` the server user's own; ClosedDirectoryError when that user cannot enter it."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    hand_over(directory)
    if not _enterable(directory):
        raise ClosedDirectoryError(
            f"the server's user cannot enter {directory}; a parent is closed to others (pytest's tmp_path is):"
            " use kintsugi_dev.servers.server_directory() or the fixture `server_dir`"
        )
    return directory


def hand_over(path: Path) -> None:
    """Give a file or directory (not what is in it) to the server user."""
    user = server_user()
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file that belongs to the server user."""
    path.write_text(text)
    path.chmod(mode)
    hand_over(path)
    return path


@cache
def cache_directory() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/kintsugi`, or /var/cache/kintsugi when servers cannot enter that (root's home)."""
    wanted = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kintsugi"
    wanted.mkdir(parents=True, exist_ok=True)
    if _enterable(wanted):
        return wanted
    fallback = Path("/var/cache/kintsugi")
    fallback.mkdir(parents=True, exist_ok=True)
    return fallback


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """A temporary directory beside `target` that becomes `target` when the block succeeds (several may race)."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if not target.exists():
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _enterable(directory: Path) -> bool:
    user = server_user()
    return user is None or run_as(user, ["test", "-x", directory]).returncode == 0
