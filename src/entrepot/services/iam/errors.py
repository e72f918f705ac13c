"""The errors of IAM, as AWS documents them.

Source: https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html and each action's page.
"""

from entrepot.errors import AwsError


class NoSuchEntityError(AwsError):
    """The role, policy or user named does not exist."""

    code = "NoSuchEntity"
    status = 404


class EntityAlreadyExistsError(AwsError):
    """A role or policy of that name exists already."""

    code = "EntityAlreadyExists"
    status = 409


class MalformedPolicyDocumentError(AwsError):
    """The policy is not one that IAM accepts; the message has the JSON location and the reason."""

    code = "MalformedPolicyDocument"
    status = 400


class LimitExceededError(AwsError):
    """A quota of the account is used up."""

    code = "LimitExceeded"
    status = 409


class DeleteConflictError(AwsError):
    """What is to be deleted still has subordinate entities."""

    code = "DeleteConflict"
    status = 409


class InvalidInputError(AwsError):
    """A parameter has a value that IAM does not accept."""

    code = "InvalidInput"
    status = 400


class ValidationError(AwsError):
    """A parameter breaks a constraint of its type (length, pattern)."""

    code = "ValidationError"
    status = 400
