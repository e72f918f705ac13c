"""The edge of metric filters and subscription filters: operations of botocore's service `logs`.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutMetricFilter.html
"""

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from entrepot.operations import AsyncOperation, Call, Operation, Permission, Request, Response
from entrepot.services.logs.edge import Edge, limit_of
from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.filter_pattern import parse
from entrepot.services.logs.filters import SubscriptionFilter
from entrepot.services.logs.metric_filters import MetricFilter, Transformation
from entrepot.services.logs.names import opened, sealed

if TYPE_CHECKING:
    from entrepot.services.logs.service import Logs

PAGE_LIMIT = 50
"""Filters in a page. AWS's limit."""

MESSAGES_LIMIT = 50
"""Messages of TestMetricFilter. AWS's limit."""

_NAME = re.compile(r"[^:*]{1,512}")
_METRIC_NAME = re.compile(r"[^:*$]{1,255}")
_UNSUPPORTED = ("applyOnTransformedLogs", "fieldSelectionCriteria", "emitSystemFieldDimensions", "emitSystemFields")


def operations(logs: "Logs") -> list[Operation]:
    """Return the operations of filters."""
    edge = _Edge(logs)
    return [
        AsyncOperation("PutMetricFilter", edge.on_group("PutMetricFilter"), edge.put_metric_filter),
        AsyncOperation("DescribeMetricFilters", edge.on_described, edge.describe_metric_filters),
        AsyncOperation("DeleteMetricFilter", edge.on_group("DeleteMetricFilter"), edge.delete_metric_filter),
        AsyncOperation("TestMetricFilter", edge.on_all("TestMetricFilter"), edge.test_metric_filter),
        AsyncOperation("PutSubscriptionFilter", edge.on_subscribed, edge.put_subscription_filter),
        AsyncOperation(
            "DescribeSubscriptionFilters",
            edge.on_group("DescribeSubscriptionFilters"),
            edge.describe_subscription_filters,
        ),
        AsyncOperation(
            "DeleteSubscriptionFilter", edge.on_group("DeleteSubscriptionFilter"), edge.delete_subscription_filter
        ),
    ]


class _Edge(Edge):
    """The operations as AWS names them."""

    def on_described(self, request: Request) -> Iterable[Permission]:
        """Return the permission for DescribeMetricFilters, which looks at one group or at all."""
        if request.get("logGroupName"):
            return self.on_group("DescribeMetricFilters")(request)
        return self.on_all("DescribeMetricFilters")(request)

    def on_subscribed(self, request: Request) -> Iterable[Permission]:
        """Return the permissions for a subscription: who subscribes a function must be allowed to invoke it."""
        yield from self.on_group("PutSubscriptionFilter")(request)
        destination = str(request.get("destinationArn", ""))
        if ":lambda:" in destination:
            yield Permission("lambda:InvokeFunction", destination)

    # ── metric filters ───────────────────────────────────────────────────────────────────────────────────────────

    async def put_metric_filter(self, request: Request, call: Call) -> Response:
        _refuse_unsupported(request)
        wanted = request.get("metricTransformations") or []
        if len(wanted) != 1:
            raise InvalidParameterError("A metric filter has exactly one metric transformation.")
        await self.logs.filters.put_metric_filter(
            self.group(request), _name(request), str(request.get("filterPattern", "")), _transformation(wanted[0])
        )
        return {}

    async def describe_metric_filters(self, request: Request, call: Call) -> Response:
        namespace, metric = request.get("metricNamespace"), request.get("metricName")
        if (namespace is None) != (metric is None):
            raise InvalidParameterError("metricName and metricNamespace are given together, or neither of them.")
        limit = limit_of(request, PAGE_LIMIT, PAGE_LIMIT)
        found = await self.logs.filters.metric_filters(
            group=self.group(request) if request.get("logGroupName") else None,
            prefix=request.get("filterNamePrefix", ""),
            metric=None if namespace is None else (namespace, str(metric)),
            after=_place(request),
            limit=limit + 1,
        )
        response: Response = {"metricFilters": [_described(one) for one in found[:limit]]}
        if len(found) > limit:
            response["nextToken"] = sealed(f"{found[limit - 1].group}*{found[limit - 1].name}")
        return response

    async def delete_metric_filter(self, request: Request, call: Call) -> Response:
        await self.logs.filters.delete_metric_filter(self.group(request), _name(request))
        return {}

    async def test_metric_filter(self, request: Request, call: Call) -> Response:
        pattern = parse(str(request.get("filterPattern", "")))
        messages = request.get("logEventMessages") or []
        if not 1 <= len(messages) <= MESSAGES_LIMIT:
            raise InvalidParameterError(
                "1 validation error detected: Value at 'logEventMessages' failed to satisfy constraint: "
                f"Member must have length between 1 and {MESSAGES_LIMIT}"
            )
        matches: list[dict[str, Any]] = []
        for number, message in enumerate(messages, 1):
            record = pattern.read(message)
            if record is not None and pattern.test(record):
                matches.append(
                    {"eventNumber": number, "eventMessage": message, "extractedValues": pattern.extracted(record)}
                )
        return {"matches": matches}

    # ── subscription filters ─────────────────────────────────────────────────────────────────────────────────────

    async def put_subscription_filter(self, request: Request, call: Call) -> Response:
        _refuse_unsupported(request)
        await self.logs.filters.put_subscription_filter(
            SubscriptionFilter(
                self.group(request),
                _name(request),
                str(request.get("filterPattern", "")),
                str(request.get("destinationArn", "")),
                str(request.get("roleArn", "")),
                str(request.get("distribution", "ByLogStream")),
                0,
            )
        )
        return {}

    async def describe_subscription_filters(self, request: Request, call: Call) -> Response:
        limit = limit_of(request, PAGE_LIMIT, PAGE_LIMIT)
        found = await self.logs.filters.subscription_filters(
            self.group(request),
            prefix=request.get("filterNamePrefix", ""),
            after=_place(request)[1],
            limit=limit + 1,
        )
        response: Response = {"subscriptionFilters": [_described_subscription(one) for one in found[:limit]]}
        if len(found) > limit:
            response["nextToken"] = sealed(f"{found[limit - 1].group}*{found[limit - 1].name}")
        return response

    async def delete_subscription_filter(self, request: Request, call: Call) -> Response:
        await self.logs.filters.delete_subscription_filter(self.group(request), _name(request))
        return {}


def _refuse_unsupported(request: Request) -> None:
    for member in _UNSUPPORTED:
        if request.get(member):
            raise InvalidParameterError(f"{member} is not supported here.")


def _name(request: Request) -> str:
    name = str(request.get("filterName", ""))
    if not _NAME.fullmatch(name):
        raise InvalidParameterError(
            f"1 validation error detected: Value '{name[:600]}' at 'filterName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [^:*]*"
        )
    return name


def _transformation(wanted: dict[str, Any]) -> Transformation:
    for member in ("metricName", "metricNamespace"):
        if not _METRIC_NAME.fullmatch(str(wanted.get(member, ""))):
            raise InvalidParameterError(
                f"1 validation error detected: Value at 'metricTransformations.1.member.{member}' failed to satisfy "
                "constraint: Member must satisfy regular expression pattern: [^:*$]*"
            )
    default = wanted.get("defaultValue")
    if default is not None and not math.isfinite(default):
        raise InvalidParameterError("Invalid metric transformation: the default value is not a number.")
    return Transformation(
        name=wanted["metricName"],
        namespace=wanted["metricNamespace"],
        value=str(wanted.get("metricValue", "")),
        default=default,
        unit=wanted.get("unit", "None"),
        dimensions=dict(wanted.get("dimensions") or {}),
    )


def _place(request: Request) -> tuple[str, str]:
    """Return the (group, filter) after which a page begins."""
    if not request.get("nextToken"):
        return "", ""
    group, divider, name = opened(request["nextToken"]).partition("*")
    if not divider:
        raise InvalidParameterError("The specified nextToken is invalid.")
    return group, name


def _described(one: MetricFilter) -> dict[str, Any]:
    what = one.transformation
    shown: dict[str, Any] = {
        "metricName": what.name,
        "metricNamespace": what.namespace,
        "metricValue": what.value,
        "unit": what.unit,
    }
    if what.default is not None:
        shown["defaultValue"] = what.default
    if what.dimensions:
        shown["dimensions"] = what.dimensions
    return {
        "filterName": one.name,
        "filterPattern": one.pattern,
        "metricTransformations": [shown],
        "creationTime": one.created_at_ms,
        "logGroupName": one.group,
        "applyOnTransformedLogs": False,
    }


def _described_subscription(one: SubscriptionFilter) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "filterName": one.name,
        "logGroupName": one.group,
        "filterPattern": one.pattern,
        "destinationArn": one.destination_arn,
        "distribution": one.distribution,
        "creationTime": one.created_at_ms,
        "applyOnTransformedLogs": False,
    }
    if one.role_arn:
        shown["roleArn"] = one.role_arn
    return shown
