"""The tables of Transfer: the server, its users, their keys, SFTP sessions, and parked uploads."""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "transfer",
        1,
        (
            "CREATE TABLE transfer_server (server_id TEXT PRIMARY KEY, created_at_ms INTEGER NOT NULL)",
            # home_directory_mappings and tags are JSON; policy is the session policy's JSON text.
            """CREATE TABLE transfer_user (
                user_name TEXT PRIMARY KEY,
                role_arn TEXT NOT NULL,
                home_directory TEXT NOT NULL,
                home_directory_type TEXT NOT NULL,
                home_directory_mappings TEXT NOT NULL,
                policy TEXT,
                tags TEXT NOT NULL
            )""",
            """CREATE TABLE transfer_ssh_public_key (
                ssh_public_key_id TEXT PRIMARY KEY,
                user_name TEXT NOT NULL,
                body TEXT NOT NULL,
                imported_at_ms INTEGER NOT NULL
            )""",
            "CREATE INDEX transfer_ssh_public_key_user ON transfer_ssh_public_key (user_name, imported_at_ms)",
            # closed_at_ms is NULL while the session lives. process is the pid that serves it.
            """CREATE TABLE transfer_session (
                session_id TEXT PRIMARY KEY,
                user_name TEXT NOT NULL,
                source_ip TEXT NOT NULL,
                source_port INTEGER NOT NULL,
                client TEXT NOT NULL,
                key_fingerprint TEXT NOT NULL,
                process INTEGER NOT NULL,
                logged_in_at_ms INTEGER NOT NULL,
                closed_at_ms INTEGER,
                reason TEXT,
                bytes_in INTEGER NOT NULL,
                bytes_out INTEGER NOT NULL,
                files_in INTEGER NOT NULL,
                files_out INTEGER NOT NULL,
                disconnect_requested INTEGER NOT NULL
            )""",
            "CREATE INDEX transfer_session_login ON transfer_session (logged_in_at_ms)",
            "CREATE INDEX transfer_session_live ON transfer_session (user_name) WHERE closed_at_ms IS NULL",
            """CREATE TABLE partial_upload (
                bucket TEXT NOT NULL,
                key TEXT NOT NULL,
                user_name TEXT NOT NULL,
                parked TEXT NOT NULL,
                size_bytes INTEGER NOT NULL,
                parked_at_ms INTEGER NOT NULL,
                PRIMARY KEY (bucket, key, user_name)
            )""",
            "CREATE INDEX partial_upload_age ON partial_upload (parked_at_ms)",
        ),
    ),
)
