"""Each member of a replication set, asked directly and not through the Service: who it thinks it is, how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from kintsugi.engines.engine import MemberView
from kintsugi.engines.postgresql.diagnostics import MEMBER
from kintsugi.shell import sql

ASK_SECONDS = 2.0


async def member_views(endpoints: Mapping[str, sql.Endpoint]) -> tuple[MemberView, ...]:
    """Every member's view of itself, all asked at once, each for at most two seconds."""
    return tuple(await asyncio.gather(*(member_view(name, endpoint) for name, endpoint in endpoints.items())))


async def member_view(name: str, endpoint: sql.Endpoint) -> MemberView:
    """What one server says of itself; unreachable is an answer too, with the reason."""
    try:
        async with asyncio.timeout(2 * ASK_SECONDS):
            row = await _ask(endpoint)
    except sql.SqlError as error:
        return MemberView(name, reachable=False, error=str(error))
    except TimeoutError:
        return MemberView(name, reachable=False, error=f"no answer from {endpoint} in {2 * ASK_SECONDS:g} s")
    return MemberView(
        name,
        reachable=True,
        in_recovery=row["in_recovery"],
        timeline=row["timeline"],
        replay_lsn=row["replay_lsn"],
        receive_lsn=row["receive_lsn"],
        wal_receiver_streaming=row["streaming"],
        wal_receiver_age=row["receiver_age"],
    )


async def _ask(endpoint: sql.Endpoint) -> Mapping[str, Any]:
    connection = await sql.connect(
        endpoint,
        application="kintsugi/diagnose",
        statement_timeout=ASK_SECONDS,
        read_only=True,
        within=ASK_SECONDS,
    )
    try:
        row = await connection.fetchrow(MEMBER, timeout=ASK_SECONDS)
    except sql.STATEMENT_ERRORS as error:
        raise sql.explain_statement(error, endpoint) from None
    finally:
        await sql.close(connection)
    return dict(row) if row is not None else {}
