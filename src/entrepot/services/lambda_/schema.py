"""The tables of Lambda: functions, and invocations that wait to be run asynchronously."""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "lambda",
        1,
        (
            "CREATE TABLE lambda_function (name TEXT PRIMARY KEY, configuration TEXT NOT NULL)",
            # state 'waiting' until run; 'dead' after the last attempt, kept for inspection with its error
            "CREATE TABLE lambda_async_invocation ("
            "request_id TEXT PRIMARY KEY, function_name TEXT NOT NULL, payload BLOB NOT NULL, state TEXT NOT NULL, "
            "attempts INTEGER NOT NULL, due_at_ms INTEGER NOT NULL, created_at_ms INTEGER NOT NULL, error TEXT)",
            "CREATE INDEX lambda_async_invocation_due ON lambda_async_invocation (state, due_at_ms)",
        ),
    ),
)
