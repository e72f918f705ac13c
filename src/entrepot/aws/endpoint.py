"""The endpoint: one port for every service; each request is authenticated, routed, read, performed and answered.

It knows no operation: what is registered in `Operations` is served, everything else is refused by name.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.aws import errors, models
from entrepot.aws.http import Body, HttpRequest, HttpResponse, Receive, Scope, Send, read_request, send_response
from entrepot.aws.payload import Payload, check_md5, content_hash, open_payload
from entrepot.aws.protocols import Incoming, Pairs
from entrepot.aws.protocols.error_codes import spell
from entrepot.aws.protocols.query import form_pairs
from entrepot.aws.service import MAX_BODY_BYTES, Service, Target, guess, service
from entrepot.aws.signature import Claim, find_signer, query_pairs, read_claim, verify
from entrepot.aws.virtual_host import path_style
from entrepot.credentials import Credentials, FindCredentials
from entrepot.errors import AwsError, InternalError, ServiceUnavailableError, StorageFullError
from entrepot.listener import Listener
from entrepot.operations import Call, Operations

DRAIN_S = 20.0
"""How long requests under way may take to end when the endpoint stops."""

MAX_BUFFERED_BYTES = 256 * 1024 * 1024
"""Bodies held in memory at the same time, over all requests; beyond it callers are asked to come again."""

MAX_DISCARDED_BYTES = 8 * 1024 * 1024
"""How much of a refused request's body is read and thrown away, so that the client reads the answer."""

GLOBAL_SERVICES = frozenset({"iam", "sts"})
"""Services that AWS also signs for in us-east-1, whatever the region."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What became of one request. `code` is AWS's error code, "" for success; `operation` "" when none was found."""

    service: str
    operation: str
    status: int
    code: str
    request_id: str
    principal_arn: str
    source_ip: str
    duration_ms: float


PublicAnswer: TypeAlias = tuple[int, str, bytes]
"""(status, content type, body)."""

Public: TypeAlias = Callable[[str, str, Mapping[str, str]], Awaitable[PublicAnswer | None]]
"""(method, path, query) of a request without a signature → an answer for everybody, or None."""

OnRequest: TypeAlias = Callable[[RequestRecord], None]


@dataclass(slots=True)
class _Exchange:
    """One request on its way: what is known of it so far."""

    request: HttpRequest
    request_id: str
    service: Service
    protocol_name: str
    claim: Claim | AwsError
    operation: str = ""
    principal_arn: str = ""
    code: str = ""
    payload: Payload | None = None
    buffered_bytes: int = 0


class Endpoint:
    """The AWS endpoint of one account and region."""

    def __init__(
        self,
        operations: Operations,
        find_credentials: FindCredentials,
        account: Account,
        *,
        on_request: OnRequest | None = None,
        public: Public | None = None,
    ) -> None:
        self._operations = operations
        self._find_credentials = find_credentials
        self._account = account
        self._on_request = on_request
        self._public = public
        self._listener = Listener(self._serve)
        self._buffered_bytes = 0
        self._url = ""
        self._warming: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:4566`; empty before `start`."""
        return self._url

    async def start(self, host: str, port: int) -> None:
        """Listen on `host` and `port` (0: any free one). Raises OSError when the port is taken."""
        bound = await self._listener.start(host, port)
        shown = f"[{host}]" if ":" in host else host
        self._url = f"http://{shown}:{bound}"
        served = sorted({name for name, _ in self._operations.names()} & set(models.SERVICES))
        self._warming = asyncio.create_task(asyncio.to_thread(_load, served), name="aws-models")

    async def stop(self, deadline_s: float = DRAIN_S) -> None:
        """Take no more requests; let those under way end, at most until the deadline."""
        await self._listener.stop(deadline_s)
        if self._warming is not None:
            await self._warming
            self._warming = None

    # ── one exchange ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        assert scope["type"] == "http"
        began_s = clock.monotonic_s()
        try:
            request = read_request(scope, receive)
        except AwsError as error:
            await send_response(
                send, HttpResponse(error.status, {"Connection": "close"}, error.message.encode()), head=False
            )
            return
        plain = _unsigned_answer(request) or await self._public_answer(request)
        if plain is not None:
            await send_response(send, plain, head=request.method == "HEAD")
            return
        exchange = self._begin(request)
        response = await self._answer(exchange)
        if not request.body.ended and not await _discard_rest(request):
            response.headers["Connection"] = "close"
        if "origin" in request.headers:  # A browser asks; botocore pays for every header that it has to read.
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers["Access-Control-Expose-Headers"] = "*"
        try:
            await send_response(send, response, head=request.method == "HEAD", gone=scope.get("entrepot.gone"))
        finally:
            self._record(exchange, response.status, began_s)

    async def _public_answer(self, request: HttpRequest) -> HttpResponse | None:
        """Answer what the rooms have for everybody, whoever asks without a signature."""
        if self._public is None or request.method not in ("GET", "HEAD") or "authorization" in request.headers:
            return None
        try:
            answer = await self._public(request.method, request.path, dict(query_pairs(request.query)))
        except AwsError as error:
            return HttpResponse(error.status, {"Content-Type": "text/plain"}, error.message.encode("utf-8", "replace"))
        except Exception:  # noqa: BLE001  the top frame of a request: whatever it is, the caller gets an answer
            _log.exception("GET %s failed", request.path)
            return HttpResponse(500, {"Content-Type": "text/plain"}, b"An internal error occurred.\n")
        if answer is None:
            return None
        status, content_type, body = answer
        return HttpResponse(status, {"Content-Type": content_type}, body)

    def _begin(self, request: HttpRequest) -> _Exchange:
        """Find the service by what the request claims, so that even a refusal is in its protocol."""
        claim = _claim(request)
        signing_name = claim.service if isinstance(claim, Claim) else ""
        target = (request.header("x-amz-target") or "").rpartition(".")[0]
        name = (
            models.SERVICE_OF_SIGNING_NAME_AND_TARGET.get((signing_name, target))
            or models.SERVICE_OF_SIGNING_NAME.get(signing_name)
            or guess(request)
        )
        found = service(name)
        request_id = ids.random_hex(8).upper() if name == "s3" else ids.random_uuid()
        return _Exchange(request, request_id, found, found.protocol_name(request), claim)

    async def _answer(self, exchange: _Exchange) -> HttpResponse:
        try:
            return await self._perform(exchange)
        except AwsError as error:
            return _failure(exchange, error)
        except StorageFullError as error:
            _log.error("%s %s: %s", exchange.service.name, exchange.operation, error)
            return _failure(
                exchange,
                ServiceUnavailableError("The server's disk is full. Nothing was stored; try again when there is room."),
            )
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  the top frame of a request: whatever it is, the caller gets an answer
            _log.exception(
                "%s %s failed (request %s)", exchange.service.name, exchange.operation or "?", exchange.request_id
            )
            return _failure(exchange, InternalError(f"An internal error occurred (request {exchange.request_id})."))
        finally:
            self._buffered_bytes -= exchange.buffered_bytes

    async def _perform(self, exchange: _Exchange) -> HttpResponse:
        request = exchange.request
        claim, credentials = self._authenticate(exchange)
        if exchange.service.name == "s3":
            target, body = await self._open_s3(exchange, claim, credentials)
        else:
            target, body = await self._open(exchange, claim, credentials)
        exchange.principal_arn = credentials.principal.arn
        exchange.operation = target.operation.name
        if self._operations.find(exchange.service.name, target.operation.name) is None:
            raise errors.NotServedError(
                f"{exchange.service.name}:{target.operation.name} is not implemented by this endpoint."
            )
        arguments = target.protocol.read(
            target.operation, Incoming(request, target.labels, target.pairs, body if body is not None else b"")
        )
        if target.operation.input_shape is not None:
            exchange.service.constraints.validate(target.operation.input_shape, arguments)
        if exchange.payload is not None:
            _attach(exchange.payload, arguments)
        call = Call(
            credentials.principal, exchange.request_id, request.source_ip, user_agent=request.header("user-agent") or ""
        )
        response = await self._operations.perform(exchange.service.name, target.operation.name, arguments, call)
        return target.protocol.write(target.operation, response, exchange.request_id)

    # ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _authenticate(self, exchange: _Exchange) -> tuple[Claim, Credentials]:
        """Return who claims to sign, with live credentials; whatever goes wrong denies."""
        try:
            claim = exchange.claim
            if not isinstance(claim, Claim):
                raise claim
            if models.SERVICE_OF_SIGNING_NAME.get(claim.service) is None:
                raise errors.NotServedError(f"The service {claim.service[:64]!r} is not served by this endpoint.")
            self._check_region(claim)
            return claim, find_signer(claim, self._find_credentials, clock.now_ms())
        except AwsError:
            raise
        except Exception:  # noqa: BLE001  any exception in authentication means deny
            _log.exception("authentication failed (request %s)", exchange.request_id)
            raise errors.AuthenticationError("Access Denied") from None

    def _check_region(self, claim: Claim) -> None:
        if claim.region == self._account.region:
            return
        if claim.service in GLOBAL_SERVICES and claim.region == "us-east-1":
            return
        raise errors.WrongRegionError(
            f"The region '{claim.region[:32]}' is wrong; expecting '{self._account.region}'",
            Region=self._account.region,
        )

    def _verify(self, exchange: _Exchange, claim: Claim, credentials: Credentials, payload_hash: str) -> bytes:
        try:
            return verify(exchange.request, claim, credentials, payload_hash)
        except AwsError:
            raise
        except Exception:  # noqa: BLE001  any exception in authentication means deny
            _log.exception("authentication failed (request %s)", exchange.request_id)
            raise errors.AuthenticationError("Access Denied") from None

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────

    async def _open_s3(
        self, exchange: _Exchange, claim: Claim, credentials: Credentials
    ) -> tuple[Target, bytes | Body | None]:
        """S3: the head alone is verified; the body is verified while it streams."""
        request = exchange.request
        hash_text = content_hash(request, claim)
        key = self._verify(exchange, claim, credentials, hash_text)
        pairs = query_pairs(request.query)
        target = self._target(exchange, path_style(request), pairs)
        streams = exchange.service.streams(target.operation)
        # An operation that takes a stream hashes it anyway, and compares it with the checksums of the headers itself.
        with_checksums = not streams and "requestAlgorithmMember" in target.operation.http_checksum
        payload = open_payload(request, claim, key, hash_text, with_checksums=with_checksums)
        if streams:
            exchange.payload = payload
            return target, payload.body
        limit = target.max_body_bytes
        self._reserve(exchange, payload.length_bytes, limit)
        body = await _collect(payload.body, limit)
        check_md5(request, body)
        return target, body

    async def _open(
        self, exchange: _Exchange, claim: Claim, credentials: Credentials
    ) -> tuple[Target, bytes | Body | None]:
        """All others: the body is read first and is part of what is verified."""
        request = exchange.request
        pairs = query_pairs(request.query)
        target = None
        limit = MAX_BODY_BYTES
        if exchange.protocol_name != "query":
            target = self._target(exchange, request.path, pairs)
            limit = target.max_body_bytes
        self._reserve(exchange, None, limit)
        body = await request.body.read(limit)
        self._verify(exchange, claim, credentials, hashlib.sha256(body).hexdigest())
        if target is None:
            target = self._target(exchange, request.path, form_pairs(body, pairs))
        return target, body

    def _target(self, exchange: _Exchange, path: str, pairs: Pairs) -> Target:
        match = exchange.service.route(exchange.request, exchange.protocol_name, path, pairs)
        exchange.operation = match.operation
        return Target(
            exchange.service,
            exchange.service.operation(match.operation),
            match.labels,
            pairs,
            exchange.service.protocol(exchange.protocol_name),
            exchange.protocol_name,
        )

    def _reserve(self, exchange: _Exchange, length_bytes: int | None, limit: int) -> None:
        """Count a body that is about to be buffered; refuse what is too large, or too much at once."""
        announced = exchange.request.header("content-length")
        if length_bytes is None and announced is not None and announced.isascii() and announced.isdigit():
            length_bytes = int(announced[:15])
        if length_bytes is None:
            length_bytes = limit if "transfer-encoding" in exchange.request.headers else 0
        elif length_bytes > limit:
            raise errors.RequestBodyTooLargeError(limit)
        if self._buffered_bytes + length_bytes > MAX_BUFFERED_BYTES:
            raise ServiceUnavailableError("Too much is being received at the moment. Please reduce your request rate.")
        self._buffered_bytes += length_bytes
        exchange.buffered_bytes = length_bytes

    def _record(self, exchange: _Exchange, status: int, began_s: float) -> None:
        if self._on_request is not None:
            self._on_request(
                RequestRecord(
                    exchange.service.name,
                    exchange.operation,
                    status,
                    exchange.code,
                    exchange.request_id,
                    exchange.principal_arn,
                    exchange.request.source_ip,
                    (clock.monotonic_s() - began_s) * 1000,
                )
            )


def _load(names: list[str]) -> None:
    """Load the models of the services that are served, beside the event loop: the first request then need not wait."""
    for name in names:
        loaded = service(name)
        if any(protocol.startswith("rest-") for protocol in loaded.protocol_names):
            _ = loaded.routes


def _failure(exchange: _Exchange, error: AwsError) -> HttpResponse:
    code, status = spell(error, exchange.service.name, exchange.protocol_name)
    exchange.code = code
    protocol = exchange.service.protocol(exchange.protocol_name)
    response = protocol.fail(error, code, status, exchange.request_id)
    if exchange.request.method == "HEAD" or status == 304:
        response.body = b""
    return response


def _attach(payload: Payload, arguments: dict[str, Any]) -> None:
    """Give the operation the content's length, and each checksum once it is known to agree (when the body ended)."""
    if payload.length_bytes is not None:
        arguments["ContentLength"] = payload.length_bytes
    encodings = [part.strip() for part in arguments.get("ContentEncoding", "").split(",")]
    kept = ",".join(part for part in encodings if part and part != "aws-chunked")
    if kept:
        arguments["ContentEncoding"] = kept
    else:
        arguments.pop("ContentEncoding", None)
    if payload.trailing_algorithm:
        arguments.setdefault("ChecksumAlgorithm", payload.trailing_algorithm)
    payload.verified = arguments


async def _collect(body: Body, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size_bytes = 0
    async for piece in body:
        size_bytes += len(piece)
        if size_bytes > max_bytes:
            raise errors.RequestBodyTooLargeError(max_bytes)
        pieces.append(piece)
    return b"".join(pieces)


async def _discard_rest(request: HttpRequest) -> bool:
    """Read what a client still sends of a refused body, so that it comes to read the answer; return whether it ended.

    A client that waits to be told to send (Expect: 100-continue), or announces more than is worth it, is answered at once.
    """
    announced = request.header("content-length") or "0"
    waits = "expect" in request.headers and not request.body.begun
    if waits or len(announced) > 12 or int(announced) > MAX_DISCARDED_BYTES:
        return False
    return await request.body.drain(MAX_DISCARDED_BYTES)


def _claim(request: HttpRequest) -> Claim | AwsError:
    """Return what the request claims, or why it claims nothing that can be verified."""
    try:
        return read_claim(request)
    except AwsError as error:
        return error


def _unsigned_answer(request: HttpRequest) -> HttpResponse | None:
    """Answer what needs no signature: the health check, and a browser's question whether it may ask (CORS)."""
    if request.path == "/health" and request.method in ("GET", "HEAD") and "authorization" not in request.headers:
        return HttpResponse(200, {"Content-Type": "application/json"}, b'{"status":"ok"}')
    if request.method == "OPTIONS":
        return HttpResponse(200, dict(_CORS))
    return None


_CORS: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, PUT, POST, DELETE, HEAD",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Max-Age": "3000",
}
"""Any page may ask: what it gets is decided by the signature, which no browser adds by itself."""
