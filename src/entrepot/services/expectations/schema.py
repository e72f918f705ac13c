"""The tables of expectations: what is expected, and one row for each window with what came of it."""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "expectations",
        1,
        (
            # definition: JSON (expectation.py). settled_until_ms: every window that closed until then has its row.
            """CREATE TABLE expectations_expectation (
                name TEXT PRIMARY KEY,
                definition TEXT NOT NULL,
                settled_until_ms INTEGER NOT NULL
            )""",
            # window_date: the deadline's date in the expectation's time zone; with the name it is the outcome's identity.
            # file_*: the file that decided; files: how many of sufficient size came, small_files: how many others.
            """CREATE TABLE expectations_outcome (
                name TEXT NOT NULL,
                window_date TEXT NOT NULL,
                deadline_at_ms INTEGER NOT NULL,
                closes_at_ms INTEGER NOT NULL,
                outcome TEXT NOT NULL,
                decided_at_ms INTEGER NOT NULL,
                files INTEGER NOT NULL,
                small_files INTEGER NOT NULL,
                file_id TEXT,
                file_key TEXT,
                file_size_bytes INTEGER,
                file_arrived_at_ms INTEGER,
                PRIMARY KEY (name, window_date)
            )""",
        ),
    ),
)
