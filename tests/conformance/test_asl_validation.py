"""Validation of state machine definitions against recorded answers of AWS and two public validators' own cases."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entrepot.operations import WriteOperation
from entrepot.services.stepfunctions.errors import InvalidDefinitionError
from entrepot.services.stepfunctions.language import InvalidDefinition, UnsupportedFeature, parse
from tests.unit.stepfunctions_site import Site, site

VECTORS = Path(__file__).parents[2].parent / "shared" / "conformance"

EXCEPTIONS: dict[str, str] = {
    "asl-validator/valid-assign.asl": "AWS documents names of variables as Unicode identifiers; 'top-level' is none",
    "asl-validator/invalid-jsonata-surround-syntax-no-spaces": "AWS does not ask for the spaces (the case is doubtful)",
    "asl-validator/valid-task-intrisic-function": "CloudFormation's {Ref: …} is no definition; AWS takes a string only",
    "statelint/task-with-credentials": "AWS requires RoleArn in Credentials (recorded), the linter does not",
}
"""Cases whose verdict differs from ours, each with the reason."""


def _load(name: str) -> list[dict[str, Any]]:
    path = VECTORS / name
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _ids(case: dict[str, Any]) -> str:
    return str(case["name"])


def _text(case: dict[str, Any]) -> str:
    raw = case.get("definition_raw")
    return raw if isinstance(raw, str) else json.dumps(case["definition"])


VALIDATION = _load("validation.jsonl")
STATES = _load("states.jsonl")
needs_vectors = pytest.mark.skipif(not VALIDATION, reason="the conformance vectors are not here")


@needs_vectors
@pytest.mark.parametrize("case", VALIDATION, ids=_ids)
def test_verdict(case: dict[str, Any]) -> None:
    """Valid or not; what is valid but not served (UnsupportedFeature) counts as valid."""
    try:
        parse(_text(case), express=case.get("type") == "EXPRESS")
        verdict = True
    except UnsupportedFeature:
        verdict = True
    except InvalidDefinition:
        verdict = False
    if case["name"] in EXCEPTIONS:
        assert verdict != case["valid"], "no longer an exception"
    else:
        assert verdict == case["valid"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("validation"), start=False) as opened:
        # It is never called: a definition is refused when what it names is not served.
        send = WriteOperation("SendMessage", lambda _: [], lambda tx, request, call: {})
        opened.operations.add("sqs", [send])
        yield opened


@needs_vectors
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", VALIDATION, ids=_ids)
async def test_answer_of_validate_state_machine_definition(here: Site, case: dict[str, Any]) -> None:
    answer = await here.call(
        "ValidateStateMachineDefinition", definition=_text(case), type=case.get("type", "STANDARD")
    )
    assert (answer["result"] == "OK") == (case["valid"] != (case["name"] in EXCEPTIONS))
    assert bool(answer["diagnostics"]) == (answer["result"] == "FAIL")
    if case.get("aws_diagnostics") is not None:
        assert answer["diagnostics"] == case["aws_diagnostics"]


@needs_vectors
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", [case for case in VALIDATION if case["family"] == "aws-create"], ids=_ids)
async def test_answer_of_create_state_machine(here: Site, case: dict[str, Any]) -> None:
    number = VALIDATION.index(case)
    try:
        await here.create(f"case-{number}", _text(case), case.get("type", "STANDARD"))
    except InvalidDefinitionError as error:
        assert not case["valid"] and case["aws_message"].endswith(error.message)
    else:
        assert case["valid"]


@needs_vectors
@pytest.mark.parametrize("case", [case for case in VALIDATION if "aws_message" in case], ids=_ids)
def test_message_of_create_state_machine(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse(_text(case), express=case.get("type") == "EXPRESS")
    assert case["aws_message"].endswith(str(caught.value))


@needs_vectors
@pytest.mark.parametrize("case", [case for case in VALIDATION if case.get("aws_diagnostics")], ids=_ids)
def test_diagnostics_of_validate_state_machine_definition(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse(_text(case), express=case.get("type") == "EXPRESS")
    found = [
        {"code": d.code, "location": d.location, "message": d.message, "severity": d.severity}
        for d in caught.value.diagnostics
    ]
    assert found == case["aws_diagnostics"]


@needs_vectors
@pytest.mark.parametrize("case", STATES, ids=_ids)
def test_recorded_definitions_are_accepted(case: dict[str, Any]) -> None:
    """AWS accepted them all."""
    try:
        machine = parse(json.dumps(case["definition"]), express=case.get("type") == "EXPRESS")
    except UnsupportedFeature:
        assert "map-distributed" in case["needs"]
        return
    assert machine.start_at == case["definition"]["StartAt"]
