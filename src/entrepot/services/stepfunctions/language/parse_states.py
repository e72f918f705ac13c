"""Reads the states of a definition, one function per type.

Source: https://states-language.net/spec.html and the state pages of
https://docs.aws.amazon.com/step-functions/latest/dg/workflow-states.html.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from .definition import (
    Catcher,
    Choice,
    ChoiceRule,
    Fail,
    Map,
    Parallel,
    Pass,
    QueryLanguage,
    Retrier,
    Seconds,
    State,
    Succeed,
    Task,
    Wait,
    Workflow,
)
from .diagnostics import Findings
from .evaluation import ALL, Json
from .fields import ROOT_PATH, ROOT_REFERENCE, Fields
from .parse_choices import parse_condition
from .parse_jsonata import (
    JSONATA_ONLY,
    JsonataFields,
    common_fields,
    credentials,
    map_fields,
    refuse_jsonpath,
    wait_fields,
    wrong_language,
)
from .parse_map import distributed_fields, processor_of
from .parse_resource import parse_resource
from .timestamps import timestamp_ms

STATE_TYPES = ("Task", "Wait", "Pass", "Succeed", "Fail", "Choice", "Parallel", "Map")

MAX_DELAY_SECONDS = 31_622_400
"""MaxDelaySeconds must be below this (AWS: "between 0 and 31622400, exclusive")."""

ReadWorkflow: TypeAlias = Callable[[Fields, bool], Workflow]
"""`read_workflow(fields, express)`: reads StartAt and States of an object (a branch, an item processor)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the readers of states share."""

    findings: Findings
    language: QueryLanguage
    express: bool
    read_workflow: ReadWorkflow


def read_state(name: str, source: dict[str, Json], location: str, reading: Reading) -> State:
    """Read one state; problems go to the findings, and what comes back is then not to be used."""
    fields = Fields(source, location, reading.findings)
    fields.comment()
    nothing = Succeed(name=name, input_path=ROOT_PATH, output_path=ROOT_PATH)
    if not fields.require("Type"):
        return nothing
    state_type = fields.source["Type"]
    if state_type not in STATE_TYPES:
        fields.problem("Type", f"The field 'Type' should have one of these values: [{', '.join(STATE_TYPES)}]")
        return nothing
    if state_type not in ("Choice", "Succeed", "Fail"):
        _parse_transition(fields)
    if _language_of(fields, reading) is QueryLanguage.JSONATA:
        refuse_jsonpath(fields)
        state = _JSONATA_READERS[state_type](fields, common_fields(name, fields, state_type), reading)
        fields.finish()
        return state
    for field in JSONATA_ONLY:
        if fields.has(field):
            fields.findings.error(wrong_language(field, "JSONPath", "JSONata"), location)
    state = _READERS[state_type](fields, _common(name, fields, state_type), reading)
    fields.finish()
    return state


def _language_of(fields: Fields, reading: Reading) -> QueryLanguage:
    if not fields.has("QueryLanguage"):
        return reading.language
    language = QueryLanguage(fields.one_of("QueryLanguage", ("JSONPath", "JSONata")))
    if language is QueryLanguage.JSONPATH and reading.language is QueryLanguage.JSONATA:
        message = "'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine"
        fields.findings.error(message, fields.location)
    return language


def _common(name: str, fields: Fields, state_type: str) -> dict[str, Any]:
    """Read the fields that most states share."""
    common: dict[str, Any] = {"name": name, "comment": fields.source.get("Comment")}
    if state_type == "Fail":
        return {**common, "input_path": ROOT_PATH, "output_path": ROOT_PATH}
    common["input_path"] = fields.path_or_null("InputPath")
    common["output_path"] = fields.path_or_null("OutputPath")
    if state_type == "Succeed":
        return common
    common["assign"] = fields.assign()
    if state_type != "Choice":
        target = fields.source.get("Next")
        common["next"] = target if isinstance(target, str) else None
    if state_type not in ("Choice", "Wait"):
        common["result_path"] = fields.result_path()
    return common


def _parse_transition(fields: Fields) -> None:
    """Check that exactly one of Next and End: true is there."""
    ends = fields.boolean("End")
    if fields.has("Next"):
        if not fields.string("Next", "-"):
            fields.problem("Next", "Value cannot be empty")
        if ends:
            fields.findings.error("Only one of these fields is allowed: [Next, End]", fields.location)
    elif not ends:
        fields.findings.error("One of these fields is required: [Next, End]", fields.location)


def _parse_pass(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    return Pass(
        **common,
        parameters=fields.template("Parameters"),
        has_result=fields.has("Result"),
        result=fields.source.get("Result"),
    )


def _parse_task(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.require("Resource")
    timeout = _parse_seconds(fields, "TimeoutSeconds")
    heartbeat = _parse_seconds(fields, "HeartbeatSeconds")
    _check_heartbeat(fields, timeout, heartbeat)
    return Task(
        **common,
        resource=parse_resource(fields, reading.express),
        parameters=fields.template("Parameters"),
        credentials=_parse_credentials(fields),
        result_selector=fields.object_template("ResultSelector"),
        retry=_parse_retry(fields),
        catch=_parse_catch(fields),
        timeout=timeout,
        heartbeat=heartbeat,
    )


def _check_heartbeat(fields: Fields, timeout: Seconds | None, heartbeat: Seconds | None) -> None:
    if timeout and heartbeat and timeout.value_s and heartbeat.value_s and heartbeat.value_s >= timeout.value_s:
        fields.problem("HeartbeatSeconds", "HeartbeatSeconds must be smaller than TimeoutSeconds")


def _parse_credentials(fields: Fields) -> Any:
    credentials = fields.object_template("Credentials")
    if credentials is not None and "RoleArn" not in credentials.source and "RoleArn.$" not in credentials.source:
        fields.problem("Credentials", "The field 'RoleArn' is required but was missing")
    return credentials


def _parse_seconds(fields: Fields, name: str) -> Seconds | None:
    path_name = f"{name}Path"
    fields.exclusive(name, path_name)
    if fields.has(path_name):
        return Seconds(None, fields.reference_path(path_name), path_name)
    value = fields.integer(name, lowest=1)
    return None if value is None else Seconds(value, None, name)


def _parse_error_equals(fields: Fields, is_last: bool) -> tuple[str, ...]:
    fields.require("ErrorEquals")
    names = fields.array("ErrorEquals")
    if fields.has("ErrorEquals") and not names and isinstance(fields.source["ErrorEquals"], list):
        fields.problem("ErrorEquals", "Value cannot be empty")
    if not all(isinstance(name, str) for name in names):
        fields.problem("ErrorEquals", "Expected value of type String")
        return ()
    if ALL in names and len(names) > 1:
        fields.problem("ErrorEquals", f"{ALL} must appear alone")
    if ALL in names and not is_last:
        fields.problem("ErrorEquals", f"{ALL} can only appear in the last element")
    return tuple(names)


def _parse_retry(fields: Fields) -> tuple[Retrier, ...]:
    sources = fields.objects("Retry")
    retriers = []
    for number, (source, place) in enumerate(sources):
        entry = Fields(source, place, fields.findings)
        entry.comment()
        names = _parse_error_equals(entry, number == len(sources) - 1)
        interval_s = entry.integer("IntervalSeconds", 1)
        attempts = entry.integer("MaxAttempts", 0)
        rate = entry.number("BackoffRate", 1.0, 2.0)
        delay_s = entry.integer("MaxDelaySeconds", 1, MAX_DELAY_SECONDS - 1)
        interval_s = 1 if interval_s is None else interval_s
        if delay_s is not None and delay_s <= interval_s:
            entry.problem("MaxDelaySeconds", "MaxDelaySeconds must be greater than IntervalSeconds")
        jitter = entry.one_of("JitterStrategy", ("NONE", "FULL"))
        retriers.append(
            Retrier(names, interval_s, 3 if attempts is None else attempts, rate, delay_s, jitter == "FULL")
        )
        entry.finish()
    return tuple(retriers)


def _parse_catch(fields: Fields, *, jsonata: bool = False) -> tuple[Catcher, ...]:
    sources = fields.objects("Catch")
    catchers = []
    for number, (source, place) in enumerate(sources):
        entry = Fields(source, place, fields.findings)
        entry.comment()
        names = _parse_error_equals(entry, number == len(sources) - 1)
        entry.require("Next")
        target = entry.string("Next")
        if jsonata:
            refuse_jsonpath(entry)
            reader = JsonataFields(entry, f"Catch[{number}]/")
            assign, output = reader.assign(error_output=True), reader.template("Output", error_output=True)
            catchers.append(Catcher(names, target, ROOT_REFERENCE, assign, output))
        else:
            if entry.has("Output"):
                entry.findings.error(wrong_language("Output", "JSONPath", "JSONata"), place)
            catchers.append(Catcher(names, target, entry.result_path(), entry.assign()))
        entry.finish()
    return tuple(catchers)


def _parse_choice(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.require("Choices")
    rules = []
    for source, place in fields.objects("Choices"):
        rule = Fields(source, place, fields.findings)
        rule.comment()
        rule.require("Next")
        for field in JSONATA_ONLY:
            if rule.has(field):
                rule.findings.error(wrong_language(field, "JSONPath", "JSONata"), place)
        rules.append(ChoiceRule(parse_condition(rule), rule.string("Next"), rule.assign()))
        rule.finish()
    if fields.source.get("Choices") == []:
        fields.problem("Choices", "Value cannot be empty")
    default = fields.string("Default") if fields.has("Default") else None
    return Choice(**common, choices=tuple(rules), default=default)


def _parse_wait(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    names = ("Seconds", "SecondsPath", "Timestamp", "TimestampPath")
    if sum([fields.has(name) for name in names]) != 1:
        fields.findings.error(f"Exactly one of these fields is required: [{', '.join(names)}]", fields.location)
    at_ms = None
    if fields.has("Timestamp"):
        at_ms = timestamp_ms(fields.string("Timestamp"))
        if at_ms is None and isinstance(fields.source["Timestamp"], str):
            fields.problem("Timestamp", "String does not match RFC3339 timestamp")
    return Wait(
        **common,
        seconds=fields.integer("Seconds", lowest=0),
        seconds_path=fields.reference_path("SecondsPath"),
        timestamp_ms=at_ms,
        timestamp_path=fields.reference_path("TimestampPath"),
    )


def _parse_succeed(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    return Succeed(**common)


def _parse_fail(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.exclusive("Error", "ErrorPath")
    fields.exclusive("Cause", "CausePath")
    return Fail(
        **common,
        error=fields.string("Error") if fields.has("Error") else None,
        error_path=fields.expression("ErrorPath"),
        cause=fields.string("Cause") if fields.has("Cause") else None,
        cause_path=fields.expression("CausePath"),
    )


def _parse_branches(fields: Fields, reading: Reading) -> tuple[Workflow, ...]:
    branches = []
    for source, place in fields.objects("Branches"):
        branch = Fields(source, place, fields.findings)
        branches.append(reading.read_workflow(branch, reading.express))
        branch.finish()
    if fields.source.get("Branches") == []:
        fields.problem("Branches", "Value cannot be empty")
    return tuple(branches)


def _parse_parallel(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.require("Branches")
    return Parallel(
        **common,
        branches=_parse_branches(fields, reading),
        parameters=fields.template("Parameters"),
        result_selector=fields.object_template("ResultSelector"),
        retry=_parse_retry(fields),
        catch=_parse_catch(fields),
    )


def _parse_map(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.exclusive("ItemSelector", "Parameters")
    fields.exclusive("MaxConcurrency", "MaxConcurrencyPath")
    selector = "ItemSelector" if fields.has("ItemSelector") else "Parameters"
    return Map(
        **common,
        item_processor=processor_of(fields, reading.read_workflow, reading.express),
        items_path=fields.reference_path("ItemsPath") or ROOT_PATH,
        item_selector=fields.template(selector),
        max_concurrency=fields.integer("MaxConcurrency", lowest=0) or 0,
        max_concurrency_path=fields.reference_path("MaxConcurrencyPath"),
        **distributed_fields(common["name"], fields, reading.language, express=reading.express, jsonata=False),
        result_selector=fields.object_template("ResultSelector"),
        retry=_parse_retry(fields),
        catch=_parse_catch(fields),
    )


_READERS: dict[str, Callable[[Fields, dict[str, Any], Reading], State]] = {
    "Pass": _parse_pass,
    "Task": _parse_task,
    "Choice": _parse_choice,
    "Wait": _parse_wait,
    "Succeed": _parse_succeed,
    "Fail": _parse_fail,
    "Parallel": _parse_parallel,
    "Map": _parse_map,
}


def _jsonata_pass(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    return Pass(**common)


def _jsonata_task(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.require("Resource")
    reader = JsonataFields(fields)
    timeout, heartbeat = reader.seconds("TimeoutSeconds"), reader.seconds("HeartbeatSeconds")
    _check_heartbeat(fields, timeout, heartbeat)
    return Task(
        **common,
        resource=parse_resource(fields, reading.express),
        parameters=reader.template("Arguments"),
        credentials=credentials(fields),
        retry=_parse_retry(fields),
        catch=_parse_catch(fields, jsonata=True),
        timeout=timeout,
        heartbeat=heartbeat,
    )


def _jsonata_choice(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.require("Choices")
    rules = []
    for number, (source, place) in enumerate(fields.objects("Choices")):
        rule = Fields(source, place, fields.findings)
        rule.comment()
        rule.require("Next")
        refuse_jsonpath(rule)
        reader = JsonataFields(rule, f"Choices[{number}]/")
        rules.append(ChoiceRule(reader.condition(), rule.string("Next"), reader.assign(), reader.template("Output")))
        rule.finish()
    if fields.source.get("Choices") == []:
        fields.problem("Choices", "Value cannot be empty")
    default = fields.string("Default") if fields.has("Default") else None
    return Choice(**common, choices=tuple(rules), default=default)


def _jsonata_wait(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    return Wait(**common, **wait_fields(fields))


def _jsonata_succeed(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    return Succeed(**common)


def _jsonata_fail(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    reader = JsonataFields(fields)
    error, error_expression = reader.text("Error")
    cause, cause_expression = reader.text("Cause")
    return Fail(**common, error=error, error_path=error_expression, cause=cause, cause_path=cause_expression)


def _jsonata_parallel(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    fields.require("Branches")
    return Parallel(
        **common,
        branches=_parse_branches(fields, reading),
        parameters=JsonataFields(fields).template("Arguments"),
        retry=_parse_retry(fields),
        catch=_parse_catch(fields, jsonata=True),
    )


def _jsonata_map(fields: Fields, common: dict[str, Any], reading: Reading) -> State:
    return Map(
        **common,
        **map_fields(fields),
        **distributed_fields(common["name"], fields, reading.language, express=reading.express, jsonata=True),
        item_processor=processor_of(fields, reading.read_workflow, reading.express),
        retry=_parse_retry(fields),
        catch=_parse_catch(fields, jsonata=True),
    )


_JSONATA_READERS: dict[str, Callable[[Fields, dict[str, Any], Reading], State]] = {
    "Pass": _jsonata_pass,
    "Task": _jsonata_task,
    "Choice": _jsonata_choice,
    "Wait": _jsonata_wait,
    "Succeed": _jsonata_succeed,
    "Fail": _jsonata_fail,
    "Parallel": _jsonata_parallel,
    "Map": _jsonata_map,
}
