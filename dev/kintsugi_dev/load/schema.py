"""The shop's tables and their first rows."""

from __future__ import annotations

from pathlib import Path

import asyncpg

SCHEMA = Path(__file__).with_name("schema.sql")
LINES = 200_000
LINES_PER_ORDER = 5
ORDERS_PER_CUSTOMER = 10

ROWS = """
INSERT INTO customers (id, name, balance)
    SELECT n, 'customer ' || n, 1000 FROM generate_series(1, {customers}) n;
INSERT INTO orders (id, customer_id, total, created_at)
    SELECT n, 1 + n % {customers}, 100, now() - n * interval '1 minute' FROM generate_series(1, {orders}) n;
INSERT INTO order_lines (order_id, product_id, quantity, price, note)
    SELECT 1 + n / {per_order}, n % 1000 * 7919 % 1000, 1 + n % 3, 20, 'left at the door of neighbour ' || n
    FROM generate_series(0, {lines} - 1) n;
SELECT setval(pg_get_serial_sequence('customers', 'id'), {customers});
SELECT setval(pg_get_serial_sequence('orders', 'id'), {orders});
"""

INDEXES = {
    "orders_customer_id_idx": "CREATE INDEX orders_customer_id_idx ON orders (customer_id)",
    "order_lines_order_id_idx": "CREATE INDEX order_lines_order_id_idx ON order_lines (order_id)",
}
"""The indexes that the reads rest on; dropping one makes each read scan its table."""


def customers(lines: int) -> int:
    """How many customers a shop with so many order lines has."""
    return max(1, lines // LINES_PER_ORDER // ORDERS_PER_CUSTOMER)


async def create_schema(dsn: str, *, lines: int = LINES) -> None:
    """Make the shop's tables (dropping earlier ones) with `lines` order lines; a few seconds for 200,000.

    Connect as the role that shall own the tables, and not through a pooler.
    """
    rows = ROWS.format(
        lines=lines, orders=lines // LINES_PER_ORDER, customers=customers(lines), per_order=LINES_PER_ORDER
    )
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute(SCHEMA.read_text())
            await connection.execute(rows)
            for statement in INDEXES.values():
                await connection.execute(statement)
        for table in ("customers", "orders", "order_lines", "ledger"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")
    finally:
        await connection.close()
