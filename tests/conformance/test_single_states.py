"""TestState's answers that AWS gave and that were recorded, asked here through the public API."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entrepot.errors import AwsError
from tests.unit.stepfunctions_site import ROLE, Site, site

VECTORS = Path(__file__).parents[3] / "shared" / "conformance" / "test_state.jsonl"
CASES = [json.loads(line) for line in VECTORS.read_text("utf-8").splitlines()] if VECTORS.exists() else []
pytestmark = pytest.mark.skipif(not CASES, reason="the recorded AWS answers are not here")

EXCEPTIONS: dict[str, str] = {
    "test_state/field_validation_mode_present/present_mode_aws_sdk_lambda_get_function_task"
    "[integer_more_than_maximum_allowed]": "Lambda's API now allows more memory (32,768 MB) than when this was recorded",
}
"""Cases that differ, each with its reason; docs/compatibility.md has them, too."""

PLACEHOLDER = re.compile(r"<[\w-]+(?::\d+)?>")
KNOWN = {"<partition>": "aws", "<region>": "us-east-1"}
TEXTS = ("variables", "context")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("single"), start=False) as opened:
        yield opened


def _request(case: dict[str, Any]) -> dict[str, Any]:
    given = dict(case["request"])
    for member in ("definition", "input", *TEXTS):
        if member in given:
            given[member] = json.dumps(given[member])
    # The recordings leave the role out; where the context has none, there was none.
    if "null" not in json.dumps(case["expect"].get("output", {})):
        given["roleArn"] = ROLE
    return given


def _decoded(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer with its JSON texts decoded."""
    shown = dict(answer)
    if "output" in shown:
        shown["output"] = json.loads(shown["output"])
    if "inspectionData" in shown:
        shown["inspectionData"] = {
            name: json.loads(value) if isinstance(value, str) else value
            for name, value in shown["inspectionData"].items()
        }
    return shown


def _same(actual: Any, expected: Any) -> bool:
    if isinstance(expected, dict) and isinstance(actual, dict):
        return set(actual) == set(expected) and all(_same(actual[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(actual) == len(expected) and all(map(_same, actual, expected))
    if expected == "date":
        return isinstance(actual, str) and re.fullmatch(r"[0-9T:.-]{23}Z", actual) is not None
    if isinstance(expected, str) and isinstance(actual, str) and PLACEHOLDER.search(expected):
        for name, value in KNOWN.items():
            expected = expected.replace(name, value)
        pieces = re.split(f"({PLACEHOLDER.pattern})", expected)
        pattern = "".join(re.escape(piece) if index % 2 == 0 else ".+?" for index, piece in enumerate(pieces))
        return re.fullmatch(pattern, actual) is not None
    return type(actual) is type(expected) and bool(actual == expected)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_answer(here: Site, case: dict[str, Any]) -> None:
    if case["name"] in EXCEPTIONS:
        pytest.skip(EXCEPTIONS[case["name"]])
    expect = case["expect"]
    if "api_error" in expect:
        with pytest.raises(AwsError) as caught:
            await here.call("TestState", **_request(case))
        assert (type(caught.value).code, caught.value.message) == (expect["api_error"], expect["api_message"])
        return
    answer = _decoded(await here.call("TestState", **_request(case)))
    assert _same(answer, expect), (answer, expect)
