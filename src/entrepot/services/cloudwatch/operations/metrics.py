"""PutMetricData, GetMetricData, GetMetricStatistics, ListMetrics."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from entrepot import clock
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.cloudwatch.alarms.watch import metric_of, queries_of
from entrepot.services.cloudwatch.errors import (
    InvalidParameterCombinationError,
    InvalidParameterValueError,
    MissingRequiredParameterError,
    ValidationError,
)
from entrepot.services.cloudwatch.labels import Place, zone_of
from entrepot.services.cloudwatch.metric_data import POINTS_LIMIT, metric_data
from entrepot.services.cloudwatch.metrics import UNITS, Metric
from entrepot.services.cloudwatch.operations.pages import start_of, token_at
from entrepot.services.cloudwatch.service import CloudWatch
from entrepot.services.cloudwatch.statistics import SIMPLE, Statistic, reader

BATCH_LIMIT = 1_000
"""Values of metrics in one PutMetricData. AWS's limit."""

VALUES_LIMIT = 150
"""Members of Values in one datum. AWS's limit."""

LARGEST = 2.0**360
"""Values lie between -LARGEST and LARGEST. AWS's limit."""

TOO_OLD_S = 14 * 86_400
TOO_NEW_S = 2 * 3_600
"""Values may be this old, or so far in the future. AWS's limits."""

METRICS_PAGE = 500
"""Metrics in a page of ListMetrics."""

STATISTICS_LIMIT = 1_440
"""Values in an answer of GetMetricStatistics. AWS's limit."""

RECENT_S = 3 * 3_600
"""RecentlyActive=PT3H."""


def operations(cloudwatch: CloudWatch) -> list[Operation]:
    """Return the operations on metrics."""
    edge = _Edge(cloudwatch)
    return [
        AsyncOperation("PutMetricData", _permit_put, edge.put_metric_data),
        AsyncOperation("GetMetricData", _permit("GetMetricData"), edge.get_metric_data),
        AsyncOperation("GetMetricStatistics", _permit("GetMetricStatistics"), edge.get_metric_statistics),
        AsyncOperation("ListMetrics", _permit("ListMetrics"), edge.list_metrics),
    ]


def _permit(action: str) -> Permissions:
    return lambda _: (Permission(f"cloudwatch:{action}", "*"),)


def _permit_put(request: Request) -> tuple[Permission, ...]:
    return (Permission("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": request.get("Namespace", "")}),)


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, cloudwatch: CloudWatch) -> None:
        self._cloudwatch = cloudwatch

    async def put_metric_data(self, request: Request, call: Call) -> Response:
        namespace = request["Namespace"]
        if namespace.startswith(":") or not namespace.strip():
            raise InvalidParameterValueError(f"The value {namespace!r} for parameter Namespace is invalid.")
        given = [(namespace, datum) for datum in request.get("MetricData", ())]
        for entity in request.get("EntityMetricData", ()):
            given += [(namespace, datum) for datum in entity.get("MetricData", ())]
        if not given:
            raise MissingRequiredParameterError("The parameter MetricData is required.")
        if len(given) > BATCH_LIMIT:
            raise InvalidParameterValueError(
                f"The collection MetricData must not have more than {BATCH_LIMIT} members."
            )
        now_s = clock.now_ms() // 1000
        # All is looked at before anything is recorded: a batch is taken whole or not at all.
        for record in [self._datum(space, datum, now_s, index) for index, (space, datum) in enumerate(given, 1)]:
            record()
        return {}

    def _datum(self, namespace: str, datum: Mapping[str, Any], now_s: int, place: int) -> Callable[[], None]:
        """Return what records one datum; raise for one that cannot be."""
        where = f"MetricData.member.{place}"
        names = [dimension["Name"] for dimension in datum.get("Dimensions", ())]
        if len(set(names)) != len(names):
            raise InvalidParameterValueError(f"The parameter {where}.Dimensions names a dimension twice.")
        metric = metric_of({"Namespace": namespace, **datum})
        at_s = int(datum["Timestamp"].timestamp()) if "Timestamp" in datum else now_s
        if not now_s - TOO_OLD_S <= at_s <= now_s + TOO_NEW_S:
            raise InvalidParameterValueError(
                f"The parameter {where}.Timestamp must specify a time within the past two weeks, and no more than two "
                "hours in the future."
            )
        unit = datum.get("Unit", "None")
        if unit not in UNITS:
            raise InvalidParameterValueError(f"The parameter {where}.Unit must be a unit that AWS knows.")
        statistic = _statistic(datum, where)
        resolution_s = 1 if datum.get("StorageResolution", 60) == 1 else 60
        store = self._cloudwatch.store
        return lambda: store.record_statistic(metric, statistic, at_s, unit=unit, resolution_s=resolution_s)

    async def get_metric_data(self, request: Request, call: Call) -> Response:
        start_s, end_s = _window(request)
        descending = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        limit = min(request.get("MaxDatapoints") or POINTS_LIMIT, POINTS_LIMIT)
        account, options = self._cloudwatch.account, request.get("LabelOptions", {})
        place = Place(account.account_id, account.region, zone_of(options.get("Timezone")))
        queries = queries_of(request["MetricDataQueries"])
        results = await metric_data(self._cloudwatch.store, queries, start_s, end_s, place)
        skipped = start_of(request)
        answered: list[dict[str, Any]] = []
        left = limit
        seen = 0
        for result in results:
            points = sorted(
                ((at_s, v) for at_s, v in result.series.points.items() if math.isfinite(v)), reverse=descending
            )
            first = max(0, skipped - seen)
            page = points[first : first + left]
            partial = first + len(page) < len(points)
            if page or not points or skipped <= seen:
                answered.append(
                    {
                        "Id": result.id,
                        "Label": result.series.label,
                        "Timestamps": [clock.from_ms(at_s * 1000) for at_s, _ in page],
                        "Values": [value for _, value in page],
                        "StatusCode": "PartialData" if partial else "Complete",
                        **({"Messages": [{"Code": "Error", "Value": result.message}]} if result.message else {}),
                    }
                )
            seen += len(points)
            left -= len(page)
            if partial:
                return {"MetricDataResults": answered, "NextToken": token_at(skipped + limit), "Messages": []}
        return {"MetricDataResults": answered, "Messages": []}

    async def get_metric_statistics(self, request: Request, call: Call) -> Response:
        start_s, end_s = _window(request)
        names = [*request.get("Statistics", ()), *request.get("ExtendedStatistics", ())]
        if not names:
            raise MissingRequiredParameterError("At least one of Statistics and ExtendedStatistics must be given.")
        if request.get("Statistics") and request.get("ExtendedStatistics"):
            raise InvalidParameterCombinationError("Statistics and ExtendedStatistics cannot be given together.")
        period_s = request["Period"]
        if period_s not in (1, 5, 10, 20, 30) and period_s % 60:
            raise InvalidParameterValueError("The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60.")
        if (end_s - start_s) / period_s > STATISTICS_LIMIT:
            raise InvalidParameterCombinationError(
                f"You have requested up to {(end_s - start_s) // period_s} datapoints, which exceeds the limit of "
                f"{STATISTICS_LIMIT}. You may reduce the datapoints requested by increasing Period, or decreasing the time "
                "range."
            )
        readers = {name: reader(name) for name in names}
        for name, read in readers.items():
            if read is None:
                raise InvalidParameterValueError(f"The statistic {name} is not supported.")
        metric = metric_of(request)
        start_s = start_s // period_s * period_s
        percentiles = any(name not in SIMPLE for name in names)
        (values,) = await self._cloudwatch.store.values([metric], period_s, start_s, end_s, percentiles=percentiles)
        unit = next((unit for known, unit, _ in await self._known(metric) if known == metric), "None")
        datapoints = []
        for at_s, statistic in sorted(values.items()):
            point: dict[str, Any] = {"Timestamp": clock.from_ms(at_s * 1000), "Unit": unit}
            for name, read in readers.items():
                assert read is not None
                value = read(statistic)
                if value is None:
                    continue
                if name in SIMPLE:
                    point[name] = value
                else:
                    point.setdefault("ExtendedStatistics", {})[name] = value
            datapoints.append(point)
        return {"Label": metric.name, "Datapoints": datapoints}

    async def _known(self, metric: Metric) -> list[tuple[Metric, str, int]]:
        return await self._cloudwatch.store.series(metric.namespace, metric.name)

    async def list_metrics(self, request: Request, call: Call) -> Response:
        account_id = self._cloudwatch.account.account_id
        if request.get("OwningAccount", account_id) != account_id:
            return {"Metrics": [], "OwningAccounts": []}
        since_s = clock.now_ms() // 1000 - RECENT_S if request.get("RecentlyActive") == "PT3H" else 0
        wanted = [(one["Name"], one.get("Value")) for one in request.get("Dimensions", ())]
        found = [
            metric
            for metric, _, last_at_s in await self._cloudwatch.store.series(
                request.get("Namespace"), request.get("MetricName")
            )
            if last_at_s >= since_s and _has(metric, wanted)
        ]
        start = start_of(request)
        response: Response = {
            "Metrics": [
                {
                    "Namespace": metric.namespace,
                    "MetricName": metric.name,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
                }
                for metric in found[start : start + METRICS_PAGE]
            ]
        }
        if request.get("IncludeLinkedAccounts"):
            response["OwningAccounts"] = [account_id] * len(response["Metrics"])
        if start + METRICS_PAGE < len(found):
            response["NextToken"] = token_at(start + METRICS_PAGE)
        return response


def _has(metric: Metric, wanted: list[tuple[str, str | None]]) -> bool:
    dimensions = dict(metric.dimensions)
    return all(name in dimensions and value in (None, dimensions[name]) for name, value in wanted)


def _statistic(datum: Mapping[str, Any], where: str) -> Statistic:
    """Return the values of a datum: one, several with counts, or somebody's sums."""
    given = [key for key in ("Value", "Values", "StatisticValues") if key in datum]
    if len(given) != 1:
        raise InvalidParameterCombinationError(
            f"The parameters {where}.Value, {where}.Values and {where}.StatisticValues exclude each other; one is required."
        )
    if given == ["StatisticValues"]:
        sums = datum["StatisticValues"]
        for key in ("SampleCount", "Sum", "Minimum", "Maximum"):
            _check(sums[key], f"{where}.StatisticValues.{key}")
        if sums["SampleCount"] <= 0 or sums["Maximum"] < sums["Minimum"]:
            raise InvalidParameterValueError(f"The parameter {where}.StatisticValues is not consistent.")
        return Statistic(sums["SampleCount"], sums["Sum"], sums["Minimum"], sums["Maximum"])
    values = [datum["Value"]] if given == ["Value"] else datum["Values"]
    counts = datum.get("Counts") or [1.0] * len(values)
    if not 1 <= len(values) <= VALUES_LIMIT or len(counts) != len(values):
        raise InvalidParameterValueError(
            f"The parameters {where}.Values and {where}.Counts must have the same number of members, 1 to {VALUES_LIMIT}."
        )
    statistic = Statistic()
    for value, count in zip(values, counts, strict=True):
        _check(value, f"{where}.Value")
        _check(count, f"{where}.Counts")
        if count <= 0:
            raise InvalidParameterValueError(f"The parameter {where}.Counts must be above 0.")
        statistic.add(value, count)
    return statistic


def _check(value: float, where: str) -> None:
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise InvalidParameterValueError(f"The value {value} for parameter {where} is invalid.")


def _window(request: Request) -> tuple[int, int]:
    start: datetime = request["StartTime"]
    end: datetime = request["EndTime"]
    if end <= start:
        raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")
    return int(start.timestamp()), math.ceil(end.timestamp())
