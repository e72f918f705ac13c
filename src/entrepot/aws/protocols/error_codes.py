"""The one place that spells common errors per service: the same refusal has other codes in other protocols.

Operations raise an error with the code AWS documents for them; what the wire and the gate raise (denied, not
authenticated, invalid, unavailable) is spelled here.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html,
https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html and DynamoDB's and Lambda's "Common Errors".
"""

from typing import Any

from entrepot.errors import AwsError

_S3: dict[str, tuple[str, int]] = {
    "AccessDeniedException": ("AccessDenied", 403),
    "MissingAuthenticationToken": ("AccessDenied", 403),
    "IncompleteSignature": ("AuthorizationHeaderMalformed", 400),
    "InvalidToken": ("InvalidToken", 400),
    "ExpiredToken": ("ExpiredToken", 400),
    "RequestEntityTooLargeException": ("EntityTooLarge", 400),
    "SerializationException": ("InvalidArgument", 400),
    "ValidationException": ("MalformedXML", 400),
    "UnknownOperationException": ("MethodNotAllowed", 405),
}

_JSON: dict[str, tuple[str, int]] = {
    "AccessDenied": ("AccessDeniedException", 400),
    "AccessDeniedException": ("AccessDeniedException", 400),
    "AuthorizationHeaderMalformed": ("InvalidSignatureException", 400),
    "MissingAuthenticationToken": ("MissingAuthenticationTokenException", 400),
    "IncompleteSignature": ("IncompleteSignatureException", 400),
    "InvalidAccessKeyId": ("UnrecognizedClientException", 400),
    "InvalidToken": ("UnrecognizedClientException", 400),
    "ExpiredToken": ("ExpiredTokenException", 400),
    "SignatureDoesNotMatch": ("InvalidSignatureException", 400),
    "RequestTimeTooSkewed": ("InvalidSignatureException", 400),
    "InvalidRequest": ("ValidationException", 400),
    "InternalError": ("InternalServerError", 500),
    "ServiceUnavailable": ("ServiceUnavailableException", 503),
    "NotImplemented": ("UnknownOperationException", 501),
    "UnknownOperationException": ("UnknownOperationException", 400),
    "IncompleteBody": ("SerializationException", 400),
    "RequestTimeout": ("RequestTimeoutException", 408),
}

_REST_JSON = _JSON | {
    name: (code, 403)
    for name, (code, _) in _JSON.items()
    if name
    in (
        "AccessDenied",
        "AccessDeniedException",
        "MissingAuthenticationToken",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidToken",
        "ExpiredToken",
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "AuthorizationHeaderMalformed",
    )
}
_REST_JSON["InternalError"] = ("ServiceException", 500)
_REST_JSON["UnknownOperationException"] = ("UnknownOperationException", 404)

_QUERY: dict[str, tuple[str, int]] = {
    "AccessDeniedException": ("AccessDenied", 403),
    "AuthorizationHeaderMalformed": ("SignatureDoesNotMatch", 403),
    "InvalidAccessKeyId": ("InvalidClientTokenId", 403),
    "InvalidToken": ("InvalidClientTokenId", 403),
    "ExpiredToken": ("ExpiredToken", 403),
    "RequestTimeTooSkewed": ("SignatureDoesNotMatch", 403),
    "ValidationException": ("ValidationError", 400),
    "SerializationException": ("MalformedInput", 400),
    "InvalidRequest": ("ValidationError", 400),
    "InternalError": ("InternalFailure", 500),
    "NotImplemented": ("InvalidAction", 501),
    "UnknownOperationException": ("InvalidAction", 400),
}

_BY_PROTOCOL = {
    "rest-xml": _S3,
    "json": _JSON,
    "smithy-rpc-v2-cbor": _JSON,
    "rest-json": _REST_JSON,
    "query": _QUERY,
}

_BY_SERVICE: dict[tuple[str, str], tuple[str, int]] = {
    ("logs", "ValidationException"): ("InvalidParameterException", 400),
    ("sns", "ValidationException"): ("InvalidParameter", 400),
    ("sns", "AccessDeniedException"): ("AuthorizationError", 403),
}


def spell(error: AwsError, service: str, protocol: str) -> tuple[str, int]:
    """Return the code and the HTTP status under which a service answers this error in a protocol."""
    known = _BY_SERVICE.get((service, error.code)) or _BY_PROTOCOL[protocol].get(error.code)
    if known is not None:
        return known
    if protocol in ("json", "smithy-rpc-v2-cbor") and 400 <= error.status < 500 and error.status != 413:
        return error.code, 400
    return error.code, error.status


def error_shape(model: Any, code: str) -> Any:
    """Return the model's shape of an error, or None.

    Services that once spoke the query protocol name it by its code there, others by the shape.
    """
    return model.shape_for_error_code(code) or next((one for one in model.error_shapes if one.name == code), None)
