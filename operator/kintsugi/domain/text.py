"""Numbers and durations as people read them. The one place where they are formatted."""

from __future__ import annotations

from datetime import timedelta


def human(duration: timedelta | float) -> str:
    """A duration in at most two units: `40 s`, `3 m 10 s`, `2 h 5 m`, `0.3 s`, `12 ms`."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if seconds < 0:
        return "-" + human(-seconds)
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def quantity(value: float, unit: str) -> str:
    """A value with its unit: seconds as durations, bytes with binary prefixes, ratios as percentages, else rounded."""
    if unit == "s":
        return human(value)
    if unit in ("B", "B/s"):
        return _bytes(value) + unit.removeprefix("B")
    if unit == "ratio":
        return f"{value * 100:.3g} %"
    return f"{_plain(value)} {unit}".rstrip()


def _plain(value: float) -> str:
    """Three digits, without an exponent that people have to count out."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bytes(value: float) -> str:
    for prefix in ("", "Ki", "Mi", "Gi"):
        if abs(value) < 1024:
            return f"{value:.3g} {prefix}B"
        value /= 1024
    return f"{value:.3g} TiB"
