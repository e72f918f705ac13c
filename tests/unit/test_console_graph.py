"""The console's picture of a state machine: where boxes stand, and what each state is said to have come to."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from entrepot.console import workflow_graph
from entrepot.console.layout import Link, arrange
from entrepot.console.workflow_states import outcomes, readable_cause

AT = datetime(2026, 11, 23, tzinfo=UTC)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[Link]]:
    count = draw(st.integers(1, 12))
    size = st.tuples(st.floats(10, 300), st.floats(10, 200))
    box = st.integers(0, count - 1)
    link = st.builds(Link, box, box, st.sampled_from([0.0, 0.0, 80.0]))
    return draw(st.lists(size, min_size=count, max_size=count)), draw(st.lists(link, max_size=30))


@given(graphs())
def test_no_box_covers_another_and_links_end_at_their_boxes(
    graph: tuple[list[tuple[float, float]], list[Link]],
) -> None:
    boxes, links = graph
    laid = arrange(boxes, links)
    places = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(laid.corners, boxes, strict=True)]
    for left, top, right, bottom in places:
        assert left > -0.01 and top > -0.01 and right < laid.width + 0.01 and bottom < laid.height + 0.01
    for place, one in enumerate(places):
        for other in places[place + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, f"{one} and {other} overlap"
    for link, route, label in zip(links, laid.routes, laid.labels, strict=True):
        if link.tail == link.head:
            continue
        for box, (x, y) in ((link.tail, route[0]), (link.head, route[-1])):
            left, top, right, bottom = places[box]
            assert left < x < right and (abs(y - top) < 0.01 or abs(y - bottom) < 0.01)
        assert (label is not None) == bool(link.label_width)


def event(number: int, kind: str, previous: int = 0, **about: str) -> dict[str, Any]:
    return {"id": number, "type": kind, "timestamp": AT, "previousEventId": previous, "xEventDetails": about}


def test_a_caught_error_is_no_success_and_no_failure() -> None:
    found = outcomes(
        [
            event(1, "ExecutionStarted"),
            event(2, "TaskStateEntered", 0, name="Send", input="1"),
            event(3, "TaskScheduled", 2),
            event(4, "TaskFailed", 3, error="E", cause='{"errorMessage": "no"}'),
            event(5, "TaskScheduled", 4),
            event(6, "TaskTimedOut", 5),
            event(7, "TaskStateExited", 6, name="Send", output="2"),
            event(8, "FailStateEntered", 7, name="End"),
            event(9, "ExecutionFailed", 8, error="F", cause="because"),
        ],
        "FAILED",
    )
    assert {name: outcome.status for name, outcome in found.items()} == {"Send": "CAUGHT", "End": "FAILED"}
    [visit] = found["Send"].visits
    assert (visit.attempts, visit.error, visit.input, visit.output) == (2, "States.Timeout", "1", "2")
    assert (found["End"].visits[0].error, found["End"].visits[0].cause) == ("F", "because")


def test_a_retry_that_succeeds_is_a_success_and_a_redrive_forgets_the_error() -> None:
    events = [
        event(1, "ExecutionStarted"),
        event(2, "TaskStateEntered", 0, name="Send"),
        event(3, "TaskScheduled", 2),
        event(4, "TaskFailed", 3, error="E"),
        event(5, "ExecutionFailed", 4, error="E"),
    ]
    assert outcomes(events, "FAILED")["Send"].status == "FAILED"
    events += [event(6, "ExecutionRedriven", 5), event(7, "TaskScheduled", 6)]
    assert outcomes(events, "RUNNING")["Send"].status == "RUNNING"
    events += [event(8, "TaskSucceeded", 7), event(9, "TaskStateExited", 8, name="Send")]
    assert outcomes(events, "SUCCEEDED")["Send"].status == "SUCCEEDED"


def test_what_another_branch_cut_off_is_aborted_and_the_worst_visit_counts() -> None:
    found = outcomes(
        [
            event(2, "ParallelStateEntered", 0, name="Both"),
            event(3, "WaitStateEntered", 2, name="Wait"),
            event(4, "TaskStateEntered", 2, name="Send"),
            event(5, "TaskFailed", 4, error="E"),
            event(6, "PassStateEntered", 2, name="Each"),
            event(7, "PassStateExited", 6, name="Each"),
            event(8, "PassStateEntered", 2, name="Each"),
        ],
        "FAILED",
    )
    statuses = {name: outcome.status for name, outcome in found.items()}
    assert statuses == {"Both": "ABORTED", "Wait": "ABORTED", "Send": "FAILED", "Each": "ABORTED"}
    assert len(found["Each"].visits) == 2


TASK = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True}

DEFINITION = {
    "StartAt": "<b>Check</b>",
    "States": {
        "<b>Check</b>": {
            "Type": "Choice",
            "Choices": [
                {"And": [{"Variable": "$.a", "NumericGreaterThan": 3}, {"Variable": "$.b", "IsPresent": False}], "Next": "A"},
                {"Condition": "{% $states.input.x = 1 %}", "Next": "Each"},
            ],
            "Default": "A",
        },
        "A": {"Type": "Parallel", "Branches": [{"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}], "End": True},
        "Each": {
            "Type": "Map",
            "ItemProcessor": {"StartAt": "Q", "States": {"Q": TASK}},
            "End": True,
        },
    },
}  # fmt: skip


def test_the_picture_names_every_state_says_its_status_in_words_and_escapes() -> None:
    found = outcomes(
        [event(2, "ChoiceStateEntered", 0, name="<b>Check</b>"), event(3, "ChoiceStateExited", 2, name="<b>Check</b>")],
        "RUNNING",
    )
    drawn = str(workflow_graph.draw(json.dumps(DEFINITION), found, "t"))
    assert "<b>" not in drawn and "&lt;b&gt;Check&lt;/b&gt;" in drawn
    for text in (
        ">A<",
        ">P<",
        ">Each<",
        ">Q<",
        "lambda:invoke",
        "✓ succeeded",
        "otherwise",
        "$.a &gt; 3 and $.b is not",
    ):
        assert text in drawn, text
    assert drawn.count('class="state state-succeeded') == 1
    assert drawn.count('class="state state-waiting') == 4


def test_only_the_way_that_was_taken_is_drawn_as_taken() -> None:
    states = {
        "Ask": {"Type": "Choice", "Choices": [{"Variable": "$.a", "IsNull": True, "Next": "Work"}], "Default": "Stop"},
        "Work": {"Type": "Pass", "Next": "Stop"},
        "Stop": {"Type": "Succeed"},
    }
    events = [
        event(2, "ChoiceStateEntered", 0, name="Ask"),
        event(3, "ChoiceStateExited", 2, name="Ask"),
        event(4, "PassStateEntered", 3, name="Work"),
        event(5, "PassStateExited", 4, name="Work"),
        event(6, "SucceedStateEntered", 5, name="Stop"),
        event(7, "SucceedStateExited", 6, name="Stop"),
    ]
    drawn = str(
        workflow_graph.draw(json.dumps({"StartAt": "Ask", "States": states}), outcomes(events, "SUCCEEDED"), "t")
    )
    taken = drawn.count('taken"')
    assert taken == 4, "from the start, to Work, to Stop, to the end; not from Ask to Stop"


def test_what_cannot_be_drawn_is_not_drawn() -> None:
    assert workflow_graph.draw("{", {}, "t") is None
    assert workflow_graph.draw('{"States": {}}', {}, "t") is None
    many = {f"S{n}": {"Type": "Pass", "Next": f"S{n + 1}"} for n in range(workflow_graph.STATES_LIMIT + 1)}
    assert workflow_graph.draw(json.dumps({"StartAt": "S0", "States": many}), {}, "t") is None


def test_what_would_take_long_to_draw_is_not_drawn() -> None:
    count = workflow_graph.STATES_LIMIT - 1
    choices = [{"Variable": "$.a", "IsNull": True, "Next": f"S{n}"} for n in range(1, count)]
    states: dict[str, Any] = {f"S{n}": {"Type": "Pass", "Next": f"S{n + 1}"} for n in range(1, count)}
    states |= {"S0": {"Type": "Choice", "Choices": choices, "Default": "S1"}, f"S{count}": {"Type": "Succeed"}}
    assert workflow_graph.draw(json.dumps({"StartAt": "S0", "States": states}), {}, "t") is None
    del states["S0"]
    assert workflow_graph.draw(json.dumps({"StartAt": "S1", "States": states}), {}, "t") is not None


def test_conditions_read_like_sentences() -> None:
    for rule, expected in (
        ({"Variable": "$.a", "StringEquals": "x"}, '$.a = "x"'),
        ({"Variable": "$.a", "NumericLessThanEqualsPath": "$.b"}, '$.a ≤ "$.b"'),
        ({"Not": {"Variable": "$.a", "BooleanEquals": True}}, "not ($.a = true)"),
        ({"Variable": "$.a", "StringMatches": "*.csv"}, '$.a like "*.csv"'),
        ({"Variable": "$.a", "IsNull": True}, "$.a is null"),
    ):
        assert workflow_graph.condition(rule) == expected


def test_a_function_s_error_is_told_by_its_message() -> None:
    assert readable_cause('{"errorMessage": "no such file", "errorType": "OSError"}') == "no such file"
    assert readable_cause('OSError: {"errorMessage": "no such file"}') == "OSError: no such file"
    assert readable_cause("plain") == "plain"
    assert readable_cause('{"errorMessage": "cut o') == '{"errorMessage": "cut o'
    assert readable_cause("[1]") == "[1]"
