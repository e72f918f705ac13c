"""Signature Version 4 against botocore's own signers: what they sign is accepted, any change of it is refused."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from entrepot import clock
from entrepot.aws import errors
from entrepot.aws.http import HttpRequest, RequestBody
from entrepot.aws.payload import content_hash
from entrepot.aws.signature import Claim, find_signer, read_claim, signing_key, verify
from entrepot.credentials import Credentials
from entrepot.operations import Principal

PRINCIPAL = Principal("arn:aws:iam::000000000000:user/test", "user", "test")
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY = Credentials("AKIDEXAMPLE", SECRET, None, PRINCIPAL)
HOST = "127.0.0.1:4566"

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
header_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
spaced_values = st.lists(header_values, min_size=1, max_size=3).map("   ".join)
headers = st.dictionaries(st.sampled_from(["x-amz-meta-a", "x-amz-meta-b", "content-type", "range"]), spaced_values)
queries = st.lists(
    st.tuples(texts, st.text(st.characters(codec="utf-8"), max_size=8)), max_size=4, unique_by=lambda p: p[0]
)


async def _no_body() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def received(request: AWSRequest) -> HttpRequest:
    """What the endpoint gets of a request that botocore signed."""
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    head = {name.lower(): _text(value) for name, value in prepared.headers.items()}
    head.setdefault("host", HOST)
    return HttpRequest(prepared.method, parts.path or "/", parts.query, head, RequestBody(_no_body))


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def signed(
    signer: type[Any], service: str, path: str, query: list[tuple[str, str]], head: Mapping[str, str], **options: Any
) -> HttpRequest:
    joined = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
    url = f"http://{HOST}{quote(path, safe='/~')}" + (f"?{joined}" if joined else "")
    request = AWSRequest("PUT", url, headers=dict(head), data=None if signer is S3SigV4QueryAuth else b"content")
    request.context["client_config"] = None
    request.context.update(options.pop("context", {}))
    credentials = BotocoreCredentials(KEY.access_key_id, SECRET, options.pop("token", None))
    signer(credentials, service, "us-east-1", **options).add_auth(request)
    return received(request)


def check(request: HttpRequest, credentials: Credentials = KEY, now_ms: int | None = None) -> Claim:
    claim = read_claim(request)
    signer = find_signer(
        claim, lambda key_id, token: credentials if key_id == KEY.access_key_id else None, now_ms or clock.now_ms()
    )
    if claim.service == "s3":
        hash_text = content_hash(request, claim)
    else:
        hash_text = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # of b"content"
    verify(request, claim, signer, hash_text)
    return claim


@given(path=texts, query=queries, head=headers)
@example(path="a//b/../c/./d e+f%20g~ä", query=[("a b", "c+d"), ("x", "")], head={"x-amz-meta-a": "a   b"})
def test_a_header_signed_for_s3_is_accepted(path: str, query: list[tuple[str, str]], head: dict[str, str]) -> None:
    check(signed(S3SigV4Auth, "s3", f"/bucket/{path}", query, head))


@given(path=texts, query=queries, head=headers)
@example(path="functions/a:b/../x//y", query=[("q", "1")], head={})
def test_a_header_signed_for_another_service_is_accepted(
    path: str, query: list[tuple[str, str]], head: dict[str, str]
) -> None:
    check(signed(SigV4Auth, "lambda", f"/2015-03-31/{path}", query, head))


@given(path=texts, query=queries, head=headers)
def test_a_presigned_query_is_accepted(path: str, query: list[tuple[str, str]], head: dict[str, str]) -> None:
    check(signed(S3SigV4QueryAuth, "s3", f"/bucket/{path}", query, head, expires=60))


def test_a_presigned_query_of_another_service_is_accepted() -> None:
    request = AWSRequest("GET", f"http://{HOST}/?Action=GetCallerIdentity&Version=2011-06-15")
    SigV4QueryAuth(BotocoreCredentials(KEY.access_key_id, SECRET), "sts", "us-east-1", expires=60).add_auth(request)
    got = received(request)
    claim = read_claim(got)
    verify(got, claim, KEY, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def _mutations(request: HttpRequest) -> list[tuple[str, int]]:
    places = [("method", 0)]
    places += [("path", index) for index in range(len(request.path))]
    places += [("query", index) for index in range(len(request.query))]
    for name, value in request.headers.items():
        if name not in ("user-agent", "content-length"):
            places += [(name, index) for index in range(len(value))]
    return places


@settings(max_examples=300)
@given(data=st.data())
@pytest.mark.parametrize("signer", [S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth])
def test_any_change_of_one_byte_is_refused(signer: type[Any], data: st.DataObject) -> None:
    service = "lambda" if signer is SigV4Auth else "s3"
    head = {"x-amz-meta-a": "one", "content-type": "text/plain"}
    request = signed(signer, service, "/bucket/some/key", [("versionId", "12")], head)
    check(request)
    place, index = data.draw(st.sampled_from(_mutations(request)))
    new = data.draw(st.characters(min_codepoint=0x21, max_codepoint=0x7E))
    old = request.method if place == "method" else _get(request, place)
    assume(old[index] != new)
    if place in ("path", "query"):
        # `&` more or less at the ends of pairs, and letters of an escape in the other case, name the same request.
        assume(new not in "&" and old[index] not in "&")
    _put(request, place, old[:index] + new + old[index + 1 :])
    assume(_get(request, place).upper() != old.upper() or place == "method" or "%" not in old)
    with pytest.raises((errors.AuthenticationError, errors.BadRequestError)):
        check(request)


def _get(request: HttpRequest, place: str) -> str:
    return getattr(request, place) if place in ("method", "path", "query") else request.headers[place]


def _put(request: HttpRequest, place: str, value: str) -> None:
    if place in ("method", "path", "query"):
        setattr(request, place, value)
    else:
        request.headers[place] = value


def test_a_header_that_was_added_is_refused() -> None:
    request = signed(S3SigV4Auth, "s3", "/bucket/key", [], {})
    request.headers["x-amz-acl"] = "public-read"
    with pytest.raises(errors.AuthenticationError, match="not signed"):
        check(request)


def test_a_signed_header_that_is_missing_is_refused() -> None:
    request = signed(S3SigV4Auth, "s3", "/bucket/key", [], {"x-amz-meta-a": "b"})
    del request.headers["x-amz-meta-a"]
    with pytest.raises(errors.SignatureDoesNotMatchError):
        check(request)


def test_another_secret_is_refused() -> None:
    other = Credentials(KEY.access_key_id, SECRET[:-1] + "x", None, PRINCIPAL)
    with pytest.raises(errors.SignatureDoesNotMatchError):
        check(signed(S3SigV4Auth, "s3", "/bucket/key", [], {}), other)


def test_an_unknown_key_is_refused() -> None:
    claim = read_claim(signed(S3SigV4Auth, "s3", "/bucket/key", [], {}))
    with pytest.raises(errors.UnknownAccessKeyError):
        find_signer(claim, lambda key_id, token: None, clock.now_ms())


@pytest.mark.parametrize("skew_s", [-15 * 60 - 5, 15 * 60 + 5])
def test_a_clock_that_is_off_is_refused(skew_s: int) -> None:
    with pytest.raises(errors.RequestTimeTooSkewedError):
        check(signed(S3SigV4Auth, "s3", "/bucket/key", [], {}), now_ms=clock.now_ms() + skew_s * 1000)


@pytest.mark.parametrize("skew_s", [-14 * 60, 14 * 60])
def test_a_clock_that_is_a_little_off_is_accepted(skew_s: int) -> None:
    check(signed(S3SigV4Auth, "s3", "/bucket/key", [], {}), now_ms=clock.now_ms() + skew_s * 1000)


def test_a_presigned_url_ends() -> None:
    request = signed(S3SigV4QueryAuth, "s3", "/bucket/key", [], {}, expires=60)
    check(request, now_ms=clock.now_ms() + 55_000)
    with pytest.raises(errors.PresignedExpiredError, match="expired"):
        check(request, now_ms=clock.now_ms() + 65_000)
    with pytest.raises(errors.PresignedExpiredError, match="not yet"):
        check(request, now_ms=clock.now_ms() - 16 * 60_000)


def test_session_tokens_must_be_the_keys_own_and_live() -> None:
    temporary = Credentials(KEY.access_key_id, SECRET, "TOKEN", PRINCIPAL, clock.now_ms() + 60_000)
    check(signed(S3SigV4Auth, "s3", "/b/k", [], {}, token="TOKEN"), temporary)
    for signer, token, credentials in (
        (S3SigV4Auth, "OTHER", temporary),
        (S3SigV4Auth, None, temporary),
        (S3SigV4Auth, "TOKEN", KEY),
        (S3SigV4QueryAuth, "OTHER", temporary),
    ):
        with pytest.raises(errors.InvalidTokenError):
            check(signed(signer, "s3", "/b/k", [], {}, token=token), credentials)
    with pytest.raises(errors.ExpiredTokenError):
        check(signed(S3SigV4Auth, "s3", "/b/k", [], {}, token="TOKEN"), temporary, clock.now_ms() + 60_001)


GOOD = (
    "AWS4-HMAC-SHA256 Credential=A/20261123/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature="
    + "0" * 64
)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic abc",
        "AWS AKID:sig",
        "AWS4-ECDSA-P256-SHA256 Credential=A/20261123/s3/aws4_request",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential",
        GOOD.replace("Signature=" + "0" * 64, ""),
        GOOD.replace("0" * 64, "0" * 63),
        GOOD.replace("0" * 64, "G" * 64),
        GOOD.replace("SignedHeaders=host;x-amz-date, ", ""),
        GOOD.replace("host;", ""),
        GOOD.replace("host;x-amz-date", "x-amz-date;host"),
        GOOD.replace("host;x-amz-date", "host;host;x-amz-date"),
        GOOD.replace("host;x-amz-date", "Host;x-amz-date"),
        GOOD.replace("aws4_request", "aws5_request"),
        GOOD.replace("A/2026", "/2026"),
        GOOD.replace("20261123/", "20261122/"),
        GOOD.replace("/s3/", "/"),
        GOOD + ", Signature=" + "1" * 64,
        GOOD + ", Credential=B/20261123/us-east-1/s3/aws4_request",
    ],
)
def test_what_is_not_a_signature_is_refused(authorization: str) -> None:
    head = {"host": HOST, "x-amz-date": "20261123T200000Z", "authorization": authorization}
    with pytest.raises(errors.IncompleteSignatureError):
        read_claim(HttpRequest("GET", "/", "", head, RequestBody(_no_body)))


@given(st.text(st.characters(max_codepoint=0xFF)), st.text(st.characters(max_codepoint=0xFF)))
def test_garbage_is_denied_and_nothing_else_happens(authorization: str, query: str) -> None:
    for head in ({"authorization": authorization}, {}):
        request = HttpRequest("GET", "/", f"X-Amz-Signature=&{query}", {"host": HOST, **head}, RequestBody(_no_body))
        with pytest.raises(errors.AuthenticationError):
            check(request)


def test_nothing_signed_is_missing_authentication() -> None:
    with pytest.raises(errors.MissingAuthenticationTokenError):
        read_claim(HttpRequest("GET", "/", "a=b", {"host": HOST}, RequestBody(_no_body)))


def test_the_signing_key_is_that_of_the_documentation() -> None:
    # https://docs.aws.amazon.com/general/latest/gr/signature-v4-examples.html
    key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", "us-east-1", "iam")
    assert key.hex() == "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
