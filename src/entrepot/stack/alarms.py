"""The alarms of `stack.toml`, in the shape of PutMetricAlarm."""

from typing import Any

from entrepot.arns import Account
from entrepot.settings import Alarm


def alarm_request(account: Account, name: str, alarm: Alarm) -> dict[str, Any]:
    """Return the request of PutMetricAlarm that makes an alarm. Topics are given by their names, or anything by its ARN."""

    def arns(actions: tuple[str, ...]) -> list[str]:
        return [action if action.startswith("arn:") else account.arn("sns", action) for action in actions]

    request: dict[str, Any] = {
        "AlarmName": name,
        "AlarmDescription": alarm.description,
        "Namespace": alarm.namespace,
        "MetricName": alarm.metric_name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in alarm.dimensions.items()],
        "Period": alarm.period_s,
        "EvaluationPeriods": alarm.evaluation_periods,
        "Threshold": alarm.threshold,
        "ComparisonOperator": alarm.comparison_operator,
        "TreatMissingData": alarm.treat_missing_data,
        "AlarmActions": arns(alarm.alarm_actions),
        "OKActions": arns(alarm.ok_actions),
    }
    request["ExtendedStatistic" if alarm.statistic[:1] in "ptiPTI" else "Statistic"] = alarm.statistic
    if alarm.datapoints_to_alarm is not None:
        request["DatapointsToAlarm"] = alarm.datapoints_to_alarm
    return request
