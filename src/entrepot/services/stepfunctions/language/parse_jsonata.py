"""Reads states in JSONata as far as they can be checked without the language itself, to refuse them with one clear error.

JSONata comes in a later release. Until then a definition that uses it is validated for its fields and transitions, so
that what is wrong is reported first, and then refused by name.
"""

from .evaluation import Json
from .fields import Fields

JSONATA_ONLY = ("Arguments", "Output", "Condition", "Items")
JSONPATH_ONLY = (
    "InputPath",
    "OutputPath",
    "ResultPath",
    "Parameters",
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

_COMMON = ("Type", "Comment", "QueryLanguage", "Next", "End", "Assign", "Output")
_WORK = ("Retry", "Catch", "Arguments")
_BY_TYPE: dict[str, tuple[str, ...]] = {
    "Pass": (),
    "Task": (*_WORK, "Resource", "TimeoutSeconds", "HeartbeatSeconds", "Credentials"),
    "Choice": ("Choices", "Default"),
    "Wait": ("Seconds", "Timestamp"),
    "Succeed": (),
    "Fail": ("Error", "Cause"),
    "Parallel": (*_WORK, "Branches"),
    "Map": (
        *("Retry", "Catch", "Items", "ItemProcessor", "Iterator", "ItemSelector", "ItemReader", "ItemBatcher"),
        *("ResultWriter", "MaxConcurrency", "ToleratedFailureCount", "ToleratedFailurePercentage", "Label"),
    ),
}
_REQUIRED: dict[str, tuple[str, ...]] = {"Task": ("Resource",), "Choice": ("Choices",), "Parallel": ("Branches",)}


def check_jsonata_state(fields: Fields, state_type: str) -> None:
    """Note what is wrong with the fields of a state in JSONata."""
    for name in fields.source:
        if name in JSONPATH_ONLY:
            fields.known.add(name)
            fields.findings.error(wrong_language(name, "JSONata", "JSONPath"), fields.location)
    fields.known.update(_COMMON)
    fields.known.update(_BY_TYPE[state_type])
    if state_type in _REQUIRED:
        fields.require(*_REQUIRED[state_type])
    if state_type == "Wait" and fields.has("Seconds") == fields.has("Timestamp"):
        fields.findings.error("Exactly one of these fields is required: [Seconds, Timestamp]", fields.location)
    for name, value in fields.source.items():
        if name not in ("Comment", "Type", "Branches", "ItemProcessor", "Iterator"):
            _check_strings(fields, value, fields.at(name))


def wrong_language(name: str, used: str, needed: str) -> str:
    """Return AWS's message for a field of the other query language."""
    return (
        f"The QueryLanguage is set to '{used}', but field '{name}' is only supported for the '{needed}' QueryLanguage"
    )


def _check_strings(fields: Fields, value: Json, place: str) -> None:
    """Note strings that open an expression and do not close it."""
    if isinstance(value, str):
        if value.startswith("{%") and not (value.endswith("%}") and len(value) >= 4):
            fields.findings.error("A JSONata expression must start with '{%' and end with '%}'", place)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "Comment":
                _check_strings(fields, item, f"{place}/{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_strings(fields, item, f"{place}[{number}]")
