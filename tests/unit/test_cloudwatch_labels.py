"""Labels with live values."""

from datetime import UTC, timedelta

import pytest

from entrepot import clock
from entrepot.services.cloudwatch.errors import ValidationError
from entrepot.services.cloudwatch.expressions import Series
from entrepot.services.cloudwatch.labels import Place, filled, zone_of

AT_S = 1_700_000_040  # 2023-11-14 22:14:00 UTC
SERIES = Series(
    "own label",
    {AT_S: 4.0, AT_S + 60: 1.25, AT_S + 120: 4.0, AT_S + 180: 123_456.0},
    60,
    {"Dim.Kind": "a|b", "MetricName": "Orders", "Namespace": "Shop", "Stat": "Sum"},
)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: (AT_S + 180 + 3_725) * 1000)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("plain", "plain"),
        ("${LABEL}: ${PROP('MetricName')} of ${PROP('Dim.Kind')}", "own label: Orders of a|b"),
        ("${PROP('Namespace')} ${PROP('Stat')} ${PROP('Period')}", "Shop Sum 60"),
        ("${PROP('AccountId')} ${PROP('Region')} [${PROP('Dim.none')}]", "0123 eu-west-1 []"),
        ("${MIN} ${MAX} ${AVG} ${SUM}", "1.25 123456 30866.312 123465.25"),
        ("${FIRST} ${LAST} ${DATAPOINT_COUNT}", "4 123456 4"),
        ("${MIN_TIME}", "2023-11-14 22:15:00 UTC"),
        ("${MAX_TIME_RELATIVE} ${FIRST_TIME_RELATIVE}", "1h 2m 1h 5m"),
        ("${FIRST_LAST_RANGE} ${FIRST_LAST_TIME_RANGE}", "123452 3m"),
        ("${MIN_MAX_RANGE} ${MIN_MAX_TIME_RANGE}", "123454.75 2m"),
        ("${NONSENSE} ${", "${NONSENSE} ${"),
    ],
)
def test_values_are_filled_in(label: str, text: str) -> None:
    assert filled(label, SERIES, Place("0123", "eu-west-1")) == text


def test_a_series_without_values_has_none_in_its_label() -> None:
    assert filled("[${MAX}|${LAST_TIME}] ${DATAPOINT_COUNT}", Series("s", {}, 60), Place()) == "[|] 0"


def test_times_are_told_in_the_zone_that_is_asked_for() -> None:
    assert filled("${FIRST_TIME}", SERIES, Place(zone=zone_of("+0530"))) == "2023-11-15 03:44:00 UTC+05:30"
    assert zone_of("-0100").utcoffset(None) == -timedelta(hours=1)
    assert zone_of(None) is UTC
    for text in ("1", "+1", "+2500", "+0160", "Z", "+01:00"):
        with pytest.raises(ValidationError):
            zone_of(text)
