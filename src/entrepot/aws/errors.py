"""The wire's own AWS errors: what can be wrong with a request before an operation sees it.

Codes are S3's or the common ones (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html,
https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html); `protocols/errors.py` spells them per service.
"""

from entrepot.errors import AwsError


class BadRequestError(AwsError):
    """The request line, a header or the path is not what HTTP allows here."""

    code = "InvalidRequest"
    status = 400


class DuplicateHeaderError(BadRequestError):
    """A header that must be there once came twice."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The header {name} must not be sent more than once.")


class IncompleteBodyError(AwsError):
    """The body ended before its announced length, or its framing is broken."""

    code = "IncompleteBody"
    status = 400


class RequestTimeoutError(AwsError):
    """The client stopped sending."""

    code = "RequestTimeout"
    status = 400

    def __init__(self) -> None:
        super().__init__(
            "Your socket connection to the server was not read from or written to within the timeout period. "
            "Idle connections will be closed."
        )


class RequestBodyTooLargeError(AwsError):
    """The body is larger than the operation takes."""

    code = "RequestEntityTooLargeException"
    status = 413

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"Request must be smaller than {max_bytes} bytes for this operation.")


class SerializationError(AwsError):
    """The body or a parameter cannot be read as its type."""

    code = "SerializationException"
    status = 400


class MalformedXmlError(AwsError):
    """The XML is not well formed or not what the operation takes."""

    code = "MalformedXML"
    status = 400

    def __init__(self, why: str = "") -> None:
        text = "The XML you provided was not well-formed or did not validate against our published schema"
        super().__init__(f"{text}: {why}" if why else text)


class ValidationError(AwsError):
    """A parameter breaks a constraint of the operation's model."""

    code = "ValidationException"
    status = 400


class NotServedError(AwsError):
    """The operation, or the service, is not served here."""

    code = "NotImplemented"
    status = 501


class UnknownRouteError(AwsError):
    """No operation of the service has this method, path, target or action."""

    code = "UnknownOperationException"
    status = 404


class MethodNotAllowedError(AwsError):
    """S3 knows the resource, not the method on it."""

    code = "MethodNotAllowed"
    status = 405


class AuthenticationError(AwsError):
    """Why a caller was not believed. Every subclass denies."""

    code = "AccessDenied"
    status = 403


class MissingAuthenticationTokenError(AuthenticationError):
    """Nothing signed the request."""

    code = "MissingAuthenticationToken"


class IncompleteSignatureError(AuthenticationError):
    """A part of the signature is missing or malformed."""

    code = "IncompleteSignature"
    status = 400


class UnknownAccessKeyError(AuthenticationError):
    """No such access key."""

    code = "InvalidAccessKeyId"


class InvalidTokenError(AuthenticationError):
    """The session token is not the key's."""

    code = "InvalidToken"


class ExpiredTokenError(AuthenticationError):
    """The temporary credentials ran out."""

    code = "ExpiredToken"


class SignatureDoesNotMatchError(AuthenticationError):
    """The signature is not that of the request."""

    code = "SignatureDoesNotMatch"


class RequestTimeTooSkewedError(AuthenticationError):
    """The request's time is too far from the server's, or a presigned URL ran out."""

    code = "RequestTimeTooSkewed"


class PresignedExpiredError(AuthenticationError):
    """A presigned URL ran out."""

    code = "AccessDenied"


class WrongRegionError(AuthenticationError):
    """The credential scope names another region."""

    code = "AuthorizationHeaderMalformed"
    status = 400


class ContentHashMismatchError(AwsError):
    """The body's SHA-256 is not the one that was signed."""

    code = "XAmzContentSHA256Mismatch"
    status = 400


class BadDigestError(AwsError):
    """A checksum of the body is not the one that was sent."""

    code = "BadDigest"
    status = 400
