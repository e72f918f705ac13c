"""The tables of EventBridge: buses, rules, targets, deliveries that are due, dead letters, archives, replays, connections.

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
    Migration(
        "events",
        4,
        (
            # archive_id is random: what a deleted archive left never turns up in another. size_bytes and event_count
            # are kept up to date with each event.
            """CREATE TABLE events_archive (
                archive_id INTEGER PRIMARY KEY,
                name TEXT NOT NULL UNIQUE,
                bus_name TEXT NOT NULL,
                description TEXT NOT NULL,
                event_pattern TEXT NOT NULL,
                retention_days INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL,
                size_bytes INTEGER NOT NULL,
                event_count INTEGER NOT NULL
            )""",
            # event_at_ms: the time in the event, by which replays choose.
            """CREATE TABLE events_archived (
                archived_id INTEGER PRIMARY KEY,
                archive_id INTEGER NOT NULL,
                event_at_ms INTEGER NOT NULL,
                event TEXT NOT NULL
            )""",
            "CREATE INDEX events_archived_time ON events_archived (archive_id, event_at_ms, archived_id)",
            # position_*: the last archived event that was replayed. filter_arns: JSON; '[]' is every rule.
            """CREATE TABLE events_replay (
                replay_id INTEGER PRIMARY KEY,
                name TEXT NOT NULL UNIQUE,
                description TEXT NOT NULL,
                archive_id INTEGER NOT NULL,
                archive_arn TEXT NOT NULL,
                bus_name TEXT NOT NULL,
                filter_arns TEXT NOT NULL,
                start_at_ms INTEGER NOT NULL,
                end_at_ms INTEGER NOT NULL,
                state TEXT NOT NULL,
                state_reason TEXT NOT NULL,
                position_at_ms INTEGER NOT NULL,
                position_id INTEGER NOT NULL,
                last_event_at_ms INTEGER,
                started_at_ms INTEGER NOT NULL,
                ended_at_ms INTEGER
            )""",
            "CREATE INDEX events_replay_active ON events_replay (replay_id) WHERE ended_at_ms IS NULL",
            # parameters: JSON without secrets, as DescribeConnection shows it; secret: sealed JSON.
            """CREATE TABLE events_connection (
                name TEXT PRIMARY KEY,
                connection_id TEXT NOT NULL,
                description TEXT NOT NULL,
                authorization_type TEXT NOT NULL,
                state TEXT NOT NULL,
                state_reason TEXT NOT NULL,
                parameters TEXT NOT NULL,
                secret BLOB,
                created_at_ms INTEGER NOT NULL,
                modified_at_ms INTEGER NOT NULL,
                authorized_at_ms INTEGER
            )""",
            """CREATE TABLE events_api_destination (
                name TEXT PRIMARY KEY,
                destination_id TEXT NOT NULL,
                description TEXT NOT NULL,
                connection_arn TEXT NOT NULL,
                invocation_endpoint TEXT NOT NULL,
                http_method TEXT NOT NULL,
                rate_limit_per_s INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL,
                modified_at_ms INTEGER NOT NULL
            )""",
            # The bus's resource policy, JSON; '' is none.
            "ALTER TABLE events_bus ADD COLUMN policy TEXT NOT NULL DEFAULT ''",
        ),
    ),
    Migration(
        "events",
        5,
        (
            # Deliveries that a process has begun outside of the ledger; after its death they need not wait for their lease.
            "ALTER TABLE events_delivery ADD COLUMN is_leased INTEGER NOT NULL DEFAULT 0",
            "CREATE INDEX events_delivery_leased ON events_delivery (delivery_id) WHERE is_leased = 1",
        ),
    ),
)
