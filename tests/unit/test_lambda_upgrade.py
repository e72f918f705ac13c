"""A ledger of the first release, with a function and invocations that wait in it, under this code."""

from pathlib import Path

from entrepot.database.sqlite import SQLiteDatabase
from entrepot.services import dynamodb, lambda_, sqs
from tests.unit.lambda_site import Site, until

FUNCTION = (
    '{"name":"demo","role_arn":"arn:aws:iam::000000000000:role/demo","handler":"handler.run","runtime":"python3.11",'
    '"timeout_s":3,"memory_size_mb":128,"environment":{"A":"b"},"code_folder":null,"description":"",'
    '"reserved_concurrency":null,"minimum_warm":0,"log_group":"","code_sha256":"ab","code_size_bytes":1,'
    '"modified_at_ms":1,"revision_id":"r1"}'
)
ROW = (
    "INSERT INTO lambda_async_invocation (request_id, function_name, payload, state, attempts, due_at_ms, created_at_ms) "
    "VALUES ('r', 'demo', ?, 'waiting', 1, 0, 0)"
)


async def test_what_waits_in_an_older_ledger_runs(tmp_path: Path) -> None:
    old = SQLiteDatabase(tmp_path / "ledger.db")
    first = [migration for migration in lambda_.MIGRATIONS if migration.number == 1]
    old.migrate([*sqs.MIGRATIONS, *dynamodb.MIGRATIONS, *first])
    await old.write(lambda tx: tx.execute("INSERT INTO lambda_function VALUES ('demo', ?)", (FUNCTION,)))
    await old.write(lambda tx: tx.execute(ROW, (b'{"n":1}',)))
    await old.close()

    database = SQLiteDatabase(tmp_path / "ledger.db")
    database.migrate([*sqs.MIGRATIONS, *dynamodb.MIGRATIONS, *lambda_.MIGRATIONS])
    at = Site(database, tmp_path)
    at.lambda_.async_invocations.start()
    await until(
        lambda: at.invocations == [("$LATEST", "arn:aws:lambda:us-east-1:000000000000:function:demo", {"n": 1})]
    )
    shown = await at.do("GetFunction", FunctionName="demo")
    assert shown["Configuration"]["Environment"] == {"Variables": {"A": "b"}}
    assert shown["Configuration"]["RevisionId"] == "r1" and "Tags" not in shown
    assert (await at.do("PublishVersion", FunctionName="demo"))["Version"] == "1"
    await at.lambda_.async_invocations.stop()
    await database.close()
