"""The errors of Lambda.

Source: https://docs.aws.amazon.com/lambda/latest/api/CommonErrors.html
"""

from entrepot.errors import AwsError


class ResourceNotFoundError(AwsError):
    """The function (or version) does not exist."""

    code = "ResourceNotFoundException"
    status = 404


class ResourceConflictError(AwsError):
    """The function exists already, or is being changed."""

    code = "ResourceConflictException"
    status = 409


class InvalidParameterValueError(AwsError):
    """A parameter is outside what AWS documents, or asks for something that is not supported here."""

    code = "InvalidParameterValueException"
    status = 400


class InvalidRequestContentError(AwsError):
    """The payload is not JSON."""

    code = "InvalidRequestContentException"
    status = 400


class RequestTooLargeError(AwsError):
    """The payload is larger than Lambda takes."""

    code = "RequestTooLargeException"
    status = 413


class TooManyRequestsError(AwsError):
    """No worker became free in time, or the function's reserved concurrency is used up."""

    code = "TooManyRequestsException"
    status = 429


class PreconditionFailedError(AwsError):
    """The RevisionId given is not the function's."""

    code = "PreconditionFailedException"
    status = 412


class ValidationError(AwsError):
    """A parameter is malformed: it breaks a pattern, a length or a range of the service model."""

    code = "ValidationException"
    status = 400


class ProvisionedConcurrencyConfigNotFoundError(AwsError):
    """The version or alias has no provisioned concurrency."""

    code = "ProvisionedConcurrencyConfigNotFoundException"
    status = 404


class PolicyLengthExceededError(AwsError):
    """The resource policy would be longer than AWS takes."""

    code = "PolicyLengthExceededException"
    status = 400


class ResourceInUseError(AwsError):
    """The event source mapping is being changed."""

    code = "ResourceInUseException"
    status = 400


class LambdaServiceError(AwsError):
    """The server could not run the function: it is stopping, or a process could not be started."""

    code = "ServiceException"
    status = 500
