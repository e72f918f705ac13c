"""The errors of Entrepot's own API about the console's users."""

from entrepot.errors import AwsError


class ResourceNotFoundError(AwsError):
    """The console has no user of this name."""

    code = "ResourceNotFoundException"
    status = 404


class ValidationError(AwsError):
    """A parameter is missing or malformed."""

    code = "ValidationException"
    status = 400


class LimitExceededError(AwsError):
    """There are as many users as there may be."""

    code = "LimitExceededException"
    status = 400
