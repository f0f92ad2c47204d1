"""The CRDs say what the models say, or the generator refuses to write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from kintsugi.api.crd import ACTIONS, DATABASES, KINDS, POLICIES, Vocabulary, crd, schema
from kintsugi.api.meta import (
    DURATION_PATTERN,
    PERCENT_PATTERN,
    SIZE_PATTERN,
    Duration,
    Model,
    Name,
    parse_duration,
    parse_percent,
    parse_size,
)
from kintsugi.api.policy import Window
from kintsugi.api.rules import CRON_FIELDS, HOW_TO_WRITE, UnexplainedPatternError, explained
from kintsugi.api.schema import UnmappableFieldError, at, structural, walk
from kintsugi.cli import api_reference
from kintsugi.cli.crds import CRDS, main, vocabulary
from kintsugi.stages.windows import InvalidWindowError, check

WORDS = Vocabulary({"failover": "high", "analyze-table": "low"}, ["client_latency_p99"])
ROOT = Path(__file__).parents[2]


class Inner(Model):
    """Inside."""

    wait: Duration = timedelta(minutes=5)
    tries: int = Field(default=3, ge=1)


class Outer(Model):
    """Outside."""

    name: Name
    inner: Inner = Inner()
    maybe: Inner | None = None
    steps: tuple[Inner, ...] = Field(default=(), max_length=4)
    labels: Mapping[str, str] = Field(min_length=1)
    only: Literal["one"] = "one"


def test_fields_keep_their_limits_defaults_and_descriptions() -> None:
    found = structural(Outer, "spec")

    assert found["description"] == "Outside."
    assert found["required"] == ["name", "labels"]
    assert found["properties"]["inner"]["default"] == {"wait": "5m", "tries": 3}
    assert found["properties"]["inner"]["properties"]["tries"] == {"type": "integer", "default": 3, "minimum": 1}
    assert found["properties"]["steps"]["maxItems"] == 4
    assert found["properties"]["labels"] == {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string"},
    }
    assert found["properties"]["only"]["enum"] == ["one"]


def test_an_optional_field_is_simply_not_required() -> None:
    maybe = structural(Outer, "spec")["properties"]["maybe"]

    assert maybe["type"] == "object"
    assert "default" not in maybe
    assert "nullable" not in maybe


def test_without_defaults_the_api_server_fills_nothing_in() -> None:
    assert not [path for path, node in walk(structural(Outer, "spec", defaults=False)) if "default" in node]


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (int | str, "spec.x: is a union; give each alternative a field of its own"),
        (Any, "spec.x: has no single JSON type"),
        (Mapping[str, Any], "spec.x: may hold anything"),
        (tuple[int, str], "spec.x: Kubernetes has no prefixItems"),
        (frozenset[str], "spec.x: Kubernetes has no uniqueItems"),
        (Literal["a", 1], "spec.x: has no single JSON type"),
        (list[Any], r"spec.x\[\]: has no single JSON type"),
    ],
)
def test_what_kubernetes_cannot_express_is_refused_by_name(annotation: Any, says: str) -> None:
    model = type("Odd", (Model,), {"__annotations__": {"x": annotation}, "__module__": __name__})

    with pytest.raises(UnmappableFieldError, match=says):
        structural(model, "spec")


def test_a_limit_that_kubernetes_does_not_know_is_refused() -> None:
    class Stepped(Model):
        """Steps."""

        x: int = Field(multiple_of=5)

    with pytest.raises(UnmappableFieldError, match=r"spec\.x: Kubernetes has no multipleOf"):
        structural(Stepped, "spec")


def test_a_pattern_without_a_sentence_is_refused() -> None:
    with pytest.raises(UnexplainedPatternError, match=r"spec\.colour: the pattern"):
        explained("^#[0-9a-f]{6}$", "spec.colour")


def test_a_rule_for_a_field_that_is_gone_is_refused() -> None:
    with pytest.raises(UnmappableFieldError, match=r"spec\.nowhere: there is no such field"):
        at(structural(Outer, "spec"), "spec.nowhere")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
def test_no_crd_has_what_the_api_server_forbids(kind: Any) -> None:
    forbidden = {"$ref", "$defs", "const", "examples", "uniqueItems", "title", "pattern", "anyOf"}
    for path, node in walk(schema(kind, WORDS)):
        assert not forbidden & node.keys(), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert ("x-kubernetes-preserve-unknown-fields" in node) == (path == "spec.parameters"), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
def test_every_rule_says_what_to_do(kind: Any) -> None:
    for path, node in walk(schema(kind, WORDS)):
        for rule in node.get("x-kubernetes-validations", []):
            says = rule.get("message") or rule["messageExpression"]
            assert re.search(r"; |write it like", says), f"{path}: {says}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
def test_every_field_says_what_it_is(kind: Any) -> None:
    fields = [(path, node) for path, node in walk(schema(kind, WORDS)) if path.startswith(("spec", "status"))]

    assert [path for path, node in fields if not path.endswith("[]") and not node.get("description")] == []


def test_the_reference_shows_fields_defaults_limits_and_rules() -> None:
    page = api_reference.page(WORDS)

    assert "| `limits.perHour` | integer, 0 to 1000 | `4` |" in page
    assert "| `selector` | object **required** |" in page
    assert '| `approval.expiresAfter` | duration | `"30m"` |' in page
    assert "- `spec.dependsOn`: a database cannot depend on itself" in page


def test_lists_and_fields_of_names_are_declared() -> None:
    policy, action = schema(POLICIES, WORDS), schema(ACTIONS, WORDS)

    assert at(policy, "spec.windows")["x-kubernetes-list-map-keys"] == ["name"]
    assert at(policy, "spec.windows[].actions")["x-kubernetes-list-type"] == "set"
    assert (
        at(policy, "spec.actions[].name")["enum"] == at(action, "spec.action")["enum"] == ["analyze-table", "failover"]
    )
    assert at(schema(DATABASES, WORDS), "status.conditions")["x-kubernetes-list-map-keys"] == ["type"]


def test_the_crds_in_the_chart_are_those_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(ROOT)]) == 0, capsys.readouterr().out


def test_a_stale_crd_is_shown_and_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 0
    stale = tmp_path / CRDS / "healingpolicies.yaml"
    stale.write_text(stale.read_text(encoding="utf-8").replace("AutoMediumRisk", "AutoHighRisk"), encoding="utf-8")
    capsys.readouterr()

    assert main(["--check", "--root", str(tmp_path)]) == 1

    shown = capsys.readouterr().out
    assert "AutoHighRisk" in shown
    assert "run `make crds`" in shown


def test_generating_twice_gives_the_same() -> None:
    assert [crd(kind, vocabulary()) for kind in KINDS] == [crd(kind, vocabulary()) for kind in KINDS]


def test_helm_finds_nothing_of_its_own_in_a_crd(tmp_path: Path) -> None:
    main(["--root", str(tmp_path)])

    assert not [file for file in (tmp_path / CRDS).iterdir() if "{{" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    ("pattern", "parse"),
    [(DURATION_PATTERN, parse_duration), (SIZE_PATTERN, parse_size), (PERCENT_PATTERN, parse_percent)],
    ids=["duration", "size", "percentage"],
)
@given(data=st.data())
def test_every_text_that_the_api_server_takes_is_read_by_the_operator(pattern: str, parse: Any, data: Any) -> None:
    text = data.draw(st.from_regex(HOW_TO_WRITE[pattern][0].rstrip("$") + r"\Z"))

    assert re.search(pattern, text)
    assert parse(text) >= parse(type(text)(_nothing(pattern)))


def _nothing(pattern: str) -> str:
    return {DURATION_PATTERN: "0s", SIZE_PATTERN: "0B", PERCENT_PATTERN: "0%"}[pattern]


NUMBER = st.integers(0, 70).map(str)
FIELD = st.one_of(
    st.just("*"),
    NUMBER,
    st.tuples(NUMBER, NUMBER).map("-".join),
    st.tuples(NUMBER, NUMBER).map(",".join),
    st.integers(0, 70).map("*/{}".format),
    st.sampled_from(["MON", "jan", "FRI-SUN", "JAN-MAR", "", "L", "x", "-1", "1-", "@daily"]),
)


@pytest.mark.parametrize("place", range(5), ids=[what for what, _, _ in CRON_FIELDS])
@given(field=FIELD)
def test_the_api_server_and_the_operator_agree_on_schedules(place: int, field: str) -> None:
    """Two of them differ on purpose: a rule can't compare the ends of a range, and `L` is for the operator alone."""
    low, _, high = field.partition("-")
    assume(not (low.isdigit() and high.isdigit() and int(low) > int(high)) and field not in ("L", "FRI-SUN"))
    fields = ["*"] * 5
    fields[place] = field
    accepted = bool(re.search(CRON_FIELDS[place][2], field.upper()))

    assert accepted == _understood(" ".join(fields))


def _understood(schedule: str) -> bool:
    try:
        check(Window(name="w", schedule=schedule, duration=timedelta(hours=1), actions=("failover",)))
    except (InvalidWindowError, ValidationError):
        return False
    return True
