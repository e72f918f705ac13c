"""Dashboards' bodies: AWS's shorthand for metrics, what widgets ask, and bodies that make no sense."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.console import charts, insights, widgets
from entrepot.console.charts import Level, Line, Slice
from entrepot.console.insights import Result
from entrepot.console.pages.spans import Span
from entrepot.console.widgets import WidgetError

HOUR_MS = 3_600_000


def _queries(metrics: list[Any], **properties: Any) -> list[dict[str, Any]]:
    return [dict(query) for query in widgets.metric_view({"metrics": metrics, **properties}, 60).queries]


def _written(metrics: list[Any]) -> list[tuple[str, ...]]:
    found = []
    for query in _queries(metrics):
        metric = query["MetricStat"]["Metric"]
        pairs = [part for one in metric["Dimensions"] for part in (one["Name"], one["Value"])]
        found.append((metric["Namespace"], metric["MetricName"], *pairs))
    return found


def test_rows_repeat_what_is_above() -> None:
    # The examples of CloudWatch-Dashboard-Body-Structure.html, "Metrics Array Format".
    assert _written([["AWS/EC2", "CPUUtilization", "InstanceId", "i-1"], ["...", "i-2"]]) == [
        ("AWS/EC2", "CPUUtilization", "InstanceId", "i-1"),
        ("AWS/EC2", "CPUUtilization", "InstanceId", "i-2"),
    ]
    assert _written([["AWS/EC2", "DiskReadBytes", "InstanceId", "i-1"], [".", "DiskWriteBytes", ".", "."]]) == [
        ("AWS/EC2", "DiskReadBytes", "InstanceId", "i-1"),
        ("AWS/EC2", "DiskWriteBytes", "InstanceId", "i-1"),
    ]
    assert _written([["A", "M", "D", "1", {"stat": "Sum"}], ["...", {"stat": "Maximum"}], ["...", "."]])[1:] == [
        ("A", "M", "D", "1"),
        ("A", "M", "D", "1"),
    ]


def test_expressions_and_options_are_kept() -> None:
    queries = _queries(
        [
            ["A", "M", {"id": "q0", "visible": False, "stat": "p99", "period": 300}],
            [{"expression": "q0 * 2", "label": "twice", "id": "e1"}],
            ["A", "N"],
        ],
        stat="Sum",
        period=120,
    )
    assert queries[0]["MetricStat"]["Stat"] == "p99"
    assert queries[0]["MetricStat"]["Period"] == 300
    assert queries[0]["ReturnData"] is False
    assert queries[1] == {"Id": "e1", "Label": "twice", "Expression": "q0 * 2", "Period": 120}
    assert queries[2]["MetricStat"]["Stat"] == "Sum"
    assert len({query["Id"] for query in queries}) == 3


def test_metrics_of_one_name_are_told_apart() -> None:
    labels = [
        query.get("Label") for query in _queries([["A", "M", "Host", "a"], ["...", "b"], ["A", "N", "Host", "a"]])
    ]
    assert labels == ["M a", "M b", "N a"]


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        [[]],
        ["A"],
        [["A"]],
        [["A", "M", "D"]],
        [["...", "b"]],
        [["A", "M"], ["...", "a", "b", "c"]],
        [["A", "M"], [".", ".", "."]],
        [["A", 5]],
        [[{}]],
        [[{"expression": 5}]],
        {"A": "M"},
        [["A", "M"]] * 101,
    ],
)
def test_rows_that_make_no_sense_are_told(metrics: Any) -> None:
    with pytest.raises(WidgetError):
        widgets.metric_view({"metrics": metrics}, 60)


KEYS = (
    *("metrics", "view", "period", "stat", "annotations", "horizontal", "alarms", "value", "label", "id", "expression"),
    *("markdown", "query", "logGroupNames", "setPeriodToTimeRange"),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries({"widgets": st.lists(st.fixed_dictionaries({"properties": _JSON}) | _JSON, max_size=4)})
    | _JSON
)
def test_no_body_breaks_the_page(body: Any) -> None:
    text = json.dumps(body)
    try:
        found, top = widgets.widgets(text)
    except WidgetError:
        return
    widgets.span_ms(top)
    for widget in found:
        for read in (widgets.log_query, widgets.alarm_names, widgets.text, lambda p: widgets.metric_view(p, 60)):
            try:
                made = read(widget.properties)
            except WidgetError:
                continue
            if isinstance(made, widgets.MetricView):
                charts.curves([], 0, HOUR_MS, widget.title, levels=made.levels)


def test_markdown_is_safe() -> None:
    source = "# A\n<script>x</script> [a](javascript:x) [b](data:text/html,x) [c](https://example.com) ![d](x)\n\n|a|\n|-|\n|1|"
    html = widgets.text({"markdown": source})
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("<a ") == html.count('href="https://example.com"') + html.count('href="x"') == 2
    assert "<td>1</td>" in html


def test_sources_are_taken_from_the_query() -> None:
    query = "SOURCE '/a/b' | SOURCE \"c\", 'd' | fields @message | filter x = 'SOURCE'"
    assert widgets.log_query({"query": query}) == (["/a/b", "c", "d"], "fields @message | filter x = 'SOURCE'")
    with pytest.raises(WidgetError):
        widgets.log_query({"query": "fields @message"})


def test_spans_of_bodies() -> None:
    assert widgets.span_ms({"start": "-PT3H"}) == 3 * HOUR_MS
    assert widgets.span_ms({"start": "-P1DT30M"}) == 24 * HOUR_MS + HOUR_MS // 2
    assert widgets.span_ms({"start": "2026-11-23T00:00:00Z"}) is None
    assert widgets.span_ms({"start": 5}) is None


def test_periods_are_put_together() -> None:
    def query(stat: str) -> dict[str, Any]:
        return {"MetricStat": {"Stat": stat}}

    points, counts = [(0, 1.0), (60, 4.0)], {0: 3.0, 60: 1.0}
    assert widgets.together(query("Sum"), points, counts) == 5
    assert widgets.together(query("Maximum"), points, counts) == 4
    assert widgets.together(query("Average"), points, counts) == 1.75
    assert widgets.together(query("Sum"), [], counts) is None


# ── charts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, HOUR_MS), st.floats()), max_size=20), st.text(max_size=10))
def test_whatever_the_values_a_chart_is_drawn(points: list[tuple[int, float]], label: str) -> None:
    kinds = [Line(label, "series-1", sorted(points, key=lambda point: point[0]))]
    drawn = charts.curves(kinds, 0, HOUR_MS, label, levels=[Level(label, "status-alarm", 5.0)])
    charts.bars(kinds, 0, HOUR_MS, 60_000, label)
    charts.ranks([Slice(label, "series-1", value) for _, value in points if math.isfinite(value)], label)
    assert "<script" not in drawn


def test_negative_values_have_room_below() -> None:
    drawn = charts.curves([Line("a", "series-1", [(0, -5.0), (60_000, 5.0)])], 0, 120_000, "t")
    assert ">-5<" in drawn
    assert ">5<" in drawn


def _result(*rows: dict[str, str]) -> Result:
    return Result(list(rows[0]), rows)


def test_counts_by_time_become_a_chart() -> None:
    span = Span("1h", 0, HOUR_MS)
    by_time = _result(
        {"bin(5m)": "1970-01-01 00:05:00.000", "lines": "3"}, {"bin(5m)": "1970-01-01 00:10:00.000", "lines": "4"}
    )
    drawn = insights.chart(by_time, span, "t")
    assert drawn is not None
    assert "lines <b>4</b>" in drawn
    by_level = _result({"bin(5m)": "1970-01-01 00:05:00.000", "level": "<b>", "lines": "3"})
    drawn = insights.chart(by_level, span, "t")
    assert drawn is not None
    assert "&lt;b&gt;" in drawn
    assert insights.chart(_result({"level": "a", "lines": "3"}), span, "t") is None
    assert insights.chart(_result({"@timestamp": "1970-01-01 00:05:00.000", "@message": "5"}), span, "t") is None
    assert insights.chart(Result(), span, "t") is None
