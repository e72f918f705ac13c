"""The tables of CloudWatch in the ledger: alarms with their states and history, and dashboards.

The values of metrics have a file of their own (`store.py`).
"""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "cloudwatch",
        1,
        (
            # definition: the alarm in AWS's shape, as JSON, without its state.
            """CREATE TABLE cloudwatch_alarm (
                name TEXT PRIMARY KEY,
                kind TEXT NOT NULL,
                definition TEXT NOT NULL,
                configured_at_ms INTEGER NOT NULL,
                state TEXT NOT NULL,
                reason TEXT NOT NULL,
                reason_data TEXT NOT NULL,
                updated_at_ms INTEGER NOT NULL,
                transitioned_at_ms INTEGER NOT NULL,
                tags TEXT NOT NULL
            )""",
            """CREATE TABLE cloudwatch_alarm_history (
                item_id INTEGER PRIMARY KEY,
                name TEXT NOT NULL,
                kind TEXT NOT NULL,
                at_ms INTEGER NOT NULL,
                type TEXT NOT NULL,
                summary TEXT NOT NULL,
                data TEXT NOT NULL
            )""",
            "CREATE INDEX cloudwatch_alarm_history_by_name ON cloudwatch_alarm_history (name, at_ms)",
            "CREATE INDEX cloudwatch_alarm_history_by_time ON cloudwatch_alarm_history (at_ms)",
            """CREATE TABLE cloudwatch_dashboard (
                name TEXT PRIMARY KEY,
                body TEXT NOT NULL,
                changed_at_ms INTEGER NOT NULL
            )""",
        ),
    ),
)
