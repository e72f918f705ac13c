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


class LimitExceededError(AwsError):
    """There are as many as AWS allows."""

    code = "LimitExceededException"
    status = 400


class SessionLimitError(LimitExceededError):
    """There are as many live tail sessions as AWS allows."""


class InvalidOperationError(AwsError):
    """The operation makes no sense here."""

    code = "InvalidOperationException"
    status = 400


class TooManyTagsError(AwsError):
    """A resource would have more tags than AWS allows."""

    code = "TooManyTagsException"
    status = 400
