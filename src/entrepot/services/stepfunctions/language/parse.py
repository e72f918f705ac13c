"""Definition text to `StateMachine`: JSON, the machine's own fields, and the nesting of workflows.

The states themselves are read by `parse_states`, the transitions are checked by `graph`. Everything that is wrong is
collected first and raised together, in AWS's words.
"""

import re
from dataclasses import replace
from types import MappingProxyType

from . import json_text
from .definition import QueryLanguage, State, StateMachine, Workflow
from .diagnostics import (
    DUPLICATE_STATE_NAME,
    ERROR,
    INVALID_JSON_DESCRIPTION,
    INVALID_STATE_NAME,
    MISSING_DESCRIPTION,
    NOT_SERVED,
    TOO_DEEPLY_NESTED,
    WARNING,
    Diagnostic,
    Findings,
    InvalidDefinition,
    UnsupportedFeature,
)
from .evaluation import Json
from .fields import Fields
from .graph import check_graph
from .parse_states import Reading, read_state

__all__ = ["Diagnostic", "InvalidDefinition", "UnsupportedFeature", "parse", "parse_state", "validate"]

MAX_DEFINITION_BYTES = 1_048_576
"""AWS: the maximum size of a definition is 1 MiB."""

MAX_DEFINITION_DEPTH = 160
"""How deeply the JSON of a definition may be nested."""

MAX_WORKFLOW_DEPTH = 20
"""How deeply Parallel and Map may be nested in each other; AWS refuses too (TOO_DEEPLY_NESTED), but names no number."""

MAX_STATE_NAME_CHARACTERS = 80
"""AWS's limit for a state's name."""

MAX_SHOWN_TEXT = 100
"""How much of a text that is not JSON the message shows."""

SINGLE_STATE_NAME = "StateName"
"""What AWS calls a state that is tested without a state machine."""

_TOKEN = re.compile(r"[A-Za-z_]\w{0,99}")

MAX_STATES = 10_000
"""How many states a definition may have in all."""


def parse(definition_text: str, express: bool = False) -> StateMachine:
    """Return the typed state machine of a definition.

    `express`: the machine's type is EXPRESS, which has fewer integration patterns.
    Raises `InvalidDefinition`, or its subclass `UnsupportedFeature` for what is valid but not served.
    """
    findings = Findings()
    machine = _parse_machine(_load(definition_text), findings, express)
    findings.raise_errors()
    return machine


def parse_state(definition_text: str, name: str | None = None) -> State:
    """Return one state, as TestState takes it: the one of this name in a state machine's definition, wherever it is nested.

    With `name` None the text is the definition of a single state, which is then called `SINGLE_STATE_NAME`. Where it goes
    next is not looked at, and what is valid but not served is accepted.
    Raises `InvalidDefinition`; `KeyError` when the state machine has no such state.
    """
    findings = Findings()
    source = _load(definition_text)
    if name is None:
        reader = _WorkflowReader(findings, QueryLanguage.JSONPATH, False)
        found: State | None = reader.state(SINGLE_STATE_NAME, source, Fields({}, "/", findings))
    else:
        found = next((state for state in _parse_machine(source, findings, False).all() if state.name == name), None)
    if findings.errors:
        raise InvalidDefinition(tuple(findings.errors))
    if found is None:
        raise KeyError(name)
    return found


def validate(definition_text: str, express: bool = False) -> tuple[Diagnostic, ...]:
    """Return what is to be said of a definition, as ValidateStateMachineDefinition lists it; empty when nothing is.

    What is valid but not served is a warning.
    """
    try:
        parse(definition_text, express)
    except UnsupportedFeature as error:
        return tuple(replace(found, severity=WARNING, code=NOT_SERVED) for found in error.diagnostics)
    except InvalidDefinition as error:
        return error.diagnostics
    return ()


def _load(text: str) -> dict[str, Json]:
    if not text.strip():
        raise _refusal(MISSING_DESCRIPTION, "The definition is empty", None)
    if len(text) > MAX_DEFINITION_BYTES or len(text.encode("utf-8", errors="replace")) > MAX_DEFINITION_BYTES:
        raise _refusal("SCHEMA_VALIDATION_FAILED", f"The definition is larger than {MAX_DEFINITION_BYTES} bytes", "/")
    try:
        source = json_text.loads(text, MAX_DEFINITION_DEPTH)
    except json_text.InvalidJson as problem:
        raise _json_refusal(text, problem) from None
    if not isinstance(source, dict):
        raise _refusal(INVALID_JSON_DESCRIPTION, "The definition must be a JSON object", "/")
    return source


def _refusal(code: str, message: str, location: str | None) -> InvalidDefinition:
    return InvalidDefinition((Diagnostic(ERROR, code, message, location),))


def _json_refusal(text: str, problem: json_text.InvalidJson) -> InvalidDefinition:
    """Return the refusal of a text that is not JSON, with the place as AWS (Jackson) writes it."""
    shown = text if len(text) <= MAX_SHOWN_TEXT else text[:MAX_SHOWN_TEXT] + "..."
    message, column = str(problem), problem.column
    line = text.splitlines()[problem.line - 1] if 0 < problem.line <= len(text.splitlines()) else ""
    token = _TOKEN.match(line, max(column - 1, 0))
    if token is not None:
        column += len(token.group())
        message = (
            f"Unrecognized token '{token.group()}': was expecting "
            "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
        )
    place = f'[Source: (String)"{shown}"; line: {problem.line}, column: {column}]'
    return _refusal(INVALID_JSON_DESCRIPTION, f"{message}\n at {place}", place)


def _parse_machine(source: dict[str, Json], findings: Findings, express: bool) -> StateMachine:
    fields = Fields(source, "/", findings)
    language = QueryLanguage(fields.one_of("QueryLanguage", ("JSONPath", "JSONata")))
    version = fields.string("Version", "1.0")
    if version != "1.0":
        fields.problem("Version", "The field 'Version' should have one of these values: [1.0]")
    timeout_s = fields.integer("TimeoutSeconds", lowest=1)
    workflow = _WorkflowReader(findings, language, express).read(fields, express)
    fields.finish()
    return StateMachine(
        start_at=workflow.start_at,
        states=workflow.states,
        comment=workflow.comment,
        timeout_s=timeout_s,
        version=version,
        query_language=language,
    )


class _WorkflowReader:
    """Reads StartAt and States, at the top and in every branch and processor."""

    def __init__(self, findings: Findings, language: QueryLanguage, express: bool) -> None:
        self.findings = findings
        self.reading = Reading(findings, language, express, self.read)
        self.names: set[str] = set()
        self.depth = 0

    def read(self, fields: Fields, express: bool) -> Workflow:
        """Read a workflow and check its transitions, the latter only when its states could be read."""
        outer, self.reading = self.reading, replace(self.reading, express=express)
        errors = len(self.findings.errors)
        comment = fields.comment()
        fields.require("States", "StartAt")
        start_at = fields.string("StartAt")
        sources = fields.mapping("States")
        if fields.source.get("States") == {}:
            fields.problem("States", "Value cannot be empty")
        states: dict[str, State] = {}
        self.depth += 1
        if self.depth > MAX_WORKFLOW_DEPTH:
            message = f"Parallel and Map states are nested more than {MAX_WORKFLOW_DEPTH} deep"
            self.findings.error(message, fields.location, TOO_DEEPLY_NESTED)
        else:
            states = {name: self.state(name, source, fields) for name, source in sources.items()}
        self.depth -= 1
        self.reading = outer
        if len(self.findings.errors) == errors:
            check_graph(start_at, sources, fields.location, self.findings)
        return Workflow(start_at, MappingProxyType(states), comment)

    def state(self, name: str, source: Json, fields: Fields) -> State:
        """Read one state of the object that `fields` reads."""
        location = f"{fields.at('States')}/{name}"
        if not 1 <= len(name) <= MAX_STATE_NAME_CHARACTERS:
            message = f"A state's name must have 1 to {MAX_STATE_NAME_CHARACTERS} characters"
            self.findings.error(message, location[:300], INVALID_STATE_NAME)
        if name in self.names:
            self.findings.error(f"Duplicate State name: {name}", location, DUPLICATE_STATE_NAME)
        self.names.add(name)
        if len(self.names) == MAX_STATES + 1:
            self.findings.error(f"A definition may have {MAX_STATES} states at most", location)
        if not isinstance(source, dict):
            self.findings.error("Expected value of type Object", location)
            source = {"Type": "Succeed"}
        return read_state(name, source, location, self.reading)
