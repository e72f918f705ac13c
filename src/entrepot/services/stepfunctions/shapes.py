"""Between the parameters and results of a task's service integration and botocore's shapes.

A definition writes every member in PascalCase, as the SDK for Java names it (`SsekmsKeyId`); botocore's model has the
service's own spelling (`SSEKMSKeyId`, `stateMachineArn`). Members are matched without regard to case.
Source: https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
"""

import base64
import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from entrepot import clock
from entrepot.service_models import service_model

from .language.evaluation import Json
from .language.json_text import dumps


class ParameterProblem(Exception):
    """The parameters do not fit the operation."""


@functools.cache
def operation_name(service: str, action: str) -> str | None:
    """Return AWS's name of an action that a definition writes in camelCase, or None: copyObject is CopyObject."""
    names = {name.lower(): name for name in service_model(service).operation_names}
    return names.get(action.lower())


@functools.cache
def _error_names(service: str) -> dict[str, str]:
    model: Any = service_model(service)
    names = {shape.error_code: shape.name for shape in model.error_shapes if shape.error_code}
    return names | {shape.name: shape.name for shape in model.error_shapes}


def exception_name(service: str, code: str) -> str | None:
    """Return the name of the SDK's exception for an error's code, None when the service's model has none.

    NoSuchKey is NoSuchKeyException, SNS's NotFound is NotFoundException.
    """
    name = _error_names(service).get(code)
    return None if name is None else f"{name.removesuffix('Exception')}Exception"


def request(service: str, operation: str, parameters: Json) -> dict[str, Any]:
    """Return `parameters` as a request of the operation. Raises ParameterProblem."""
    shape: Any = service_model(service).operation_model(operation).input_shape
    if not isinstance(parameters, dict):
        raise ParameterProblem("they are not an object")
    if shape is None:
        return {}
    made = _structure(shape, parameters)
    for member in shape.required_members:
        if member not in made:
            raise ParameterProblem(f"The field '{shown_name(member)}' is required but was missing")
    return made


@functools.lru_cache(maxsize=4_096)
def _members(shape: Any) -> dict[str, tuple[str, Any]]:
    return {name.lower(): (name, member) for name, member in shape.members.items()}


def _structure(shape: Any, value: dict[str, Json]) -> dict[str, Any]:
    members, made = _members(shape), {}
    for key, part in value.items():
        known = members.get(key.lower())
        if known is None:
            raise ParameterProblem(f"The field '{key}' is not supported by Step Functions")
        made[known[0]] = _value(known[1], part)
    return made


def _value(shape: Any, value: Json) -> Any:
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            raise ParameterProblem(f"The value for a field of type {shape.name} must be an object")
        return dict(value) if getattr(shape, "is_document_type", False) else _structure(shape, value)
    if kind == "list":
        if not isinstance(value, list):
            raise ParameterProblem(f"The value for a field of type {shape.name} must be a list")
        return [_value(shape.member, part) for part in value]
    if kind == "map":
        if not isinstance(value, dict):
            raise ParameterProblem(f"The value for a field of type {shape.name} must be an object")
        return {key: _value(shape.value, part) for key, part in value.items()}
    return _scalar(kind, shape, value)


def _scalar(kind: str, shape: Any, value: Json) -> Any:
    if kind == "blob":
        return (value if isinstance(value, str) else dumps(value)).encode()
    if kind == "timestamp" and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise ParameterProblem(f"The value '{value}' is no time stamp") from None
    if kind == "timestamp" and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if kind == "string" and isinstance(value, dict | list):
        # Such as the Detail of an event, or the Input of an execution: JSON in a string.
        return dumps(value)
    if kind in ("integer", "long") and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if (kind == "string" and not isinstance(value, str)) or (kind == "boolean" and not isinstance(value, bool)):
        raise ParameterProblem(f"The value for a field of type {shape.name} must be a {kind}")
    return value


def result(service: str, operation: str, response: dict[str, Any], *, sdk: bool = True) -> Json:
    """Return a response as the result of a task: JSON, members in PascalCase as the SDK for Java 2 has them.

    `sdk=False`: as the optimised integrations, whose SDK is older, have them.
    """
    shape = service_model(service).operation_model(operation).output_shape
    return {} if shape is None else _shown_value(shape, response, shown_name if sdk else older_name)


def _shown_value(shape: Any, value: Any, naming: Callable[[str], str]) -> Json:
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        members = shape.members
        return {
            naming(name): _shown_value(members[name], part, naming)
            for name, part in value.items()
            if name in members and part is not None
        }
    if kind == "list" and isinstance(value, list | tuple):
        return [_shown_value(shape.member, part, naming) for part in value]
    if kind == "map" and isinstance(value, dict):
        return {key: _shown_value(shape.value, part, naming) for key, part in value.items()}
    if isinstance(value, datetime):
        return clock.iso(int(value.timestamp() * 1_000))
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return base64.b64encode(content).decode()
    return value


@functools.lru_cache(maxsize=4_096)
def shown_name(name: str) -> str:
    """Return a member's name as a definition writes it: SSEKMSKeyId is SsekmsKeyId, MD5OfBody Md5OfBody, eTag ETag.

    The SDK for Java 2 writes capitals at the start small, but for one that a small letter follows.
    """
    small = 1
    while small < len(name) and name[small].isupper() and not name[small + 1 : small + 2].islower():
        small += 1
    return name[0].upper() + name[1:small].lower() + name[small:]


@functools.lru_cache(maxsize=4_096)
def older_name(name: str) -> str:
    """Return a member's name as the optimised integrations have it: stateMachineArn is StateMachineArn."""
    return name[0].upper() + name[1:]
