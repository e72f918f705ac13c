"""Alarms: AWS's own table of missing values, composite rules, and what a change of state sets off."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import AsyncOperation, Call, Principal, ReadOperation, WriteOperation
from entrepot.services import cloudwatch
from entrepot.services.cloudwatch import CloudWatch, Metric
from entrepot.services.cloudwatch.alarms.composite import parse_rule
from entrepot.services.cloudwatch.alarms.threshold import Rule, judge
from entrepot.services.cloudwatch.errors import ValidationError

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")
TOPIC = "arn:aws:sns:us-east-1:000000000000:alerts"

# ── missing values: the tables of AWS's page "Configuring how CloudWatch alarms treat missing data" ─────────────────

KEEP = None
THREE_OF_THREE = [
    ("0-X-X", "OK", "OK", "OK", "OK"),
    ("----0", "OK", "OK", "OK", "OK"),
    ("-----", "INSUFFICIENT_DATA", KEEP, "ALARM", "OK"),
    ("0XX-X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("--X--", "ALARM", KEEP, "ALARM", "OK"),
]
TWO_OF_THREE = [
    ("0-X-X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("00X-X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("--X--", "ALARM", KEEP, "ALARM", "OK"),
]


def verdicts(drawn: str, least: int) -> tuple[str | None, ...]:
    """Return the state for each treatment of missing values: missing, ignore, breaching, notBreaching."""
    values = {"0": 0.0, "X": 2.0, "-": None}
    periods = [(number * 60, values[letter]) for number, letter in enumerate(drawn)]
    return tuple(
        judge(Rule("GreaterThanThreshold", 1.0, 3, least, treatment), periods).state  # type: ignore[arg-type]
        for treatment in ("missing", "ignore", "breaching", "notBreaching")
    )


@pytest.mark.parametrize("row", THREE_OF_THREE, ids=lambda row: row[0])
def test_missing_values_with_three_of_three(row: tuple[str, ...]) -> None:
    assert verdicts(row[0], 3) == row[1:]


@pytest.mark.parametrize("row", TWO_OF_THREE, ids=lambda row: row[0])
def test_missing_values_with_two_of_three(row: tuple[str, ...]) -> None:
    assert verdicts(row[0], 2) == row[1:]


# ── composite rules ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("ALARM(a)", True),
        ('OK("b c")', True),
        ("ALARM(a) AND NOT ALARM(d)", True),
        ("ALARM(d) OR INSUFFICIENT_DATA(nobody)", True),
        ("NOT (ALARM(a) OR FALSE)", False),
        ("TRUE AND ALARM(arn:aws:cloudwatch:us-east-1:000000000000:alarm:a)", True),
    ],
)
def test_composite_rules(text: str, holds: bool) -> None:
    assert parse_rule(text).holds({"a": "ALARM", "b c": "OK", "d": "OK"}) is holds


@pytest.mark.parametrize("text", ["", "ALARM", "ALARM(a", "a AND b", "ALARM(a) XOR OK(b)", "NOT " * 500 + "TRUE"])
def test_rules_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_rule(text)


# ── the watch ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Site:
    """CloudWatch over a ledger, with what alarms set off written down."""

    def __init__(self, folder: Path) -> None:
        self.database = SQLiteDatabase(folder / "ledger.db")
        self.database.migrate(cloudwatch.MIGRATIONS)
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.events: list[Mapping[str, Any]] = []
        self.broken = False
        self.cloudwatch = CloudWatch(
            self.database,
            Account("000000000000", "us-east-1"),
            folder / "metrics",
            run_action=self._run_action,
            emit=self._emit,
        )
        self._operations = {one.name: one for one in cloudwatch.operations(self.cloudwatch)}

    def _run_action(self, tx: Transaction, action: str, subject: str, message: str) -> None:
        if self.broken:
            raise ValidationError("The topic does not exist.")
        self.sent.append((action, subject, json.loads(message)))

    def _emit(self, tx: Transaction, kind: str, resources: Sequence[str], detail: Mapping[str, Any]) -> None:
        assert kind == "CloudWatch Alarm State Change"
        self.events.append(detail)

    async def __call__(self, name: str, **request: Any) -> dict[str, Any]:
        operation = self._operations[name]
        list(operation.permissions(request))
        match operation:
            case ReadOperation(run=read):
                return await self.database.read(lambda reader: read(reader, request, CALL))
            case WriteOperation(run=write):
                return await self.database.write(lambda tx: write(tx, request, CALL))
            case AsyncOperation(run=perform):
                return await perform(request, CALL)

    async def state(self, name: str) -> str:
        answer = await self("DescribeAlarms", AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        (alarm,) = answer["MetricAlarms"] + answer["CompositeAlarms"]
        state: str = alarm["StateValue"]
        return state


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.cloudwatch.start()
    yield made
    await made.cloudwatch.stop()
    await made.database.close()


FAILED = Metric.of("Entrepot", "FilesFailed")
ALARM = {
    "AlarmName": "failed",
    "Namespace": "Entrepot",
    "MetricName": "FilesFailed",
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 1,
    "Threshold": 0.0,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
    "AlarmActions": [TOPIC],
}


async def test_an_alarm_goes_off_tells_and_is_remembered(site: Site) -> None:
    await site("PutMetricAlarm", **ALARM)
    assert await site.state("failed") == "INSUFFICIENT_DATA"
    await site.cloudwatch.watch.look()
    assert await site.state("failed") == "OK"
    assert site.sent == []
    now_ms = clock.now_ms()
    site.cloudwatch.record(FAILED, 3.0, unit="Count", at_ms=now_ms - 60_000)
    await site("PutMetricAlarm", **ALARM)  # a changed alarm is judged anew
    await site.cloudwatch.watch.look()
    assert await site.state("failed") == "ALARM"
    ((action, subject, message),) = site.sent
    assert (action, subject) == (TOPIC, 'ALARM: "failed" in us-east-1')
    assert message["NewStateReason"].startswith("Threshold Crossed: 1 out of the last 1 datapoints [3.0 (")
    assert message["Trigger"]["MetricName"] == "FilesFailed"
    assert [(event["previousState"]["value"], event["state"]["value"]) for event in site.events] == [
        ("INSUFFICIENT_DATA", "OK"),
        ("OK", "ALARM"),
    ]
    items = (await site("DescribeAlarmHistory", AlarmName="failed", ScanBy="TimestampAscending"))["AlarmHistoryItems"]
    assert [item["HistoryItemType"] for item in items] == [
        "ConfigurationUpdate",
        "StateUpdate",
        "ConfigurationUpdate",
        "StateUpdate",
        "Action",
    ]
    assert items[-1]["HistorySummary"] == f"Successfully executed action {TOPIC}"
    await site.cloudwatch.watch.look()
    assert len(site.sent) == 1


async def test_a_composite_alarm_follows_and_can_be_suppressed(site: Site) -> None:
    await site("PutMetricAlarm", **ALARM)
    await site("PutMetricAlarm", **{**ALARM, "AlarmName": "maintenance", "AlarmActions": []})
    await site("PutCompositeAlarm", AlarmName="any", AlarmRule="ALARM(failed)", AlarmActions=[TOPIC + "2"])
    await site("PutCompositeAlarm", AlarmName="above", AlarmRule="ALARM(any)")
    await site("PutCompositeAlarm", AlarmName="quiet", AlarmRule="ALARM(failed)", AlarmActions=[TOPIC + "3"],
               ActionsSuppressor="maintenance")  # fmt: skip
    await site("SetAlarmState", AlarmName="maintenance", StateValue="ALARM", StateReason="night shift")
    await site("SetAlarmState", AlarmName="failed", StateValue="ALARM", StateReason="a test")
    site.cloudwatch.watch._judged = dict.fromkeys(("failed", "maintenance"), (1 << 40, 0))
    site.cloudwatch.record(FAILED, 1.0, at_ms=clock.now_ms() - 60_000)
    await site.cloudwatch.watch.look()
    assert [await site.state(name) for name in ("any", "above", "quiet")] == ["ALARM"] * 3
    assert [action for action, _, _ in site.sent] == [TOPIC, TOPIC + "2"]
    with pytest.raises(ValidationError, match="part of the composite alarm any"):
        await site("DeleteAlarms", AlarmNames=["failed"])
    with pytest.raises(ValidationError, match="leads back to itself"):
        await site("PutCompositeAlarm", AlarmName="any", AlarmRule="ALARM(above)")
    children = await site("DescribeAlarms", ChildrenOfAlarmName="any")
    assert [one["AlarmName"] for one in children["MetricAlarms"]] == ["failed"]


async def test_an_action_that_fails_leaves_the_change_and_says_so(site: Site) -> None:
    await site("PutMetricAlarm", **ALARM)
    site.broken = True
    await site("SetAlarmState", AlarmName="failed", StateValue="ALARM", StateReason="a test")
    items = (await site("DescribeAlarmHistory", HistoryItemType="Action"))["AlarmHistoryItems"]
    assert items[0]["HistorySummary"] == f"Failed to execute action {TOPIC}: The topic does not exist."
    await site("DisableAlarmActions", AlarmNames=["failed"])
    await site("SetAlarmState", AlarmName="failed", StateValue="OK", StateReason="a test")
    await site("SetAlarmState", AlarmName="failed", StateValue="ALARM", StateReason="a test")
    assert len((await site("DescribeAlarmHistory", HistoryItemType="Action"))["AlarmHistoryItems"]) == 1


async def test_an_alarm_on_an_expression(site: Site) -> None:
    stat = {"Metric": {"Namespace": "Entrepot", "MetricName": "FilesFailed"}, "Period": 60, "Stat": "Sum"}
    definition = {
        key: ALARM[key] for key in ("AlarmName", "EvaluationPeriods", "ComparisonOperator", "TreatMissingData")
    }
    metrics = [
        {"Id": "m1", "MetricStat": stat, "ReturnData": False},
        {"Id": "e1", "Expression": "m1 * 100", "ReturnData": True},
    ]
    site.cloudwatch.record(FAILED, 3.0, at_ms=clock.now_ms() - 60_000)
    await site("PutMetricAlarm", **definition, Threshold=299.0, Metrics=metrics)
    await site.cloudwatch.watch.look()
    assert await site.state("failed") == "ALARM"
    found = await site("DescribeAlarmsForMetric", Namespace="Entrepot", MetricName="FilesFailed")
    assert [one["AlarmName"] for one in found["MetricAlarms"]] == ["failed"]


@pytest.mark.parametrize(
    "change",
    [
        {"Period": 61},
        {"DatapointsToAlarm": 2},
        {"TreatMissingData": "guess"},
        {"ExtendedStatistic": "p99"},
        {"AlarmActions": ["mail me"]},
        {"ComparisonOperator": "GreaterThanUpperThreshold"},
        {"EvaluationPeriods": 20_000},
        {"ThresholdMetricId": "x"},
        {"Metrics": [{"Id": "m1", "Expression": "1"}]},
        {"AlarmName": "a\nb"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_alarms_that_cannot_be_judged_are_refused(site: Site, change: dict[str, Any]) -> None:
    with pytest.raises(AwsError):
        await site("PutMetricAlarm", **{**ALARM, **change})


async def test_alarms_survive_a_restart(tmp_path: Path) -> None:
    first = Site(tmp_path)
    await first.cloudwatch.start()
    await first("PutMetricAlarm", **ALARM, Tags=[{"Key": "team", "Value": "ops"}])
    await first("SetAlarmState", AlarmName="failed", StateValue="ALARM", StateReason="a test")
    await first.cloudwatch.stop()
    await first.database.close()
    second = Site(tmp_path)
    await second.cloudwatch.start()
    assert await second.state("failed") == "ALARM"
    arn = "arn:aws:cloudwatch:us-east-1:000000000000:alarm:failed"
    assert await second("ListTagsForResource", ResourceARN=arn) == {"Tags": [{"Key": "team", "Value": "ops"}]}
    await second.cloudwatch.stop()
    await second.database.close()
    await asyncio.sleep(0)


async def test_dashboards(site: Site) -> None:
    body = json.dumps(
        {"widgets": [{"type": "text", "x": 0, "y": 0, "width": 6, "height": 3, "properties": {"markdown": "hi"}}]}
    )
    assert await site("PutDashboard", DashboardName="ops", DashboardBody=body) == {"DashboardValidationMessages": []}
    assert (await site("GetDashboard", DashboardName="ops"))["DashboardBody"] == body
    assert [
        one["DashboardName"] for one in (await site("ListDashboards", DashboardNamePrefix="o"))["DashboardEntries"]
    ] == ["ops"]
    for bad in ("{", "[]", '{"widgets": [{"type": "cake", "properties": {}}]}', '{"widgets": [{"type": "text"}]}'):
        with pytest.raises(AwsError) as caught:
            await site("PutDashboard", DashboardName="ops", DashboardBody=bad)
        assert caught.value.members["dashboardValidationMessages"]
    await site("DeleteDashboards", DashboardNames=["ops"])
    with pytest.raises(AwsError):
        await site("GetDashboard", DashboardName="ops")
