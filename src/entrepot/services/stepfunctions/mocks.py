"""Mocked results of TestState: whether they fit what the service's API returns.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_MockInput.html
"""

import functools
from typing import Any

from entrepot import service_models

from . import shapes
from .errors import ValidationException
from .language.definition import Integration, Resource
from .language.evaluation import Json

STRICT, PRESENT, NONE = "STRICT", "PRESENT", "NONE"

_ELSEWHERE = {
    "cloudwatchlogs": "logs",
    "costexplorer": "ce",
    "eventbridge": "events",
    "sfn": "stepfunctions",
    "elasticloadbalancingv2": "elbv2",
    "states": "stepfunctions",
}
"""Services whose name in a definition is not botocore's without its dashes."""

_FREE = {("lambda", "invoke"): "Payload"}
"""Members of optimised integrations that hold any JSON, not what the API returns."""


def check(resource: Resource, result: Json, mode: str) -> None:
    """Raise ValidationException unless a mocked result fits the API that the resource stands for.

    What a token brings, and what a function returns, may be anything. A result that waited for an execution is that of
    DescribeExecution. Fields that the API does not have are allowed, as AWS allows them.
    """
    if mode == NONE or resource.waits_for_token or resource.integration in _UNCHECKED:
        return
    action = "describeExecution" if resource.waits_for_execution else resource.action
    shape = _output_shape(resource.service, action)
    if shape is None:
        return
    free = _FREE.get((resource.service, resource.action)) if resource.integration is Integration.OPTIMIZED else None
    if resource.pattern == ".sync:2":
        result = {name: value for name, value in result.items() if name not in ("Input", "Output")}
    _check_structure(shape, result, "result", mode, free)


_UNCHECKED = frozenset({Integration.FUNCTION_ARN})


@functools.lru_cache(maxsize=256)
def _output_shape(service: str, action: str) -> Any:
    """Return the shape of an operation's output; None when the service or the operation is not known."""
    name = _botocore_name(service)
    if name is None:
        return None
    operation = shapes.operation_name(name, action)
    return None if operation is None else service_models.service_model(name).operation_model(operation).output_shape


@functools.cache
def _botocore_name(service: str) -> str | None:
    known = _ELSEWHERE.get(service, service)
    names = service_models.loader().list_available_services("service-2")
    return next((name for name in names if name.replace("-", "") == known), None)


def _problem(text: str) -> ValidationException:
    return ValidationException(f"Mock result schema validation error: {text}")


def _check(shape: Any, value: Json, name: str, mode: str) -> None:
    kind = shape.type_name
    if kind == "structure":
        _check_structure(shape, value, name, mode, None)
    elif kind == "list":
        if not isinstance(value, list):
            raise _problem(f"Field '{name}' must be an array")
        _check_range(shape, len(value), name, "is smaller than the minimum size", "exceeds the maximum size")
        for part in value:
            _check(shape.member, part, name, mode)
    elif kind == "map":
        if not isinstance(value, dict):
            raise _problem(f"Field '{name}' must be an object")
        for part in value.values():
            _check(shape.value, part, name, mode)
    elif kind == "boolean":
        if not isinstance(value, bool):
            raise _problem(f"Field '{name}' must be a boolean")
    elif kind in ("integer", "long", "float", "double"):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _problem(f"Field '{name}' must be a number")
        _check_range(shape, value, name, "is less than the minimum value", "exceeds the maximum value")
    elif kind != "timestamp" or not isinstance(value, int | float):
        _check_text(shape, value, name)


def _check_text(shape: Any, value: Json, name: str) -> None:
    if not isinstance(value, str):
        raise _problem(f"Field '{name}' must be a string")
    if getattr(shape, "enum", None) and value not in shape.enum:
        raise _problem(f"Field '{name}' is not an expected value")
    _check_range(shape, len(value), name, "is smaller than the minimum length", "exceeds the maximum length")


def _check_range(shape: Any, size: float, name: str, below: str, above: str) -> None:
    if size < shape.metadata.get("min", size):
        raise _problem(f"Field '{name}' {below}")
    if size > shape.metadata.get("max", size):
        raise _problem(f"Field '{name}' {above}")


def _check_structure(shape: Any, value: Json, name: str, mode: str, free: str | None) -> None:
    if not isinstance(value, dict):
        raise _problem(f"Field '{name}' must be an object")
    if getattr(shape, "is_document_type", False):
        return
    for member, part in shape.members.items():
        shown = shapes.shown_name(member)
        if shown not in value:
            if mode == STRICT and member in shape.required_members:
                raise _problem(f"Field '{shown}' is required but was missing")
        elif shown != free and value[shown] is not None:
            _check(part, value[shown], shown, mode)
