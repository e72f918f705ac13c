"""AWS's errors of Transfer. Source: https://docs.aws.amazon.com/transfer/latest/APIReference/CommonErrors.html"""

from entrepot.errors import AwsError


class InvalidRequestError(AwsError):
    """The request is malformed or breaks a rule."""

    code = "InvalidRequestException"
    status = 400


class ResourceNotFoundError(AwsError):
    """The server, user or key does not exist."""

    code = "ResourceNotFoundException"
    status = 400

    def __init__(self, message: str, resource: str, resource_type: str) -> None:
        super().__init__(message, Resource=resource, ResourceType=resource_type)


class ResourceExistsError(AwsError):
    """A resource of that name exists already."""

    code = "ResourceExistsException"
    status = 400

    def __init__(self, message: str, resource: str, resource_type: str) -> None:
        super().__init__(message, Resource=resource, ResourceType=resource_type)
