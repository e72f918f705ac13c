"""Values of metrics: sketches, percentiles, periods, metric math and SEARCH, beside plain computations."""

import math
import random
import statistics
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot import clock
from entrepot.services.cloudwatch.errors import ValidationError
from entrepot.services.cloudwatch.expressions import Evaluation, ExpressionError, Series, evaluate, parse_expression
from entrepot.services.cloudwatch.expressions.search import parse_search
from entrepot.services.cloudwatch.metric_data import Query, metric_data
from entrepot.services.cloudwatch.metrics import Metric
from entrepot.services.cloudwatch.statistics import BUCKETS_LIMIT, Statistic, reader
from entrepot.services.cloudwatch.store import MetricStore

numbers = st.floats(-1e9, 1e9, allow_nan=False) | st.integers(-1000, 1000).map(float)


def of(values: list[float]) -> Statistic:
    """Return the statistic of some values."""
    statistic = Statistic()
    for value in values:
        statistic.add(value)
    return statistic


def read(name: str, statistic: Statistic) -> float | None:
    """Return a statistic by its name."""
    function = reader(name)
    assert function is not None, name
    return function(statistic)


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(numbers, min_size=1, max_size=60), st.lists(numbers, max_size=60))
def test_merged_sketches_are_those_of_all_values(some: list[float], others: list[float]) -> None:
    merged = of(some)
    merged.merge(of(others))
    everything = of(some + others)
    assert merged.buckets == everything.buckets
    assert (merged.minimum, merged.maximum, merged.count) == (
        min(some + others),
        max(some + others),
        len(some + others),
    )


@given(st.lists(numbers, min_size=1, max_size=80), st.integers(0, 100))
def test_percentiles_are_right_to_one_per_cent(values: list[float], percent: int) -> None:
    got = read(f"p{percent}", of(values))
    ordered = sorted(values)
    rank = percent / 100 * (len(values) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    assert got is not None
    slack = 0.0101 * max(abs(low), abs(high)) + 1e-8
    assert low - slack <= got <= high + slack


def test_trimmed_and_ranged_statistics() -> None:
    statistic = of([float(value) for value in range(1, 101)])
    assert read("tm90", statistic) == pytest.approx(statistics.mean(range(1, 91)), rel=0.02)
    assert read("IQM", statistic) == pytest.approx(50.5, rel=0.02)
    assert read("TM(10%:90%)", statistic) == pytest.approx(50.5, rel=0.02)
    assert read("PR(:50.4)", statistic) == pytest.approx(50, abs=1)
    assert read("TC(20.5:)", statistic) == pytest.approx(80, abs=1)
    assert read("ts100", statistic) == pytest.approx(5050, rel=0.02)
    assert [reader(name) for name in ("p101", "average", "TM(", "pp9", "TM(a:b)")] == [None] * 5


def test_a_sketch_is_bounded() -> None:
    dice = random.Random(1)
    statistic = of([10 ** dice.uniform(-8, 100) for _ in range(20_000)])
    assert len(statistic.buckets) <= BUCKETS_LIMIT
    assert sum(statistic.buckets.values()) == 20_000


# ── the store ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MetricStore]:
    made = MetricStore(tmp_path / "metrics.db")
    yield made
    await made.close()


FILES = Metric.of("App", "Files", Customer="a")
OTHER = Metric.of("App", "Files", Customer="b")
ERRORS = Metric.of("App", "Errors")


async def test_values_add_up_over_periods_and_restarts(tmp_path: Path) -> None:
    now_s = clock.now_ms() // 1000 // 3600 * 3600
    first = MetricStore(tmp_path / "metrics.db")
    for minute in range(10):
        first.record(FILES, float(minute), now_s + minute * 60 + 7, unit="Count")
    await first.close()
    second = MetricStore(tmp_path / "metrics.db")
    second.record(FILES, 100.0, now_s + 5)
    (minutes,) = await second.values([FILES], 60, now_s, now_s + 600, percentiles=False)
    assert [statistic.sum for statistic in minutes.values()] == [100.0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    (fives,) = await second.values([FILES], 300, now_s, now_s + 600, percentiles=True)
    assert [(s.count, s.sum, s.minimum, s.maximum) for s in fives.values()] == [(6, 110, 0, 100), (5, 35, 5, 9)]
    assert read("p50", fives[now_s + 300]) == pytest.approx(7, rel=0.02)
    assert await second.series("App") == [(FILES, "None", now_s + 540)]
    assert await second.values([ERRORS], 60, now_s, now_s + 600, percentiles=False) == [{}]
    await second.close()


async def test_old_values_are_read_from_hours(store: MetricStore) -> None:
    long_ago_s = (clock.now_ms() // 1000 - 100 * 86_400) // 3600 * 3600
    store.record(FILES, 5.0, long_ago_s + 120)
    store.record(FILES, 7.0, long_ago_s + 3_000)
    (hours,) = await store.values([FILES], 3600, long_ago_s, long_ago_s + 7_200, percentiles=False)
    assert [statistic.sum for statistic in hours.values()] == [12.0]


async def test_the_number_of_metrics_is_bounded_after_a_restart_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entrepot.services.cloudwatch.store.SERIES_LIMIT", 2)
    now_s = clock.now_ms() // 1000
    for metrics in ([FILES, OTHER], [ERRORS, FILES]):
        made = MetricStore(tmp_path / "metrics.db")
        for one in metrics:
            made.record(one, 1.0, now_s)
        assert [metric for metric, _, _ in await made.series()] == [FILES, OTHER]
        assert made.dropped == (1 if ERRORS in metrics else 0)
        await made.close()


# ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def metric(
    id_: str, which: Metric, statistic: str = "Sum", *, returned: bool = True, label: str | None = None
) -> Query:
    """Return a query of a metric."""
    return Query(id_, which, statistic, 60, None, label, returned)


def expression(id_: str, text: str, label: str | None = None) -> Query:
    """Return a query of an expression."""
    return Query(id_, None, "", 60, text, label, True)


async def filled(store: MetricStore) -> int:
    """Record some minutes; return when they begin."""
    start_s = clock.now_ms() // 1000 // 3600 * 3600 - 3600
    for minute, value in enumerate((1.0, 2.0, 4.0)):
        store.record(FILES, value, start_s + minute * 60)
        store.record(OTHER, value * 10, start_s + minute * 60)
    store.record(ERRORS, 1.0, start_s + 60)
    return start_s


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("m1 + m2 * 2", [21, 42, 84]),
        ("m1 / e", [2]),
        (
            "FILL(e, 0) * 100 / m1",
            [
                0,
                50,
                0,
            ],
        ),
        ("m1 > 1 && m1 < 4", [0, 1, 0]),
        ("IF(m1 >= 2, m1, 0)", [0, 2, 4]),
        ("SUM(METRICS())", [11, 23, 44]),
        ("AVG([m1, m2])", [5.5, 11, 22]),
        ("MAX(METRICS('m'))", [10, 20, 40]),
        ("m1 - AVG(m1)", [1 - 7 / 3, 2 - 7 / 3, 4 - 7 / 3]),
        ("DIFF(m1)", [1, 2]),
        ("RATE(m1)", [1 / 60, 2 / 60]),
        ("RUNNING_SUM(m1)", [1, 3, 7]),
        ("ABS(-m1)", [1, 2, 4]),
        ("m1 ^ 2", [1, 4, 16]),
        ("-m1 ^ 2 + 0", [-1, -4, -16]),
        ("PERIOD(m1)", [60, 60, 60]),
        ("SUM(SEARCH('{App,Customer} Files', 'Sum', 60))", [11, 22, 44]),
        ("FIRST(SORT(SEARCH('{App,Customer}', 'Sum', 60), SUM, DESC))", [10, 20, 40]),
        ("FILL(RATE(m1), REPEAT)", [1 / 60, 2 / 60]),
    ],
)
async def test_metric_math(store: MetricStore, text: str, values: list[float]) -> None:
    start_s = await filled(store)
    text = text.replace("SUM, DESC", "'SUM', 'DESC'").replace("REPEAT", "'REPEAT'")
    queries = [
        metric("m1", FILES, returned=False),
        metric("m2", OTHER, returned=False),
        metric("e", ERRORS, returned=False),
        expression("x", text),
    ]
    (result,) = await metric_data(store, queries, start_s, start_s + 180)
    assert [value for _, value in sorted(result.series.points.items())][-len(values) :] == pytest.approx(values)
    assert result.message is None


async def test_search_gives_a_series_for_each_metric_with_labels(store: MetricStore) -> None:
    start_s = await filled(store)
    found = await metric_data(
        store,
        [
            expression(
                "s", "SEARCH('{App,Customer} MetricName=\"Files\"', 'Sum', 60)", "of ${PROP('Dim.Customer')}: ${MAX}"
            )
        ],
        start_s,
        start_s + 180,
    )
    assert [result.series.label for result in found] == ["of a: 4", "of b: 40"]


@pytest.mark.parametrize(
    ("text", "finds"),
    [
        ("{App,Customer}", [FILES, OTHER]),
        ("{App}", [ERRORS]),
        ("{App,Customer} Customer=a", [FILES]),
        ('{"App","Customer"} "Customer"="b"', [OTHER]),
        ('Namespace="App" MetricName="Errors"', [ERRORS]),
        ("Files OR Errors", [ERRORS, FILES, OTHER]),
        ("Files NOT Customer=a", [OTHER]),
        ("Files AND (Customer=a OR Customer=b)", [FILES, OTHER]),
        ('"Customer"=("a" OR "b")', [FILES, OTHER]),
        ("file", []),
        ("", [ERRORS, FILES, OTHER]),
    ],
)
def test_search(text: str, finds: list[Metric]) -> None:
    test = parse_search(text)
    assert sorted(one for one in (FILES, OTHER, ERRORS) if test(one)) == sorted(finds)


def test_words_find_parts_of_camel_case() -> None:
    one = Metric.of("AWS/Lambda", "ConcurrentExecutions", FunctionName="transfer-files")
    for text in ("concurrent", "Executions", "transfer", "lambda", "FunctionName=files", "ConcurrentExecutions"):
        assert parse_search(text)(one), text
    for text in ("concur", "exec", '"concurrentexecutions"', "FunctionName=other"):
        assert not parse_search(text)(one), text


@pytest.mark.parametrize(
    "queries",
    [
        [expression("x", "m1 +")],
        [expression("x", "m9 + 1")],
        [expression("a", "b"), expression("b", "a")],
        [metric("X", FILES)],
        [metric("m", FILES), metric("m", OTHER)],
        [metric("m", FILES, "Median")],
        [expression("x", "SEARCH('{App', 'Sum', 60)")],
        [expression("x", "SELECT AVG(a) FROM b")],
        [expression("x", "(" * 100 + "1" + ")" * 100)],
    ],
)
async def test_queries_that_make_no_sense_are_refused(store: MetricStore, queries: list[Query]) -> None:
    with pytest.raises(ValidationError):
        await metric_data(store, queries, 0, 600)


async def test_an_expression_that_fails_says_so_beside_the_others(store: MetricStore) -> None:
    start_s = await filled(store)
    found = await metric_data(
        store, [metric("m", FILES), expression("x", "NOSUCH(m)"), expression("y", "SORT(m)")], start_s, start_s + 180
    )
    assert [result.id for result in found] == ["m"]


atoms = st.sampled_from(["m", "m2", "1", "0", "-2.5", "[m, m2]", "METRICS()", "'x'", "TIME_SERIES(3)"])
texts = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "^", "==", "<", "&&", "||"]), inner).map(
            lambda t: f"({' '.join(t)})"
        ),
        st.tuples(
            st.sampled_from(["SUM", "AVG", "RATE", "DIFF", "ABS", "FLOOR", "LOG", "STDDEV", "HOUR", "FIRST"]), inner
        ).map(lambda call: f"{call[0]}({call[1]})"),
        st.tuples(inner, inner, inner).map(lambda three: f"IF({', '.join(three)})"),
        st.tuples(inner, inner).map(lambda two: f"FILL({', '.join(two)})"),
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(texts, st.dictionaries(st.integers(0, 5).map(lambda n: n * 60), numbers))
def test_any_expression_has_a_value_or_says_why_not(text: str, points: dict[int, float]) -> None:
    series = {"m": [Series("m", points, 60)], "m2": [Series("m2", {60: 2.0}, 60)]}
    try:
        value = evaluate(parse_expression(text), Evaluation(series, ["m", "m2"], {}, 0, 360, 60))
    except (ExpressionError, OverflowError):
        return
    assert isinstance(value, float | str | Series | list)
