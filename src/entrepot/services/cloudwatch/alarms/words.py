"""The words of alarms: reasons, the data of history, and the messages that actions send.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.services.cloudwatch.alarms.alarm import Alarm, StateValue
from entrepot.services.cloudwatch.alarms.threshold import COMPARISONS, Rule, Verdict

_TREATED = {
    "breaching": " [Breaching]",
    "notBreaching": " [NonBreaching]",
    "ignore": " [Ignored]",
    "missing": "",
}


def reason(rule: Rule, verdict: Verdict, state: StateValue) -> str:
    """Return why a metric alarm is in `state`, worded as AWS does."""
    wanted = rule.evaluation_periods
    if state == "INSUFFICIENT_DATA" or not verdict.decisive:
        if state == "INSUFFICIENT_DATA":
            return f"Insufficient Data: {verdict.missing} datapoint{_s(verdict.missing)} were unknown."
        return (
            f"Threshold Crossed: no datapoints were received for {verdict.missing} period{_s(verdict.missing)} and "
            f"{verdict.missing} missing datapoint{_s(verdict.missing)} "
            f"{'was' if verdict.missing == 1 else 'were'} treated as{_TREATED[rule.treat_missing_data]}."
        )
    breaking = state == "ALARM"
    shown = [(at_s, value) for at_s, value in verdict.decisive if rule.breaks(value) == breaking] or list(
        verdict.decisive
    )
    values = ", ".join(f"{value!r} ({_moment(at_s)})" for at_s, value in shown[:5])
    least = rule.datapoints_to_alarm if breaking else wanted - rule.datapoints_to_alarm + 1
    kind = "OK -> ALARM" if breaking else "ALARM -> OK"
    verb = ("was" if len(shown) == 1 else "were") + ("" if breaking else " not")
    return (
        f"Threshold Crossed: {len(shown)} out of the last {wanted} datapoints [{values}] {verb} "
        f"{COMPARISONS[rule.comparison][1]} the threshold ({rule.threshold!r}) "
        f"(minimum {least} datapoint{_s(least)} for {kind} transition)."
    )


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _moment(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%d/%m/%y %H:%M:%S")


def reason_data(
    alarm: Alarm, rule: Rule, periods: Sequence[tuple[int, float | None]], period_s: int, now_ms: int
) -> str:
    """Return the values that a metric alarm looked at, as AWS's JSON."""
    known = [(at_s, value) for at_s, value in periods if value is not None]
    data: dict[str, Any] = {
        "version": "1.0",
        "queryDate": _iso(now_ms),
        "statistic": alarm.definition.get("Statistic") or alarm.definition.get("ExtendedStatistic"),
        "period": period_s,
        "recentDatapoints": [value for _, value in known[-rule.evaluation_periods :]],
        "threshold": rule.threshold,
        "evaluatedDatapoints": [
            {"timestamp": _iso(at_s * 1000), **({} if value is None else {"value": value})}
            for at_s, value in reversed(periods[-rule.evaluation_periods :])
        ],
    }
    if known:
        data["startDate"] = _iso(known[0][0] * 1000)
    return json.dumps(data)[:4_000]


def _iso(at_ms: int) -> str:
    return clock.iso(at_ms).removesuffix("Z") + "+0000"


def notification(alarm: Alarm, old_state: StateValue, account: Account, arn: str, region_name: str) -> tuple[str, str]:
    """Return subject and message of the notification that a change of state sends to a topic."""
    definition = alarm.definition
    message: dict[str, Any] = {
        "AlarmName": alarm.name,
        "AlarmDescription": definition.get("AlarmDescription"),
        "AWSAccountId": account.account_id,
        "AlarmConfigurationUpdatedTimestamp": _iso(alarm.configured_at_ms),
        "NewStateValue": alarm.state,
        "NewStateReason": alarm.reason,
        "StateChangeTime": _iso(alarm.updated_at_ms),
        "Region": region_name,
        "AlarmArn": arn,
        "OldStateValue": old_state,
        "OKActions": list(definition.get("OKActions") or ()),
        "AlarmActions": list(definition.get("AlarmActions") or ()),
        "InsufficientDataActions": list(definition.get("InsufficientDataActions") or ()),
    }
    if alarm.kind == "CompositeAlarm":
        message["AlarmRule"] = definition["AlarmRule"]
    else:
        message["Trigger"] = _trigger(definition)
    return f'{alarm.state}: "{alarm.name}" in {region_name}'[:100], json.dumps(message)


def _trigger(definition: Mapping[str, Any]) -> dict[str, Any]:
    statistic = definition.get("Statistic")
    return {
        "MetricName": definition.get("MetricName"),
        "Namespace": definition.get("Namespace"),
        "StatisticType": "Statistic" if statistic else "ExtendedStatistic",
        "Statistic": statistic.upper() if statistic else definition.get("ExtendedStatistic"),
        "Unit": definition.get("Unit"),
        "Dimensions": [{"name": d["Name"], "value": d["Value"]} for d in definition.get("Dimensions") or ()],
        "Period": definition.get("Period"),
        "EvaluationPeriods": definition.get("EvaluationPeriods"),
        "DatapointsToAlarm": definition.get("DatapointsToAlarm"),
        "ComparisonOperator": definition.get("ComparisonOperator"),
        "Threshold": definition.get("Threshold"),
        "TreatMissingData": definition.get("TreatMissingData", "missing"),
        "Metrics": definition.get("Metrics"),
    }


def state_of(alarm: Alarm) -> dict[str, Any]:
    """Return the state as events and history have it."""
    state: dict[str, Any] = {"value": alarm.state, "reason": alarm.reason, "timestamp": _iso(alarm.updated_at_ms)}
    if alarm.reason_data:
        state["reasonData"] = alarm.reason_data
    return state


def change_event(before: Alarm, after: Alarm) -> dict[str, Any]:
    """Return the detail of the event "CloudWatch Alarm State Change"."""
    definition = after.definition
    configuration: dict[str, Any] = {"description": definition.get("AlarmDescription", "")}
    if after.kind == "CompositeAlarm":
        configuration["alarmRule"] = definition["AlarmRule"]
    else:
        configuration["metrics"] = _metrics(definition)
    return {
        "alarmName": after.name,
        "state": state_of(after),
        "previousState": state_of(before),
        "configuration": configuration,
    }


def _metrics(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    if definition.get("Metrics"):
        return [
            {
                "id": query["Id"],
                **({"expression": query["Expression"]} if "Expression" in query else {}),
                **({"label": query["Label"]} if "Label" in query else {}),
                "returnData": query.get("ReturnData", True),
            }
            for query in definition["Metrics"]
        ]
    return [
        {
            "id": "m1",
            "metricStat": {
                "metric": {
                    "namespace": definition["Namespace"],
                    "name": definition["MetricName"],
                    "dimensions": {d["Name"]: d["Value"] for d in definition.get("Dimensions") or ()},
                },
                "period": definition["Period"],
                "stat": definition.get("Statistic") or definition.get("ExtendedStatistic"),
            },
            "returnData": True,
        }
    ]
