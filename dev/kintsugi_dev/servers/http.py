"""One small HTTP client for readiness and queries of local servers; it never uses a proxy from the environment."""

from __future__ import annotations

import base64
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_SECONDS = 10.0


def get(url: str, *, headers: Mapping[str, str] | None = None, authority: Path | None = None) -> tuple[int, bytes]:
    """Status and body of a GET; OSError when there is no answer at all."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if authority is not None:
        context = ssl.create_default_context(cafile=str(authority))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def answers(url: str, *, headers: Mapping[str, str] | None = None, authority: Path | None = None) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return get(url, headers=headers, authority=authority)[0] == 200
    except OSError:
        return False


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """The header of basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
