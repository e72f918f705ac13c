"""The tables of IAM."""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "iam",
        1,
        (
            """CREATE TABLE iam_role (
                role_name TEXT NOT NULL PRIMARY KEY,
                role_id TEXT NOT NULL,
                path TEXT NOT NULL,
                description TEXT NOT NULL,
                trust_policy TEXT NOT NULL,
                max_session_duration_s INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL
            )""",
            """CREATE TABLE iam_role_policy (
                role_name TEXT NOT NULL REFERENCES iam_role (role_name),
                policy_name TEXT NOT NULL,
                document TEXT NOT NULL,
                PRIMARY KEY (role_name, policy_name)
            )""",
            """CREATE TABLE iam_policy (
                policy_arn TEXT NOT NULL PRIMARY KEY,
                policy_name TEXT NOT NULL,
                policy_id TEXT NOT NULL,
                path TEXT NOT NULL,
                description TEXT NOT NULL,
                document TEXT NOT NULL,
                created_at_ms INTEGER NOT NULL
            )""",
            """CREATE TABLE iam_role_attachment (
                role_name TEXT NOT NULL REFERENCES iam_role (role_name),
                policy_arn TEXT NOT NULL REFERENCES iam_policy (policy_arn),
                PRIMARY KEY (role_name, policy_arn)
            )""",
            """CREATE TABLE iam_access_key (
                access_key_id TEXT NOT NULL PRIMARY KEY,
                user_name TEXT NOT NULL,
                kind TEXT NOT NULL,
                role_arn TEXT,
                created_at_ms INTEGER NOT NULL
            )""",
            "CREATE TABLE iam_version (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL)",
            "INSERT INTO iam_version (id, version) VALUES (1, 0)",
        ),
    ),
)
