"""The edge of DynamoDB: AWS's operations in botocore's shapes (service `dynamodb`)."""

from entrepot.operations import Operation
from entrepot.services.dynamodb.batch_operations import batch_operations
from entrepot.services.dynamodb.dynamodb import DynamoDB
from entrepot.services.dynamodb.item_operations import item_operations
from entrepot.services.dynamodb.query_operations import query_operations
from entrepot.services.dynamodb.table_operations import table_operations


def operations(service: DynamoDB) -> list[Operation]:
    """Return DynamoDB's operations."""
    return [
        *table_operations(service),
        *item_operations(service),
        *query_operations(service),
        *batch_operations(service),
    ]
