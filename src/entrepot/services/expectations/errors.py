"""The errors of Entrepot's own API about expectations."""

from entrepot.errors import AwsError


class ResourceNotFoundError(AwsError):
    """No expectation has this name."""

    code = "ResourceNotFoundException"
    status = 404


class ValidationError(AwsError):
    """A parameter is missing or malformed."""

    code = "ValidationException"
    status = 400


class LimitExceededError(AwsError):
    """There are as many expectations as there may be."""

    code = "LimitExceededException"
    status = 400
