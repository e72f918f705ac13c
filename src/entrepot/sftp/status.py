"""SFTP's status codes, and the one mapping from our errors to them.

Source: draft-ietf-secsh-filexfer-02 (version 3, which OpenSSH and AWS Transfer speak), section 7.
"""

from typing import Final

from entrepot.errors import AwsError, StorageError, StorageFullError
from entrepot.services.s3.errors import PreconditionFailedError

OK: Final = 0
EOF: Final = 1
NO_SUCH_FILE: Final = 2
PERMISSION_DENIED: Final = 3
FAILURE: Final = 4
BAD_MESSAGE: Final = 5
OP_UNSUPPORTED: Final = 8

NO_SPACE_TEXT: Final = "No space left on the server. Nothing of this file was kept; try again later."

_BY_HTTP_STATUS: Final = {
    401: PERMISSION_DENIED,
    403: PERMISSION_DENIED,
    404: NO_SUCH_FILE,
    501: OP_UNSUPPORTED,
}


class StatusError(Exception):
    """A request ends with this status. The text is for the person at the client: no keys or paths of the server."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def no_such_file() -> StatusError:
    """Return the status for a path where nothing is."""
    return StatusError(NO_SUCH_FILE, "No such file or directory")


def permission_denied(text: str = "Permission denied") -> StatusError:
    """Return the status for what IAM does not allow, or what never is."""
    return StatusError(PERMISSION_DENIED, text)


def failure(text: str) -> StatusError:
    """Return the general failure, with its reason."""
    return StatusError(FAILURE, text)


def bad_message(text: str) -> StatusError:
    """Return the status for a request that breaks the protocol."""
    return StatusError(BAD_MESSAGE, text)


def of_error(error: BaseException) -> StatusError:
    """Return the status for any error. What is nobody's business outside becomes a plain failure."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, StorageFullError):
        return failure(NO_SPACE_TEXT)
    if isinstance(error, StorageError):
        return failure("The server could not store or read this; nothing was acknowledged. Try again.")
    if isinstance(error, PreconditionFailedError):
        return failure("The file exists already")
    if isinstance(error, AwsError):
        code = _BY_HTTP_STATUS.get(error.status, FAILURE)
        text = {NO_SUCH_FILE: "No such file or directory", PERMISSION_DENIED: "Permission denied"}.get(code)
        return StatusError(code, text or error.message or error.code)
    return failure("The server failed; its log has the cause.")
