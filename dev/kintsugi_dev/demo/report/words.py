"""Numbers, times and escaping as the page writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

NOTHING = "–"


def text(value: object) -> str:
    """Anything as text inside HTML, in an attribute as well."""
    return escape(str(value), quote=True)


def attributes(values: Mapping[str, object]) -> str:
    """` key="value"` of each."""
    return "".join(f' {key}="{text(value)}"' for key, value in values.items())


def embedded(data: Any) -> str:
    """JSON that may stand inside a script element: whatever it holds, it can't end the element."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return body


def milliseconds(value: float | None) -> str:
    """`9.4 ms`, `118 ms`, `5.02 s`."""
    if value is None:
        return NOTHING
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


def seconds(value: float | None) -> str:
    """`4.5 s`."""
    return NOTHING if value is None else f"{value:.1f} s"


def offset(value: float) -> str:
    """`+4.5 s` after the injection."""
    return f"{'−' if value < -0.05 else '+'}{abs(value):.1f} s"


def clock(at: float) -> str:
    """`14:02:11` UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def day(at: float) -> str:
    """`22 November 2026, 14:02 UTC`."""
    found = datetime.fromtimestamp(at, UTC)
    return f"{found.day} {found.strftime('%B %Y, %H:%M')} UTC"


def percent(probability: float) -> str:
    """`84 %`."""
    return f"{probability * 100:.0f} %"
