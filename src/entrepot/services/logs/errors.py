"""The errors of CloudWatch Logs.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/CommonErrors.html
"""

from entrepot.errors import AwsError


class InvalidParameterError(AwsError):
    """A parameter is outside what AWS documents."""

    code = "InvalidParameterException"
    status = 400


class ResourceNotFoundError(AwsError):
    """The log group or log stream does not exist."""

    code = "ResourceNotFoundException"
    status = 400


class ResourceAlreadyExistsError(AwsError):
    """The log group or log stream exists already."""

    code = "ResourceAlreadyExistsException"
    status = 400


class LogsUnavailableError(AwsError):
    """The store of log events cannot be written now; the caller may try again."""

    code = "ServiceUnavailableException"
    status = 503
