"""What the API server checks beyond types: one line per rule, each with the sentence that its user reads.

A message says what the field must be and what to write instead; the API server puts the field's path and the value in
front. Rules are CEL, evaluated on `kubectl apply`; `self` is the node at the rule's path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kintsugi.api.action import Phase
from kintsugi.api.meta import DURATION_PATTERN, NAME_PATTERN, PERCENT_PATTERN, SIZE_PATTERN
from kintsugi.api.policy import Mode


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule on the node `at`; `field` is the child that is to blame. `says` is CEL when the message computes."""

    at: str
    cel: str
    says: str
    field: str = ""
    computed: bool = False


HOW_TO_WRITE: Mapping[str, tuple[str, str]] = {
    DURATION_PATTERN: (
        r"^([0-9]{1,4}h|[0-9]{1,5}m|[0-9]{1,6}s|[0-9]{1,6}ms)+$",  # CEL's duration() knows no days
        "must be a duration in h, m, s and ms; write it like 500ms, 30s, 5m or 1h30m",
    ),
    SIZE_PATTERN: (
        r"^[0-9]{1,12}(B|kB|KiB|MB|MiB|GB|GiB)$",
        "must be a size in B, kB, KiB, MB, MiB, GB or GiB; write it like 0B, 512KiB or 16MB",
    ),
    PERCENT_PATTERN: (PERCENT_PATTERN, "must be a percentage from 0% to 100%; write it like 10%"),
    NAME_PATTERN: (
        NAME_PATTERN,
        "must be the name of an object: lower-case letters, digits, '-' and '.'; correct its spelling",
    ),
    r"^https?://[^\s/]+.*$": (
        r"^https?://[^\s/?#]+[^\s?#]*$",
        "must be a base URL without query; write it like http://prometheus.monitoring:9090",
    ),
}
"""For each pattern of the models: the one that the API server checks (never wider), and how to write it."""


class UnexplainedPatternError(LookupError):
    """A model has a pattern that no sentence explains; add it to `HOW_TO_WRITE`."""


def explained(pattern: str, field: str) -> Rule:
    """The rule that replaces a bare pattern, whose refusal would show a regular expression.

    Raises:
        UnexplainedPatternError: nobody wrote down how such a value is written.
    """
    if pattern not in HOW_TO_WRITE and pattern not in _EXPLAINED_BELOW:
        raise UnexplainedPatternError(f"{field}: the pattern {pattern} has no explanation; add one in api/rules.py")
    if pattern in _EXPLAINED_BELOW:
        return Rule(field, "true", "")
    regex, says = HOW_TO_WRITE[pattern]
    name = field.removesuffix("[]").rpartition(".")[2]
    return Rule(field, f"self.matches(r'{regex}')", f"{name} {says}")


_EXPLAINED_BELOW = {r"^\S+ \S+ \S+ \S+ \S+$"}
_DURATION = HOW_TO_WRITE[DURATION_PATTERN][0]


def _between(at: str, least: str, most: str, hint: str) -> Rule:
    """The duration at `at` lies between two others, both included."""
    name = at.removesuffix("[]").rpartition(".")[2]
    inside = f"duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    return Rule(
        at,
        f"!self.matches(r'{_DURATION}') || {inside}",
        f"{name} must be from {least} to {most}; {hint}",
    )


def _host(at: str) -> Rule:
    return Rule(
        at,
        r"!self.matches(r'[/\s@]') && !self.matches(r'^[^:]*:[0-9]*$')",
        "host must be a name or an address only; move the port to its own field and leave out scheme and path",
    )


LOG_RULES: tuple[Rule, ...] = (
    Rule(
        "spec.logs",
        "[has(self.file), has(self.pods), has(self.loki)].filter(given, given).size() == 1",
        "logs must have exactly one of file, pods and loki; keep the one that has this database's log",
    ),
    Rule(
        "spec.logs",
        "!has(self.linePrefix) || self.format == 'stderr'",
        "linePrefix must be absent unless format is stderr; remove it, or set format to stderr",
        field=".linePrefix",
    ),
    Rule(
        "spec.logs.linePrefix",
        "self.matches(r'%-?[0-9]*[mtn]')",
        "linePrefix must hold the time, as %m, %t or %n; copy the server's log_line_prefix, with %m in it",
    ),
    Rule(
        "spec.logs.linePrefix",
        "self.matches(r'^([^%]|%-?[0-9]*[abcdehilmnpqrstuvxLPQ]|%%)*$')",
        "linePrefix has an escape that PostgreSQL does not know; copy the server's log_line_prefix",
    ),
    Rule(
        "spec.logs.file.path",
        r"self.matches(r'^/') && !self.matches(r'(^|/)\.{1,2}(/|$)') && !self.matches(r'[*?\[].*/')",
        "path must be absolute, without . and .. as parts and with * only after the last /; write it like /logs/*.json",
    ),
    Rule(
        "spec.logs.pods.selector",
        r"self.all(k, self[k].matches(r'^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$'))",
        "selector must hold label values (letters, digits, '-', '_', '.'); correct the value",
    ),
    Rule(
        "spec.logs.loki.query",
        r"self.matches(r'^\s*\{.*=.*\}')",
        'query must begin with a stream selector; write it like {namespace="shop", pod=~"orders-.*"}',
    ),
)

DATABASE_RULES: tuple[Rule, ...] = (
    Rule(
        "",
        "!has(self.spec.dependsOn) || self.spec.dependsOn.all(d, d.name != self.metadata.name)",
        "a database cannot depend on itself; remove its own name from dependsOn",
        field=".spec.dependsOn",
    ),
    _host("spec.connection.host"),
    Rule(
        "spec.metrics.matchers",
        r"self.all(k, k.matches(r'^[a-zA-Z_][a-zA-Z0-9_]*$') && k != '__name__')",
        "matchers must be Prometheus labels (letters, digits and _); correct the label's name",
    ),
    Rule(
        "spec.metrics.matchers",
        "self.all(k, self[k] != '')",
        "matchers must not be empty strings, which select series without the label; write its value or remove it",
    ),
    _between("spec.metrics.scrapeInterval", "1s", "5m", "write the scrape_interval that Prometheus has for this job"),
    *LOG_RULES,
    Rule(
        "spec.slo",
        "has(self.signal) != has(self.latencyQuery)",
        "slo must have exactly one of signal and latencyQuery; keep the one that measures your users' latency",
    ),
    _between("spec.slo.target", "1ms", "1h", "write the latency that users are promised, 50ms for example"),
    _between("spec.reference.minimum", "5s", "24h", "write how long to learn before judging, 5m for example"),
    _between("spec.reference.window", "5s", "24h", "write how far back normal reaches, 30m for example"),
    Rule(
        "spec.reference",
        f"!self.minimum.matches(r'{_DURATION}') || !self.window.matches(r'{_DURATION}') || "
        "duration(self.minimum) <= duration(self.window)",
        "minimum must not be longer than window; lower minimum or raise window",
        field=".minimum",
    ),
    _host("spec.pooler.pgbouncer.host"),
    _host("spec.replication.streaming.members[].host"),
    Rule(
        "spec.replication.streaming.members",
        "self.all(m, self.exists_one(o, o.host == m.host && o.port == m.port))",
        "members must be different servers; give each its own host or port",
    ),
)

_RANKS = "{" + ", ".join(f"'{mode.value}': {mode.rank}" for mode in Mode) + "}"
_LOOSER = f"has(a.mode) && {_RANKS}[a.mode] > {_RANKS}[self.mode]"
_NUMBER_LIST = r"(\*|{n}(-{n})?)(/[1-9][0-9]*)?(,(\*|{n}(-{n})?)(/[1-9][0-9]*)?)*"
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS = "SUN|MON|TUE|WED|THU|FRI|SAT"


def cron_field(number: str) -> str:
    """The regular expression of one cron field whose numbers match `number`."""
    return "^" + _NUMBER_LIST.replace("{n}", f"({number})") + "$"


CRON_FIELDS: tuple[tuple[str, str, str], ...] = (
    ("minute", "0 to 59", cron_field("[0-5]?[0-9]")),
    ("hour", "0 to 23", cron_field("[01]?[0-9]|2[0-3]")),
    ("day of the month", "1 to 31", cron_field("0?[1-9]|[12][0-9]|3[01]")),
    ("month", "1 to 12 or JAN to DEC", cron_field(f"0?[1-9]|1[0-2]|{_MONTHS}")),
    ("day of the week", "0 to 7 (0 and 7 are Sunday) or SUN to SAT", cron_field(f"[0-7]|{_DAYS}")),
)


def _cron(index: int, what: str, says: str, regex: str) -> Rule:
    return Rule(
        "spec.windows[].schedule",
        f"self.split(' ').size() != 5 || self.split(' ')[{index}].upperAscii().matches(r'{regex}')",
        f"schedule's field {index + 1}, the {what}, must be {says}, or *; write it like 5, 1-5, 1,3 or */5",
    )


_IDENTIFIER = r"""("([^"]|"")+"|[^\s.":]+)"""

POLICY_RULES: tuple[Rule, ...] = (
    Rule(
        "spec",
        "has(self.selector)",
        "selector is required; write matchLabels, or selector: {} to select every database in the namespace",
        field=".selector",
    ),
    Rule(
        "spec.selector.matchLabels",
        r"self.all(k, self[k].matches(r'^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$'))",
        "matchLabels must hold label values (letters, digits, '-', '_', '.', at most 63); correct the value",
    ),
    Rule(
        "spec.selector.matchExpressions[]",
        "!(self.operator in ['In', 'NotIn']) || has(self.values) && self.values.size() > 0",
        "values must be given with the operators In and NotIn; list at least one, or use Exists or DoesNotExist",
        field=".values",
    ),
    Rule(
        "spec.selector.matchExpressions[]",
        "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0",
        "values must be absent with the operators Exists and DoesNotExist; remove them, or use In or NotIn",
        field=".values",
    ),
    Rule(
        "spec.objectives",
        "self.latency + self.throughput + self.consistency + self.resources > 0",
        "objectives must not all be 0, or nothing could be preferred; give at least one a weight",
    ),
    _between("spec.constraints.maxReplicationLag", "0s", "1h", "write how far a replica may lag and still be promoted"),
    Rule(
        "spec.constraints.protected[]",
        rf"self.matches(r'^((role|database|application):\S(.*\S)?|{_IDENTIFIER}\.{_IDENTIFIER})$')",
        "protected must be schema.table, role:NAME, database:NAME or application:NAME; write it like public.ledger, "
        "or *.ledger for every schema",
    ),
    _between("spec.limits.cooldown", "0s", "24h", "write how long a database is left alone after an action"),
    Rule(
        "spec.windows[].schedule",
        "self.split(' ').size() == 5",
        "schedule must have five fields with one space between (minute, hour, day, month, weekday); "
        "write it like 0 1 * * *",
    ),
    *(_cron(index, *field) for index, field in enumerate(CRON_FIELDS)),
    Rule(
        "spec.windows[].timeZone",
        "self.matches(r'^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$') && self != 'Local' && "
        "timestamp('2026-01-01T00:00:00Z').getFullYear(self) > 2000",
        "timeZone must be a name of the time zone database; write it like UTC or Europe/Berlin",
    ),
    _between("spec.windows[].duration", "1m", "168h", "write how long the window stays open, 4h for example"),
    _between("spec.approval.expiresAfter", "1m", "24h", "write how long a person has to answer, 30m for example"),
    _between("spec.verification.window", "5s", "1h", "write how long the effect may take to show, 2m for example"),
    Rule(
        "spec.rollout.maxHarmRate",
        "!self.endsWith('%') || double(self.replace('%', '')) >= 0.1",
        "maxHarmRate must be at least 0.1%, less can never be proven; raise it, or use mode Approve to be asked always",
    ),
)


def mode_rules(actions: Iterable[str]) -> tuple[Rule, ...]:
    """An override may only be stricter than its policy; one rule each, since a message can't afford to search."""
    return tuple(
        Rule(
            "spec",
            f"!has(self.actions) || !self.actions.exists(a, a.name == '{name}' && {_LOOSER})",
            f"'the mode of {name} is looser than mode ' + self.mode + '; use a stricter one or raise spec.mode'",
            field=".actions",
            computed=True,
        )
        for name in sorted(actions)
    )


_ENDED = "[" + ", ".join(f"'{phase.value}'" for phase in Phase if phase.ended) + "]"

ACTION_RULES: tuple[Rule, ...] = (
    Rule(
        "",
        f"!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in {_ENDED}) || "
        "has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase",
        "phase of an ended action must never change; a new attempt is a new HealingAction",
        field=".status.phase",
    ),
    Rule(
        "spec", "self == oldSelf", "spec is immutable, since people approve its planHash; let a new action be proposed"
    ),
    Rule(
        "spec.planHash",
        "self.matches(r'^[0-9a-f]{12}$')",
        "planHash must be 12 hexadecimal digits; compute it with kintsugi.api.action.plan_hash",
    ),
    Rule(
        "spec",
        "self.risk != 'high' || self.approval.required",
        "required must be true where risk is high; high risk always asks a person, set approval.required",
        field=".approval.required",
    ),
    Rule(
        "spec.undo",
        "self.kind != 'Steps' || has(self.steps) && self.steps.size() > 0",
        "steps must be given where kind is Steps; list them, or set kind to Nothing or Impossible",
        field=".steps",
    ),
    Rule(
        "spec.undo",
        "self.kind == 'Steps' || !has(self.steps) || self.steps.size() == 0",
        "steps must be absent unless kind is Steps; remove them, or set kind to Steps",
        field=".steps",
    ),
    Rule(
        "spec",
        "has(self.runnable) && !self.runnable || self.plan.size() > 0",
        "plan must have at least one step; list what to run, or set runnable to false for a recommendation",
        field=".plan",
    ),
    _between("spec.verification.window", "5s", "1h", "write how long the effect may take to show, 2m for example"),
    _between("spec.plan[].timeout", "1ms", "12h", "write how long the step may take"),
    _between("spec.undo.steps[].timeout", "1ms", "12h", "write how long the step may take"),
)


def risk_rule(risks: Mapping[str, str]) -> Rule:
    """An action may be judged riskier than the table says, never less risky."""
    table = "{" + ", ".join(f"'{name}': '{risk}'" for name, risk in sorted(risks.items())) + "}"
    ranks = "{'low': 0, 'medium': 1, 'high': 2}"
    return Rule(
        "spec",
        f"!(self.action in {table}) || {ranks}[self.risk] >= {ranks}[{table}[self.action]]",
        f"'risk of ' + self.action + ' must be at least ' + {table}[self.action] + '; raise it'",
        field=".risk",
        computed=True,
    )
