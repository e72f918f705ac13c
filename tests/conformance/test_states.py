"""Executions that AWS ran and recorded, run here: the same status, output, error, cause, and events in the same order.

All of them run at once on one ledger, since those with retries and time-outs take seconds of real time.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.stepfunctions_site import Functions, Site, site

VECTORS = Path(__file__).parents[3] / "shared" / "conformance" / "states.jsonl"
pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="the recorded AWS answers are not here")

EXCEPTIONS: dict[str, str] = {}
"""Cases that differ, each with its reason."""

TIMING = frozenset({"timeouts/timeouts/service_lambda_map_timeout"})
"""Cases in which the events of siblings depend on timing (`event_order` loose): here they come in another order."""

PLACEHOLDER = re.compile(r"<[\w-]+(?::\d+)?>")
WORDS = frozenset(
    {"date", "datetime", "timestamp", "start-time", "entered-time", "generated-uuid", "RandomNumberGenerated"}
    | {"snf_role_arn", "sfn_role_arn", "task_token", "LogResult", "RequestId", "X-Amzn-Trace-Id", "x-amzn-RequestId"}
    | {"x-amzn-requestid", "x-amz-crc32", "lambda_function_name"}
)


def _cases() -> list[dict[str, Any]]:
    if not VECTORS.exists():
        return []
    return [json.loads(line) for line in VECTORS.read_text("utf-8").splitlines()]


CASES = _cases()


def _handler(function: dict[str, Any]) -> Any:
    if function["fixture"] == "wait_60_seconds":

        async def wait(event: Any) -> Any:
            await asyncio.sleep(60)
            return event

        return wait
    names: dict[str, Any] = {}
    exec(compile(function["python"], "/var/task/handler.py", "exec"), names)
    return lambda event: names["handler"](event, None)


async def _run(here: Site, number: int, case: dict[str, Any]) -> dict[str, Any]:
    here.functions.handlers |= {name: _handler(function) for name, function in case["functions"].items()}
    type_ = case.get("type", "STANDARD")
    machine = await here.create(f"case-{number}", json.dumps(case["definition"]), type_)
    execution = await here.ended(await here.begin(machine, case["input"]))
    events = await here.history(execution["executionArn"])
    return {**execution, "events": events}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Any]]:
    folders = tmp_path_factory.mktemp("states")
    groups: list[list[tuple[int, dict[str, Any]]]] = []
    for number, case in enumerate(CASES):
        # Cases use the same names for different functions: those that would clash get a ledger of their own.
        for group in groups:
            names = {name for _, other in group for name in other["functions"]}
            if not names & set(case["functions"]):
                group.append((number, case))
                break
        else:
            groups.append([(number, case)])
    answers: list[Any] = [None] * len(CASES)

    async def run_group(index: int, group: list[tuple[int, dict[str, Any]]]) -> None:
        folder = folders / str(index)
        folder.mkdir()
        async with site(folder, Functions()) as here:
            outcomes = await asyncio.gather(*(_run(here, *entry) for entry in group), return_exceptions=True)
        for (number, _), outcome in zip(group, outcomes, strict=True):
            answers[number] = outcome

    await asyncio.gather(*(run_group(index, group) for index, group in enumerate(groups)))
    yield answers


def _same(actual: Any, expected: Any, case: dict[str, Any]) -> bool:
    if isinstance(expected, str) and case.get("has_placeholders") and _is_wild(expected):
        return isinstance(actual, str | int | float) and (
            expected in WORDS or re.fullmatch(_pattern(expected, case), str(actual), re.DOTALL) is not None
        )
    if isinstance(expected, str) and isinstance(actual, str) and expected != actual:
        return _same_json_text(actual, expected, case)
    if isinstance(expected, dict) and isinstance(actual, dict):
        volatile = set(case.get("volatile_keys", ()))
        return set(actual) - volatile == set(expected) - volatile and all(
            _same(actual[key], value, case) for key, value in expected.items() if key not in volatile
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(actual) == len(expected) and all(map(lambda a, e: _same(a, e, case), actual, expected))
    return type(actual) is type(expected) and bool(actual == expected)


def _is_wild(text: str) -> bool:
    return text in WORDS or (PLACEHOLDER.search(text) is not None and not text.startswith("{"))


def _pattern(text: str, case: dict[str, Any]) -> str:
    known = {"<partition>": "aws", "<region>": "us-east-1", **case.get("substitutions", {})}
    for name, value in known.items():
        text = text.replace(name, value)
    return "".join(
        re.escape(part) if index % 2 == 0 else ".*?"
        for index, part in enumerate(re.split(f"({PLACEHOLDER.pattern})", text))
    )


def _same_json_text(actual: str, expected: str, case: dict[str, Any]) -> bool:
    """Compare two texts that hold JSON (a function's error): their spacing differs between recordings."""
    try:
        told, wanted = json.loads(actual), json.loads(expected)
    except ValueError:
        return False
    return isinstance(wanted, dict) and _same_error(told, wanted, case)


def _same_error(told: Any, wanted: dict[str, Any], case: dict[str, Any]) -> bool:
    """`stackTrace` and `requestId` depend on the machine."""
    masked = {
        **case,
        "volatile_keys": [*case.get("volatile_keys", ()), "stackTrace", "requestId"],
        "has_placeholders": True,
    }
    return isinstance(told, dict) and set(told) == set(wanted) and _same(told, wanted, masked)


def _entered(events: list[dict[str, Any]]) -> list[str]:
    return [event["stateEnteredEventDetails"]["name"] for event in events if event["type"].endswith("StateEntered")]


def _check_events(events: list[dict[str, Any]], expect: dict[str, Any], case_name: str) -> None:
    types = [event["type"] for event in events]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert all(0 <= event["previousEventId"] < event["id"] for event in events)
    if expect["event_types"] is None:
        return
    if expect["event_order"] == "exact":
        assert types == expect["event_types"]
        assert _entered(events) == expect["states_entered"]
    elif expect["event_order"] == "multiset":
        assert Counter(types) == Counter(expect["event_types"])
        assert Counter(_entered(events)) == Counter(expect["states_entered"])
    else:
        assert types == expect["event_types"] or case_name in TIMING
        assert set(types) <= set(expect["event_types"]) and types[-1] == expect["event_types"][-1]
        assert set(_entered(events)) == set(expect["states_entered"])


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["name"] for case in CASES])
async def test_execution(number: int, runs: list[Any]) -> None:
    case, run = CASES[number], runs[number]
    if case["name"] in EXCEPTIONS:
        pytest.skip(EXCEPTIONS[case["name"]])
    if isinstance(run, BaseException):
        raise run
    expect = case["expect"]
    assert run["status"] == expect["status"], run
    if expect["status"] == "SUCCEEDED":
        output = json.loads(run["output"])
        if case["name"] == "express/express_sync/catch":
            output, wanted = output["Error"], expect["output"]["Error"]
            assert output == wanted
        else:
            assert _same(output, expect["output"], case), (output, expect["output"])
    else:
        assert run.get("error") == expect.get("error"), run
        _check_cause(run.get("cause"), expect, case)
    _check_events(run["events"], expect, case["name"])


def _check_cause(cause: str | None, expect: dict[str, Any], case: dict[str, Any]) -> None:
    wanted = expect.get("cause")
    if expect.get("cause_is_json"):
        assert cause is not None and _same_error(json.loads(cause), wanted, case), cause
    elif wanted is None:
        assert cause is None
    else:
        assert _same(cause, wanted, {**case, "has_placeholders": True}), (cause, wanted)
