"""What pollers of queues and streams have in common: filters, the answer of a function about its batch, and bytes.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html and
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from entrepot.services.lambda_.neighbours import CompilePattern

PAYLOAD_LIMIT_BYTES = 6 * 1024 * 1024
"""A batch is closed before its payload becomes larger than this."""

Filter: TypeAlias = Callable[[Mapping[str, Any]], bool]


def compile_filters(filters: Sequence[str], compile_pattern: CompilePattern) -> Filter:
    """Return whether a record passes: without filters always, else when one of them matches. Raises AwsError."""
    compiled = [(_wants_json_body(text), compile_pattern(text)) for text in filters]

    def passes(record: Mapping[str, Any]) -> bool:
        if not compiled:
            return True
        for wants_json, matches in compiled:
            document = record
            if wants_json:
                body = _json_object(record.get("body"))
                if body is None:
                    continue  # a pattern for JSON and a body that is none: no match, as AWS
                document = {**record, "body": body}
            if matches(document):
                return True
        return False

    return passes


def _wants_json_body(text: str) -> bool:
    """Whether a filter looks into a message's body, which is text that may be JSON."""
    try:
        pattern = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(pattern, dict) and isinstance(pattern.get("body"), dict)


def _json_object(body: object) -> dict[str, Any] | None:
    if not isinstance(body, str):
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def item_failures(payload: bytes, identifiers: Sequence[str]) -> set[str] | None:
    """Return the identifiers that a function says have failed; None when all have: its answer is not what it must be.

    An empty answer, null, `{}` and an empty or null list say that all went well.
    """
    try:
        answer = json.loads(payload) if payload else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return set()
    failures = answer.get("batchItemFailures")
    if failures is None:
        return set()
    if not isinstance(failures, list):
        return None
    known, failed = set(identifiers), set()
    for failure in failures:
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        if not isinstance(identifier, str) or identifier not in known:
            return None
        failed.add(identifier)
    return failed
