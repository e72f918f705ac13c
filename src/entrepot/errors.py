"""The roots of the error trees.

`AwsError` is what a caller of an AWS operation sees: each service's `errors.py` derives one class per AWS error from
it, with the code and HTTP status that AWS documents. `EntrepotError` is what an operator sees: a message that says what
happened, to what, why, and what to do.
"""

from typing import ClassVar


class AwsError(Exception):
    """An error with the code AWS documents, serialised by `aws/` and mapped to an SFTP status by `sftp/`.

    `code` is AWS's error code, `status` the HTTP status, `members` further members of the error's shape
    (such as `BucketName`), in AWS's spelling. `query_code` is the code that a service which once spoke the query
    protocol (SQS) had there, where it was another.
    """

    code: ClassVar[str] = "InternalError"
    status: ClassVar[int] = 500
    query_code: ClassVar[str | None] = None

    def __init__(self, message: str = "", **members: object) -> None:
        super().__init__(message)
        self.message = message
        self.members = members


class AccessDeniedError(AwsError):
    """The principal may not perform the action on the resource."""

    code = "AccessDeniedException"
    status = 403


class InternalError(AwsError):
    """Something failed that the caller cannot mend; the server's log has the cause."""

    code = "InternalError"
    status = 500


class ServiceUnavailableError(AwsError):
    """The server cannot take this now (full disk, too much work in flight); the caller may try again."""

    code = "ServiceUnavailable"
    status = 503


class EntrepotError(Exception):
    """An error for the operator. Its text is shown as it is."""


class StorageError(EntrepotError):
    """Content or a transaction could not be made durable: I/O error, corruption, or a missing file."""


class StorageFullError(StorageError):
    """The file system has no room left. Nothing was acknowledged; writing works again when there is room."""
