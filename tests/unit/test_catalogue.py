"""The catalogue: what is checked when it is read, and what is rendered."""

from __future__ import annotations

import pytest

from kintsugi.domain.signals import Role, Signal
from kintsugi.engines.catalogue import COMPONENTS, CatalogueError, load, parse, render
from kintsugi.engines.catalogue_docs import main, page

CATALOGUE = load("postgresql")

GOOD = {
    "name": "lock_waiters",
    "component": "lock-manager",
    "unit": "sessions",
    "kind": "gauge",
    "hurts": "up",
    "role": "symptom",
    "floor": "1",
    "description": "Sessions that wait.",
    "sources": "{kintsugi: 'max by ($by) (last_over_time(m{$sel}[$gauge]))'}",
}


def a_file(*entries: dict[str, str], **changes: str) -> str:
    lines = ["engine: postgresql", "signals:"]
    for entry in entries or ({},):
        fields = {**GOOD, **changes, **entry}
        lines += [f"{'- ' if n == 0 else '  '}{key}: {value}" for n, (key, value) in enumerate(fields.items()) if value]
    return "\n".join(lines)


def a_template(promql: str) -> str:
    return "{kintsugi: '" + promql + "'}"


def signal(name: str) -> Signal:
    found = CATALOGUE.get(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (a_file(component="locks"), "signal lock_waiters, component: 'locks' is not a component; use one of client"),
        (a_file({}, {}), "signals: lock_waiters stands there more than once"),
        (a_file(floor="0"), "signal lock_waiters, floor: Input should be greater than 0"),
        (a_file(role="alarm"), "signal lock_waiters, role: Input should be 'symptom', 'cause' or 'context'"),
        (a_file(hurts=""), "signal lock_waiters, hurts: Field required"),
        (a_file(colour="red"), "signal lock_waiters, colour: Extra inputs are not permitted"),
        (a_file(name="Lock-Waiters"), "signal Lock-Waiters, name: String should match pattern"),
        (a_file(sources="{telegraf: x}"), "signal lock_waiters, sources, telegraf"),
        (a_file(sources=a_template("max by ($by) (m{$sel})")), "needs a short range"),
        (a_file(sources=a_template("max(last_over_time(m{$sel}[$gauge]))")), "does not group by ($by)"),
        (a_file(sources=a_template("max by ($by) (rate(m[$rate]))")), "needs a selector that starts with $sel"),
        (a_file(sources=a_template('max by ($by) (rate(m{$sel}[$rate]) / n{a="b"})')), "needs a selector that starts"),
        (a_file(sources=a_template("max by ($by) (rate(m{$sel}[$interval]))")), "$interval is no placeholder"),
        ("signals: []", "engine: Field required"),
        ("engine: [", "is not YAML"),
    ],
)
def test_a_wrong_catalogue_is_refused_with_the_signal_and_the_field(text: str, sentence: str) -> None:
    with pytest.raises(CatalogueError) as refused:
        parse(text)
    assert sentence in str(refused.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(CatalogueError) as refused:
        parse(a_file({"name": "one", "unit": ""}, {"name": "two", "kind": "integer"}))
    assert "signal one, unit" in str(refused.value)
    assert "signal two, kind" in str(refused.value)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(CatalogueError, match="no catalogue for engine 'oracle'"):
        load("oracle")


def test_every_component_has_a_signal_that_says_that_somebody_waits_or_fails_or_why() -> None:
    assert {s.component for s in CATALOGUE} == set(COMPONENTS)
    assert all(s.role is not Role.CONTEXT for s in CATALOGUE if s.component in ("lock-manager", "wal", "replication"))


def test_a_gauge_reaches_back_two_and_a_half_scrapes_and_a_rate_four() -> None:
    gauge = render(signal("lock_waiters"), "kintsugi", ("namespace", "service"), 'namespace=~"shop"', 15.0)
    rate = render(signal("deadlocks"), "kintsugi", ("namespace",), 'namespace=~"shop"', 1.0)
    assert gauge == (
        "max by (namespace, service) "
        '(last_over_time(kintsugi_pg_lock_waiters{namespace=~"shop",role="primary"}[37500ms]))'
    )
    assert rate == 'max by (namespace) (rate(kintsugi_pg_deadlocks_total{namespace=~"shop",role="primary"}[4000ms]))'


def test_every_expression_renders_without_a_placeholder_left() -> None:
    for one in CATALOGUE:
        for source in one.exporters:
            assert "$" not in render(one, source, ("service",), 'service="orders"', 5.0)


def test_a_matcher_with_a_dollar_sign_stays_as_it_is() -> None:
    assert 'service=~"^a$"' in render(signal("lock_waiters"), "kintsugi", ("service",), 'service=~"^a$"', 1.0)


def test_the_page_of_signals_is_up_to_date() -> None:
    assert main(["--check"]) == 0


def test_the_page_names_every_signal() -> None:
    text = page(CATALOGUE)
    assert all(f"| `{one.name}` |" in text for one in CATALOGUE)
