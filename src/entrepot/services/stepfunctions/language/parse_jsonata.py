"""Reads the states whose expressions are JSONata, one function per type.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html and the state pages of
https://docs.aws.amazon.com/step-functions/latest/dg/workflow-states.html.
"""

from typing import Any

from .choice import Condition, JsonataCondition
from .definition import MAX_SECONDS, QueryLanguage, Seconds
from .evaluation import Json
from .fields import ROOT_PATH, ROOT_REFERENCE, Fields
from .jsonata import JsonataExpression
from .jsonata_template import Place, parse_jsonata, parse_jsonata_template
from .path_syntax import is_variable_name
from .template import Template
from .timestamps import timestamp_ms

JSONATA_ONLY = ("Arguments", "Output", "Condition", "Items")
JSONPATH_ONLY = (
    "InputPath",
    "OutputPath",
    "ResultPath",
    "Parameters",
    "Result",
    "ResultSelector",
    "ItemsPath",
    "SecondsPath",
    "TimestampPath",
    "TimeoutSecondsPath",
    "HeartbeatSecondsPath",
    "MaxConcurrencyPath",
    "ToleratedFailureCountPath",
    "ToleratedFailurePercentagePath",
    "ErrorPath",
    "CausePath",
    "Variable",
)


def wrong_language(name: str, used: str, needed: str) -> str:
    """Return AWS's message for a field of the other query language."""
    return (
        f"The QueryLanguage is set to '{used}', but field '{name}' is only supported for the '{needed}' QueryLanguage"
    )


def refuse_jsonpath(fields: Fields) -> None:
    """Note the fields that JSONata has not."""
    for name in fields.source:
        if name in JSONPATH_ONLY:
            fields.known.add(name)
            fields.findings.error(wrong_language(name, "JSONata", "JSONPath"), fields.location)


class JsonataFields:
    """Reads the fields of one object as JSONata. `prefix` is how AWS names the object inside its state: `Catch[0]/`."""

    def __init__(self, fields: Fields, prefix: str = "") -> None:
        self.fields = fields
        self.prefix = prefix

    def _report(self, name: str) -> Any:
        base, findings = self.fields.at(name), self.fields.findings

        def report(message: str, below: str, code: str | None) -> None:
            if code is None:
                findings.error(message, base + below)
            else:
                findings.error(message, base + below, code)

        return report

    def template(self, name: str, *, result: bool = False, error_output: bool = False) -> Template | None:
        """Read a JSON value with expressions in it; None when absent."""
        if not self.fields.has(name):
            return None
        place = Place(self.prefix + name, result, error_output)
        return parse_jsonata_template(self.fields.source[name], place, self._report(name))

    def assign(self, *, result: bool = False, error_output: bool = False) -> Template | None:
        """Read Assign."""
        if not self.fields.has("Assign"):
            return None
        source = self.fields.source["Assign"]
        if not isinstance(source, dict):
            self.fields.problem("Assign", "Expected value of type Object")
            return None
        for key in source:
            if not is_variable_name(key):
                self.fields.problem("Assign", f"'{key[:200]}' is not a valid variable name")
        return self.template("Assign", result=result, error_output=error_output)

    def expression(self, name: str) -> JsonataExpression | None:
        """Read a string that is an expression; None when it is none, or wrong."""
        value = self.fields.source.get(name)
        if not isinstance(value, str) or not value.startswith("{%"):
            return None
        self.fields.has(name)
        return parse_jsonata(value, Place(self.prefix + name), "", self._report(name))

    def is_open(self, name: str) -> bool:
        """Whether the field is a string that opens an expression."""
        value = self.fields.source.get(name)
        return isinstance(value, str) and value.startswith("{%")

    def seconds(self, name: str) -> Seconds | None:
        """Read TimeoutSeconds or HeartbeatSeconds."""
        if self.is_open(name):
            expression = self.expression(name)
            return None if expression is None else Seconds(None, None, name, expression)
        value = self.fields.integer(name, lowest=1)
        return None if value is None else Seconds(value, None, name)

    def integer(self, name: str, lowest: int) -> tuple[int | None, JsonataExpression | None]:
        """Read an integer, or the expression that gives it."""
        if self.is_open(name):
            return None, self.expression(name)
        return self.fields.integer(name, lowest, MAX_SECONDS), None

    def text(self, name: str) -> tuple[str | None, JsonataExpression | None]:
        """Read a string, or the expression that gives it."""
        if self.is_open(name):
            return None, self.expression(name)
        return (self.fields.string(name) if self.fields.has(name) else None), None

    def condition(self) -> Condition:
        """Read Condition: an expression or a boolean."""
        self.fields.require("Condition")
        if self.is_open("Condition"):
            return JsonataCondition(self.expression("Condition"), False)
        return JsonataCondition(None, self.fields.boolean("Condition"))


def common_fields(name: str, fields: Fields, state_type: str) -> dict[str, Any]:
    """Read the fields that most states share."""
    has_result = state_type in ("Task", "Parallel", "Map")
    reader = JsonataFields(fields)
    common: dict[str, Any] = {
        "name": name,
        "comment": fields.source.get("Comment"),
        "query_language": QueryLanguage.JSONATA,
        "input_path": ROOT_PATH,
        "output_path": ROOT_PATH,
    }
    if state_type == "Fail":
        return common
    common["output"] = reader.template("Output", result=has_result)
    if state_type == "Succeed":
        return common
    common["assign"] = reader.assign(result=has_result)
    if state_type != "Choice":
        target = fields.source.get("Next")
        common["next"] = target if isinstance(target, str) else None
    if state_type not in ("Choice", "Wait"):
        common["result_path"] = ROOT_REFERENCE
    return common


def wait_fields(fields: Fields) -> dict[str, Any]:
    """Read what is special to Wait."""
    if fields.has("Seconds") == fields.has("Timestamp"):
        fields.findings.error("Exactly one of these fields is required: [Seconds, Timestamp]", fields.location)
    reader = JsonataFields(fields)
    seconds, seconds_expression = reader.integer("Seconds", 0)
    text, timestamp_expression = reader.text("Timestamp")
    at_ms = None
    if text is not None:
        at_ms = timestamp_ms(text)
        if at_ms is None and isinstance(fields.source["Timestamp"], str):
            fields.problem("Timestamp", "String does not match RFC3339 timestamp")
    return {
        "seconds": seconds,
        "seconds_expression": seconds_expression,
        "timestamp_ms": at_ms,
        "timestamp_expression": timestamp_expression,
    }


def map_fields(fields: Fields) -> dict[str, Any]:
    """Read what is special to Map, but for its processor."""
    reader = JsonataFields(fields)
    concurrency, expression = reader.integer("MaxConcurrency", 0)
    return {
        "items_path": ROOT_PATH,
        "items_template": _items(reader),
        "item_selector": reader.template("ItemSelector"),
        "max_concurrency": concurrency or 0,
        "max_concurrency_expression": expression,
    }


def _items(reader: JsonataFields) -> Template | JsonataExpression | None:
    if reader.is_open("Items"):
        return reader.expression("Items")
    if reader.fields.has("Items") and not isinstance(reader.fields.source["Items"], list):
        reader.fields.problem("Items", "Expected value of type Array")
        return None
    return reader.template("Items")


def credentials(fields: Fields) -> Template | None:
    """Read Credentials."""
    if not fields.has("Credentials"):
        return None
    source: Json = fields.source["Credentials"]
    if not isinstance(source, dict):
        fields.problem("Credentials", "Expected value of type Object")
        return None
    if "RoleArn" not in source:
        fields.problem("Credentials", "The field 'RoleArn' is required but was missing")
    return JsonataFields(fields).template("Credentials")
