"""CreateTable, DescribeTable, ListTables, UpdateTable, DeleteTable and their like at the edge."""

from typing import Any

from entrepot import clock, ids
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.dynamodb import tables
from entrepot.services.dynamodb.definitions import Index, Keys, Table
from entrepot.services.dynamodb.dynamodb import DynamoDB
from entrepot.services.dynamodb.errors import ResourceNotFoundException, ValidationException
from entrepot.services.dynamodb.requests import on_table

LISTED = 100
"""Names in one answer of ListTables (AWS's limit)."""

COUNTED_ITEMS = 100_000
"""DescribeTable counts items up to this number; a larger table shows this number."""

SAMPLED_ITEMS = 1_000
"""Items from whose average size DescribeTable tells the size of the table."""

_IGNORED_IN_VAIN = (
    "SSESpecification",
    "ResourcePolicy",
    "GlobalTableSourceArn",
    "ReplicaUpdates",
    "VectorIndexes",
    "OnDemandThroughput",
    "WarmThroughput",
    "MultiRegionConsistency",
    "GlobalTableWitnessUpdates",
)


def _refuse(request: Request) -> None:
    for name in _IGNORED_IN_VAIN:
        value = request.get(name)
        if value and value != {"Enabled": False}:
            raise ValidationException(f"The parameter {name} is not supported here")
    if request.get("TableClass", "STANDARD") != "STANDARD":
        raise ValidationException("The TableClass is STANDARD here: no other is supported")


def _schema(keys: Keys) -> list[dict[str, str]]:
    kinds = zip(keys.attributes, ("HASH", "RANGE"), strict=False)
    return [{"AttributeName": attribute.name, "KeyType": kind} for attribute, kind in kinds]


def _index_shape(service: DynamoDB, table: Table, index: Index) -> dict[str, Any]:
    projection: dict[str, Any] = {"ProjectionType": index.projection}
    if index.non_key_attributes:
        projection["NonKeyAttributes"] = list(index.non_key_attributes)
    shape: dict[str, Any] = {
        "IndexName": index.index_name,
        "KeySchema": _schema(index.keys),
        "Projection": projection,
        "IndexArn": f"{service.table_arn(table.table_name)}/index/{index.index_name}",
    }
    if index.is_global:
        shape["IndexStatus"] = "CREATING" if index.building else "ACTIVE"
        if index.building:
            shape["Backfilling"] = True
    return shape


def _table_shape(service: DynamoDB, table: Table, status: str, item_count: int, size_bytes: int) -> dict[str, Any]:
    arn = service.table_arn(table.table_name)
    shape: dict[str, Any] = {
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind} for name, kind in table.attribute_types.items()
        ],
        "TableName": table.table_name,
        "KeySchema": _schema(table.keys),
        "TableStatus": status,
        "CreationDateTime": clock.from_ms(table.created_at_ms),
        "ProvisionedThroughput": {
            "NumberOfDecreasesToday": 0,
            "ReadCapacityUnits": table.read_capacity_units,
            "WriteCapacityUnits": table.write_capacity_units,
        },
        "TableSizeBytes": size_bytes,
        "ItemCount": item_count,
        "TableArn": arn,
        "TableId": ids.derived_uuid(arn, str(table.table_id)),
        "DeletionProtectionEnabled": table.deletion_protection,
    }
    if table.billing_mode == "PAY_PER_REQUEST":
        shape["BillingModeSummary"] = {"BillingMode": "PAY_PER_REQUEST"}
    if table.stream is not None:
        shape["LatestStreamArn"] = f"{arn}/stream/{table.stream.label}"
        shape["LatestStreamLabel"] = table.stream.label
        if table.stream.enabled:
            shape["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": table.stream.view_type}
    for name, is_global in (("LocalSecondaryIndexes", False), ("GlobalSecondaryIndexes", True)):
        indexes = [_index_shape(service, table, index) for index in table.indexes if index.is_global == is_global]
        if indexes:
            shape[name] = indexes
    return shape


def _tags(request: Request) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in request["Tags"]}


def _measure(reader: Reader, table: Table) -> tuple[int, int]:
    """Return (items, bytes), counted up to COUNTED_ITEMS, the bytes extrapolated from a sample."""
    count = reader.one(
        "SELECT COUNT(*) FROM (SELECT 1 FROM dynamodb_item WHERE table_id = ? LIMIT ?) AS counted",
        (table.table_id, COUNTED_ITEMS),
    )
    sample = reader.one(
        "SELECT COUNT(*), SUM(size_bytes) FROM (SELECT LENGTH(partition_key) + LENGTH(sort_key) + LENGTH(body) "
        "AS size_bytes FROM dynamodb_item WHERE table_id = ? LIMIT ?) AS sampled",
        (table.table_id, SAMPLED_ITEMS),
    )
    if count is None or sample is None or not sample[0]:
        return 0, 0
    return count[0], sample[1] * count[0] // sample[0]


def table_operations(service: DynamoDB) -> list[Operation]:
    """Return the operations on tables."""

    def found(reader: Reader, request: Request) -> Table:
        name = service.table_name(request["TableName"])
        try:
            return service.table(reader, name)
        except ResourceNotFoundException:
            raise tables.not_found(name) from None

    def create_table(tx: Transaction, request: Request, call: Call) -> Response:
        _refuse(request)
        table = tables.create_table(tx, service.table_name(request["TableName"]), dict(request))
        if request.get("Tags"):
            tables.set_tags(tx, table, _tags(request))
        return {"TableDescription": _table_shape(service, table, "ACTIVE", 0, 0)}

    def describe_table(reader: Reader, request: Request, call: Call) -> Response:
        table = found(reader, request)
        return {"Table": _table_shape(service, table, "ACTIVE", *_measure(reader, table))}

    def list_tables(reader: Reader, request: Request, call: Call) -> Response:
        limit = min(int(request.get("Limit", LISTED)), LISTED)
        names = tables.list_tables(reader, request.get("ExclusiveStartTableName", ""), limit + 1)
        response: Response = {"TableNames": names[:limit]}
        if len(names) > limit:
            response["LastEvaluatedTableName"] = names[limit - 1]
        return response

    def update_table(tx: Transaction, request: Request, call: Call) -> Response:
        _refuse(request)
        table = found(tx, request)
        names = ("BillingMode", "ProvisionedThroughput", "DeletionProtectionEnabled", "StreamSpecification",
                 "GlobalSecondaryIndexUpdates")  # fmt: skip
        if not any(name in request for name in names):
            raise ValidationException(
                "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or "
                "SSESpecification or ReplicaUpdates is required"
            )
        updated = tables.update_table(tx, table, dict(request))
        tx.after_commit(service.hasten)
        return {"TableDescription": _table_shape(service, updated, "ACTIVE", *_measure(tx, updated))}

    def delete_table(tx: Transaction, request: Request, call: Call) -> Response:
        table = found(tx, request)
        tables.delete_table(tx, table)
        return {"TableDescription": _table_shape(service, table, "DELETING", 0, 0)}

    def describe_time_to_live(reader: Reader, request: Request, call: Call) -> Response:
        expiry = found(reader, request).time_to_live
        description = {"TimeToLiveStatus": "DISABLED"}
        if expiry is not None:
            description = {"TimeToLiveStatus": "ENABLED", "AttributeName": expiry.attribute_name}
        return {"TimeToLiveDescription": description}

    def update_time_to_live(tx: Transaction, request: Request, call: Call) -> Response:
        table, specification = found(tx, request), request["TimeToLiveSpecification"]
        name, enabled = specification["AttributeName"], bool(specification["Enabled"])
        tables.set_time_to_live(tx, table, name, enabled=enabled)
        tx.after_commit(service.hasten)
        return {"TimeToLiveSpecification": {"Enabled": enabled, "AttributeName": name}}

    def tagged(reader: Reader, request: Request) -> Table:
        return found(reader, {"TableName": request["ResourceArn"]})

    def tag_resource(tx: Transaction, request: Request, call: Call) -> Response:
        table = tagged(tx, request)
        tables.set_tags(tx, table, {**tables.tags_of(tx, table), **_tags(request)})
        return {}

    def untag_resource(tx: Transaction, request: Request, call: Call) -> Response:
        table, gone = tagged(tx, request), set(request["TagKeys"])
        kept = {key: value for key, value in tables.tags_of(tx, table).items() if key not in gone}
        tables.set_tags(tx, table, kept)
        return {}

    def list_tags_of_resource(reader: Reader, request: Request, call: Call) -> Response:
        tags = tables.tags_of(reader, tagged(reader, request))
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def on_resource(action: str) -> Permissions:
        return lambda request: [Permission(f"dynamodb:{action}", str(request.get("ResourceArn", "*")))]

    def describe_continuous_backups(reader: Reader, request: Request, call: Call) -> Response:
        found(reader, request)
        recovery = {"PointInTimeRecoveryStatus": "DISABLED"}
        return {
            "ContinuousBackupsDescription": {
                "ContinuousBackupsStatus": "DISABLED",
                "PointInTimeRecoveryDescription": recovery,
            }
        }

    def all_tables(request: Request) -> list[Permission]:
        return [Permission("dynamodb:ListTables", "*")]

    return [
        WriteOperation("CreateTable", on_table(service, "CreateTable"), create_table),
        ReadOperation("DescribeTable", on_table(service, "DescribeTable"), describe_table),
        ReadOperation("ListTables", all_tables, list_tables),
        WriteOperation("UpdateTable", on_table(service, "UpdateTable"), update_table),
        WriteOperation("DeleteTable", on_table(service, "DeleteTable"), delete_table),
        ReadOperation("DescribeTimeToLive", on_table(service, "DescribeTimeToLive"), describe_time_to_live),
        WriteOperation("UpdateTimeToLive", on_table(service, "UpdateTimeToLive"), update_time_to_live),
        WriteOperation("TagResource", on_resource("TagResource"), tag_resource),
        WriteOperation("UntagResource", on_resource("UntagResource"), untag_resource),
        ReadOperation("ListTagsOfResource", on_resource("ListTagsOfResource"), list_tags_of_resource),
        ReadOperation(
            "DescribeContinuousBackups",
            on_table(service, "DescribeContinuousBackups"),
            describe_continuous_backups,
        ),
    ]
