"""Which operation of a service a request names, for the protocols that say it in method, path and query.

A route table is made from the `requestUri` templates of the model. Where several operations share method and path
(S3's sub-resources), the one whose literal query parts and required parameters fit best is taken; a sub-resource that
no operation with this method has is refused instead of ignored.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from botocore.model import OperationModel, ServiceModel

from entrepot.aws.errors import BadRequestError, MethodNotAllowedError, NotServedError, UnknownRouteError

_SUPERSEDED = frozenset(
    {
        "GetBucketLifecycle", "PutBucketLifecycle", "GetBucketNotification", "PutBucketNotification",
        "ListDirectoryBuckets", "WriteGetObjectResponse",
    }
)  # fmt: skip
"""S3 operations that share their whole route with the one that took their place, or have a host of their own."""

_LABEL = re.compile(r"\{([A-Za-z0-9_]+)(\+?)\}")


@dataclass(frozen=True, slots=True)
class Match:
    """The operation and the path's labels, decoded."""

    operation: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Route:
    operation: str
    literals: tuple[tuple[str, str | None], ...]
    """Query parts that must be there; with None any value will do."""
    headers: tuple[str, ...]

    def fits(self, query: dict[str, str], headers: dict[str, str]) -> bool:
        for name, value in self.literals:
            if name not in query or (value is not None and query[name] != value):
                return False
        return all(name in headers for name in self.headers)


class RouteTable:
    """The routes of one service."""

    def __init__(self, model: ServiceModel) -> None:
        self._is_s3 = model.service_name == "s3"
        self._templates: list[tuple[re.Pattern[str], str]] = []
        self._routes: dict[tuple[str, str], list[_Route]] = {}
        self._distinguishing: dict[str, dict[str, str]] = {}
        for name in model.operation_names:
            if not (self._is_s3 and name in _SUPERSEDED):
                self._add(model.operation_model(name))
        for routes in self._routes.values():
            routes.sort(key=lambda route: -len(route.literals) - len(route.headers))
        self._templates.sort(key=lambda pair: _generality(pair[1]))

    def _add(self, operation: OperationModel) -> None:
        template, _, query = operation.http["requestUri"].partition("?")
        template = template.rstrip("/") or "/"
        literals: list[tuple[str, str | None]] = []
        for part in filter(None, query.split("&")):
            name, equals, value = part.partition("=")
            if name != "x-id":
                literals.append((name, value if equals else None))
        headers: tuple[str, ...] = ()
        if operation.input_shape is not None and self._is_s3:
            for name in operation.input_shape.required_members:
                serialization = operation.input_shape.members[name].serialization
                if serialization.get("location") == "querystring":
                    literals.append((serialization["name"], None))
                elif serialization.get("name") == "x-amz-copy-source":
                    headers = ("x-amz-copy-source",)
        if template not in self._distinguishing:
            self._templates.append((_compile(template), template))
            self._distinguishing[template] = {}
        for name, _value in literals:
            self._distinguishing[template].setdefault(name, operation.name)
        route = _Route(operation.name, tuple(literals), headers)
        self._routes.setdefault((operation.http["method"], template), []).append(route)

    def match(self, method: str, path: str, query: dict[str, str], headers: dict[str, str]) -> Match:
        """Return the operation for a percent-encoded path; raise UnknownRouteError, NotServedError or
        MethodNotAllowedError when there is none."""
        for pattern, template in self._templates:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            routes = self._routes.get((method, template))
            if routes is None:
                continue
            for route in routes:
                if route.fits(query, headers):
                    self._refuse_ignored(route, template, query, headers)
                    return Match(route.operation, {name: decode(value) for name, value in found.groupdict().items()})
        if self._is_s3:
            raise MethodNotAllowedError("The specified method is not allowed against this resource.", Method=method)
        raise UnknownRouteError(f"No operation has the route {method} {path[:200]}")

    def _refuse_ignored(self, route: _Route, template: str, query: dict[str, str], headers: dict[str, str]) -> None:
        """S3 only: a query part that makes this another operation must not be dropped."""
        if not (self._is_s3 and query):
            return
        taken = {name for name, _ in route.literals}
        distinguishing = self._distinguishing[template]
        for name in query:
            if name in distinguishing and name not in taken and name not in _ALSO_PARAMETERS:
                raise NotServedError(
                    f"A request with the query parameter {name!r} (as {distinguishing[name]} has it) "
                    f"cannot be served as {route.operation}."
                )


_ALSO_PARAMETERS = frozenset({"partNumber", "versionId", "id", "list-type"})
"""Query parts that tell some operations apart and are plain parameters of others."""


def _compile(template: str) -> re.Pattern[str]:
    parts: list[str] = []
    position = 0
    for label in _LABEL.finditer(template):
        parts.append(re.escape(template[position : label.start()]))
        parts.append(f"(?P<{label.group(1)}>{'.+' if label.group(2) else '[^/]+'})")
        position = label.end()
    parts.append(re.escape(template[position:]))
    greedy = "+}" in template
    return re.compile("".join(parts) + ("" if greedy or template == "/" else "/?"), re.DOTALL)


def _generality(template: str) -> tuple[int, int]:
    """Order templates so that the literal ones are tried before those with labels, the greedy last."""
    return (template.count("+}"), template.count("{"))


def decode(text: str) -> str:
    """Return a percent-decoded label; raise BadRequestError unless it is UTF-8 without NUL."""
    if "%" in text:
        try:
            text = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise BadRequestError("Couldn't parse the specified URI: it is not UTF-8.", URI=text[:200]) from None
    elif not text.isascii():
        raise BadRequestError("Couldn't parse the specified URI: it is not percent-encoded.", URI=text[:200])
    return text
