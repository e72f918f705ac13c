"""DynamoDB's operations, called as the endpoint and state machines call them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Principal
from entrepot.services import dynamodb
from entrepot.services.dynamodb import DynamoDB

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")


@dataclass
class Stack:
    database: SQLiteDatabase
    service: DynamoDB
    operations: Operations
    changes: list[tuple[Any, ...]] = field(default_factory=list)

    async def call(self, operation: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("dynamodb", operation, request, CALL)

    async def fails(self, operation: str, code: str, message: str, **request: Any) -> AwsError:
        with pytest.raises(AwsError) as raised:
            await self.call(operation, **request)
        assert raised.value.code == code
        assert message in raised.value.message
        return raised.value


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    database.migrate(dynamodb.MIGRATIONS)
    changes: list[tuple[Any, ...]] = []
    service = DynamoDB(database, Account(), on_item_changed=lambda tx, *change: changes.append(change))
    operations = Operations(database, lambda principal, permission: Decision(True, "", ""))
    operations.add("dynamodb", dynamodb.operations(service))
    yield Stack(database, service, operations, changes)
    await database.close()


async def create(stack: Stack, name: str, *keys: tuple[str, str], **more: Any) -> None:
    used = dict(keys)
    for index in [*more.get("GlobalSecondaryIndexes", ()), *more.get("LocalSecondaryIndexes", ())]:
        used |= {
            element["AttributeName"]: "S" for element in index["KeySchema"] if element["AttributeName"] not in used
        }
    await stack.call(
        "CreateTable",
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in used.items()],
        KeySchema=[
            {"AttributeName": key, "KeyType": role} for (key, _), role in zip(keys, ("HASH", "RANGE"), strict=False)
        ],
        BillingMode="PAY_PER_REQUEST",
        **more,
    )


@pytest.fixture
async def files(stack: Stack) -> Stack:
    await create(stack, "FileTransferMetadata", ("file_id", "S"))
    return stack


async def test_the_references_handler_writes_what_boto3_sends(files: Stack) -> None:
    """put_item and update_item exactly as the reference's function makes boto3 send them."""
    await files.call(
        "PutItem",
        TableName="FileTransferMetadata",
        Item={
            "file_id": {"S": "f-1"},
            "key": {"S": "customer1/data.csv"},
            "source_bucket": {"S": "source"},
            "destination_bucket": {"S": "destination"},
            "upload_timestamp": {"S": "2026-11-23T20:00:00.000000"},
            "status": {"S": "transferring"},
        },
    )
    response = await files.call(
        "UpdateItem",
        TableName="FileTransferMetadata",
        Key={"file_id": {"S": "f-1"}},
        UpdateExpression="SET transfer_timestamp = :t, #s = :s",
        ExpressionAttributeValues={":t": {"S": "2026-11-23T20:00:01.000000"}, ":s": {"S": "transferred"}},
        ExpressionAttributeNames={"#s": "status"},
    )
    assert response == {}
    got = await files.call("GetItem", TableName="FileTransferMetadata", Key={"file_id": {"S": "f-1"}})
    assert got["Item"] == {
        "file_id": {"S": "f-1"},
        "key": {"S": "customer1/data.csv"},
        "source_bucket": {"S": "source"},
        "destination_bucket": {"S": "destination"},
        "upload_timestamp": {"S": "2026-11-23T20:00:00.000000"},
        "status": {"S": "transferred"},
        "transfer_timestamp": {"S": "2026-11-23T20:00:01.000000"},
    }
    table_name, key, old, new = files.changes[-1]
    assert (table_name, key) == ("FileTransferMetadata", {"file_id": {"S": "f-1"}})
    assert (old["status"], new["status"]) == ({"S": "transferring"}, {"S": "transferred"})


async def test_the_failing_handler_updates_an_item_that_is_not_there(files: Stack) -> None:
    await files.call(
        "UpdateItem",
        TableName="FileTransferMetadata",
        Key={"file_id": {"S": "f-2"}},
        UpdateExpression="SET error_message = :e, #s = :s",
        ExpressionAttributeValues={":e": {"S": ""}, ":s": {"S": "failed"}},
        ExpressionAttributeNames={"#s": "status"},
    )
    assert files.changes[-1][2] is None
    assert files.changes[-1][3] == {"file_id": {"S": "f-2"}, "error_message": {"S": ""}, "status": {"S": "failed"}}


async def test_writing_the_same_again_changes_nothing(files: Stack) -> None:
    for _ in range(2):
        await files.call("PutItem", TableName="FileTransferMetadata", Item={"file_id": {"S": "x"}, "n": {"N": "01.0"}})
    assert len(files.changes) == 1


async def test_conditions_guard_writes(files: Stack) -> None:
    item = {"file_id": {"S": "x"}, "n": {"N": "1"}}
    guarded = {"TableName": "FileTransferMetadata", "ConditionExpression": "attribute_not_exists(file_id)"}
    await files.call("PutItem", Item=item, **guarded)
    error = await files.fails(
        "PutItem",
        "ConditionalCheckFailedException",
        "The conditional request failed",
        Item=item,
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
        **guarded,
    )
    assert error.members == {"Item": item}
    await files.fails(
        "DeleteItem",
        "ConditionalCheckFailedException",
        "The conditional request failed",
        TableName="FileTransferMetadata",
        Key={"file_id": {"S": "x"}},
        ConditionExpression="n > :n",
        ExpressionAttributeValues={":n": {"N": "1"}},
    )
    await files.fails(
        "UpdateItem",
        "ConditionalCheckFailedException",
        "The conditional request failed",
        TableName="FileTransferMetadata",
        Key={"file_id": {"S": "y"}},
        UpdateExpression="SET n = :n",
        ConditionExpression="attribute_exists(file_id)",
        ExpressionAttributeValues={":n": {"N": "1"}},
    )
    assert len(files.changes) == 1


@pytest.mark.parametrize(
    ("wanted", "attributes"),
    [
        ("NONE", None),
        ("ALL_OLD", {"file_id": {"S": "x"}, "a": {"N": "1"}, "b": {"S": "same"}}),
        ("ALL_NEW", {"file_id": {"S": "x"}, "a": {"N": "3"}, "b": {"S": "same"}}),
        ("UPDATED_OLD", {"a": {"N": "1"}}),
        ("UPDATED_NEW", {"a": {"N": "3"}}),
    ],
)
async def test_return_values(files: Stack, wanted: str, attributes: dict[str, Any] | None) -> None:
    await files.call(
        "PutItem",
        TableName="FileTransferMetadata",
        Item={"file_id": {"S": "x"}, "a": {"N": "1"}, "b": {"S": "same"}},
    )
    response = await files.call(
        "UpdateItem",
        TableName="FileTransferMetadata",
        Key={"file_id": {"S": "x"}},
        UpdateExpression="ADD a :two",
        ExpressionAttributeValues={":two": {"N": "2"}},
        ReturnValues=wanted,
    )
    assert response.get("Attributes") == attributes


async def test_requests_that_aws_refuses(files: Stack) -> None:
    table = {"TableName": "FileTransferMetadata"}
    key = {"file_id": {"S": "x"}}
    invalid = "ValidationException"
    await files.fails("PutItem", invalid, "Missing the key file_id in the item", Item={"a": {"S": ""}}, **table)
    await files.fails(
        "PutItem", invalid, "Type mismatch for key file_id expected: S actual: N", Item={"file_id": {"N": "1"}}, **table
    )
    await files.fails(
        "PutItem", invalid, "cannot contain an empty string value. Key: file_id", Item={"file_id": {"S": ""}}, **table
    )
    await files.fails(
        "GetItem",
        invalid,
        "The provided key element does not match the schema",
        Key={"file_id": {"S": "x"}, "more": {"S": "y"}},
        **table,
    )
    await files.fails("PutItem", invalid, "ConditionExpression instead", Item=key, Expected={}, **table)
    await files.fails(
        "UpdateItem",
        invalid,
        "Cannot update attribute file_id. This attribute is part of the key",
        Key=key,
        UpdateExpression="SET file_id = :x",
        ExpressionAttributeValues={":x": {"S": "y"}},
        **table,
    )
    await files.fails(
        "PutItem",
        invalid,
        "Item size has exceeded the maximum allowed size",
        Item={"file_id": {"S": "x"}, "a": {"S": "x" * 410_000}},
        **table,
    )
    await files.fails(
        "PutItem", "ResourceNotFoundException", "Requested resource not found", TableName="nowhere", Item=key
    )
    await files.fails("DescribeTable", "ResourceNotFoundException", "Table: nowhere not found", TableName="nowhere")
    await files.fails(
        "CreateTable",
        "ResourceInUseException",
        "Table already exists: FileTransferMetadata",
        AttributeDefinitions=[{"AttributeName": "file_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "file_id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        **table,
    )


async def test_a_table_that_was_deleted_and_made_anew_is_empty(files: Stack) -> None:
    item = {"file_id": {"S": "x"}}
    await files.call("PutItem", TableName="FileTransferMetadata", Item=item)
    await files.call("DeleteTable", TableName="FileTransferMetadata")
    await files.fails(
        "GetItem",
        "ResourceNotFoundException",
        "Requested resource not found",
        TableName="FileTransferMetadata",
        Key=item,
    )
    await create(files, "FileTransferMetadata", ("file_id", "S"), ("n", "N"))
    assert (await files.call("Scan", TableName="FileTransferMetadata"))["Count"] == 0
    await files.call("PutItem", TableName="FileTransferMetadata", Item={**item, "n": {"N": "1"}})
    while await files.database.write(lambda tx: dynamodb.tables.sweep(tx, 1)):
        pass
    assert (await files.call("Scan", TableName="FileTransferMetadata"))["Count"] == 1
    rows = await files.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM dynamodb_item"))
    assert rows == (1,)


@pytest.fixture
async def uploads(stack: Stack) -> Stack:
    """A table with a numeric sort key and two indexes, ten items in two partitions."""
    await create(
        stack,
        "Uploads",
        ("customer", "S"),
        ("at", "N"),
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-status",
                "KeySchema": [{"AttributeName": "state", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": "by-name",
                "KeySchema": [
                    {"AttributeName": "customer", "KeyType": "HASH"},
                    {"AttributeName": "title", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )
    for number in range(10):
        item = {
            "customer": {"S": "a" if number < 7 else "b"},
            "at": {"N": str(number * 10 - 20)},
            "title": {"S": f"t{9 - number}"},
            "more": {"M": {"list": {"L": [{"N": "1"}, {"N": "2"}, {"S": "three"}]}}},
        }
        if number % 2:
            item["state"] = {"S": "failed"}
        await stack.call("PutItem", TableName="Uploads", Item=item)
    return stack


def ats(response: dict[str, Any]) -> list[int]:
    return [int(item["at"]["N"]) for item in response["Items"]]


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        ("customer = :c", {}, [-20, -10, 0, 10, 20, 30, 40]),
        ("customer = :c AND #at < :x", {":x": 0}, [-20, -10]),
        ("customer = :c AND #at <= :x", {":x": 0}, [-20, -10, 0]),
        ("(customer = :c) AND (#at > :x)", {":x": 25}, [30, 40]),
        ("#at >= :x AND :c = customer", {":x": 40}, [40]),
        (":x > #at AND customer = :c", {":x": -15}, [-20]),
        ("customer = :c AND #at BETWEEN :x AND :y", {":x": -10, ":y": 10}, [-10, 0, 10]),
        ("customer = :c AND #at = :x", {":x": 5}, []),
    ],
)
async def test_key_conditions(uploads: Stack, condition: str, values: dict[str, int], expected: list[int]) -> None:
    request = {
        "TableName": "Uploads",
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": {":c": {"S": "a"}, **{key: {"N": str(value)} for key, value in values.items()}},
        **({"ExpressionAttributeNames": {"#at": "at"}} if "#at" in condition else {}),
    }
    assert ats(await uploads.call("Query", **request)) == expected
    assert ats(await uploads.call("Query", **request, ScanIndexForward=False)) == expected[::-1]


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("index", [None, "by-name", "by-status"])
async def test_pages_give_every_item_once(uploads: Stack, index: str | None, forward: bool) -> None:
    request: dict[str, Any] = {"TableName": "Uploads", "Limit": 2, "ScanIndexForward": forward}
    name, value = ("state", "failed") if index == "by-status" else ("customer", "a")
    request |= {
        "KeyConditionExpression": "#k = :v",
        "ExpressionAttributeNames": {"#k": name},
        "ExpressionAttributeValues": {":v": {"S": value}},
    }
    if index is not None:
        request["IndexName"] = index
    whole = await uploads.call("Query", **{**request, "Limit": 1000})
    assert "LastEvaluatedKey" not in whole
    paged, start = [], None
    for _ in range(10):
        page = await uploads.call("Query", **request, **({"ExclusiveStartKey": start} if start else {}))
        assert page["Count"] <= 2
        paged += page["Items"]
        start = page.get("LastEvaluatedKey")
        if start is None:
            break
    assert paged == whole["Items"]
    assert len(paged) == (5 if index == "by-status" else 7)


async def test_indexes_follow_their_items(uploads: Stack) -> None:
    failed = {
        "TableName": "Uploads",
        "IndexName": "by-status",
        "KeyConditionExpression": "#s = :s",
        "ExpressionAttributeNames": {"#s": "state"},
        "ExpressionAttributeValues": {":s": {"S": "failed"}},
    }
    first = await uploads.call("Query", **failed)
    assert all(set(item) == {"customer", "at", "state"} for item in first["Items"])  # KEYS_ONLY
    key = {"customer": {"S": "a"}, "at": {"N": "-10"}}
    await uploads.call(
        "UpdateItem",
        TableName="Uploads",
        Key=key,
        UpdateExpression="REMOVE #s",
        ExpressionAttributeNames={"#s": "state"},
    )
    await uploads.call("DeleteItem", TableName="Uploads", Key={"customer": {"S": "a"}, "at": {"N": "10"}})
    assert (await uploads.call("Query", **failed, Select="COUNT"))["Count"] == 3
    await uploads.fails(
        "UpdateItem",
        "ValidationException",
        "Type mismatch for Index Key state Expected: S Actual: N IndexName: by-status",
        TableName="Uploads",
        Key=key,
        UpdateExpression="SET #s = :n",
        ExpressionAttributeNames={"#s": "state"},
        ExpressionAttributeValues={":n": {"N": "1"}},
    )
    await uploads.fails("Query", "ValidationException", "Consistent reads are not", **failed, ConsistentRead=True)


async def test_scan_filters_projects_and_counts(uploads: Stack) -> None:
    response = await uploads.call(
        "Scan",
        TableName="Uploads",
        FilterExpression="attribute_not_exists(#s) AND contains(title, :t)",
        ProjectionExpression="more.#l[2], more.#l[0], title",
        ExpressionAttributeNames={"#s": "state", "#l": "list"},
        ExpressionAttributeValues={":t": {"S": "9"}},
        ReturnConsumedCapacity="TOTAL",
    )
    assert response["Items"] == [
        {"title": {"S": "t9"}, "more": {"M": {"list": {"L": [{"N": "1"}, {"S": "three"}]}}}},
    ]
    assert (response["Count"], response["ScannedCount"]) == (1, 10)
    assert response["ConsumedCapacity"] == {"TableName": "Uploads", "CapacityUnits": 0.5}
    segments = [await uploads.call("Scan", TableName="Uploads", Segment=n, TotalSegments=3) for n in range(3)]
    assert sorted(at for page in segments for at in ats(page)) == [number * 10 - 20 for number in range(10)]


async def test_queries_that_aws_refuses(uploads: Stack) -> None:
    async def refused(message: str, condition: str, **more: Any) -> None:
        values = {":c": {"S": "a"}, ":n": {"N": "1"}}
        used = {key: value for key, value in values.items() if key in condition}
        await uploads.fails(
            "Query",
            "ValidationException",
            message,
            TableName="Uploads",
            KeyConditionExpression=condition,
            ExpressionAttributeValues=used,
            **more,
        )

    await refused("Query condition missed key schema element: customer", "title = :c")
    await refused("Query key condition not supported", "customer > :c")
    await refused("Query condition missed key schema element: at", "customer = :c AND title = :c")
    await refused("KeyConditionExpressions must only contain one condition per key", "customer = :c AND customer = :c")
    await refused("Condition parameter type does not match schema type", "customer = :n")
    await refused("Invalid operator used in KeyConditionExpression: OR", "customer = :c OR customer = :c")
    await refused("Invalid operator used in KeyConditionExpression: <>", "customer <> :c")
    await refused("The provided starting key is invalid", "customer = :c", ExclusiveStartKey={"at": {"N": "1"}})
    await refused("does not have the specified index: none", "customer = :c", IndexName="none")
    await refused("Primary key attribute: customer", "customer = :c", FilterExpression="customer = :c")


async def test_transactions_are_all_or_nothing(files: Stack) -> None:
    def put(name: str, **more: Any) -> dict[str, Any]:
        return {"Put": {"TableName": "FileTransferMetadata", "Item": {"file_id": {"S": name}}, **more}}

    await files.call("TransactWriteItems", TransactItems=[put("a"), put("b")])
    error = await files.fails(
        "TransactWriteItems",
        "TransactionCanceledException",
        "[None, ConditionalCheckFailed]",
        TransactItems=[put("c"), put("a", ConditionExpression="attribute_not_exists(file_id)")],
    )
    assert error.members["CancellationReasons"] == [
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"},
    ]
    assert (await files.call("Scan", TableName="FileTransferMetadata"))["Count"] == 2
    await files.fails(
        "TransactWriteItems",
        "ValidationException",
        "multiple operations on one item",
        TransactItems=[put("d"), put("d")],
    )


async def test_a_request_token_makes_a_transaction_happen_once(files: Stack) -> None:
    def add(amount: str) -> list[dict[str, Any]]:
        update = {
            "TableName": "FileTransferMetadata",
            "Key": {"file_id": {"S": "counter"}},
            "UpdateExpression": "ADD n :n",
            "ExpressionAttributeValues": {":n": {"N": amount}},
        }
        return [{"Update": update}]

    for _ in range(2):
        await files.call("TransactWriteItems", TransactItems=add("1"), ClientRequestToken="token")
    item = await files.call("GetItem", TableName="FileTransferMetadata", Key={"file_id": {"S": "counter"}})
    assert item["Item"]["n"] == {"N": "1"}
    await files.fails(
        "TransactWriteItems",
        "IdempotentParameterMismatchException",
        "non-identical request",
        TransactItems=add("2"),
        ClientRequestToken="token",
    )


async def test_batches(files: Stack) -> None:
    puts = [{"PutRequest": {"Item": {"file_id": {"S": str(n)}, "b": {"B": bytes([n])}}}} for n in range(25)]
    response = await files.call("BatchWriteItem", RequestItems={"FileTransferMetadata": puts})
    assert response["UnprocessedItems"] == {}
    keys = [{"file_id": {"S": str(n)}} for n in (3, 99, 4)]
    got = await files.call("BatchGetItem", RequestItems={"FileTransferMetadata": {"Keys": keys}})
    assert sorted(item["b"]["B"] for item in got["Responses"]["FileTransferMetadata"]) == [b"\x03", b"\x04"]
    await files.fails(
        "BatchWriteItem",
        "ValidationException",
        "less than or equal to 25",
        RequestItems={"FileTransferMetadata": [*puts, puts[0]]},
    )


async def test_plain_values_for_other_rooms(files: Stack) -> None:
    await files.database.write(
        lambda tx: files.service.put_item(
            tx,
            "FileTransferMetadata",
            {"file_id": "x", "size_bytes": 4096, "tags": {"a", "b"}, "none": None, "ok": True},
        )
    )
    await files.database.write(
        lambda tx: files.service.update_item(
            tx, "FileTransferMetadata", {"file_id": "x"}, {"size_bytes": 1, "none": None, "list": [1.5, b"x"]}
        )
    )
    item = await files.database.read(
        lambda reader: files.service.get_item(reader, "FileTransferMetadata", {"file_id": "x"})
    )
    assert item is not None
    assert item.pop("list")[1] == b"x"
    assert item == {"file_id": "x", "size_bytes": 1, "tags": {"a", "b"}, "ok": True}
    await files.database.write(lambda tx: files.service.delete_item(tx, "FileTransferMetadata", {"file_id": "x"}))
    assert files.changes[-1][3] is None


async def test_a_refused_operation_leaves_the_callers_transaction_alone(files: Stack) -> None:
    """A state machine's task: the item's transaction is the state's."""

    def work(tx: Any) -> None:
        request = {"TableName": "FileTransferMetadata", "Item": {"file_id": {"S": "kept"}}}
        files.operations.transact(tx, "dynamodb", "PutItem", request, CALL)
        with pytest.raises(AwsError):
            files.operations.transact(
                tx, "dynamodb", "PutItem", {**request, "ConditionExpression": "attribute_not_exists(file_id)"}, CALL
            )

    await files.database.write(work)
    assert (await files.call("Scan", TableName="FileTransferMetadata"))["Count"] == 1
