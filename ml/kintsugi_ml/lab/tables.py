"""The tables of docs/lab.md, each a pure function of the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from kintsugi_ml.lab.cascades import by_class, first_movers, lags
from kintsugi_ml.lab.compare import left_out
from kintsugi_ml.lab.leak import Finding, Report
from kintsugi_ml.lab.manifest import NOTHING, NULL, Entry, Manifest
from kintsugi_ml.lab.needs import ENOUGH, ENOUGH_HARMLESS, GATE_RATE

IMAGES: Final = "images/lab"
SPLITS: Final = {
    "train": "to learn from",
    "validation": "to choose by: a workload not learned from",
    "test-workload": "known classes on a workload never seen",
    "test-class": "classes never seen, on workloads that were",
    "test-both": "classes never seen on a workload never seen",
}


def summary(known: Manifest) -> Iterator[str]:
    """How much there is, on what it was recorded, and how quiet the machine was."""
    status = Counter(run.status for run in known.runs)
    seconds = sum(run.parts.ended - run.parts.normal for run in known.counting() if run.parts)
    single = [run for run in known.counting() if run.second is None]
    foreign = [run.foreign_cpu for run in known.counting() if run.foreign_cpu is not None]
    servers = Counter(run.server for run in known.counting())
    nulls = sum(run.fault == NULL for run in single)
    negatives = sum(run.negative and run.fault != NULL for run in single)
    faults = sum(not run.negative and run.fault != NULL for run in single)
    yield f"- **{status['counts']} runs count**, {seconds / 3600:.1f} hours at one sample a second: {faults} with one"
    yield f"  fault, {len(known.counting()) - len(single)} with two, {negatives} that only look like one, {nulls} null."
    others = [f"{status[name]} {name}" for name in ("gate-failed", "void", "crashed") if status[name]]
    yield f"- Kept, marked, and in no split: {_listed(others) or 'none'}."
    yield "- PostgreSQL " + _listed(f"{version} ({count} runs)" for version, count in sorted(servers.items()))
    if foreign:
        yield f"- CPU used by others: median {median(foreign):.1%}, at most {max(foreign):.1%} of all cores."
    yield f"- Newest run: {known.created}."


def classes(known: Manifest) -> Iterator[str]:
    """Classes by workloads: how many runs count, and in how many of all the effect showed."""
    workloads = sorted({run.workload for run in known.runs})
    yield _row("class", "starts at", *workloads, "abrupt / ramped", "effect shown")
    yield _row(*["---"] * (len(workloads) + 4))
    for fault, tried in _tried(known).items():
        counts = [run for run in tried if run.counts]
        yield _row(
            _named(fault, tried),
            next((run.root for run in tried if run.root), "–"),
            *(sum(run.workload == workload for run in counts) or "–" for workload in workloads),
            " / ".join(str(sum(run.form == form for run in counts)) for form in ("abrupt", "ramped")),
            f"{len(counts)} of {len(tried)}",
        )
    nulls = [run for run in known.counting() if run.fault == NULL]
    yield _row(
        "null", "–", *(sum(run.workload == workload for run in nulls) or "–" for workload in workloads), "–", "–"
    )


def cascades(known: Manifest) -> Iterator[str]:
    """Who moves first and who follows, with median seconds since the injection."""
    yield _row("class", "client", "first mover", "followers, median seconds after the injection (share of runs)")
    yield _row(*["---"] * 4)
    for fault, runs in by_class(known.runs).items():
        first = first_movers(runs)
        leaders = [f"{name} ({count} of {len(runs)})" for name, count in first[:2]]
        followers = [
            f"{lag.component} {lag.seconds:.1f} ({lag.share:.0%})"
            for lag in lags(runs)
            if lag.component not in {name for name, _ in first[:1]}
        ]
        factors = [run.gate.client_factor for run in runs if run.gate and run.gate.client_factor is not None]
        felt = f"×{median(factors):.2g} ({min(factors):.2g}–{max(factors):.2g})" if factors else "–"
        yield _row(f"[{fault}]({IMAGES}/{fault}.svg)", felt, _listed(leaders), _listed(followers))


def remedies(known: Manifest) -> Iterator[str]:
    """What each action did to each class; only what was felt can be restored, by clients or by the class' signal."""
    yield _row("class", "action", "meant to heal", "tried", "clients restored", "its signal restored", "made it worse")
    yield _row(*["---"] * 7)
    for fault, runs in by_class(known.runs).items():
        tried: dict[tuple[bool, str], list[Entry]] = {}
        for run in runs:
            if run.remedy and run.outcome and not run.negative:
                tried.setdefault((not run.remedy.right, run.remedy.action), []).append(run)
        for (wrong, action), members in sorted(tried.items()):
            outcomes = [run.outcome for run in members if run.outcome]
            signals = [came.own_signal for came in outcomes if came.own_signal]
            yield _row(
                fault,
                action,
                "no" if wrong else "yes",
                len(members),
                _restored(came.restored_after for came in outcomes if came.felt),
                _restored(signal.restored_after for signal in signals if signal.felt),
                sum(came.harm for came in outcomes) if action != NOTHING else "–",
            )


def _restored(felt: Iterable[float | None]) -> str:
    """As in "2 of 3, 1.5 s"."""
    known = list(felt)
    after = [seconds for seconds in known if seconds is not None]
    count = f"{len(after)} of {len(known)}" if known else "not felt"
    return f"{count}, {median(after):.1f} s" if after else count


def weak(known: Manifest) -> Iterator[str]:
    """What a reader should not rest much on."""
    found = [
        *_weak(known),
        *(f"- **{item.fault}** was skipped where it could not be had: {item.reason}." for item in known.skipped),
    ]
    yield from found or ["No class by the rules above."]


def _weak(known: Manifest) -> Iterator[str]:
    for fault, tried in _tried(known).items():
        runs = [run for run in tried if run.counts]
        problems = []
        if len(runs) < (ENOUGH_HARMLESS if tried[0].negative else ENOUGH):
            problems.append(f"runs that count: {len(runs)}")
        if len(runs) < GATE_RATE * len(tried):
            problems.append(f"its effect showed in {len(runs)} of {len(tried)} runs")
        led = sum(run.root in run.first_movers() for run in runs)
        if runs and runs[0].root and led < len(runs) / 2:
            problems.append(f"{runs[0].root}, where it starts, moved first in {led} of {len(runs)}")
        if problems:
            yield f"- **{fault}**: {'; '.join(problems)}."


def splits(known: Manifest) -> Iterator[str]:
    """What is in each split."""
    yield _row("split", "for", "runs", "workloads", "classes")
    yield _row(*["---"] * 5)
    for name in known.splits:
        runs = known.split(name)
        found = sorted({fault for run in runs for fault in run.classes})
        shown = _listed(found) if name.endswith(("class", "both")) else str(len(found))
        yield _row(name, SPLITS[name], len(runs), _listed(sorted({run.workload for run in runs})), shown)


def leaks(report: Report) -> Iterator[str]:
    """What one signal alone gives away."""
    yield "Before the injection (a mistake of the lab): " + (_listed(map(_found, report.leaks)) or "nothing.")
    yield ""
    unexpected = [finding for finding in report.giveaways if finding.expected is None]
    yield f"After it, one signal alone tells a class from all others: {len(report.giveaways)} times,"
    yield f"{len(report.giveaways) - len(unexpected)} of them because that is what the fault does"
    yield "(`ml/kintsugi_ml/lab/expected.py`)" + ("; for a person to judge:" if unexpected else ".")
    yield ""
    yield from (f"- {_found(finding)}" for finding in unexpected)
    if report.unjudged:
        yield f"- Too few runs to tell: {_listed(report.unjudged)}."
    yield ""
    yield _row("class", "tells it best from a null run", "AUC")
    yield _row(*["---"] * 3)
    for fault, finding in report.seen.items():
        yield _row(fault, f"{finding.signal} ({finding.way})", f"{max(finding.auc, 1 - finding.auc):.2f}")


def check(known: Manifest) -> Iterator[str]:
    """What the comparison of `make lab-check` is worth."""
    found = left_out(known.runs)
    yield f"Each recorded run left out in turn is like the others of its class {found.own_alike} times in {found.own},"
    yield f"and like the runs of another class {found.others_alike} times in {found.others}."


TABLES: Final[Mapping[str, Callable[[Manifest], Iterator[str]]]] = {
    "summary": summary,
    "classes": classes,
    "cascades": cascades,
    "remedies": remedies,
    "weak": weak,
    "splits": splits,
    "check": check,
}
"""By the name of their marker in the page; `leaks` needs the runs themselves."""


def _tried(known: Manifest) -> dict[str, list[Entry]]:
    """The single runs whose effect was judged, by class: faults before negatives."""
    judged = [run for run in known.runs if run.status in ("counts", "gate-failed")]
    single = [run for run in judged if run.second is None and run.fault != NULL]
    names = sorted({(run.negative, run.fault) for run in single})
    return {fault: [run for run in single if run.fault == fault] for _, fault in names}


def _named(fault: str, runs: Sequence[Entry]) -> str:
    return f"{fault} (harmless)" if runs[0].negative else fault


def _found(finding: Finding) -> str:
    return f"{finding.fault}: {finding.signal} ({finding.way}, AUC {finding.auc:.3f}, {finding.runs} runs)"


def _listed(items: Iterator[str] | Sequence[str] | map[str]) -> str:
    return ", ".join(items)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
