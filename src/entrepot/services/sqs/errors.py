"""The errors of SQS. `query_code` is the code of the former query protocol, which SDKs still show.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
"""

from entrepot.errors import AwsError

_PREFIX = "AWS.SimpleQueueService."


class QueueDoesNotExist(AwsError):
    """There is no queue of that name."""

    code = "QueueDoesNotExist"
    status = 400
    query_code = _PREFIX + "NonExistentQueue"

    def __init__(self) -> None:
        super().__init__("The specified queue does not exist.")


class QueueNameExists(AwsError):
    """A queue of that name exists, with other attributes."""

    code = "QueueNameExists"
    status = 400
    query_code = "QueueAlreadyExists"


class InvalidAttributeName(AwsError):
    """No queue has this attribute, or it cannot be set, or is not supported here."""

    code = "InvalidAttributeName"
    status = 400


class InvalidAttributeValue(AwsError):
    """An attribute of a queue has a value that it cannot have."""

    code = "InvalidAttributeValue"
    status = 400


class InvalidParameterValue(AwsError):
    """A parameter has a value that it cannot have."""

    code = "InvalidParameterValueException"
    status = 400
    query_code = "InvalidParameterValue"


class MissingParameter(AwsError):
    """A parameter that this kind of queue needs is missing."""

    code = "MissingRequiredParameterException"
    status = 400
    query_code = "MissingParameter"


class InvalidMessageContents(AwsError):
    """The body has characters that a message cannot have."""

    code = "InvalidMessageContents"
    status = 400


class ReceiptHandleIsInvalid(AwsError):
    """The receipt handle was not made here, or not for this queue."""

    code = "ReceiptHandleIsInvalid"
    status = 400


class MessageNotInflight(AwsError):
    """The message is not being received by anybody."""

    code = "MessageNotInflight"
    status = 400
    query_code = _PREFIX + "MessageNotInflight"


class OverLimit(AwsError):
    """Too many messages are in flight, or too many callers wait."""

    code = "OverLimit"
    status = 403
    query_code = "OverLimit"


class PurgeQueueInProgress(AwsError):
    """The queue was purged less than a minute ago."""

    code = "PurgeQueueInProgress"
    status = 403
    query_code = _PREFIX + "PurgeQueueInProgress"


class EmptyBatchRequest(AwsError):
    """A batch has no entries."""

    code = "EmptyBatchRequest"
    status = 400
    query_code = _PREFIX + "EmptyBatchRequest"


class TooManyEntriesInBatchRequest(AwsError):
    """A batch has more than ten entries."""

    code = "TooManyEntriesInBatchRequest"
    status = 400
    query_code = _PREFIX + "TooManyEntriesInBatchRequest"


class BatchEntryIdsNotDistinct(AwsError):
    """Two entries of a batch have the same id."""

    code = "BatchEntryIdsNotDistinct"
    status = 400
    query_code = _PREFIX + "BatchEntryIdsNotDistinct"


class InvalidBatchEntryId(AwsError):
    """An entry's id is not what an id may be."""

    code = "InvalidBatchEntryId"
    status = 400
    query_code = _PREFIX + "InvalidBatchEntryId"


class BatchRequestTooLong(AwsError):
    """The messages of a batch are too large together."""

    code = "BatchRequestTooLong"
    status = 400
    query_code = _PREFIX + "BatchRequestTooLong"
