"""The tables of Lambda: functions with all that hangs on them, layers, mappings, and invocations that wait."""

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
    Migration(
        "lambda",
        2,
        (
            "ALTER TABLE lambda_function ADD COLUMN tags TEXT NOT NULL DEFAULT '{}'",
            "ALTER TABLE lambda_async_invocation ADD COLUMN qualifier TEXT NOT NULL DEFAULT ''",
            "DROP INDEX lambda_async_invocation_due",
            "CREATE INDEX lambda_async_invocation_function "
            "ON lambda_async_invocation (state, function_name, due_at_ms)",
            # the number of the last version that was ever published: numbers are not used again
            "CREATE TABLE lambda_counter (name TEXT PRIMARY KEY, last INTEGER NOT NULL)",
            "CREATE TABLE lambda_version (name TEXT NOT NULL, version INTEGER NOT NULL, configuration TEXT NOT NULL, "
            "PRIMARY KEY (name, version))",
            # weights: JSON, version -> share of the invocations that go there instead
            "CREATE TABLE lambda_alias (name TEXT NOT NULL, alias TEXT NOT NULL, version TEXT NOT NULL, "
            "weights TEXT NOT NULL, description TEXT NOT NULL, revision_id TEXT NOT NULL, PRIMARY KEY (name, alias))",
            # qualifier: '' is the function itself
            "CREATE TABLE lambda_event_invoke_config (name TEXT NOT NULL, qualifier TEXT NOT NULL, "
            "document TEXT NOT NULL, modified_at_ms INTEGER NOT NULL, PRIMARY KEY (name, qualifier))",
            "CREATE TABLE lambda_provisioned_concurrency (name TEXT NOT NULL, qualifier TEXT NOT NULL, "
            "requested INTEGER NOT NULL, modified_at_ms INTEGER NOT NULL, PRIMARY KEY (name, qualifier))",
            "CREATE TABLE lambda_policy (name TEXT NOT NULL, qualifier TEXT NOT NULL, statements TEXT NOT NULL, "
            "revision_id TEXT NOT NULL, PRIMARY KEY (name, qualifier))",
            "CREATE TABLE lambda_layer_version (name TEXT NOT NULL, version INTEGER NOT NULL, "
            "code_sha256 TEXT NOT NULL, code_size_bytes INTEGER NOT NULL, created_at_ms INTEGER NOT NULL, "
            "document TEXT NOT NULL, statements TEXT NOT NULL, revision_id TEXT NOT NULL, PRIMARY KEY (name, version))",
            # document: what the request said; state: Enabled or Disabled
            "CREATE TABLE lambda_event_source_mapping (uuid TEXT PRIMARY KEY, name TEXT NOT NULL, "
            "qualifier TEXT NOT NULL, source_arn TEXT NOT NULL, state TEXT NOT NULL, document TEXT NOT NULL, "
            "result TEXT NOT NULL, modified_at_ms INTEGER NOT NULL, tags TEXT NOT NULL)",
            "CREATE INDEX lambda_event_source_mapping_name ON lambda_event_source_mapping (name)",
            # how far a mapping has read a shard: everything up to sequence_number is done
            "CREATE TABLE lambda_event_source_position (uuid TEXT NOT NULL, shard_id TEXT NOT NULL, "
            "sequence_number TEXT NOT NULL, is_finished INTEGER NOT NULL, PRIMARY KEY (uuid, shard_id))",
        ),
    ),
)
