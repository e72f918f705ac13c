"""HTTP tasks: `arn:aws:states:::http:invoke`, a request to an endpoint outside, with a connection's credentials.

Connections and the client come in as callables. Nothing of a connection may get into a log, an error or a history.
Source: https://docs.aws.amazon.com/step-functions/latest/dg/call-https-apis.html
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, quote_plus, urlencode

from entrepot.errors import AwsError
from entrepot.operations import Permission
from entrepot.outbound import OutboundError, Request, Response, Send

from .failures import TaskError
from .language.evaluation import DATA_LIMIT_EXCEEDED, RUNTIME, Json
from .language.json_text import InvalidJson, dumps, loads

HTTP_TIMEOUT_S = 60.0
"""How long an endpoint has to answer, as on AWS."""

HTTP_RESPONSE_LIMIT_BYTES = 262_144
"""Bytes of an answer's body: the largest payload."""

CAUSE_LIMIT_CHARACTERS = 32_768
"""The longest cause. Source: HistoryEvent's details."""

SOCKET_ERROR = "States.Http.Socket"
"""No answer: no connection, or none in time."""

CONNECTION_ERROR = "Events.ConnectionResource.ConnectionNotUsable"
"""The connection does not exist, is deauthorized, or gets no access token. Not AWS's name, which is not documented."""

REDACTED = "[REDACTED]"
"""What TestState shows in place of what a connection adds."""

_UNAUTHORIZED = frozenset({401, 407})
"""Statuses after which an access token is asked for anew."""

METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"})

_FIELDS = frozenset(
    {
        "ApiEndpoint",
        "Method",
        "Authentication",
        "InvocationConfig",
        "Headers",
        "QueryParameters",
        "RequestBody",
        "Transform",
    }
)
_ARRAY_FORMATS = ("INDICES", "REPEAT", "COMMAS", "BRACKETS", "NONE")
_FORBIDDEN_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect", "via"}
)
_FORBIDDEN_PREFIXES = ("x-amz", "x-amzn", "x-forwarded", "proxy-")

Pairs: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ConnectionParameters:
    """What a connection adds to a request; all of it may be secret."""

    headers: Pairs = ()
    query: Pairs = ()
    body: Pairs = ()


OpenConnection: TypeAlias = Callable[[str, bool], Awaitable[ConnectionParameters]]
"""`open_connection(connection_arn, renew)`: what the connection adds to a request. Raises AwsError.

`renew`: what it gave before was refused, so that an access token has to be asked for anew.
"""


@dataclass(slots=True)
class Exchange:
    """What was sent and answered, as TestState shows it: JSON texts as AWS has them."""

    request: dict[str, str]
    response: dict[str, str] | None = None


def permissions(parameters: Json, machine_arn: str) -> list[Permission]:
    """Return what the state machine's role must be allowed."""
    endpoint = str(parameters.get("ApiEndpoint")) if isinstance(parameters, dict) else "*"
    method = str(parameters.get("Method")) if isinstance(parameters, dict) else "*"
    context = {"states:HTTPEndpoint": endpoint, "states:HTTPMethod": method}
    needed = [Permission("states:InvokeHTTPEndpoint", machine_arn, context)]
    arn = _connection_arn(parameters)
    if arn:
        needed.append(Permission("events:RetrieveConnectionCredentials", arn))
    return needed


class HttpTasks:
    """Sends the requests of HTTP tasks."""

    def __init__(self, send: Send, open_connection: OpenConnection) -> None:
        self._send = send
        self._open_connection = open_connection

    async def invoke(self, parameters: Json, region: str, *, reveal: bool = False) -> tuple[Json, Exchange]:
        """Send a request and return the task's result, with what was exchanged. Raises HttpTaskError."""
        given = _checked(parameters)
        arn = _connection_arn(parameters)
        if not arn:
            raise _refused(
                parameters, "The field 'Authentication' or 'InvocationConfig' with a ConnectionArn is required"
            )
        connection = await self._opened(arn, renew=False)
        answer, told = await self._exchange(given, connection, region, reveal)
        if answer.status in _UNAUTHORIZED:
            renewed = await self._opened(arn, renew=True)
            if renewed != connection:
                answer, told = await self._exchange(given, renewed, region, reveal)
        if not answer.is_whole:
            raise HttpTaskError(DATA_LIMIT_EXCEEDED, "The response of the HTTP endpoint is too large.", told)
        if not 200 <= answer.status < 300:
            cause = answer.body.decode("utf-8", "replace")[:CAUSE_LIMIT_CHARACTERS]
            raise HttpTaskError(f"States.Http.StatusCode.{answer.status}", cause or answer.reason, told)
        return result_of(answer), told

    async def _opened(self, arn: str, *, renew: bool) -> ConnectionParameters:
        try:
            return await self._open_connection(arn, renew)
        except AwsError as error:
            raise HttpTaskError(CONNECTION_ERROR, error.message, None) from error

    async def _exchange(
        self, given: dict[str, Any], connection: ConnectionParameters, region: str, reveal: bool
    ) -> tuple[Response, Exchange]:
        request = request_of(given, connection, region)
        told = Exchange(_shown_request(request, connection, reveal))
        try:
            answer = await self._send(request)
        except OutboundError as error:
            raise HttpTaskError(SOCKET_ERROR, str(error), told) from error
        told.response = _shown_response(answer, request.url)
        return answer, told


class HttpTaskError(TaskError):
    """The failure of an HTTP task, with what was exchanged until then."""

    def __init__(self, error: str, cause: str | None, exchange: Exchange | None) -> None:
        super().__init__(error, cause)
        self.exchange = exchange


def _refused(parameters: Json, reason: str) -> HttpTaskError:
    text = dumps(parameters)
    return HttpTaskError(RUNTIME, f"The Parameters '{text}' could not be used to start the Task: [{reason}]", None)


def _connection_arn(parameters: Json) -> str:
    if not isinstance(parameters, dict):
        return ""
    for name in ("InvocationConfig", "Authentication"):
        holder = parameters.get(name)
        if isinstance(holder, dict) and isinstance(holder.get("ConnectionArn"), str):
            return str(holder["ConnectionArn"])
    return ""


def _checked(parameters: Json) -> dict[str, Any]:
    """Return the parameters. Raises HttpTaskError when they are none of an HTTP task."""
    if not isinstance(parameters, dict):
        raise _refused(parameters, "they are not an object")
    for name in parameters:
        if name not in _FIELDS:
            raise _refused(parameters, f"The field '{name}' is not supported by Step Functions")
    for name in ("ApiEndpoint", "Method"):
        if not isinstance(parameters.get(name), str) or not parameters[name]:
            raise _refused(parameters, f"The field '{name}' is required but was missing")
    if parameters["Method"] not in METHODS:
        raise _refused(parameters, f"The value of the field 'Method' must be one of {sorted(METHODS)}")
    for name in ("Headers", "QueryParameters", "Transform"):
        if not isinstance(parameters.get(name, {}), dict):
            raise _refused(parameters, f"The field '{name}' must be an object")
    for name in parameters.get("Headers", {}):
        if name.lower() in _FORBIDDEN_HEADERS or name.lower().startswith(_FORBIDDEN_PREFIXES):
            raise _refused(parameters, f"The header '{name}' is not allowed")
    return parameters


def request_of(given: dict[str, Any], connection: ConnectionParameters, region: str) -> Request:
    """Return the request; what the connection says counts more than what the task says. Raises HttpTaskError."""
    query = [(name, value) for name, value in _pairs(given, "QueryParameters") if name not in dict(connection.query)]
    query += connection.query
    url = given["ApiEndpoint"]
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query, quote_via=quote)
    headers = {name.lower(): (name, value) for name, value in _pairs(given, "Headers")}
    body, kind = _body(given, connection, headers.get("content-type", ("", ""))[1])
    if body and "content-type" not in headers:
        headers["content-type"] = ("Content-Type", kind)
    own = (("User-Agent", f"Amazon|StepFunctions|HttpInvoke|{region}"), ("Range", "bytes=0-262144"))
    for name, value in (*own, *connection.headers):
        headers[name.lower()] = (name, value)
    return Request(given["Method"], url, tuple(headers.values()), body, HTTP_TIMEOUT_S, HTTP_RESPONSE_LIMIT_BYTES)


def _pairs(given: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of Headers or QueryParameters; a list gives its values, joined for headers, one by one in a query."""
    for key, value in (given.get(name) or {}).items():
        values = value if isinstance(value, list) else [value]
        texts = [part if isinstance(part, str) else dumps(part) for part in values]
        if name == "Headers":
            yield key, ", ".join(texts)
        else:
            yield from ((key, text) for text in texts)


def _body(given: dict[str, Any], connection: ConnectionParameters, content_type: str) -> tuple[bytes, str]:
    """Return the body and the content type that it has unless the task names one."""
    body = given.get("RequestBody")
    if connection.body and (body is None or isinstance(body, dict)):
        body = {**(body or {}), **dict(connection.body)}
    if body is None:
        return b"", ""
    transform = given.get("Transform") or {}
    encoding = transform.get("RequestBodyEncoding", "NONE")
    if encoding not in ("NONE", "URL_ENCODED"):
        raise _refused(given, "The value of the field 'RequestBodyEncoding' must be NONE or URL_ENCODED")
    if encoding == "NONE":
        return (body if isinstance(body, str) else dumps(body)).encode(), "application/json"
    arrays = (transform.get("RequestEncodingOptions") or {}).get("ArrayFormat", "INDICES")
    if arrays not in _ARRAY_FORMATS:
        raise _refused(given, f"The value of the field 'ArrayFormat' must be one of {', '.join(_ARRAY_FORMATS)}")
    if not isinstance(body, dict):
        raise _refused(given, "The field 'RequestBody' must be an object to be URL encoded")
    fields = [f"{quote_plus(name)}={quote_plus(value)}" for name, value in _form(body, arrays)]
    return "&".join(fields).encode(), content_type or "application/x-www-form-urlencoded"


def _form(body: dict[str, Json], arrays: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in body.items():
        yield from _field(f"{prefix}[{key}]" if prefix else key, value, arrays)


def _field(name: str, value: Json, arrays: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield from _form(value, arrays, name)
    elif isinstance(value, list) and arrays == "COMMAS":
        yield name, ",".join(_plain(part) for part in value)
    elif isinstance(value, list) and arrays != "NONE":
        for index, part in enumerate(value):
            suffix = {"INDICES": f"[{index}]", "BRACKETS": "[]", "REPEAT": ""}[arrays]
            yield from _field(name + suffix, part, arrays)
    else:
        yield name, _plain(value)


def _plain(value: Json) -> str:
    return value if isinstance(value, str) else "" if value is None else dumps(value)


def result_of(answer: Response) -> Json:
    """Return an answer as the result of a task; a body that is JSON is decoded."""
    text = answer.body.decode("utf-8", "replace")
    body: Json = text
    if "json" in (answer.header("content-type") or ""):
        try:
            body = loads(text)
        except InvalidJson:
            body = text
    return {
        "Headers": _grouped(answer.headers),
        "ResponseBody": body,
        "StatusCode": answer.status,
        "StatusText": answer.reason or "OK",
    }


def _grouped(headers: Sequence[tuple[str, str]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return found


def _shown_request(request: Request, connection: ConnectionParameters, reveal: bool) -> dict[str, str]:
    secrets = [value for _, value in (*connection.headers, *connection.query, *connection.body) if value]

    def shown(text: str) -> str:
        for secret in () if reveal else secrets:
            for spelling in (secret, quote(secret), quote_plus(secret), json.dumps(secret)[1:-1]):
                text = text.replace(spelling, REDACTED)
        return text

    own = {name.lower() for name, _ in connection.headers}
    headers = {name: value if reveal or name.lower() not in own else REDACTED for name, value in request.headers}
    return {
        "protocol": request.url.partition("://")[0],
        "method": request.method,
        "url": shown(request.url),
        "headers": dumps(headers),
        "body": shown(request.body.decode("utf-8", "replace")),
    }


def _shown_response(answer: Response, url: str) -> dict[str, str]:
    return {
        "protocol": url.partition("://")[0],
        "statusCode": str(answer.status),
        "statusMessage": answer.reason,
        "headers": dumps(_grouped(answer.headers)),
        "body": answer.body.decode("utf-8", "replace"),
    }
