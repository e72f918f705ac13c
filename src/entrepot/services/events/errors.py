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
