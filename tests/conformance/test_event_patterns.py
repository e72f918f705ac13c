"""Event patterns against what AWS answered: the recorded vectors, where they are present."""

import json
from pathlib import Path
from typing import Any

import pytest

from entrepot.services.events import entry_operations
from entrepot.services.events.errors import InvalidEventPatternError
from entrepot.services.events.index import PatternIndex
from entrepot.services.events.pattern import EventPattern

VECTORS = Path(__file__).parents[3] / "shared" / "conformance" / "eventbridge.jsonl"
CASES: list[dict[str, Any]] = (
    [json.loads(line) for line in VECTORS.read_text().splitlines()] if VECTORS.exists() else []
)
REASONS_OF_A_JSON_PARSER = ("Unrecognized token", "Filter is not an object")

UNUSED: Any = None
"""TestEventPattern needs no ledger, and the same answer goes to everybody."""

pytestmark = pytest.mark.skipif(not CASES, reason="../shared/conformance is not there")


def pattern_text(case: dict[str, Any]) -> str:
    return case["pattern_raw"] if case["pattern"] is None else json.dumps(case["pattern"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_answers_as_aws_does(case: dict[str, Any]) -> None:
    text = pattern_text(case)
    if case["expect"] == "invalid":
        with pytest.raises(InvalidEventPatternError) as refused:
            EventPattern.parse(text)
        message = case.get("aws_message")
        if message and not any(reason in message for reason in REASONS_OF_A_JSON_PARSER):
            assert refused.value.message == message
        return
    pattern = EventPattern.parse(text)
    expected = case["expect"] == "match"
    assert pattern.matches(case["event"]) is expected
    assert PatternIndex([(pattern, "rule")]).matching(case["event"]) == (["rule"] if expected else [])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_test_event_pattern_answers_as_aws_does(case: dict[str, Any]) -> None:
    request = {"EventPattern": pattern_text(case), "Event": json.dumps(case["event"])}
    if case["expect"] == "invalid":
        with pytest.raises(InvalidEventPatternError):
            entry_operations.test_event_pattern(UNUSED, UNUSED, request, UNUSED)
    else:
        assert entry_operations.test_event_pattern(UNUSED, UNUSED, request, UNUSED) == {
            "Result": case["expect"] == "match"
        }
