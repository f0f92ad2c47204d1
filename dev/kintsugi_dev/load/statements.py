"""What the shop's clients do: three kinds of request, how often each comes, and how a failure is classed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

HOT_CUSTOMERS = 10
HOT_SHARE = 0.3
"""So many requests go to the first ten customers: a lock on those is felt, as on a busy account."""

ORDERS_OF_CUSTOMER = """
SELECT o.id, o.created_at, o.total, l.product_id, l.quantity, l.price
FROM orders o JOIN order_lines l ON l.order_id = o.id
WHERE o.customer_id = $1 ORDER BY o.id DESC LIMIT 50
"""
NEW_ORDER = """
WITH placed AS (INSERT INTO orders (customer_id, total) VALUES ($1, 60) RETURNING id)
INSERT INTO order_lines (order_id, product_id, quantity, price)
SELECT placed.id, $2 + n, 1, 20 FROM placed, generate_series(1, 3) n
"""
CHARGE = "UPDATE customers SET balance = balance - 60, updated_at = now() WHERE id = $1"
LEDGER_ENTRY = "INSERT INTO ledger (client, number, amount) VALUES ($1, $2, 60)"


@dataclass(frozen=True)
class Request:
    """One request: `number` is the ledger's number, drawn for every request and used by ledger entries."""

    client: str
    number: int
    customer: int
    product: int


Connection = asyncpg.pool.PoolConnectionProxy
Work = Callable[[Connection, Request], Awaitable[object]]


async def read_orders(connection: Connection, request: Request) -> None:
    """The customer's newest orders with their lines, by two indexes."""
    await connection.fetch(ORDERS_OF_CUSTOMER, request.customer)


async def place_order(connection: Connection, request: Request) -> None:
    """A new order with three lines and the customer's new balance, in one transaction."""
    async with connection.transaction():
        await connection.execute(NEW_ORDER, request.customer, request.product)
        await connection.execute(CHARGE, request.customer)


async def enter_ledger(connection: Connection, request: Request) -> None:
    """A ledger entry with a number of its own; once acknowledged it goes into the journal."""
    await connection.execute(LEDGER_ENTRY, request.client, request.number)


READ, ORDER, LEDGER = "read", "order", "ledger"
WORK: dict[str, Work] = {READ: read_orders, ORDER: place_order, LEDGER: enter_ledger}
SHARES = {READ: 0.6, ORDER: 0.2, LEDGER: 0.2}


def draw(randomness: random.Random, client: str, number: int, customers: int) -> tuple[str, Request]:
    """The next request and its kind."""
    kind = randomness.choices(list(SHARES), list(SHARES.values()))[0]
    hot = randomness.random() < HOT_SHARE
    customer = randomness.randint(1, min(HOT_CUSTOMERS, customers) if hot else customers)
    return kind, Request(client, number, customer, randomness.randint(0, 990))


def outcome(error: BaseException | None) -> str:
    """The class of a request's end, one of six.

    `ok`; `timeout`: no answer in time; `connection`: refused, reset or closed; `rejected`: the server or the pooler has
    no room or shuts down; `read_only`: it is a standby; `error`: any other error of the server.
    """
    match error:
        case None:
            return "ok"
        case TimeoutError():
            return "timeout"
        case asyncpg.ReadOnlySQLTransactionError():
            return "read_only"
        case (
            asyncpg.InsufficientResourcesError()
            | asyncpg.OperatorInterventionError()
            | asyncpg.ProtocolViolationError()  # what PgBouncer answers when it has no room or no server
        ):
            return "rejected"
        case OSError() | asyncpg.PostgresConnectionError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return "connection"
        case _:
            return "error"
