"""One fault as a card: what happened, where it spread, why this action, word for word what it did, what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kintsugi.api.action import MeasureStatus, PlanStep
from kintsugi.api.meta import format_duration
from kintsugi.domain.text import quantity
from kintsugi.engines.registry import ENGINES
from kintsugi_dev.demo import measures
from kintsugi_dev.demo.record import ActionRecord, FaultRecord, Run
from kintsugi_dev.demo.report import chart, graph
from kintsugi_dev.demo.report.lanes import action_lane, database_lane
from kintsugi_dev.demo.report.moments import Moment, moments
from kintsugi_dev.demo.report.words import NOTHING, milliseconds, offset, seconds, text

BEFORE_SECONDS, AFTER_SECONDS = 6.0, 6.0
ENGINE = "postgresql"


def card(run: Run, fault: FaultRecord) -> str:
    """The whole card."""
    decisive = fault.decisive
    parts = [
        f'<article class="card" id="{text(fault.name)}">',
        _head(run, fault),
        '<div class="split"><div class="pictures">',
        _figure(run, fault),
        _graph(fault, decisive),
        "</div>",
        _story(fault),
        "</div>",
        *([_reasons(decisive)] if decisive else []),
        "</article>",
    ]
    return "".join(parts)


def _head(run: Run, fault: FaultRecord) -> str:
    title = fault.title[:1].upper() + fault.title[1:]
    good = fault.verified
    badge = ("healed", "Healed and verified") if good else ("unhealed", _unhealed(run, fault))
    facts = [
        ("detected after", seconds(fault.detected_s)),
        ("healed after", seconds(fault.healed_s)),
        ("approved by", fault.approved_by or NOTHING),
        ("client p99", _p99(fault)),
    ]
    if not run.operator:
        facts = facts[3:]
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    return (
        f'<header><div class="name"><h3>{text(title)}</h3><code>{text(fault.name)}</code>'
        f'<span class="badge {badge[0]}">{text(badge[1])}</span></div><dl class="facts">{items}</dl></header>'
    )


def _unhealed(run: Run, fault: FaultRecord) -> str:
    if not run.operator:
        return f"Not healed in {run.bound_s or 0:.0f} s" if fault.healed_at is None else "Ended by itself"
    return "Not healed and verified"


def _p99(fault: FaultRecord) -> str:
    return " → ".join(milliseconds(value) for value in (fault.p99.before, fault.p99.during, fault.p99.after))


def _figure(run: Run, fault: FaultRecord) -> str:
    start = fault.injected_at - BEFORE_SECONDS
    drawn = [moment for moment in moments(fault) if moment.short]
    end = min(run.ended_at, max([fault.ended_at, *(moment.at for moment in drawn)]) + AFTER_SECONDS)
    limit = fault.p99.limit if fault.p99.limit is not None else measures.TIMEOUT_MS
    found = chart.Chart(
        name=fault.name,
        title=f"Client p99 around {fault.name}",
        start=start,
        end=end,
        seconds=run.seconds,
        limits=[(fault.injected_at, end, limit)],
        slo_ms=run.slo_ms,
        origin=fault.injected_at,
        marks=[chart.Mark(moment.at, moment.short, moment.kind) for moment in drawn],
        lanes=[lane for lane in (database_lane(run, end), action_lane(fault.actions, end)) if lane.segments],
    )
    caption = (
        "The client’s p99 per second, logarithmic; red where it is slow, ticks at the bottom where requests failed."
    )
    return f'<figure class="readable">{chart.svg(found)}<output></output><figcaption>{caption}</figcaption></figure>'


def _graph(fault: FaultRecord, decisive: ActionRecord | None) -> str:
    if decisive is None:
        return ""
    forecast = decisive.action.spec.forecast
    picture = graph.svg(ENGINES[ENGINE].topology, forecast, f"graph-{fault.name}")
    sentence = _sentence(forecast.sentence)
    keys = " ".join(graph.legend())
    return (
        f'<figure>{picture}<figcaption><span class="keys">{keys}</span>'
        f"<span>Forecast when it was proposed: {sentence}</span></figcaption></figure>"
    )


def _story(fault: FaultRecord) -> str:
    items = "".join(_told(fault, moment) for moment in moments(fault))
    return f'<section class="story"><h4>What happened</h4><ol>{items}</ol></section>'


def _told(fault: FaultRecord, moment: Moment) -> str:
    parts = [f"<b>{text(moment.title)}</b>"]
    if moment.note:
        parts.append(f"<p>{text(moment.note)}</p>")
    if moment.command:
        parts.append(f"<code>{text(moment.command)}</code>")
    if moment.quote:
        parts.append(f"<blockquote>{text(moment.quote)}</blockquote>")
    time = f"<time>{offset(moment.at - fault.injected_at)}</time>"
    return f'<li class="{moment.kind}">{time}<div>{"".join(parts)}</div></li>'


def _reasons(record: ActionRecord) -> str:
    return (
        '<div class="split even">'
        f"<section><h4>Why {text(record.action.spec.action)}</h4>{_evidence(record)}</section>"
        f"<section><h4>The plan, word for word</h4>{_plan(record)}</section></div>{_verdict(record)}"
    )


def _evidence(record: ActionRecord) -> str:
    evidence = record.action.spec.evidence
    facts = _list(evidence.facts or (evidence.summary,))
    signals = sorted(evidence.signals, key=lambda signal: -signal.deviation)[:5]
    seen = f"<h5>Signals furthest from the reference</h5>{_list(s.sentence for s in signals)}" if signals else ""
    said = f"<h5>The learned model</h5>{_list([evidence.opinion.sentence])}" if evidence.opinion else ""
    rest = evidence.not_proposed
    others = f"<details><summary>Considered and left out: {len(rest)}</summary>{_list(rest)}</details>" if rest else ""
    return facts + seen + said + others


def _plan(record: ActionRecord) -> str:
    spec = record.action.spec
    steps = "".join(_step(step) for step in spec.plan)
    undo = "".join(_step(step) for step in spec.undo.steps)
    heading = {"Steps": "Undo", "Nothing": "Nothing to undo", "Impossible": "It cannot be undone"}[spec.undo.kind]
    note = f'<p class="quiet">{_sentence(spec.undo.note)}</p>' if spec.undo.note else ""
    listed = f'<ol class="plan">{undo}</ol>' if undo else ""
    return (
        f'<ol class="plan">{steps}</ol><h5>{heading}</h5>{note}{listed}'
        f'<p class="quiet">Plan hash <code>{text(spec.plan_hash)}</code>: an approval is of exactly this.</p>'
    )


def _sentence(words: str) -> str:
    return text(f"{words[:1].upper()}{words[1:]}.")


def _step(step: PlanStep) -> str:
    notes = [text(step.target), f"at most {format_duration(step.timeout)}"]
    notes += ["must be true"] * step.expect + ["may fail"] * step.optional
    return (
        f'<li><pre tabindex="0">{text(step.command.strip())}</pre><span class="quiet">{" · ".join(notes)}</span></li>'
    )


def _verdict(record: ActionRecord) -> str:
    verdict = record.action.status.verdict
    if verdict is None:
        return ""
    rows = "".join(_measure(measure) for measure in verdict.measures)
    table = (
        '<table class="measures"><thead><tr><th scope="col">signal</th><th scope="col">before</th>'
        f'<th scope="col">after</th><th scope="col">reference</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    return (
        f'<section class="verdict"><h4>Verdict: {text(verdict.outcome)}</h4>'
        f'<div class="split even">{_list(verdict.reasons)}{table}</div></section>'
    )


def _measure(measure: MeasureStatus) -> str:
    cells = "".join(f"<td>{_value(value, measure.unit)}</td>" for value in _values(measure))
    return f'<tr><th scope="row"><code>{text(measure.signal)}</code></th>{cells}</tr>'


def _values(measure: MeasureStatus) -> Sequence[float | None]:
    return (measure.before, measure.after, measure.reference)


def _value(value: float | None, unit: str) -> str:
    return NOTHING if value is None else text(quantity(value, unit))


def _list(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{text(sentence)}</li>' for sentence in sentences)}</ul>"
