"""Signature Version 4: who signed this request, and is it unchanged.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html and, for S3,
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. Nothing here reads the body: the caller
passes its hash, or verifies it afterwards (`payload.py`) against what was signed.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from botocore.utils import normalize_url_path

from entrepot.aws.errors import (
    AuthenticationError,
    ExpiredTokenError,
    IncompleteSignatureError,
    InvalidTokenError,
    MissingAuthenticationTokenError,
    PresignedExpiredError,
    RequestTimeTooSkewedError,
    SignatureDoesNotMatchError,
    UnknownAccessKeyError,
)
from entrepot.aws.http import HttpRequest
from entrepot.credentials import Credentials, FindCredentials

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

MAX_SKEW_MS = 15 * 60 * 1000
"""How far a request's time may be from the server's."""

MAX_PRESIGNED_S = 7 * 24 * 3600
"""The longest life of a presigned URL."""

SIGNING_KEYS = 1024
"""How many derived signing keys are remembered (one per secret, day, region and service)."""

_SAFE_PATH = re.compile(r"[A-Za-z0-9_.~/-]*\Z")
_AMZ_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_SPACES = re.compile(r"[ \t]+")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says about its signature; nothing of it is believed yet."""

    access_key_id: str
    date: str
    region: str
    service: str
    amz_date: str
    signed_headers: tuple[str, ...]
    signature: str
    session_token: str | None
    expires_s: int | None
    """Seconds of life of a presigned URL; None for a signed header."""

    @property
    def presigned(self) -> bool:
        """Whether the signature is in the query."""
        return self.expires_s is not None

    @property
    def scope(self) -> str:
        """The credential scope without the key: `20261123/us-east-1/s3/aws4_request`."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def read_claim(request: HttpRequest) -> Claim:
    """Return what the request claims; raise MissingAuthenticationTokenError or IncompleteSignatureError."""
    authorization = request.header("authorization")
    if authorization is not None:
        return _header_claim(request, authorization)
    if "X-Amz-Algorithm=" in request.query or "X-Amz-Signature=" in request.query:
        return _query_claim(request)
    raise MissingAuthenticationTokenError("Missing Authentication Token")


def _header_claim(request: HttpRequest, authorization: str) -> Claim:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise IncompleteSignatureError(f"Unsupported authorization type {algorithm[:40]!r}: sign with {ALGORITHM}.")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in fields:
            raise IncompleteSignatureError("Authorization header is not a list of distinct name=value pairs.")
        fields[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise IncompleteSignatureError(f"Authorization header requires '{name}' parameter.")
    amz_date = request.header("x-amz-date")
    if amz_date is None:
        raise IncompleteSignatureError("Authorization header requires existence of an 'X-Amz-Date' header.")
    return _claim(
        fields["Credential"],
        amz_date,
        fields["SignedHeaders"],
        fields["Signature"],
        request.header("x-amz-security-token"),
        None,
    )


def _query_claim(request: HttpRequest) -> Claim:
    fields: dict[str, str] = {}
    for name, value in query_pairs(request.query):
        if name.startswith("X-Amz-"):
            if name in fields:
                raise IncompleteSignatureError(f"The query parameter {name} must not be sent more than once.")
            fields[name] = value
    for name in ("X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature"):
        if not fields.get(name):
            raise IncompleteSignatureError(f"AWS query-string parameters must include '{name}'.")
    if fields.get("X-Amz-Algorithm") != ALGORITHM:
        raise IncompleteSignatureError(f"X-Amz-Algorithm must be {ALGORITHM}.")
    expires = fields.get("X-Amz-Expires", "900")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 6 and 1 <= int(expires) <= MAX_PRESIGNED_S):
        raise IncompleteSignatureError(f"X-Amz-Expires must be a number from 1 to {MAX_PRESIGNED_S} (seconds).")
    return _claim(
        fields["X-Amz-Credential"],
        fields["X-Amz-Date"],
        fields["X-Amz-SignedHeaders"],
        fields["X-Amz-Signature"],
        fields.get("X-Amz-Security-Token"),
        int(expires),
    )


def _claim(
    credential: str, amz_date: str, signed_headers: str, signature: str, token: str | None, expires_s: int | None
) -> Claim:
    parts = credential.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request" or not all(parts):
        raise IncompleteSignatureError("Credential must be <access key>/<date>/<region>/<service>/aws4_request.")
    if not _AMZ_DATE.match(amz_date):
        raise IncompleteSignatureError("Date must be in ISO-8601 'basic format': YYYYMMDD'T'HHMMSS'Z'.")
    if parts[1] != amz_date[:8]:
        raise IncompleteSignatureError(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date."
        )
    if not _HEX64.match(signature):
        raise IncompleteSignatureError("Signature must be 64 lower-case hexadecimal digits.")
    names = tuple(signed_headers.split(";"))
    if "host" not in names:
        raise IncompleteSignatureError("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    if list(names) != sorted(set(names)) or any(name != name.lower() for name in names):
        raise IncompleteSignatureError("SignedHeaders must be distinct, lower-case and sorted.")
    return Claim(parts[0], parts[1], parts[2], parts[3], amz_date, names, signature, token, expires_s)


def find_signer(claim: Claim, find_credentials: FindCredentials, now_ms: int) -> Credentials:
    """Return the live credentials that the claim names; raise when there are none, or the time is off.

    The signature itself is still to be verified.
    """
    _check_time(claim, now_ms)
    credentials = find_credentials(claim.access_key_id, claim.session_token)
    if credentials is None:
        raise UnknownAccessKeyError("The AWS Access Key Id you provided does not exist in our records.")
    expected = credentials.session_token or ""
    if not hmac.compare_digest(expected.encode(), (claim.session_token or "").encode("utf-8", "replace")):
        raise InvalidTokenError("The provided token is malformed or otherwise invalid.")
    if credentials.expires_at_ms is not None and credentials.expires_at_ms <= now_ms:
        raise ExpiredTokenError("The provided token has expired.")
    return credentials


def _check_time(claim: Claim, now_ms: int) -> None:
    age_ms = now_ms - _signed_at_ms(claim.amz_date)
    if claim.expires_s is None:
        if abs(age_ms) > MAX_SKEW_MS:
            raise RequestTimeTooSkewedError(
                "The difference between the request time and the current time is too large.",
                RequestTime=claim.amz_date,
                ServerTime=datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                MaxAllowedSkewMilliseconds=str(MAX_SKEW_MS),
            )
    elif age_ms < -MAX_SKEW_MS:
        raise PresignedExpiredError("Request is not yet valid")
    elif age_ms > claim.expires_s * 1000:
        raise PresignedExpiredError("Request has expired", Expires=str(claim.expires_s), ServerTime=str(now_ms))


def _signed_at_ms(amz_date: str) -> int:
    """Return when `YYYYMMDDTHHMMSSZ` is (strptime would take longer than all the rest of the verification)."""
    digits = amz_date[:8] + amz_date[9:15]
    try:
        year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:8])
        hour, minute, second = int(digits[8:10]), int(digits[10:12]), int(digits[12:14])
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        raise IncompleteSignatureError("X-Amz-Date is not a date.") from None


def verify(request: HttpRequest, claim: Claim, credentials: Credentials, payload_hash: str) -> bytes:
    """Verify the signature over the head of the request and `payload_hash`; return the signing key.

    Raises SignatureDoesNotMatchError, and AuthenticationError when a header that must be signed is not.
    """
    for name in request.headers:
        if name.startswith("x-amz-") and name not in claim.signed_headers:
            raise AuthenticationError(
                "There were headers present in the request which were not signed", HeadersNotSigned=name
            )
    key = signing_key(credentials.secret_access_key, claim.date, claim.region, claim.service)
    text = string_to_sign(claim, canonical_request(request, claim, payload_hash))
    if not hmac.compare_digest(hmac.digest(key, text, "sha256").hex(), claim.signature):
        raise SignatureDoesNotMatchError(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
        )
    return key


@lru_cache(maxsize=SIGNING_KEYS)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the key that signs for one day, region and service."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode("latin-1", "replace"), "sha256")
    return key


def string_to_sign(claim: Claim, canonical: bytes) -> bytes:
    """Return what the signing key signs."""
    head = f"{ALGORITHM}\n{claim.amz_date}\n{claim.scope}\n".encode("latin-1", "replace")
    return head + hashlib.sha256(canonical).hexdigest().encode()


def canonical_request(request: HttpRequest, claim: Claim, payload_hash: str) -> bytes:
    """Return the canonical request, as the client had to build it."""
    headers = request.headers
    lines = [
        request.method,
        _canonical_path(request.path, single=claim.service == "s3"),
        canonical_query(request.query, presigned=claim.presigned),
    ]
    for name in claim.signed_headers:
        value = headers.get(name)
        if value is None:
            raise SignatureDoesNotMatchError(f"The signed header {name[:100]!r} is not in the request.")
        lines.append(f"{name}:{_fold(value)}")
    lines += ["", ";".join(claim.signed_headers), payload_hash]
    return "\n".join(lines).encode("latin-1", "replace")


def _fold(value: str) -> str:
    value = value.strip(" \t")
    return _SPACES.sub(" ", value) if "  " in value or "\t" in value else value


def _canonical_path(path: str, *, single: bool) -> str:
    """S3 encodes each byte once and keeps the path; the others normalise it and encode what is encoded again."""
    if single:
        return path if _SAFE_PATH.match(path) else quote(unquote_to_bytes(path), safe="/~")
    return quote(normalize_url_path(path), safe="/~", encoding="latin-1")


def canonical_query(query: str, *, presigned: bool) -> str:
    """Return the query with its parameters decoded, encoded in the one right way, and sorted by bytes."""
    if not query:
        return ""
    pairs = []
    for part in query.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        encoded = (_encode_query(name), _encode_query(value))
        if not (presigned and encoded[0] == "X-Amz-Signature"):
            pairs.append(encoded)
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encode_query(text: str) -> str:
    if _SAFE_PATH.match(text) and "/" not in text:
        return text
    return quote(unquote_to_bytes(text.replace("+", " ")), safe="~")


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Return the decoded (name, value) pairs of a query string; raise IncompleteSignatureError unless it is UTF-8."""
    pairs = []
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((_decode(name), _decode(value)))
    return pairs


def _decode(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise IncompleteSignatureError("The query string is not UTF-8.") from None
