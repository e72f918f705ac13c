"""The language against recorded executions of AWS, through an interpreter that is just enough for states without tasks.

Not the product's interpreter: it has no history, retries or time, so that a failure here is a failure of the language.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from entrepot.services.stepfunctions.language import Scope, StatesError, UnsupportedFeature, parse
from entrepot.services.stepfunctions.language.definition import (
    Choice,
    Fail,
    Map,
    Parallel,
    Pass,
    State,
    Succeed,
    Task,
    Wait,
    Workflow,
    error_matches,
)

VECTORS = Path(__file__).parents[2].parent / "shared" / "conformance" / "states.jsonl"
MASKED = {"date", "datetime", "timestamp", "generated-uuid", "RandomNumberGenerated", "snf_role_arn", "sfn_role_arn"}


class Failed(Exception):
    def __init__(self, error: str | None, cause: str | None) -> None:
        super().__init__(error)
        self.error, self.cause = error, cause


def cases() -> list[dict[str, Any]]:
    """The recorded executions that have no task and are served."""
    found = []
    for line in VECTORS.read_text().splitlines() if VECTORS.exists() else ():
        case = json.loads(line)
        try:
            machine = parse(json.dumps(case["definition"]))
        except UnsupportedFeature:
            continue
        # JSONata is the product's interpreter's business (tests/conformance/test_states.py): its `$states` are made there.
        if not any(True for _ in machine.tasks()) and not {"jsonata", "map-distributed"} & set(case["needs"]):
            found.append(case)
    return found


CASES = cases()


def run(workflow: Workflow, data: Any, context: dict[str, Any], variables: dict[str, Any]) -> Any:
    name: str | None = workflow.start_at
    while name is not None:
        state = workflow.states[name]
        scope = Scope(data, {**context, "State": {"Name": name, "EnteredTime": "date"}}, variables)
        try:
            data, name = _step(state, scope, variables)
        except (StatesError, Failed) as failure:
            data, name = _caught(state, data, failure)
    return data


def _caught(state: State, data: Any, failure: StatesError | Failed) -> tuple[Any, str]:
    for catcher in getattr(state, "catch", ()):
        if error_matches(catcher.error_equals, failure.error or ""):
            output = {"Error": failure.error, "Cause": failure.cause}
            return (catcher.result_path.place(data, output) if catcher.result_path else data), catcher.next
    raise failure


def _step(state: State, scope: Scope, variables: dict[str, Any]) -> tuple[Any, str | None]:
    raw = scope.data
    data = state.input_path.evaluate(scope) if state.input_path else {}
    inside = scope.with_data(data)
    target = state.next
    if isinstance(state, Fail):
        raise Failed(*state.evaluate(inside))
    if isinstance(state, Choice):
        rule = next((rule for rule in state.choices if rule.condition.holds(inside)), None)
        target = rule.next if rule else state.default
        if target is None:
            raise Failed("States.NoChoiceMatched", None)
        assign = rule.assign if rule else state.assign
        return _left(state, inside, assign.evaluate(inside) if assign else {}, variables), target
    result = _result(state, inside, variables)
    if isinstance(state, Wait | Succeed):
        return _left(state, inside, state.assign.evaluate(inside) if state.assign else {}, variables), target
    if (selector := getattr(state, "result_selector", None)) is not None:
        result = selector.evaluate(scope.with_data(result))
    new = state.assign.evaluate(scope.with_data(result)) if state.assign else {}
    result_path = state.result_path  # type: ignore[attr-defined]
    output = result_path.place(raw, result) if result_path else raw
    return _left(state, scope.with_data(output), new, variables), target


def _left(state: State, scope: Scope, assigned: dict[str, Any], variables: dict[str, Any]) -> Any:
    """The state's output; what it assigns is seen from the next state on."""
    output = state.output_path.evaluate(scope) if state.output_path else {}
    variables.update(assigned)
    return output


def _result(state: State, scope: Scope, variables: dict[str, Any]) -> Any:
    context = dict(scope.context)
    if isinstance(state, Pass):
        value = state.parameters.evaluate(scope) if state.parameters else scope.data
        return state.result if state.has_result else value
    if isinstance(state, Wait):
        state.until_ms(scope, 0)
        return scope.data
    if isinstance(state, Parallel):
        data = state.parameters.evaluate(scope) if state.parameters else scope.data
        return [run(branch, data, context, dict(variables)) for branch in state.branches]
    if isinstance(state, Map):
        state.concurrency(scope)
        results = []
        for index, item in enumerate(state.items(scope)):
            inner = {**context, "Map": {"Item": {"Index": index, "Value": item}}}
            inside = Scope(scope.data, inner, variables)
            value = state.item_selector.evaluate(inside) if state.item_selector else item
            results.append(run(state.item_processor, value, inner, dict(variables)))
        return results
    assert isinstance(state, Succeed | Task)
    return scope.data


def same(got: Any, expected: Any) -> bool:
    """Compare as JSON; `<name>` and masked words in what was recorded stand for anything."""
    if isinstance(expected, str) and (expected in MASKED or re.search(r"<[\w-]+(:\d+)?>", expected)):
        pieces = [""] * 2 if expected in MASKED else re.split(r"<[\w-]+(?::\d+)?>", expected)
        text = got if isinstance(got, str) else json.dumps(got)
        return re.fullmatch(".*".join(map(re.escape, pieces)), text, re.DOTALL) is not None
    if type(got) is not type(expected):
        return isinstance(got, int | float) and not isinstance(got, bool) and got == expected
    if isinstance(got, dict):
        return got.keys() == expected.keys() and all(same(got[key], expected[key]) for key in got)
    if isinstance(got, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    return bool(got == expected)


@pytest.mark.skipif(not CASES, reason="the conformance vectors are not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_recorded_execution(case: dict[str, Any]) -> None:
    expect = case["expect"]
    execution = {"Id": "arn:aws:states:us-east-1:111111111111:execution:machine:name", "Input": case["input"]}
    execution |= {"StartTime": "date", "Name": "name", "RoleArn": "snf_role_arn", "RedriveCount": 0}
    machine = {"Id": "arn:aws:states:us-east-1:111111111111:stateMachine:machine", "Name": "machine"}
    context = {"Execution": execution, "StateMachine": machine}
    try:
        output = run(parse(json.dumps(case["definition"])), case["input"], context, {})
    except (StatesError, Failed) as failure:
        assert expect["status"] == "FAILED", failure
        assert same(failure.error, expect.get("error"))
        cause = expect.get("cause")
        if isinstance(cause, str) and isinstance(failure, StatesError):
            cause = re.sub(
                r"^An error occurred while executing the state .*? \(entered at the event id #\d+\)\. ", "", cause
            )
        assert same(failure.cause, cause)
    else:
        assert expect["status"] == "SUCCEEDED"
        assert same(output, expect["output"])


def test_all_families_that_need_no_task_are_covered() -> None:
    if not CASES:
        pytest.skip("the conformance vectors are not here")
    families = {case["family"] for case in CASES}
    assert families >= {"choice_operators", "intrinsic_functions", "scenarios", "assign", "context_object", "base"}
    assert len(CASES) > 300
