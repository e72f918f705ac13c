"""PutMetricAlarm, PutCompositeAlarm, and what is asked and told of alarms."""

import json
import re
from collections.abc import Mapping
from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.cloudwatch.alarms import alarm as alarms
from entrepot.services.cloudwatch.alarms.alarm import ALARMS_LIMIT, Alarm, Kind, StateValue
from entrepot.services.cloudwatch.alarms.composite import parse_rule
from entrepot.services.cloudwatch.alarms.threshold import COMPARISONS
from entrepot.services.cloudwatch.alarms.watch import metric_of, period_of, queries_of
from entrepot.services.cloudwatch.errors import (
    InvalidFormatError,
    LimitExceededError,
    ResourceNotFoundError,
    TaggedResourceNotFoundError,
    ValidationError,
)
from entrepot.services.cloudwatch.metric_data import checked
from entrepot.services.cloudwatch.operations.pages import start_of, token_at
from entrepot.services.cloudwatch.service import CloudWatch
from entrepot.services.cloudwatch.statistics import SIMPLE, reader

PAGE = 50
"""Alarms, or items of history, in a page when the caller names no number. As on AWS."""

NAMES_LIMIT = 100
"""Alarms that one request deletes, enables or disables. AWS's limit."""

TAGS_LIMIT = 50
"""Tags of an alarm. AWS's limit."""

WINDOW_LIMIT_S = 7 * 86_400
"""Periods times their length is at most a week. AWS's limit."""

TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
REFUSED = ("ThresholdMetricId", "EvaluationCriteria")
"""Members of PutMetricAlarm that are refused: anomaly detection and PromQL."""

_NAME = re.compile(r"[\x20-\x7e\x80-\U0010ffff]{1,255}")


def operations(cloudwatch: CloudWatch) -> list[Operation]:
    """Return the operations on alarms."""
    edge = _Edge(cloudwatch)
    on_one, on_many, on_resource = edge.on_one, edge.on_many, edge.on_resource
    return [
        WriteOperation("PutMetricAlarm", on_one("PutMetricAlarm"), edge.put_metric_alarm),
        WriteOperation("PutCompositeAlarm", on_one("PutCompositeAlarm"), edge.put_composite_alarm),
        ReadOperation("DescribeAlarms", _anywhere("DescribeAlarms"), edge.describe_alarms),
        ReadOperation("DescribeAlarmsForMetric", _anywhere("DescribeAlarmsForMetric"), edge.describe_for_metric),
        ReadOperation("DescribeAlarmHistory", _anywhere("DescribeAlarmHistory"), edge.describe_alarm_history),
        WriteOperation("SetAlarmState", on_one("SetAlarmState"), edge.set_alarm_state),
        WriteOperation("DeleteAlarms", on_many("DeleteAlarms"), edge.delete_alarms),
        WriteOperation("EnableAlarmActions", on_many("EnableAlarmActions"), edge.enable_alarm_actions),
        WriteOperation("DisableAlarmActions", on_many("DisableAlarmActions"), edge.disable_alarm_actions),
        WriteOperation("TagResource", on_resource("TagResource"), edge.tag_resource),
        WriteOperation("UntagResource", on_resource("UntagResource"), edge.untag_resource),
        ReadOperation("ListTagsForResource", on_resource("ListTagsForResource"), edge.list_tags_for_resource),
    ]


def _anywhere(action: str) -> Permissions:
    return lambda _: (Permission(f"cloudwatch:{action}", "*"),)


class _Edge:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, cloudwatch: CloudWatch) -> None:
        self._cloudwatch = cloudwatch

    def _arn(self, name: str) -> str:
        return self._cloudwatch.account.arn("cloudwatch", f"alarm:{name}")

    def on_one(self, action: str) -> Permissions:
        return lambda request: (Permission(f"cloudwatch:{action}", self._arn(request.get("AlarmName", ""))),)

    def on_many(self, action: str) -> Permissions:
        return lambda request: [
            Permission(f"cloudwatch:{action}", self._arn(name)) for name in request.get("AlarmNames") or ("*",)
        ]

    def on_resource(self, action: str) -> Permissions:
        return lambda request: (Permission(f"cloudwatch:{action}", request.get("ResourceARN", "")),)

    # ── alarms come and go ───────────────────────────────────────────────────────────────────────────────────────

    def put_metric_alarm(self, tx: Transaction, request: Request, call: Call) -> Response:
        for key in REFUSED:
            if key in request:
                raise ValidationError(f"{key} is not supported here: alarms have a threshold.")
        definition = {key: value for key, value in request.items() if key != "Tags"}
        _check_metric_alarm(definition)
        return self._put(tx, "MetricAlarm", definition, request)

    def put_composite_alarm(self, tx: Transaction, request: Request, call: Call) -> Response:
        definition = {key: value for key, value in request.items() if key != "Tags"}
        rule = parse_rule(definition["AlarmRule"])
        name = definition["AlarmName"]
        for child in sorted(rule.children):
            if child != name and alarms.find(tx, child) is None:
                raise ValidationError(
                    f"Could not save the composite alarm: the alarm {child} in its rule does not exist."
                )
        if name in self._below(tx, rule.children):
            raise ValidationError("Could not save the composite alarm: its rule leads back to itself.")
        return self._put(tx, "CompositeAlarm", definition, request)

    def _below(self, reader: Reader, names: frozenset[str]) -> set[str]:
        """Return these alarms and every alarm that their rules lead to."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            child = alarms.find(reader, name)
            if child is not None and child.kind == "CompositeAlarm":
                waiting += parse_rule(child.definition["AlarmRule"]).children
        return found

    def _put(self, tx: Transaction, kind: Kind, definition: Mapping[str, Any], request: Request) -> Response:
        name = definition["AlarmName"]
        if not _NAME.fullmatch(name):
            raise ValidationError("AlarmName must have 1 to 255 characters, none of them a control character.")
        for key in ("OKActions", "AlarmActions", "InsufficientDataActions"):
            for action in definition.get(key) or ():
                if not action.startswith("arn:"):
                    raise ValidationError(f"Invalid arn syntax: {action}")
        now_ms = clock.now_ms()
        known = alarms.find(tx, name)
        if known is None and alarms.count(tx) >= ALARMS_LIMIT:
            raise LimitExceededError(f"There are {ALARMS_LIMIT} alarms already; delete one.")
        if known is not None and known.kind != kind:
            raise ValidationError(f"The alarm {name} exists already as a {known.kind}; delete it before.")
        state: StateValue = "INSUFFICIENT_DATA" if known is None else known.state
        reason = "Unchecked: Initial alarm creation" if known is None else known.reason
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()}
        made = Alarm(
            name,
            kind,
            definition,
            now_ms,
            state,
            reason,
            "" if known is None else known.reason_data,
            now_ms if known is None else known.updated_at_ms,
            now_ms if known is None else known.transitioned_at_ms,
            tags if known is None else known.tags,
        )
        alarms.save(tx, made)
        summary = f'Alarm "{name}" {"created" if known is None else "updated"}'
        type_ = "Create" if known is None else "Update"
        data = {
            "version": "1.0",
            "type": type_,
            f"{type_.lower()}dAlarm": {"alarmName": name, "alarmArn": self._arn(name)},
        }
        alarms.remember(tx, made, now_ms, "ConfigurationUpdate", summary, data)
        return {}

    def delete_alarms(self, tx: Transaction, request: Request, call: Call) -> Response:
        names = _names(request)
        found = [alarms.find(tx, name) for name in names]
        gone = {one.name for one in found if one is not None}
        for other in alarms.every(tx):
            if other.kind == "CompositeAlarm" and other.name not in gone:
                used = parse_rule(other.definition["AlarmRule"]).children & gone
                if used:
                    raise ValidationError(f"The alarm {min(used)} is part of the composite alarm {other.name}.")
        for one in found:
            if one is None:
                continue
            alarms.delete(tx, one.name)
            data = {"version": "1.0", "type": "Delete"}
            alarms.remember(tx, one, clock.now_ms(), "ConfigurationUpdate", f'Alarm "{one.name}" deleted', data)
        return {}

    def enable_alarm_actions(self, tx: Transaction, request: Request, call: Call) -> Response:
        return self._set_enabled(tx, request, enabled=True)

    def disable_alarm_actions(self, tx: Transaction, request: Request, call: Call) -> Response:
        return self._set_enabled(tx, request, enabled=False)

    def _set_enabled(self, tx: Transaction, request: Request, *, enabled: bool) -> Response:
        for name in _names(request):
            if (one := alarms.find(tx, name)) is not None:
                self._change(tx, one, definition={**one.definition, "ActionsEnabled": enabled})
        return {}

    def _change(self, tx: Transaction, one: Alarm, **changed: Any) -> None:
        fields = {name: getattr(one, name) for name in Alarm.__slots__} | changed
        alarms.save(tx, Alarm(**fields))

    def set_alarm_state(self, tx: Transaction, request: Request, call: Call) -> Response:
        one = alarms.find(tx, request["AlarmName"])
        if one is None:
            raise ResourceNotFoundError(f"The alarm {request['AlarmName']} does not exist.")
        data = request.get("StateReasonData", "")
        if data:
            try:
                json.loads(data)
            except (ValueError, RecursionError):
                raise InvalidFormatError("StateReasonData was not given as JSON.") from None
        self._cloudwatch.watch.change(tx, one, request["StateValue"], request["StateReason"], data)
        return {}

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────

    def describe_alarms(self, reader: Reader, request: Request, call: Call) -> Response:
        if request.get("AlarmNames") and request.get("AlarmNamePrefix"):
            raise ValidationError("AlarmNames and AlarmNamePrefix exclude each other.")
        kinds = request.get("AlarmTypes") or ("MetricAlarm",)
        names = set(request.get("AlarmNames") or ())
        if "ChildrenOfAlarmName" in request or "ParentsOfAlarmName" in request:
            kinds = ("MetricAlarm", "CompositeAlarm")
        found = [
            one
            for one in alarms.every(reader)
            if (one.kind in kinds or (names and not request.get("AlarmTypes")))
            and (not names or one.name in names)
            and one.name.startswith(request.get("AlarmNamePrefix", ""))
            and request.get("StateValue") in (None, one.state)
            and _has_action(one, request.get("ActionPrefix", ""))
            and self._is_relative(reader, one, request)
        ]
        start, limit = start_of(request), request.get("MaxRecords", PAGE)
        page = found[start : start + limit]
        response: Response = {
            "MetricAlarms": [self._described(one) for one in page if one.kind == "MetricAlarm"],
            "CompositeAlarms": [self._described(one) for one in page if one.kind == "CompositeAlarm"],
        }
        if start + limit < len(found):
            response["NextToken"] = token_at(start + limit)
        return response

    def _is_relative(self, reader: Reader, one: Alarm, request: Request) -> bool:
        if parent := request.get("ChildrenOfAlarmName"):
            above = alarms.find(reader, parent)
            if above is None or above.kind != "CompositeAlarm":
                return False
            return one.name in parse_rule(above.definition["AlarmRule"]).children
        if child := request.get("ParentsOfAlarmName"):
            return one.kind == "CompositeAlarm" and child in parse_rule(one.definition["AlarmRule"]).children
        return True

    def _described(self, one: Alarm) -> dict[str, Any]:
        described: dict[str, Any] = {"ActionsEnabled": True}
        described |= {key: [] for key in ("OKActions", "AlarmActions", "InsufficientDataActions")}
        if one.kind == "MetricAlarm":
            described["Dimensions"] = []
        described |= one.definition
        described |= {
            "AlarmArn": self._arn(one.name),
            "AlarmConfigurationUpdatedTimestamp": clock.from_ms(one.configured_at_ms),
            "StateValue": one.state,
            "StateReason": one.reason,
            "StateUpdatedTimestamp": clock.from_ms(one.updated_at_ms),
            "StateTransitionedTimestamp": clock.from_ms(one.transitioned_at_ms),
        }
        if one.reason_data:
            described["StateReasonData"] = one.reason_data
        return described

    def describe_for_metric(self, reader: Reader, request: Request, call: Call) -> Response:
        wanted = metric_of(request)
        found = []
        for one in alarms.every(reader):
            if one.kind != "MetricAlarm":
                continue
            definition = one.definition
            metrics = [query.metric for query in queries_of(definition.get("Metrics") or ())]
            if "MetricName" in definition:
                metrics.append(metric_of(definition))
            same = all(
                request.get(key) in (None, definition.get(key)) for key in ("Statistic", "ExtendedStatistic", "Period")
            )
            if wanted in metrics and same:
                found.append(self._described(one))
        return {"MetricAlarms": found}

    def describe_alarm_history(self, reader: Reader, request: Request, call: Call) -> Response:
        start, limit = start_of(request), request.get("MaxRecords", PAGE)
        items = alarms.history(
            reader,
            name=request.get("AlarmName"),
            kinds=request.get("AlarmTypes") or (),
            type_=request.get("HistoryItemType"),
            since_ms=int(request["StartDate"].timestamp() * 1000) if "StartDate" in request else 0,
            until_ms=int(request["EndDate"].timestamp() * 1000) if "EndDate" in request else clock.now_ms(),
            descending=request.get("ScanBy", "TimestampDescending") == "TimestampDescending",
            offset=start,
            limit=limit + 1,
        )
        response: Response = {
            "AlarmHistoryItems": [
                {
                    "AlarmName": item.name,
                    "AlarmType": item.kind,
                    "Timestamp": clock.from_ms(item.at_ms),
                    "HistoryItemType": item.type,
                    "HistorySummary": item.summary,
                    "HistoryData": item.data,
                }
                for item in items[:limit]
            ]
        }
        if len(items) > limit:
            response["NextToken"] = token_at(start + limit)
        return response

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tagged(self, reader: Reader, request: Request) -> Alarm:
        arn = request["ResourceARN"]
        one = alarms.find(reader, arn.rsplit(":alarm:", 1)[-1]) if ":alarm:" in arn else None
        if one is None:
            raise TaggedResourceNotFoundError(f"The resource {arn} does not exist.")
        return one

    def tag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        one = self._tagged(tx, request)
        tags = {**one.tags, **{tag["Key"]: tag["Value"] for tag in request["Tags"]}}
        if len(tags) > TAGS_LIMIT:
            raise ValidationError(f"An alarm has at most {TAGS_LIMIT} tags.")
        self._change(tx, one, tags=tags)
        return {}

    def untag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        one = self._tagged(tx, request)
        self._change(tx, one, tags={key: value for key, value in one.tags.items() if key not in request["TagKeys"]})
        return {}

    def list_tags_for_resource(self, reader: Reader, request: Request, call: Call) -> Response:
        one = self._tagged(reader, request)
        return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(one.tags.items())]}


def _names(request: Request) -> list[str]:
    names: list[str] = request["AlarmNames"]
    if not 1 <= len(names) <= NAMES_LIMIT:
        raise ValidationError(f"AlarmNames must have 1 to {NAMES_LIMIT} members.")
    return names


def _has_action(one: Alarm, prefix: str) -> bool:
    if not prefix:
        return True
    keys = ("OKActions", "AlarmActions", "InsufficientDataActions")
    return any(action.startswith(prefix) for key in keys for action in one.definition.get(key) or ())


def _check_metric_alarm(definition: Mapping[str, Any]) -> None:
    """Raise ValidationError for a metric alarm that cannot be judged."""
    for key in ("ComparisonOperator", "EvaluationPeriods", "Threshold"):
        if key not in definition:
            raise ValidationError(f"The parameter {key} is required.")
    if definition["ComparisonOperator"] not in COMPARISONS:
        raise ValidationError(f"ComparisonOperator {definition['ComparisonOperator']} needs anomaly detection.")
    if definition.get("TreatMissingData", "missing") not in TREATMENTS:
        raise ValidationError(f"TreatMissingData must be one of {', '.join(TREATMENTS)}.")
    least, most = definition.get("DatapointsToAlarm", 1), definition["EvaluationPeriods"]
    if not 1 <= least <= most:
        raise ValidationError("DatapointsToAlarm must be from 1 to EvaluationPeriods.")
    if definition.get("Metrics"):
        if any(key in definition for key in ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period")):
            raise ValidationError("Metrics excludes MetricName, Namespace, Statistic, ExtendedStatistic and Period.")
        returned = [query for query, _ in checked(queries_of(definition["Metrics"])) if query.returned]
        if len(returned) != 1:
            raise ValidationError("Exactly one of the Metrics must have ReturnData true.")
    else:
        _check_one_metric(definition)
    period_s = period_of(definition)
    if period_s not in (10, 20, 30) and period_s % 60:
        raise ValidationError("Period must be 10, 20, 30 or a multiple of 60 seconds.")
    if period_s * most > WINDOW_LIMIT_S:
        raise ValidationError("EvaluationPeriods times Period must be at most 604,800 seconds (a week).")


def _check_one_metric(definition: Mapping[str, Any]) -> None:
    for key in ("MetricName", "Namespace", "Period"):
        if key not in definition:
            raise ValidationError(f"The parameter {key} is required, or Metrics.")
    statistic, extended = definition.get("Statistic"), definition.get("ExtendedStatistic")
    if (statistic is None) == (extended is None):
        raise ValidationError("Exactly one of Statistic and ExtendedStatistic must be given.")
    if extended is not None and (extended in SIMPLE or reader(extended) is None):
        raise ValidationError(f"The ExtendedStatistic {extended} is not supported.")
