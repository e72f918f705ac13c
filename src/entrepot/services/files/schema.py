"""The tables of files. A delivered file costs one row here and four small index entries (about 400 bytes).

What repeats is named by a number (pipelines, routes), what can be derived is not stored (execution ARNs, the event), and
what happens seldom (redrives, failed deliveries) has a table of its own.
"""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "files",
        1,
        (
            """CREATE TABLE files_pipeline (
                pipeline_id INTEGER PRIMARY KEY,
                source_bucket TEXT NOT NULL,
                destination_bucket TEXT NOT NULL,
                metadata_table TEXT NOT NULL,
                UNIQUE (source_bucket, destination_bucket, metadata_table)
            )""",
            # A rule and its target, as a file's event went to it. execution_prefix: the execution's ARN without its name.
            """CREATE TABLE files_route (
                route_id INTEGER PRIMARY KEY,
                rule_arn TEXT NOT NULL,
                target_id TEXT NOT NULL,
                target_arn TEXT NOT NULL,
                execution_prefix TEXT NOT NULL,
                UNIQUE (rule_arn, target_id, target_arn)
            )""",
            # sequence: the number in the version's sequencer; it grows, so its order is the order of arrival.
            # etag NULL: the one that derives from sha256, as uploads over SFTP have; reason NULL: PutObject.
            # status: 0 uploaded, 1 transferring, 2 transferred, 3 failed.
            # route_id, attempt, delivered_at_ms: the newest delivery that started an execution.
            # copied_*: the newest copy of this version; copied_bucket and copied_key NULL: as the pipeline has it.
            """CREATE TABLE files_file (
                sequence INTEGER PRIMARY KEY,
                file_id BLOB NOT NULL,
                pipeline_id INTEGER NOT NULL,
                key TEXT NOT NULL,
                customer_id TEXT NOT NULL,
                size_bytes INTEGER NOT NULL,
                sha256 BLOB NOT NULL,
                etag TEXT,
                version_id TEXT,
                reason TEXT,
                status INTEGER NOT NULL,
                uploaded_at_ms INTEGER NOT NULL,
                transferred_at_ms INTEGER,
                error_message TEXT,
                event_id BLOB,
                user_name TEXT NOT NULL,
                source_ip TEXT NOT NULL,
                session_id TEXT,
                request_id TEXT NOT NULL,
                renamed_from TEXT,
                redrive_count INTEGER NOT NULL,
                route_id INTEGER,
                attempt INTEGER,
                delivered_at_ms INTEGER,
                copied_at_ms INTEGER,
                copied_sequence INTEGER,
                copied_bucket TEXT,
                copied_key TEXT
            )""",
            "CREATE UNIQUE INDEX files_file_id ON files_file (file_id)",
            "CREATE INDEX files_file_event ON files_file (event_id) WHERE event_id IS NOT NULL",
            "CREATE INDEX files_file_key ON files_file (key, sequence)",
            "CREATE INDEX files_file_customer ON files_file (customer_id, sequence)",
            # Most files are transferred: listing those needs no index, and they cost none.
            "CREATE INDEX files_file_status ON files_file (status, sequence) WHERE status <> 2",
            # What happens seldom; facts is JSON, its members depend on kind (timeline.py).
            """CREATE TABLE files_note (
                note_id INTEGER PRIMARY KEY,
                sequence INTEGER NOT NULL,
                at_ms INTEGER NOT NULL,
                kind TEXT NOT NULL,
                facts TEXT NOT NULL
            )""",
            "CREATE INDEX files_note_sequence ON files_note (sequence, note_id)",
        ),
    ),
    # What a customer's files wait for, or why they failed, whatever else the customer sent.
    Migration(
        "files",
        2,
        ("CREATE INDEX files_file_customer_status ON files_file (customer_id, status, sequence) WHERE status <> 2",),
    ),
)
