"""Reads the Resource of a Task: what it names, and whether anything here could serve it.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/integrate-services.html.
"""

import re

from .definition import Integration, Resource
from .fields import Fields

MAX_RESOURCE_CHARACTERS = 2_048
"""The longest Resource that is accepted."""

_NAME_AND_QUALIFIER = r"function:[A-Za-z0-9_.-]{1,140}(?::(?:\$LATEST|[A-Za-z0-9_-]{1,128}))?"
_FUNCTION = re.compile(r"arn:[a-z0-9-]+:lambda:[a-z0-9-]*:[0-9]*:" + _NAME_AND_QUALIFIER)
_FUNCTION_ELSEWHERE = re.compile(r"arn:[^:]+:lambda:[^:]*:[^:]*:" + _NAME_AND_QUALIFIER)
_ACTIVITY = re.compile(r"arn:[a-z0-9-]+:states:[a-z0-9-]*:[0-9]*:activity:[^\s:]{1,80}")
_SERVICE = re.compile(
    r"arn:[a-z0-9-]+:states:[a-z0-9-]*:[0-9]*:(?:(?P<sdk>aws-sdk):)?(?P<service>[A-Za-z0-9-]+):(?P<action>[A-Za-z0-9]+)"
    r"(?P<pattern>\.sync(?::2)?|\.waitForTaskToken)?"
)

OPTIMIZED: dict[str, frozenset[str]] = {
    "lambda": frozenset({"invoke"}),
    "dynamodb": frozenset({"getItem", "putItem", "updateItem", "deleteItem"}),
    "events": frozenset({"putEvents"}),
    "http": frozenset({"invoke"}),
    "sns": frozenset({"publish"}),
    "sqs": frozenset({"sendMessage"}),
    "states": frozenset({"startExecution"}),
}
"""The optimised integrations that are checked by name; other services' are refused as not served."""

PATTERNS: dict[str, frozenset[str]] = {
    "lambda": frozenset({".waitForTaskToken"}),
    "events": frozenset({".waitForTaskToken"}),
    "sns": frozenset({".waitForTaskToken"}),
    "sqs": frozenset({".waitForTaskToken"}),
    "states": frozenset({".waitForTaskToken", ".sync", ".sync:2"}),
}
"""The integration patterns of the optimised integrations; `aws-sdk:` has .waitForTaskToken only."""

_NOT_RECOGNISED = (
    "The resource provided {} is not recognized. The value is not a valid resource ARN, or the resource is not "
    "available in this region."
)
NOTHING = Resource("", Integration.FUNCTION_ARN, "lambda", "invoke")


def parse_resource(fields: Fields, express: bool) -> Resource:
    """Read Resource; problems go to the fields' findings."""
    text = fields.string("Resource")
    if not text:
        if isinstance(fields.source.get("Resource"), str):
            fields.problem("Resource", "Value is not a valid resource ARN")
        return NOTHING
    if len(text) > MAX_RESOURCE_CHARACTERS:
        fields.problem("Resource", f"A Resource may have {MAX_RESOURCE_CHARACTERS} characters at most")
        return NOTHING
    if _FUNCTION.fullmatch(text):
        return Resource(text, Integration.FUNCTION_ARN, "lambda", "invoke")
    is_function = text.startswith("arn:") and ":lambda:" in text and ":states:" not in text
    if is_function and "{" not in text and not _FUNCTION_ELSEWHERE.fullmatch(text):
        fields.problem("Resource", "Value is not a valid resource ARN")
        return NOTHING
    if _ACTIVITY.fullmatch(text):
        if express:
            fields.problem("Resource", "Express state machine does not support Activity tasks")
        return Resource(text, Integration.ACTIVITY, "activity", text.rpartition(":")[2])
    service = _SERVICE.fullmatch(text)
    if service is None:
        fields.findings.refuse(_NOT_RECOGNISED.format(text), fields.at("Resource"))
        return NOTHING
    return _parse_service(fields, text, service, express)


def _parse_service(fields: Fields, text: str, match: re.Match[str], express: bool) -> Resource:
    name, action, pattern = match["service"], match["action"], match["pattern"]
    if pattern is not None and express:
        shown = ".sync" if pattern.startswith(".sync") else pattern
        fields.problem("Resource", f"Express state machine does not support '{shown}' service integration")
    if match["sdk"]:
        if not action[0].islower() or pattern not in (None, ".waitForTaskToken"):
            fields.findings.refuse(_NOT_RECOGNISED.format(text), fields.at("Resource"))
        return Resource(text, Integration.AWS_SDK, name, action, pattern or "")
    known = action in OPTIMIZED.get(name, ()) and (pattern is None or pattern in PATTERNS.get(name, ()))
    if not known:
        fields.findings.refuse(_NOT_RECOGNISED.format(text), fields.at("Resource"))
    return Resource(text, Integration.OPTIMIZED, name, action, pattern or "")
