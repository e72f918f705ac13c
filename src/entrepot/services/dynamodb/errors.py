"""The errors of DynamoDB, as AWS documents them.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
"""

from typing import Any

from entrepot.errors import AwsError


class ValidationException(AwsError):
    """The request breaks a rule; the message says which, in AWS's words."""

    code = "ValidationException"
    status = 400


class ResourceNotFoundException(AwsError):
    """The table or index does not exist."""

    code = "ResourceNotFoundException"
    status = 400


class ResourceInUseException(AwsError):
    """A table of that name exists already."""

    code = "ResourceInUseException"
    status = 400


class LimitExceededException(AwsError):
    """Too many tables."""

    code = "LimitExceededException"
    status = 400


class IdempotentParameterMismatchException(AwsError):
    """A client request token came again with another request."""

    code = "IdempotentParameterMismatchException"
    status = 400


class ExpiredIteratorException(AwsError):
    """A shard iterator is older than 15 minutes."""

    code = "ExpiredIteratorException"
    status = 400


class TrimmedDataAccessException(AwsError):
    """The records asked for are older than 24 hours and gone."""

    code = "TrimmedDataAccessException"
    status = 400


class ConditionalCheckFailedException(AwsError):
    """The condition was false; the member `Item` has the item where the caller asked for it."""

    code = "ConditionalCheckFailedException"
    status = 400

    def __init__(self, item: dict[str, Any] | None = None) -> None:
        super().__init__("The conditional request failed", **({} if item is None else {"Item": item}))


class TransactionCanceledException(AwsError):
    """A transaction did nothing; `reasons` has one entry per action, in AWS's shape."""

    code = "TransactionCanceledException"
    status = 400

    def __init__(self, reasons: list[dict[str, Any]]) -> None:
        codes = ", ".join(reason["Code"] for reason in reasons)
        super().__init__(
            f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
            CancellationReasons=reasons,
        )
