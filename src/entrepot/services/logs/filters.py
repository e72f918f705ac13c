"""Metric filters and subscription filters as rows: put, described, deleted."""

import json
from dataclasses import dataclass

from entrepot import clock
from entrepot.services.logs.errors import InvalidParameterError, LimitExceededError, ResourceNotFoundError
from entrepot.services.logs.filter_pattern import parse
from entrepot.services.logs.metric_filters import FILTERS_LIMIT, MetricFilter, MetricRule, Transformation
from entrepot.services.logs.session import Session, find_group
from entrepot.services.logs.store import Store
from entrepot.services.logs.subscriptions import DELIVERY_LOG_GROUP, Deliveries

SUBSCRIPTIONS_LIMIT = 2
"""Subscription filters of a group. AWS's limit."""

REGEX_FILTERS_LIMIT = 5
"""Filters of a group whose pattern has regular expressions. AWS's limit."""


@dataclass(frozen=True, slots=True)
class SubscriptionFilter:
    """A subscription filter as it was put."""

    group: str
    name: str
    pattern: str
    destination_arn: str
    role_arn: str
    distribution: str
    created_at_ms: int


class Filters:
    """The filters of all groups."""

    def __init__(self, store: Store, deliveries: Deliveries) -> None:
        self._store = store
        self._deliveries = deliveries

    # ── metric filters ───────────────────────────────────────────────────────────────────────────────────────────

    async def put_metric_filter(self, group: str, name: str, pattern: str, transformation: Transformation) -> None:
        """Put or replace a metric filter; InvalidParameterError, LimitExceededError, ResourceNotFoundError."""
        rule = MetricRule(name, pattern, transformation)

        def put(session: Session) -> None:
            group_id = find_group(session, group)
            _check_regexes(session, group_id, name, rule.pattern.regexes)
            session.execute(
                "INSERT INTO metric_filter VALUES (?, ?, ?, ?, ?) ON CONFLICT (group_id, name) DO UPDATE SET "
                "pattern = excluded.pattern, transformation = excluded.transformation",
                (group_id, name, pattern, json.dumps(transformation.as_dict()), clock.now_ms()),
            )
            _check_count(session, "metric_filter", group_id, FILTERS_LIMIT)
            self._store.taps.load(session)

        await self._store.run(put)

    async def metric_filters(
        self,
        *,
        group: str | None = None,
        prefix: str = "",
        metric: tuple[str, str] | None = None,
        after: tuple[str, str] = ("", ""),
        limit: int = 50,
    ) -> list[MetricFilter]:
        """Return metric filters by group and name, after the place `after`; of one group, or of one (namespace, metric)."""

        def read(session: Session) -> list[MetricFilter]:
            if group is not None:
                find_group(session, group)
            rows = session.all(
                "SELECT g.name, f.name, f.pattern, f.transformation, f.created_at_ms FROM metric_filter f "
                "JOIN log_group g USING (group_id) WHERE (?1 IS NULL OR g.name = ?1) AND substr(f.name, 1, ?2) = ?3 "
                "AND (g.name, f.name) > (?4, ?5) AND (?6 IS NULL OR (json_extract(f.transformation, '$.namespace') = ?6 "
                "AND json_extract(f.transformation, '$.name') = ?7)) ORDER BY g.name, f.name LIMIT ?8",
                (group, len(prefix), prefix, *after, *(metric or (None, None)), limit),
            )
            return [MetricFilter(row[0], row[1], row[2], Transformation(**json.loads(row[3])), row[4]) for row in rows]

        return await self._store.read(read)

    async def delete_metric_filter(self, group: str, name: str) -> None:
        """Delete a metric filter; ResourceNotFoundError."""

        def delete(session: Session) -> None:
            if not session.execute(
                "DELETE FROM metric_filter WHERE group_id = ? AND name = ?", (find_group(session, group), name)
            ):
                raise ResourceNotFoundError("The specified metric filter does not exist.")
            self._store.taps.load(session)

        await self._store.run(delete)

    # ── subscription filters ─────────────────────────────────────────────────────────────────────────────────────

    async def put_subscription_filter(self, wanted: SubscriptionFilter) -> None:
        """Put or replace a subscription filter; InvalidParameterError, LimitExceededError, ResourceNotFoundError."""
        pattern = parse(wanted.pattern)
        if wanted.group == DELIVERY_LOG_GROUP:
            raise InvalidParameterError(
                f"{DELIVERY_LOG_GROUP} tells what deliveries do: it cannot be delivered itself."
            )
        await self._deliveries.check(wanted.group, wanted.destination_arn)

        def put(session: Session) -> None:
            group_id = find_group(session, wanted.group)
            _check_regexes(session, group_id, wanted.name, pattern.regexes)
            session.execute(
                "INSERT INTO subscription_filter "
                "(group_id, name, pattern, destination_arn, role_arn, distribution, created_at_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (group_id, name) DO UPDATE SET pattern = excluded.pattern, "
                "destination_arn = excluded.destination_arn, role_arn = excluded.role_arn, "
                "distribution = excluded.distribution",
                (
                    group_id,
                    wanted.name,
                    wanted.pattern,
                    wanted.destination_arn,
                    wanted.role_arn,
                    wanted.distribution,
                    clock.now_ms(),
                ),
            )
            _check_count(session, "subscription_filter", group_id, SUBSCRIPTIONS_LIMIT)
            self._store.taps.load(session)

        await self._store.run(put)

    async def subscription_filters(
        self, group: str, *, prefix: str = "", after: str = "", limit: int = 50
    ) -> list[SubscriptionFilter]:
        """Return the subscription filters of a group by name; ResourceNotFoundError."""
        rows = await self._store.read(
            lambda session: session.all(
                "SELECT ?2, name, pattern, destination_arn, role_arn, distribution, created_at_ms "
                "FROM subscription_filter WHERE group_id = ?1 AND name > ?3 AND substr(name, 1, ?4) = ?5 "
                "ORDER BY name LIMIT ?6",
                (find_group(session, group), group, after, len(prefix), prefix, limit),
            )
        )
        return [SubscriptionFilter(*row) for row in rows]

    async def delete_subscription_filter(self, group: str, name: str) -> None:
        """Delete a subscription filter with what waits for its destination; ResourceNotFoundError."""

        def delete(session: Session) -> None:
            row = session.one(
                "SELECT filter_id FROM subscription_filter WHERE group_id = ? AND name = ?",
                (find_group(session, group), name),
            )
            if row is None:
                raise ResourceNotFoundError("The specified subscription filter does not exist.")
            session.execute("DELETE FROM subscription_filter WHERE filter_id = ?", row)
            session.execute("DELETE FROM subscription_batch WHERE filter_id = ?", row)
            self._store.taps.load(session)

        await self._store.run(delete)


def _check_count(session: Session, table: str, group_id: int, limit: int) -> None:
    row = session.one(f"SELECT count(*) FROM {table} WHERE group_id = ?", (group_id,))  # noqa: S608 - constants
    if row is not None and row[0] > limit:
        raise LimitExceededError("Resource limit exceeded.")


def _check_regexes(session: Session, group_id: int, name: str, regexes: int) -> None:
    """Refuse one more filter with regular expressions than a group may have."""
    if not regexes:
        return
    rows = session.all(
        "SELECT pattern FROM metric_filter WHERE group_id = ?1 AND name <> ?2 "
        "UNION ALL SELECT pattern FROM subscription_filter WHERE group_id = ?1 AND name <> ?2",
        (group_id, name),
    )
    if sum(1 for (pattern,) in rows if "%" in pattern and parse(pattern).regexes) >= REGEX_FILTERS_LIMIT:
        raise LimitExceededError(
            f"A log group can have {REGEX_FILTERS_LIMIT} filters whose patterns have regular expressions."
        )
