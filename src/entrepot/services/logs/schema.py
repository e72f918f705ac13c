"""The tables of the log store, which is a file of its own beside the ledger.

Events are clustered by stream and time without a second index: a line costs its text and some 20 bytes. `seq` only
tells apart two lines of one stream in one millisecond; it grows with arrival.
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE log_group ("
        "group_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at_ms INTEGER NOT NULL, "
        "retention_days INTEGER)",
        "CREATE TABLE log_stream ("
        "stream_id INTEGER PRIMARY KEY, group_id INTEGER NOT NULL REFERENCES log_group, name TEXT NOT NULL, "
        "created_at_ms INTEGER NOT NULL, first_event_at_ms INTEGER, last_event_at_ms INTEGER, "
        "last_ingested_at_ms INTEGER, stored_bytes INTEGER NOT NULL DEFAULT 0, UNIQUE (group_id, name))",
        "CREATE INDEX log_stream_by_time ON log_stream (group_id, last_event_at_ms)",
        "CREATE TABLE log_event ("
        "stream_id INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL, seq INTEGER NOT NULL, "
        "ingested_after_ms INTEGER NOT NULL, message TEXT NOT NULL, "
        "PRIMARY KEY (stream_id, timestamp_ms, seq)) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE query_definition ("
        "query_definition_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, query_string TEXT NOT NULL, "
        "log_groups TEXT NOT NULL, changed_at_ms INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE metric_filter ("
        "group_id INTEGER NOT NULL, name TEXT NOT NULL, pattern TEXT NOT NULL, transformation TEXT NOT NULL, "
        "created_at_ms INTEGER NOT NULL, PRIMARY KEY (group_id, name)) WITHOUT ROWID",
        "CREATE TABLE subscription_filter ("
        "filter_id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, name TEXT NOT NULL, "
        "pattern TEXT NOT NULL, destination_arn TEXT NOT NULL, role_arn TEXT NOT NULL, distribution TEXT NOT NULL, "
        "created_at_ms INTEGER NOT NULL, UNIQUE (group_id, name))",
        # What subscriptions still have to deliver: matching events of one stream, deflated, in the transaction that stores them.
        "CREATE TABLE subscription_batch ("
        "batch_id INTEGER PRIMARY KEY AUTOINCREMENT, filter_id INTEGER NOT NULL, stream TEXT NOT NULL, "
        "events INTEGER NOT NULL, body BLOB NOT NULL)",
        "CREATE INDEX subscription_batch_by_filter ON subscription_batch (filter_id, batch_id)",
        "CREATE TABLE group_tag ("
        "group_id INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (group_id, key)) WITHOUT ROWID",
        # How far the file of lines that wait on disk has been read.
        "CREATE TABLE spill_read (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL, offset INTEGER NOT NULL)",
    ),
)
"""Each entry is one version of the store, applied once and in order; SQLite's `user_version` counts them."""
