"""Secrets, read when needed and remembered for half a minute, so that a rotated password is picked up by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping

from kintsugi.api.meta import HttpAuth
from kintsugi.shell.errors import ForbiddenError, NotFoundError, ShellError, UnavailableError
from kintsugi.shell.kube import Kube
from kintsugi.shell.prometheus import Endpoint

REMEMBERED = 30.0  # seconds


class SecretError(ShellError):
    """A Secret can't be used: which one, why, and what to do. `reason` is CamelCase for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Secrets:
    """The values of Secrets by namespace and name."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: dict[tuple[str, str], tuple[float, Mapping[str, str]]] = {}

    async def get(self, namespace: str, name: str, *required: str) -> Mapping[str, str]:
        """The Secret's values.

        Raises:
            SecretError: it is missing, may not be read, or lacks a required key.
            KubeError: the API server could not be asked, and what it said before is not known either.
        """
        known = self._known.get((namespace, name))
        if known is None or time.monotonic() - known[0] > REMEMBERED:
            try:
                values = await self._read(namespace, name)
            except UnavailableError:
                if known is None:
                    raise
                values = known[1]  # while the API server is away, what is known goes on
            known = (time.monotonic(), values)
            self._known[namespace, name] = known
        for key in required:
            if not known[1].get(key):
                raise SecretError(
                    "SecretIncomplete",
                    f"Secret {name} has no {key}; add it (kubectl -n {namespace} edit secret {name})",
                )
        return known[1]

    async def endpoint(self, namespace: str, url: str, auth: HttpAuth | None, ca_secret_ref: str | None) -> Endpoint:
        """An HTTP server with the credentials that its Secrets hold.

        Raises:
            SecretError: as `get`.
            KubeError: as `get`.
        """
        token, basic, ca = None, None, None
        if auth and auth.type == "bearer":
            token = (await self.get(namespace, auth.secret_ref, "token"))["token"].strip()
        elif auth:
            values = await self.get(namespace, auth.secret_ref, "username", "password")
            basic = (values["username"], values["password"])
        if ca_secret_ref:
            ca = (await self.get(namespace, ca_secret_ref, "ca.crt"))["ca.crt"]
        return Endpoint(url, token, basic, ca)

    def forget(self, namespace: str, name: str) -> None:
        """Read it anew next time: what it says was refused."""
        self._known.pop((namespace, name), None)

    async def _read(self, namespace: str, name: str) -> Mapping[str, str]:
        try:
            return await self._kube.get_secret(namespace, name)
        except NotFoundError as error:
            raise SecretError("SecretMissing", f"there is no Secret {name} in {namespace}; create it") from error
        except ForbiddenError as error:
            raise SecretError(
                "SecretForbidden",
                f"the operator may not read the Secret {name} in {namespace}; add the namespace to the chart's "
                "rbac.namespaces",
            ) from error
        except UnicodeDecodeError as error:
            raise SecretError("SecretBinary", f"Secret {name} holds a value that is no text; correct it") from error
