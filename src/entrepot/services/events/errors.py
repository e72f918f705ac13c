"""The errors of EventBridge. Source: https://docs.aws.amazon.com/eventbridge/latest/APIReference/CommonErrors.html"""

from entrepot.errors import AwsError


class InvalidEventPatternError(AwsError):
    """The event pattern is not valid; the message says where and why, in AWS's words."""

    code = "InvalidEventPatternException"
    status = 400


class ResourceNotFoundError(AwsError):
    """The rule or event bus does not exist."""

    code = "ResourceNotFoundException"
    status = 400


class ResourceAlreadyExistsError(AwsError):
    """An event bus, archive or replay of that name exists."""

    code = "ResourceAlreadyExistsException"
    status = 400


class LimitExceededError(AwsError):
    """One of the documented quotas would be exceeded."""

    code = "LimitExceededException"
    status = 400


class ValidationError(AwsError):
    """A parameter is missing, of the wrong form, or not supported here."""

    code = "ValidationException"
    status = 400


class IllegalStatusError(AwsError):
    """The replay is in a state in which this cannot be done."""

    code = "IllegalStatusException"
    status = 400


class PolicyLengthExceededError(AwsError):
    """The policy of the event bus would be too long."""

    code = "PolicyLengthExceededException"
    status = 400


class TargetError(AwsError):
    """An API destination could not be called, or answered with an error. Never leaves the room by the API.

    `dead_letter_code` is ERROR_CODE of a dead letter. `retry_after_ms` is how long the target asked to be left alone.
    """

    code = "TargetError"
    status = 400

    def __init__(self, message: str, *, dead_letter_code: str, retryable: bool, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.dead_letter_code = dead_letter_code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
