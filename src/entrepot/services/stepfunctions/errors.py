"""The errors of Step Functions' API, one class per AWS error.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

from typing import ClassVar

from entrepot.errors import AwsError


class StateMachineDoesNotExist(AwsError):
    """There is no state machine with this ARN."""

    code = "StateMachineDoesNotExist"
    status: ClassVar[int] = 400


class StateMachineAlreadyExists(AwsError):
    """A state machine of this name exists with another definition or configuration."""

    code = "StateMachineAlreadyExists"
    status: ClassVar[int] = 400


class StateMachineDeleting(AwsError):
    """The state machine is being deleted."""

    code = "StateMachineDeleting"
    status: ClassVar[int] = 400


class ConflictException(AwsError):
    """The resource was changed meanwhile, is in use, or exists with other values."""

    code = "ConflictException"
    status: ClassVar[int] = 400


class ServiceQuotaExceededException(AwsError):
    """There are too many versions or aliases of a state machine."""

    code = "ServiceQuotaExceededException"
    status: ClassVar[int] = 402


class StateMachineLimitExceeded(AwsError):
    """There are too many state machines."""

    code = "StateMachineLimitExceeded"
    status: ClassVar[int] = 400


class StateMachineTypeNotSupported(AwsError):
    """The operation is not for state machines of this type."""

    code = "StateMachineTypeNotSupported"
    status: ClassVar[int] = 400


class ActivityDoesNotExist(AwsError):
    """There is no activity with this ARN."""

    code = "ActivityDoesNotExist"
    status: ClassVar[int] = 400


class ActivityLimitExceeded(AwsError):
    """There are too many activities."""

    code = "ActivityLimitExceeded"
    status: ClassVar[int] = 400


class ActivityWorkerLimitExceeded(AwsError):
    """Too many workers wait for tasks of the activity."""

    code = "ActivityWorkerLimitExceeded"
    status: ClassVar[int] = 400


class ExecutionDoesNotExist(AwsError):
    """There is no execution with this ARN."""

    code = "ExecutionDoesNotExist"
    status: ClassVar[int] = 400


class ExecutionAlreadyExists(AwsError):
    """An execution of this name exists with another input, or has ended."""

    code = "ExecutionAlreadyExists"
    status: ClassVar[int] = 400


class ExecutionNotRedrivable(AwsError):
    """The execution cannot be redriven: it runs, succeeded, or is too old."""

    code = "ExecutionNotRedrivable"
    status: ClassVar[int] = 400


class InvalidArn(AwsError):
    """The ARN is malformed or names another kind of resource."""

    code = "InvalidArn"
    status: ClassVar[int] = 400


class InvalidDefinitionError(AwsError):
    """The definition is not a valid state machine."""

    code = "InvalidDefinition"
    status: ClassVar[int] = 400


class InvalidEncryptionConfiguration(AwsError):
    """The encryption configuration names a key that cannot be used."""

    code = "InvalidEncryptionConfiguration"
    status: ClassVar[int] = 400


class InvalidExecutionInput(AwsError):
    """The input is not JSON."""

    code = "InvalidExecutionInput"
    status: ClassVar[int] = 400


class InvalidLoggingConfiguration(AwsError):
    """The logging configuration names no usable log group, or an unknown level."""

    code = "InvalidLoggingConfiguration"
    status: ClassVar[int] = 400


class InvalidName(AwsError):
    """The name has characters that are not allowed, or a wrong length."""

    code = "InvalidName"
    status: ClassVar[int] = 400


class InvalidToken(AwsError):
    """The task token is malformed, or the pagination token was not made by this operation."""

    code = "InvalidToken"
    status: ClassVar[int] = 400


class InvalidOutput(AwsError):
    """The output of a task is not JSON, or too large."""

    code = "InvalidOutput"
    status: ClassVar[int] = 400


class TaskTimedOut(AwsError):
    """The task does not wait any more: it ended, timed out, or its execution ended."""

    code = "TaskTimedOut"
    status: ClassVar[int] = 400


class MissingRequiredParameter(AwsError):
    """None of the parameters was given of which one is required."""

    code = "MissingRequiredParameter"
    status: ClassVar[int] = 400


class ResourceNotFound(AwsError):
    """The resource to tag does not exist."""

    code = "ResourceNotFound"
    status: ClassVar[int] = 400


class TooManyTags(AwsError):
    """More than 50 tags."""

    code = "TooManyTags"
    status: ClassVar[int] = 400


class ValidationException(AwsError):
    """A parameter's value is not one that is supported."""

    code = "ValidationException"
    status: ClassVar[int] = 400
