"""What is stored of an execution that runs: forms of older code, and how little a large Map takes."""

import json
from typing import Any

import pytest

from entrepot.services.stepfunctions import state
from entrepot.services.stepfunctions.happenings import Started, TaskSucceeded, TimerFired
from entrepot.services.stepfunctions.interpreter import step, waiting_tasks
from entrepot.services.stepfunctions.language import parse
from entrepot.services.stepfunctions.state import ExecutionState, Frame, Phase
from entrepot.services.stepfunctions.steps.places import adopt_older_maps

FUNCTION = "arn:aws:lambda:us-east-1:111111111111:function:f"
SHOWN = {"out.$": "$", "index.$": "$$.Map.Item.Index", "value.$": "$$.Map.Item.Value"}
EACH: dict[str, Any] = {
    "Type": "Map",
    "ItemsPath": "$.items",
    "MaxConcurrency": 2,
    "ItemProcessor": {
        "StartAt": "T",
        "States": {
            "T": {"Type": "Task", "Resource": FUNCTION, "Next": "P"},
            "P": {"Type": "Pass", "Parameters": SHOWN, "End": True},
        },
    },
    "End": True,
}
BOTH = {
    "StartAt": "Both",
    "States": {
        "Both": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "Each", "States": {"Each": EACH}},
                {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": True}}},
            ],
            "End": True,
        }
    },
}
OF_FORMAT_1 = (
    b'[32,4,["Both",0,5,3,2,1000000,-1,[],0,null,0,0,-1,[["Each",0,5,28,4,1000000,-1,[],0,null,0,2,-1,[["P",1,9,28,26,1000000'
    b',-1,[],1,null,0,0,2],["P",3,9,19,17,1000000,-1,[],2,null,0,0,4],["T",5,2,23,21,1000000,-1,[],3,null,0,0,5],["T",6,2,32,'
    b'30,1000000,-1,[],4,null,0,0,6],["T",7,8,0,0,0,-1,[],0,null,0,0,8]]],["W",0,3,8,8,1000000,-1,[],0,1060000]]],[{"items":["'
    b'a","b","c","d","e"]},{"out":"A","index":0,"value":"a"},"a",{"out":"B","index":1,"value":"b"},"b","c","d",null,"e"]]'
)
"""An execution of BOTH over five items, as the first release stored it: two are done, two run, one has not begun."""


def begun(definition: dict[str, Any], input_: Any) -> ExecutionState:
    machine = parse(json.dumps(definition))
    first = ExecutionState(
        "arn:aws:states:us-east-1:1:execution:m:e", "e", "r", "m", "m", 1_000_000, input_, Frame("", input_)
    )
    first.root.state = machine.start_at
    return step(machine, first, Started(at_ms=1_000_000, input_text=json.dumps(input_))).state


def test_a_map_that_older_code_stored_goes_on_where_it_was() -> None:
    machine, loaded = parse(json.dumps(BOTH)), state.load(OF_FORMAT_1)
    now = begun(BOTH, loaded.input)
    now.root, now.last_event, now.last_task_id = loaded.root, loaded.last_event, loaded.last_task_id
    assert loaded.format == 1
    adopt_older_maps(machine, now)
    again = state.load(state.dump(now))
    assert (again.format, again.root) == (2, now.root)
    assert [task_id for task_id, _, _ in waiting_tasks(machine, now)] == [3, 4]
    for task_id, output in ((4, "D"), (3, "C"), (5, "E")):
        now = step(machine, now, TaskSucceeded(at_ms=1_000_001, task_id=task_id, output=output)).state
    now = step(machine, now, TimerFired(at_ms=1_060_000)).state
    assert now.status == "SUCCEEDED"
    shown = [{"out": v.upper(), "index": i, "value": v} for i, v in enumerate("abcde")]
    assert now.root.input == [shown, loaded.input]


@pytest.mark.parametrize("count", [0, 1, 1_000])
def test_iterations_that_do_not_run_are_no_frames(count: int) -> None:
    machine = parse(json.dumps({"StartAt": "Each", "States": {"Each": EACH}}))
    items = [{"number": number} for number in range(count)]
    now = begun({"StartAt": "Each", "States": {"Each": EACH}}, {"items": items})
    for done in range(count):
        assert len(now.frames()) == 1 + min(2, count - done)
        task_id = next(waiting_tasks(machine, now))[0]
        now = step(machine, now, TaskSucceeded(at_ms=1_000_001, task_id=task_id, output=done)).state
        if done == count // 2:
            loaded = state.load(state.dump(now))
            assert loaded.root == now.root
    assert now.status == "SUCCEEDED" and now.root.phase is Phase.DONE
    assert [output["value"] for output in now.root.input] == items
