"""A private certificate authority and one server certificate, for tests of `verify-full` and of private CAs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from kintsugi_dev.servers.binaries import program
from kintsugi_dev.servers.directories import hand_over, prepare
from kintsugi_dev.servers.errors import ServerError

SUBJECT_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority's certificate, and the certificate and key of a server on 127.0.0.1."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Certificates:
        """Make a new authority and a server certificate for `localhost` and 127.0.0.1, valid for two days."""
        prepare(directory)
        made = cls(directory / "ca.crt", directory / "server.crt", directory / "server.key")
        ca_key, request = directory / "ca.key", directory / "server.csr"
        extensions = directory / "server.ext"
        extensions.write_text(f"{SUBJECT_NAMES}\nextendedKeyUsage=serverAuth\n")
        _openssl(
            "req -x509 -days 2 -addext keyUsage=critical,keyCertSign,cRLSign",
            *CURVE,
            *("-subj", "/CN=Kintsugi test CA", "-keyout", ca_key, "-out", made.authority),
        )
        _openssl("req", *CURVE, "-subj", "/CN=localhost", "-keyout", made.key, "-out", request)
        _openssl(
            "x509 -req -days 2 -CAcreateserial",
            *("-in", request, "-CA", made.authority, "-CAkey", ca_key, "-extfile", extensions),
            *("-out", made.certificate),
        )
        made.key.chmod(0o600)
        hand_over(made.key)
        return made


def _openssl(command_line: str, *arguments: str | Path) -> None:
    command = [program("openssl", package="openssl"), *command_line.split(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerError(f"openssl {command_line} failed: {done.stderr.strip()}")
