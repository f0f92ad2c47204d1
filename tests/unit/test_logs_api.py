"""`spec.logs`: samples are what the models read, and the API server's rules refuse what the operator could not use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kintsugi.api.database import DatabaseSpec
from kintsugi.api.rules import LOG_RULES
from kintsugi.engines.catalogue import CatalogueError, parse
from kintsugi.engines.postgresql.logs.prefix import LinePrefixError, header

SAMPLE = Path(__file__).parents[2] / "docs/samples/logs.yaml"
ENTRY = """\
engine: postgresql
signals:
- {{name: a, component: wal, unit: 1/s, kind: rate, hurts: up, role: cause, floor: 1, description: Says something.,
   sources: {{logs: "{words}"}}}}
"""


def regexes(at: str) -> list[str]:
    """What the rules on a field match, as Python reads it."""
    return [
        regex for rule in LOG_RULES if rule.at == at for regex in re.findall(r"self\.matches\(r'(.*?)'\)", rule.cel)
    ]


def samples() -> list[dict[str, Any]]:
    documents = yaml.safe_load_all(SAMPLE.read_text(encoding="utf-8"))
    return [document["spec"] for document in documents if document["kind"] == "MonitoredDatabase"]


def test_the_samples_show_every_source_and_can_be_read_with() -> None:
    found = [DatabaseSpec.model_validate(spec).logs for spec in samples()]
    assert [bool(logs and logs.pods) for logs in found] == [True, False, False]
    assert [bool(logs and logs.loki) for logs in found] == [False, True, False]
    assert [bool(logs and logs.file) for logs in found] == [False, False, True]
    for logs in found:
        assert logs is not None
        if logs.line_prefix:
            header(logs.line_prefix)


@pytest.mark.parametrize(
    "prefix", ["%m [%p] ", "%t:%r:%u@%d:[%p]:", "%m [%p] %q%u@%d ", "%n %-10u %% ", "[%p] ", "%m %z "]
)
def test_a_prefix_that_the_api_server_takes_is_one_that_lines_can_be_read_with(prefix: str) -> None:
    taken = all(re.search(regex, prefix) for regex in regexes("spec.logs.linePrefix"))
    try:
        header(prefix)
    except LinePrefixError:
        assert not taken
    else:
        assert taken


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/logs/orders.json", True),
        ("/logs/orders-*.json", True),
        ("/logs/.hidden/a..b.json", True),
        ("logs/x.json", False),
        ("/logs/../x.json", False),
        ("/logs/./x.json", False),
        ("/logs/..", False),
        ("/*/x.json", False),
    ],
)
def test_a_path_is_absolute_and_leads_nowhere_else(path: str, taken: bool) -> None:
    absolute, upwards, pattern = regexes("spec.logs.file.path")
    assert bool(re.search(absolute, path) and not re.search(upwards, path) and not re.search(pattern, path)) is taken


@pytest.mark.parametrize("words", ["", "Errors", "deadlock, fatal", "sum(rate(x))"])
def test_a_signal_of_the_log_that_names_no_class_is_refused(words: str) -> None:
    with pytest.raises(CatalogueError, match="no class of log lines"):
        parse(ENTRY.format(words=words))


def test_a_signal_may_come_from_the_log_alone() -> None:
    (signal,) = parse(ENTRY.format(words="error_* deadlock"))
    assert signal.exporters == ()
    assert parse(ENTRY.format(words="error_* deadlock")).logged() == {"a": "error_* deadlock"}
