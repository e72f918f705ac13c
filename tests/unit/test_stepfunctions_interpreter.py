"""The interpreter alone: no ledger, no clock, no functions; time and chance come in with what happens."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.stepfunctions import history, state
from entrepot.services.stepfunctions.happenings import (
    Broken,
    Continued,
    Happening,
    Started,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    Transition,
)
from entrepot.services.stepfunctions.history import Event
from entrepot.services.stepfunctions.interpreter import next_due_ms, step, waiting_tasks
from entrepot.services.stepfunctions.language import parse
from entrepot.services.stepfunctions.state import ExecutionState, Frame

FUNCTION = "arn:aws:lambda:us-east-1:111111111111:function:f"


class Play:
    """An execution by hand. Every state goes through its stored form, as it does in the ledger."""

    def __init__(self, definition: dict[str, Any], input_: Any = None, kind: str = "execution") -> None:
        self.machine = parse(json.dumps(definition))
        self.now_ms = 1_000_000
        self.events: list[Event] = []
        value = {} if input_ is None else input_
        self.state = ExecutionState(
            f"arn:aws:states:us-east-1:111111111111:{kind}:m:e", "e", "role", "machine", "m", self.now_ms, value,
            Frame(self.machine.start_at, value),
        )  # fmt: skip
        self.last = self.happen(Started(at_ms=self.now_ms, input_text=json.dumps(value)))

    def happen(self, happening: Happening, limit: int = 100) -> Transition:
        before = state.dump(self.state)
        transition = step(self.machine, self.state, happening, limit)
        assert state.dump(self.state) == before, "a step must not change the state that it was given"
        self.events += transition.events
        self.state = transition.state
        loaded = state.load(state.dump(self.state))
        assert (loaded.last_event, loaded.last_task_id, loaded.input, loaded.root) == (
            self.state.last_event, self.state.last_task_id, self.state.input, self.state.root,
        )  # fmt: skip
        self.last = transition
        return transition

    def fail(self, error: str, *, random: float = 1.0, cause: str | None = None) -> None:
        task_id = next(waiting_tasks(self.machine, self.state))[0]
        self.happen(TaskFailed(at_ms=self.now_ms, random=random, task_id=task_id, error=error, cause=cause))

    def succeed(self, output: Any, task_id: int | None = None) -> None:
        if task_id is None:
            task_id = next(waiting_tasks(self.machine, self.state))[0]
        self.happen(TaskSucceeded(at_ms=self.now_ms, task_id=task_id, output=output))

    def wait(self) -> int:
        """Go to the next timer, and say how long that took (ms)."""
        due_ms = next_due_ms(self.machine, self.state)
        assert due_ms is not None and due_ms == self.last.due_at_ms
        waited_ms, self.now_ms = due_ms - self.now_ms, due_ms
        self.happen(TimerFired(at_ms=self.now_ms))
        return waited_ms

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def output(self) -> Any:
        assert self.types[-1] == "ExecutionSucceeded", self.events[-1]
        return json.loads(self.events[-1].details["output"])


def task(**more: Any) -> dict[str, Any]:
    return {"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": FUNCTION, "End": True, **more}}}


def retry(**more: Any) -> dict[str, Any]:
    return task(Retry=[{"ErrorEquals": ["States.ALL"], **more}])


def test_retries_back_off_up_to_the_longest_delay() -> None:
    play = Play(retry(IntervalSeconds=2, BackoffRate=3, MaxDelaySeconds=10, MaxAttempts=4))
    waits = []
    for _ in range(4):
        play.fail("E")
        waits.append(play.wait())
    play.fail("E", cause="the last")
    assert waits == [2_000, 6_000, 10_000, 10_000]
    assert (play.state.status, play.events[-1].details) == ("FAILED", {"error": "E", "cause": "the last"})
    assert play.types.count("LambdaFunctionScheduled") == 5 and play.types.count("TaskStateEntered") == 1


@pytest.mark.parametrize("random", [0.0, 0.25, 0.999])
def test_full_jitter_takes_a_share_of_the_delay(random: float) -> None:
    play = Play(retry(IntervalSeconds=8, JitterStrategy="FULL"))
    play.fail("E", random=random)
    assert play.wait() == round(8_000 * random)


def test_each_retrier_counts_for_itself_and_a_new_visit_starts_anew() -> None:
    definition = task(
        Retry=[{"ErrorEquals": ["A"], "MaxAttempts": 1}, {"ErrorEquals": ["B"], "MaxAttempts": 1}],
        Catch=[{"ErrorEquals": ["A"], "ResultPath": None, "Next": "Back"}],
    )
    definition["States"]["Back"] = {"Type": "Pass", "Next": "T"}
    play = Play(definition)
    for error in ("A", "B", "A"):
        play.fail(error)
        if error != "A" or (play.state.status == "RUNNING" and play.last.due_at_ms is not None):
            play.wait()
    assert play.state.root.state == "T" and play.state.root.attempts == ()
    play.fail("B")
    play.wait()
    play.fail("B")
    assert play.events[-1].details == {"error": "B"}


@pytest.mark.parametrize(
    ("names", "error", "caught"),
    [
        (["States.ALL"], "Anything", True),
        (["States.ALL"], "States.Runtime", False),
        (["States.TaskFailed"], "Anything", True),
        (["States.TaskFailed"], "States.Timeout", False),
        (["Other"], "Anything", False),
    ],
)
def test_who_catches_what(names: list[str], error: str, caught: bool) -> None:
    definition = task(Catch=[{"ErrorEquals": names, "ResultPath": "$.error", "Next": "C"}])
    definition["States"]["C"] = {"Type": "Succeed"}
    play = Play(definition, {"kept": 1})
    play.fail(error, cause="why")
    assert (play.state.status == "SUCCEEDED") is caught
    if caught:
        assert play.output == {"kept": 1, "error": {"Error": error, "Cause": "why"}}


@pytest.mark.parametrize(
    ("limits", "error", "waited_ms"),
    [
        ({"TimeoutSeconds": 9}, "States.Timeout", 9_000),
        ({"TimeoutSeconds": 9, "HeartbeatSeconds": 4}, "States.Timeout", 4_000),
        ({"TimeoutSecondsPath": "$.limit"}, "States.Timeout", 7_000),
    ],
)
def test_a_task_that_takes_too_long(limits: dict[str, Any], error: str, waited_ms: int) -> None:
    play = Play(task(**limits), {"limit": 7})
    late = next(waiting_tasks(play.machine, play.state))[0]
    assert play.wait() == waited_ms
    assert play.types[-2:] == ["LambdaFunctionTimedOut", "ExecutionFailed"]
    assert play.events[-1].details == {"error": error}
    count = len(play.events)
    play.succeed("too late", late)
    assert len(play.events) == count, "what comes after the end changes nothing"


def test_a_result_that_comes_twice_counts_once() -> None:
    definition = task(Next="U")
    del definition["States"]["T"]["End"]
    definition["States"]["U"] = {"Type": "Task", "Resource": FUNCTION, "End": True}
    play = Play(definition)
    play.succeed("first", 1)
    play.succeed("again", 1)
    assert play.state.root.state == "U"
    play.succeed("second", 2)
    assert play.output == "second"


def test_branches_see_outer_variables_and_keep_their_own() -> None:
    branch = {
        "StartAt": "A",
        "States": {
            "A": {"Type": "Pass", "Assign": {"inner": 2}, "Next": "B"},
            "B": {"Type": "Pass", "Parameters": {"o.$": "$outer", "i.$": "$inner"}, "End": True},
        },
    }
    definition = {
        "StartAt": "V",
        "States": {
            "V": {"Type": "Pass", "Assign": {"outer": 1}, "Next": "P"},
            "P": {"Type": "Parallel", "Branches": [branch], "End": True},
        },
    }
    play = Play(definition)
    assert play.output == [{"o": 1, "i": 2}]
    assert play.state.root.variables == {"outer": 1}


def parallel(**more: Any) -> dict[str, Any]:
    waits = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": True}}}
    works = {"StartAt": "X", "States": {"X": {"Type": "Task", "Resource": FUNCTION, "End": True}}}
    return {
        "StartAt": "P",
        "States": {"P": {"Type": "Parallel", "Branches": [waits, works], "End": True, **more}, "C": {"Type": "Succeed"}}
        if more
        else {"P": {"Type": "Parallel", "Branches": [waits, works], "End": True}},
    }


def test_a_branch_that_fails_stops_the_others() -> None:
    play = Play(parallel())
    play.fail("E")
    assert play.types[-5:] == [
        "LambdaFunctionFailed", "TaskStateAborted", "WaitStateAborted", "ParallelStateFailed", "ExecutionFailed",
    ]  # fmt: skip
    assert next_due_ms(play.machine, play.state) is None


def test_a_parallel_that_is_caught_does_not_count_as_failed() -> None:
    play = Play(parallel(Catch=[{"ErrorEquals": ["E"], "Next": "C"}]))
    play.fail("E")
    assert "ParallelStateFailed" not in play.types and play.output == {"Error": "E"}


def test_a_map_runs_so_many_at_once() -> None:
    definition = {
        "StartAt": "M",
        "States": {"M": {"Type": "Map", "MaxConcurrency": 2, "ItemProcessor": task(), "End": True}},
    }
    play = Play(definition, [10, 20, 30])
    running = [task_id for task_id, _, _ in waiting_tasks(play.machine, play.state)]
    assert len(running) == 2
    play.succeed("b", running[1])
    assert len(list(waiting_tasks(play.machine, play.state))) == 2
    play.succeed("a", running[0])
    play.succeed("c")
    assert play.output == ["a", "b", "c"]


def test_an_empty_map_is_done_at_once() -> None:
    definition = {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": task(), "End": True}}}
    assert Play(definition, []).output == []


def test_many_states_are_run_in_several_steps() -> None:
    names = [f"S{number}" for number in range(250)]
    states = {
        name: {"Type": "Pass", "Next": following} for name, following in zip(names, [*names[1:], "End"], strict=True)
    }
    play = Play({"StartAt": "S0", "States": {**states, "End": {"Type": "Succeed"}}}, {"a": 1})
    steps = 1
    while play.last.more:
        play.happen(Continued(at_ms=play.now_ms))
        steps += 1
    assert (steps, play.output) == (3, {"a": 1})


def test_an_endless_loop_ends_with_its_history() -> None:
    never = {"Variable": "$", "IsNull": True, "Next": "C"}
    definition = {
        "StartAt": "A",
        "States": {
            "A": {"Type": "Pass", "Next": "B"},
            "B": {"Type": "Choice", "Choices": [never], "Default": "A"},
            "C": {"Type": "Succeed"},
        },
    }
    play = Play(definition)
    while play.last.more:
        play.happen(Continued(at_ms=play.now_ms), limit=10_000)
    assert (play.state.status, len(play.events)) == ("FAILED", 25_000)
    assert play.events[-1].details["cause"] == "The execution reached the maximum number of history events (25000)."


def test_an_output_that_is_too_large_fails_its_state() -> None:
    definition = {
        "StartAt": "A",
        "States": {"A": {"Type": "Pass", "Parameters": {"a.$": "$", "b.$": "$"}, "End": True}},
    }
    play = Play(definition, "ä" * 100_000)
    assert play.events[-1].details["error"] == "States.DataLimitExceeded"


def test_what_broke_ends_the_execution() -> None:
    play = Play(task())
    play.happen(Broken(at_ms=play.now_ms, cause="a bug"))
    assert (play.types[-1], play.events[-1].details) == (
        "ExecutionFailed",
        {"error": "States.Runtime", "cause": "a bug"},
    )


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
details = st.fixed_dictionaries({}, optional={"input": text, "output": text, "name": text, "cause": text})
recorded = st.lists(
    st.tuples(st.sampled_from(history.TYPES), st.integers(0, 2**42), st.integers(0, 9), details), max_size=12
)


@given(events=recorded, first_id=st.integers(10, 20_000))
def test_history_is_read_as_it_was_written(events: list[Any], first_id: int) -> None:
    made = [
        Event(first_id + place, kind, at_ms, previous, data)
        for place, (kind, at_ms, previous, data) in enumerate(events)
    ]
    words = history.dictionary('{"StartAt": "A"}')
    tail = b""
    for event in made:
        tail = history.append(tail, [event])
    assert history.read(tail, words, first_id) == made
    if tail:
        assert history.read(history.fold(tail, (), words, first_id), words, first_id) == made


def jsonata(**states: Any) -> dict[str, Any]:
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states}


def test_jsonata_assign_and_output_see_the_variables_as_they_were() -> None:
    play = Play(
        jsonata(
            A={"Type": "Pass", "Assign": {"x": 1}, "Next": "B"},
            B={"Type": "Pass", "Assign": {"x": "{% $x + 1 %}", "y": "{% $x %}"}, "Output": "{% $x %}", "Next": "C"},
            C={"Type": "Succeed", "Output": {"x": "{% $x %}", "y": "{% $y %}", "input": "{% $states.input %}"}},
        )
    )
    assert play.output == {"x": 2, "y": 1, "input": 1}


def test_variables_of_an_iteration_stay_in_it() -> None:
    inner = {
        "StartAt": "I",
        "States": {
            "I": {"Type": "Pass", "Assign": {"inner": 5}, "Output": "{% $states.input + $outer %}", "End": True}
        },
    }
    play = Play(
        jsonata(
            A={"Type": "Pass", "Assign": {"outer": 10}, "Next": "M"},
            M={"Type": "Map", "Items": [1, "{% 1 + 1 %}"], "ItemProcessor": inner, "Next": "Z",
               "ItemSelector": "{% $states.context.Map.Item.Value * 100 %}", "Output": "{% $sum($states.result) %}"},
            Z={"Type": "Pass", "Output": "{% [$states.input, $exists($inner)] %}", "End": True},
        )
    )  # fmt: skip
    assert play.output == [320, False]


def test_a_failed_evaluation_is_recorded_and_can_be_caught() -> None:
    catch = [{"ErrorEquals": ["States.QueryEvaluationError"], "Output": "{% $states.errorOutput.Error %}", "Next": "Z"}]
    play = Play(
        jsonata(
            T={"Type": "Task", "Resource": FUNCTION, "Arguments": {"a": ["{% $gone %}"]}, "Catch": catch, "End": True},
            Z={"Type": "Pass", "End": True},
        )
    )
    assert play.output == "States.QueryEvaluationError"
    failed = next(event for event in play.events if event.type == "EvaluationFailed")
    assert failed.details == {
        "error": "States.QueryEvaluationError",
        "cause": "An error occurred while executing the state 'T' (entered at the event id #2). The JSONata expression "
        "'$gone' specified for the field 'Arguments/a[0]' returned nothing (undefined).",
        "location": "Arguments/a[0]",
        "state": "T",
    }
    assert play.types[1:5] == ["TaskStateEntered", "EvaluationFailed", "TaskStateExited", "PassStateEntered"]


def test_a_condition_must_give_a_boolean() -> None:
    rule = {"Condition": "{% $states.input.n %}", "Next": "Z"}
    play = Play(jsonata(C={"Type": "Choice", "Choices": [rule]}, Z={"Type": "Pass", "End": True}), {"n": 3})
    assert (
        play.events[-1]
        .details["cause"]
        .endswith(
            "specified for the field 'Choices[0]/Condition' returned an unexpected result type. Expected 'boolean', but was "
            "'number' for value: 3"
        )
    )


def test_limits_of_a_task_may_be_expressions() -> None:
    task = {"Type": "Task", "Resource": FUNCTION, "TimeoutSeconds": "{% $states.input.t %}", "End": True}
    play = Play(jsonata(T=task), {"t": 7})
    assert play.wait() == 7_000
    assert play.types[-2:] == ["LambdaFunctionTimedOut", "ExecutionFailed"]
    assert Play(jsonata(T=task), {"t": 0}).events[-1].details["error"] == "States.QueryEvaluationError"


def test_slow_expressions_end_a_step_early() -> None:
    slow = {"Type": "Pass", "Output": "{% $count($map([1..30000], function($x){ $x * 2 })) %}"}
    names = [f"S{number}" for number in range(4)]
    states = {name: {**slow, "Next": following} for name, following in itertools.pairwise(names)}
    play = Play(jsonata(**states, S3={"Type": "Succeed"}))
    assert play.last.more and play.last.steps < 3
    while play.last.more:
        play.happen(Continued(at_ms=play.now_ms))
    assert play.output == 30000


@pytest.mark.parametrize(("timeout_s", "ends_after_s"), [(None, 300), (1_000, 300), (60, 60)])
def test_an_express_execution_ends_after_five_minutes_at_the_latest(timeout_s: int | None, ends_after_s: int) -> None:
    definition: dict[str, Any] = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 9_999, "End": True}}}
    if timeout_s is not None:
        definition["TimeoutSeconds"] = timeout_s
    play = Play(definition, kind="express")
    began_at_ms = play.now_ms
    assert play.last.due_at_ms == began_at_ms + ends_after_s * 1_000
    play.happen(TimerFired(at_ms=began_at_ms + ends_after_s * 1_000 - 1))
    assert play.state.status == "RUNNING"
    play.happen(TimerFired(at_ms=began_at_ms + ends_after_s * 1_000))
    assert (play.state.status, play.events[-1].type) == ("TIMED_OUT", "ExecutionTimedOut")
