"""The tables of EventBridge: buses, rules, targets, deliveries that are due, and dead letters.

A delivery is one event for one target of one rule; its row goes in the transaction that delivers it, so the queue is as
long as what is still to do, and an event that no rule matches leaves nothing.
"""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "events",
        1,
        (
            "CREATE TABLE events_bus (name TEXT PRIMARY KEY, created_at_ms INTEGER NOT NULL)",
            "INSERT INTO events_bus (name, created_at_ms) VALUES ('default', 0)",
            # A random token that every change of a rule or target replaces: who has the same token has the same rules.
            "CREATE TABLE events_rules_version (bus_name TEXT PRIMARY KEY, token TEXT NOT NULL)",
            "INSERT INTO events_rules_version (bus_name, token) VALUES ('default', '')",
            """CREATE TABLE events_rule (
                bus_name TEXT NOT NULL,
                name TEXT NOT NULL,
                event_pattern TEXT NOT NULL,
                state TEXT NOT NULL,
                description TEXT NOT NULL,
                role_arn TEXT NOT NULL,
                PRIMARY KEY (bus_name, name)
            )""",
            # definition: the target in AWS's own shape, as JSON.
            """CREATE TABLE events_target (
                bus_name TEXT NOT NULL,
                rule_name TEXT NOT NULL,
                target_id TEXT NOT NULL,
                arn TEXT NOT NULL,
                definition TEXT NOT NULL,
                PRIMARY KEY (bus_name, rule_name, target_id)
            )""",
            "CREATE INDEX events_target_arn ON events_target (bus_name, arn, rule_name)",
            # attempt: 1, and one more for each redrive; tries: how often this attempt was tried without success.
            """CREATE TABLE events_delivery (
                delivery_id INTEGER PRIMARY KEY,
                due_at_ms INTEGER NOT NULL,
                queued_at_ms INTEGER NOT NULL,
                bus_name TEXT NOT NULL,
                rule_name TEXT NOT NULL,
                target_id TEXT NOT NULL,
                attempt INTEGER NOT NULL,
                tries INTEGER NOT NULL,
                event_id TEXT NOT NULL,
                event TEXT NOT NULL
            )""",
            "CREATE INDEX events_delivery_due ON events_delivery (due_at_ms, delivery_id)",
            """CREATE TABLE events_dead_letter (
                dead_letter_id INTEGER PRIMARY KEY,
                failed_at_ms INTEGER NOT NULL,
                bus_name TEXT NOT NULL,
                rule_name TEXT NOT NULL,
                target_id TEXT NOT NULL,
                target_arn TEXT NOT NULL,
                attempt INTEGER NOT NULL,
                tries INTEGER NOT NULL,
                error_code TEXT NOT NULL,
                error_message TEXT NOT NULL,
                event_id TEXT NOT NULL,
                event TEXT NOT NULL
            )""",
            "CREATE INDEX events_dead_letter_event ON events_dead_letter (event_id)",
        ),
    ),
    Migration(
        "events",
        2,
        (
            "ALTER TABLE events_bus ADD COLUMN modified_at_ms INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE events_bus ADD COLUMN description TEXT NOT NULL DEFAULT ''",
            """CREATE TABLE events_tag (
                resource_arn TEXT NOT NULL,
                key TEXT NOT NULL,
                value TEXT NOT NULL,
                PRIMARY KEY (resource_arn, key)
            )""",
        ),
    ),
    Migration(
        "events",
        3,
        (
            "ALTER TABLE events_rule ADD COLUMN schedule_expression TEXT NOT NULL DEFAULT ''",
            # The enabled rules with a schedule: when each is due next.
            """CREATE TABLE events_schedule (
                bus_name TEXT NOT NULL,
                rule_name TEXT NOT NULL,
                expression TEXT NOT NULL,
                due_at_ms INTEGER NOT NULL,
                PRIMARY KEY (bus_name, rule_name)
            )""",
            "CREATE INDEX events_schedule_due ON events_schedule (due_at_ms)",
        ),
    ),
)
