"""The process behind `BearerProxy`: `python -m kintsugi_dev.servers.bearer_proxy --listen … --upstream …`."""

from __future__ import annotations

import argparse
import hmac
import os
from collections.abc import AsyncIterator

from aiohttp import ClientError, ClientSession, web

SESSION = web.AppKey("session", ClientSession)
PASSED_ON = ("Content-Type", "Accept", "Accept-Encoding")


def application(upstream: str, token: str) -> web.Application:
    """A web application that forwards to `upstream` what carries `token`."""

    async def forward(request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), f"Bearer {token}".encode()):
            return web.Response(status=401, text="a bearer token is needed\n")
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        try:
            async with request.app[SESSION].request(
                request.method, upstream + str(request.rel_url), data=await request.read(), headers=headers
            ) as answer:
                body = await answer.read()
                return web.Response(status=answer.status, body=body, headers=_kept(answer.headers.get("Content-Type")))
        except ClientError as error:
            return web.Response(status=502, text=f"upstream {upstream} does not answer: {error}\n")

    async def client(proxy: web.Application) -> AsyncIterator[None]:
        async with ClientSession(trust_env=False) as proxy[SESSION]:
            yield

    proxy = web.Application()
    proxy.cleanup_ctx.append(client)
    proxy.router.add_route("*", "/{path:.*}", forward)
    return proxy


def _kept(content_type: str | None) -> dict[str, str]:
    return {"Content-Type": content_type} if content_type else {}


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--upstream", required=True, metavar="URL")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    web.run_app(
        application(arguments.upstream, os.environ["BEARER_TOKEN"]),
        host=host,
        port=int(port),
        print=None,
        access_log=None,
    )


if __name__ == "__main__":
    main()
