"""The report as text: nothing recorded can break out of it, and everything recorded is in it."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kintsugi.api.action import ActionForecast, EvidenceOpinion, ForecastImpact
from kintsugi.engines.registry import ENGINES
from kintsugi_dev.demo import record, report
from kintsugi_dev.demo.record import Run, Second
from kintsugi_dev.demo.report import chart, graph, words

RECORDED = Path(__file__).parents[1] / "e2e/data/demo-run.json"
TOPOLOGY = ENGINES["postgresql"].topology
NASTY = "</script><img src=x onerror=alert(1)> & \"'"


@pytest.fixture(scope="module")
def run() -> Run:
    return record.read(RECORDED)


def a_chart(**changes: object) -> chart.Chart:
    body = {
        "name": "c", "title": "t", "start": 100.0, "end": 140.0, "limits": [(110.0, 130.0, 50.0)], "slo_ms": 100.0,
        "seconds": [Second(n, 100, 5.0, 5.0, 900.0 if 110 <= n < 115 else 5.0, 0) for n in range(100, 140)],
    }  # fmt: skip
    return chart.Chart(**{**body, **changes})  # type: ignore[arg-type]


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def of_class(svg: str, name: str) -> list[ElementTree.Element]:
    return [each for each in drawn(svg).iter() if name in each.get("class", "").split()]


def test_embedded_json_cannot_end_its_script() -> None:
    embedded = words.embedded({"said": NASTY})
    assert "<" not in embedded
    assert json.loads(embedded) == {"said": NASTY}


def test_whatever_was_recorded_stays_text(run: Run) -> None:
    fault = replace(run.faults[0], title=NASTY, name=NASTY)
    page = report.page(replace(run, faults=(fault, *run.faults[1:]), max_data_loss=NASTY))
    assert "<img" not in page
    assert page.count("</script>") == 2


def test_the_page_refers_to_nothing_outside_itself(run: Run) -> None:
    page = report.page(run)
    references = re.findall(r"""(?:src|href|action|poster)\s*=\s*["']([^"']*)""", page)
    assert [each for each in references if not each.startswith(("#", "data:"))] == []
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_every_anchor_leads_to_something(run: Run) -> None:
    page = report.page(run)
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))
    assert {fault.name for fault in run.faults} <= anchors


def test_each_plan_stands_in_the_page_word_for_word(run: Run) -> None:
    page = report.page(run)
    for fault in run.faults:
        for action in fault.actions:
            for step in action.action.spec.plan:
                assert words.text(step.command.strip()) in page


def test_what_the_learned_model_said_is_in_the_evidence(run: Run) -> None:
    fault = run.faults[0]
    said = EvidenceOpinion(
        model="7",
        probability=0.1,
        threshold=0.5,
        anomalies=0,
        normals=0,
        fault_class="lock-contention",
        nearest_class="lock-contention",
        class_probability=0.9,
        sentence="most unusual: lock_waiters (14 scales)",
    )
    body = copy.deepcopy(dict(fault.actions[0].body))
    body["spec"]["evidence"]["opinion"] = said.to_json()
    told = replace(fault.actions[0], body=body)
    page = report.page(replace(run, faults=(replace(fault, actions=(told, *fault.actions[1:])), *run.faults[1:])))
    assert said.sentence in page
    assert said.sentence not in report.page(run)


def test_the_refusal_and_the_approval_are_told(run: Run) -> None:
    page = report.page(run)
    assert "eve may not approve high-risk actions in shop" in page
    assert "ann approves it" in page


def test_slow_seconds_are_drawn_apart_from_calm_ones() -> None:
    svg = chart.svg(a_chart())
    assert len(of_class(svg, "curve")) == 3
    assert len(of_class(svg, "slow")) == 1


def test_a_high_second_outside_every_fault_is_not_called_slow() -> None:
    assert of_class(chart.svg(a_chart(limits=[])), "slow") == []


def test_labels_of_marks_that_are_close_do_not_overlap() -> None:
    marks = [chart.Mark(110.0 + number / 2, "proposed", "decide") for number in range(6)]
    labels = [each[1] for each in of_class(chart.svg(a_chart(marks=marks)), "mark")]
    heights = [float(label.get("y", "0")) for label in labels]
    assert len(set(heights)) == len(marks)


def test_a_label_at_the_right_edge_stays_inside() -> None:
    svg = chart.svg(a_chart(marks=[chart.Mark(139.9, "verified", "verify")]))
    label = of_class(svg, "mark")[0][1]
    assert label.get("text-anchor") == "end"


def test_latencies_are_placed_by_their_logarithm() -> None:
    found = a_chart()
    assert found.y(1) - found.y(10) == pytest.approx(found.y(100) - found.y(1000))
    assert found.y(0.01) == found.plot
    assert found.y(1e9) == 0


def test_the_graph_shows_every_component_and_every_edge() -> None:
    svg = graph.svg(TOPOLOGY, ActionForecast(), "g")
    assert len(of_class(svg, "node")) == len(TOPOLOGY.components)
    assert len(of_class(svg, "edge")) == len(TOPOLOGY.edges)


def test_the_forecast_path_is_drawn_as_spread_and_as_expected() -> None:
    forecast = ActionForecast(
        root="lock-manager",
        sentence="lock manager since 2 s",
        impacts=(
            ForecastImpact(component="lock-manager", probability=0.9, eta_seconds=0, path=("lock-manager",)),
            ForecastImpact(
                component="connections", probability=0.8, eta_seconds=0, path=("lock-manager", "connections")
            ),
            ForecastImpact(
                component="pooler", probability=0.6, eta_seconds=3, path=("lock-manager", "connections", "pooler")
            ),
        ),
    )
    svg = graph.svg(TOPOLOGY, forecast, "g")
    assert [each.get("data-edge") for each in of_class(svg, "edge") if "spread" in each.get("class", "")] == [
        "lock-manager connections"
    ]
    assert [each.get("data-edge") for each in of_class(svg, "edge") if "ahead" in each.get("class", "")] == [
        "connections pooler"
    ]
    spoken = {each.get("aria-label") for each in of_class(svg, "node")}
    assert "lock manager, began here" in spoken
    assert "pooler, 60 % in ~3 s, by way of lock manager → connections → pooler" in spoken


def test_boxes_of_components_do_not_overlap() -> None:
    nodes = list(graph._nodes(TOPOLOGY, ActionForecast()).values())
    for number, one in enumerate(nodes):
        for two in nodes[number + 1 :]:
            apart = abs(one.x - two.x) >= graph.WIDE or abs(one.y - two.y) >= graph.HIGH
            assert apart, f"{one.component} lies on {two.component}"


def test_no_edge_runs_behind_a_component_that_it_has_nothing_to_do_with() -> None:
    nodes = graph._nodes(TOPOLOGY, ActionForecast())
    for path in of_class(graph.svg(TOPOLOGY, ActionForecast(), "g"), "edge"):
        ends = (path.get("data-edge") or "").split()
        x1, y1, mx, my, x2, y2 = (float(number) for number in re.findall(r"-?[\d.]+", path.get("d") or ""))
        for step in range(1, 50):
            t = step / 50
            x = (1 - t) ** 2 * x1 + 2 * t * (1 - t) * mx + t**2 * x2
            y = (1 - t) ** 2 * y1 + 2 * t * (1 - t) * my + t**2 * y2
            for node in nodes.values():
                behind = abs(x - node.x) < graph.WIDE / 2 and abs(y - node.y) < graph.HIGH / 2
                assert not behind or node.component in ends, f"{' → '.join(ends)} runs behind {node.component}"


def test_a_component_that_nobody_placed_is_shown_all_the_same() -> None:
    impact = ForecastImpact(
        component="shop/customers", probability=0.5, eta_seconds=9, path=("client", "shop/customers")
    )
    svg = graph.svg(TOPOLOGY, ActionForecast(root="client", impacts=(impact,)), "g")
    assert any("shop/customers" in (each.get("aria-label") or "") for each in of_class(svg, "node"))


def test_a_run_that_failed_says_so_in_its_page(run: Run) -> None:
    fault = replace(run.faults[0], incident=None, actions=(), healed_at=None)
    page = report.page(replace(run, faults=(fault,)))
    assert "0 of 1 faults healed and verified" in page
    assert "Not healed and verified" in page


def test_a_run_without_the_operator_renders(run: Run) -> None:
    faults = tuple(
        replace(f, incident=None, actions=(), healed_at=None, refused=None, approved=None) for f in run.faults
    )
    page = report.page(replace(run, operator=False, bound_s=45.0, faults=faults, states=()))
    assert page.count("Not healed in 45 s") == len(faults)
