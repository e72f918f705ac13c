"""The errors of SNS. Source: https://docs.aws.amazon.com/sns/latest/api/CommonErrors.html and each operation's page."""

from entrepot.errors import AwsError


class InvalidParameter(AwsError):
    """A parameter breaks a rule; the message says which, in AWS's words: `Invalid parameter: Subject …`."""

    code = "InvalidParameter"
    status = 400


class ParameterValueInvalid(AwsError):
    """A message attribute is malformed."""

    code = "ParameterValueInvalid"
    status = 400


class NotFound(AwsError):
    """The topic or subscription does not exist."""

    code = "NotFound"
    status = 404


class AuthorizationError(AwsError):
    """The caller may not do this, or an unsigned request needs a signature."""

    code = "AuthorizationError"
    status = 403


class ResourceNotFound(AwsError):
    """What is to be tagged does not exist."""

    code = "ResourceNotFound"
    status = 404


class TopicLimitExceeded(AwsError):
    """Too many topics."""

    code = "TopicLimitExceeded"
    status = 403


class SubscriptionLimitExceeded(AwsError):
    """Too many subscriptions of one topic."""

    code = "SubscriptionLimitExceeded"
    status = 403


class TagLimitExceeded(AwsError):
    """More than 50 tags."""

    code = "TagLimitExceeded"
    status = 400


class EmptyBatchRequest(AwsError):
    """A batch without entries."""

    code = "EmptyBatchRequest"
    status = 400


class TooManyEntriesInBatchRequest(AwsError):
    """A batch of more than ten."""

    code = "TooManyEntriesInBatchRequest"
    status = 400


class BatchEntryIdsNotDistinct(AwsError):
    """Two entries of a batch with the same Id."""

    code = "BatchEntryIdsNotDistinct"
    status = 400


class BatchRequestTooLong(AwsError):
    """The entries of a batch together are longer than one message may be."""

    code = "BatchRequestTooLong"
    status = 400


class InvalidBatchEntryId(AwsError):
    """An entry's Id is malformed."""

    code = "InvalidBatchEntryId"
    status = 400
