"""The errors of Entrepot's own API about files."""

from entrepot.errors import AwsError


class ResourceNotFoundError(AwsError):
    """No file has this id, beginning of an id, or key."""

    code = "ResourceNotFoundException"
    status = 404


class ValidationError(AwsError):
    """A parameter is missing, malformed or ambiguous."""

    code = "ValidationException"
    status = 400
