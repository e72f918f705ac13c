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
    Migration(
        "stepfunctions",
        2,
        (
            "CREATE INDEX state_machine_revision_of_machine ON state_machine_revision (state_machine_id, id)",
            # Numbers are never used again: a version that was deleted keeps its row.
            """
            CREATE TABLE state_machine_version (
                state_machine_id INTEGER NOT NULL,
                number INTEGER NOT NULL,
                revision_id INTEGER NOT NULL,
                description TEXT NOT NULL,
                created_at_ms INTEGER NOT NULL,
                deleted_at_ms INTEGER,
                PRIMARY KEY (state_machine_id, number)
            ) WITHOUT ROWID
            """,
            # `routes` is a JSON list of [version, weight].
            """
            CREATE TABLE state_machine_alias (
                state_machine_id INTEGER NOT NULL,
                name TEXT NOT NULL,
                description TEXT NOT NULL,
                routes TEXT NOT NULL,
                created_at_ms INTEGER NOT NULL,
                updated_at_ms INTEGER NOT NULL,
                PRIMARY KEY (state_machine_id, name)
            ) WITHOUT ROWID
            """,
            # Only of executions that were started by a version or an alias; most are not.
            """
            CREATE TABLE execution_of_version (
                execution_id INTEGER PRIMARY KEY,
                state_machine_id INTEGER NOT NULL,
                version INTEGER NOT NULL,
                alias TEXT
            )
            """,
            "CREATE INDEX execution_of_version_by_machine ON execution_of_version (state_machine_id, execution_id)",
        ),
    ),
    Migration(
        "stepfunctions",
        3,
        (
            # One row per run of a distributed Map. `arn` is the resource of its ARN; `stage` says what there is to do,
            # `position` where its reader goes on.
            """
            CREATE TABLE map_run (
                id INTEGER PRIMARY KEY,
                arn TEXT NOT NULL,
                execution_id INTEGER NOT NULL,
                task_id INTEGER NOT NULL,
                revision_id INTEGER NOT NULL,
                status TEXT NOT NULL,
                stage INTEGER NOT NULL,
                reading INTEGER NOT NULL,
                next_item INTEGER NOT NULL,
                next_child INTEGER NOT NULL,
                position TEXT NOT NULL,
                max_concurrency INTEGER NOT NULL,
                tolerated_count INTEGER,
                tolerated_percentage REAL,
                error TEXT,
                cause TEXT,
                redrive_count INTEGER NOT NULL,
                redriven_at_ms INTEGER,
                started_at_ms INTEGER NOT NULL,
                stopped_at_ms INTEGER
            )
            """,
            "CREATE UNIQUE INDEX map_run_arn ON map_run (arn)",
            "CREATE INDEX map_run_of_execution ON map_run (execution_id, id)",
            "CREATE INDEX map_run_unfinished ON map_run (id) WHERE stage < 3",
            # What never changes, and may be large: the items of the state's input, parameters.
            "CREATE TABLE map_run_request (map_run_id INTEGER PRIMARY KEY, request TEXT NOT NULL)",
            # Children and items per status: what changes with every child.
            """
            CREATE TABLE map_run_count (
                map_run_id INTEGER NOT NULL,
                status INTEGER NOT NULL,
                children INTEGER NOT NULL,
                items INTEGER NOT NULL,
                PRIMARY KEY (map_run_id, status)
            ) WITHOUT ROWID
            """,
            # `content` is the input of a child that has not begun, later its output where the state's result needs it.
            """
            CREATE TABLE map_run_child (
                map_run_id INTEGER NOT NULL,
                number INTEGER NOT NULL,
                status INTEGER NOT NULL,
                items INTEGER NOT NULL,
                execution_id INTEGER,
                content TEXT,
                PRIMARY KEY (map_run_id, number)
            ) WITHOUT ROWID
            """,
            "CREATE INDEX map_run_child_open ON map_run_child (map_run_id, status, number) WHERE status <> 2",
            "CREATE INDEX map_run_child_execution ON map_run_child (execution_id) WHERE execution_id IS NOT NULL",
        ),
    ),
    Migration(
        "stepfunctions",
        4,
        (
            # 1 while a running execution waits for nothing but its timer or what comes from outside: nobody has to take it up
            # after a start. NULL (also in rows of older code) means that somebody has to look.
            "ALTER TABLE execution ADD COLUMN waits INTEGER",
        ),
    ),
    Migration(
        "stepfunctions",
        5,
        (
            """
            CREATE TABLE activity (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                name TEXT NOT NULL UNIQUE,
                created_at_ms INTEGER NOT NULL,
                tags TEXT NOT NULL
            )
            """,
            # A task that no worker has taken yet. `number` is their order.
            """
            CREATE TABLE activity_task (
                number INTEGER PRIMARY KEY,
                activity_id INTEGER NOT NULL,
                execution_id INTEGER NOT NULL,
                task_id INTEGER NOT NULL
            )
            """,
            "CREATE INDEX activity_task_of_activity ON activity_task (activity_id, number)",
            "CREATE INDEX activity_task_of_execution ON activity_task (execution_id)",
        ),
    ),
)
