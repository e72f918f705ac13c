"""The errors of CloudWatch.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html
"""

from entrepot.errors import AwsError


class InvalidParameterValueError(AwsError):
    """A parameter has a value that AWS does not take."""

    code = "InvalidParameterValueException"
    query_code = "InvalidParameterValue"
    status = 400


class InvalidParameterCombinationError(AwsError):
    """Parameters that exclude each other came together."""

    code = "InvalidParameterCombinationException"
    query_code = "InvalidParameterCombination"
    status = 400


class MissingRequiredParameterError(AwsError):
    """A parameter is missing that the others make necessary."""

    code = "MissingRequiredParameterException"
    query_code = "MissingParameter"
    status = 400


class ValidationError(AwsError):
    """A request of alarms or of metric data is not consistent."""

    code = "ValidationError"
    status = 400


class InvalidNextTokenError(AwsError):
    """The token for the next page is none that was given out."""

    code = "InvalidNextToken"
    status = 400


class LimitExceededError(AwsError):
    """There are as many alarms as there may be."""

    code = "LimitExceededFault"
    query_code = "LimitExceeded"
    status = 400


class ResourceNotFoundError(AwsError):
    """The alarm does not exist."""

    code = "ResourceNotFound"
    status = 404


class TaggedResourceNotFoundError(AwsError):
    """The resource whose tags are asked for does not exist."""

    code = "ResourceNotFoundException"
    status = 404


class InvalidFormatError(AwsError):
    """Data was not given as JSON."""

    code = "InvalidFormatFault"
    query_code = "InvalidFormat"
    status = 400


class DashboardNotFoundError(AwsError):
    """The dashboard does not exist."""

    code = "DashboardNotFoundError"
    query_code = "ResourceNotFound"
    status = 404


class DashboardInvalidInputError(AwsError):
    """The body of a dashboard is not valid; its members name the places."""

    code = "DashboardInvalidInputError"
    query_code = "InvalidParameterInput"
    status = 400
