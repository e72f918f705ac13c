"""The tables of state machines and executions."""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "stepfunctions",
        1,
        (
            # One row per create or update that changed something: an execution keeps the one that it started with.
            """
            CREATE TABLE state_machine_revision (
                id INTEGER PRIMARY KEY,
                state_machine_id INTEGER NOT NULL,
                definition TEXT NOT NULL,
                role_arn TEXT NOT NULL,
                logging TEXT NOT NULL,
                tracing TEXT NOT NULL,
                updated_at_ms INTEGER NOT NULL
            )
            """,
            """
            CREATE TABLE state_machine (
                id INTEGER PRIMARY KEY,
                name TEXT NOT NULL,
                type TEXT NOT NULL,
                revision_id INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL,
                deleted_at_ms INTEGER,
                tags TEXT NOT NULL
            )
            """,
            "CREATE UNIQUE INDEX state_machine_name ON state_machine (name) WHERE deleted_at_ms IS NULL",
            # `id` is started_at_ms * 2^20 plus a number, so that rows are appended and ordered by time.
            # `digest` is the first 12 bytes of the SHA-256 of the ARN's resource: names are long and need no second copy.
            # `state` is where a running execution stands, with its newest events, or where it failed (for a redrive);
            # `history` the events of one that ended that are in no row of execution_history.
            """
            CREATE TABLE execution (
                id INTEGER PRIMARY KEY,
                digest BLOB NOT NULL,
                name TEXT NOT NULL,
                state_machine_id INTEGER NOT NULL,
                revision_id INTEGER NOT NULL,
                status TEXT NOT NULL,
                version INTEGER NOT NULL,
                stopped_at_ms INTEGER,
                due_at_ms INTEGER,
                redrive_count INTEGER,
                redriven_at_ms INTEGER,
                first_event INTEGER NOT NULL,
                state BLOB,
                history BLOB NOT NULL
            )
            """,
            "CREATE UNIQUE INDEX execution_digest ON execution (digest)",
            "CREATE INDEX execution_of_machine ON execution (state_machine_id, id)",
            """
            CREATE INDEX execution_not_succeeded ON execution (status, state_machine_id, id)
            WHERE status <> 'SUCCEEDED'
            """,
            "CREATE INDEX execution_due ON execution (due_at_ms) WHERE due_at_ms IS NOT NULL",
            # What a long history had before its row's own part, folded.
            """
            CREATE TABLE execution_history (
                execution_id INTEGER NOT NULL,
                first_event INTEGER NOT NULL,
                events BLOB NOT NULL,
                PRIMARY KEY (execution_id, first_event)
            )
            """,
        ),
    ),
)
