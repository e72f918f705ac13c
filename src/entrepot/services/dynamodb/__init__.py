"""DynamoDB: tables, items and expressions.

This room owns table definitions (`definitions.py`, `tables.py`), items and index entries (`items.py`, `encoding.py`,
`keys.py`), attribute values (`values.py`), the expression language (`tokens.py`, `expressions.py`, `binding.py`,
`conditions.py`, `updates.py`, `queries.py`) and streams (`streams.py`, `stream_operations.py`: the service
`dynamodbstreams`). Every operation on items is a read or one write transaction, so that a state machine's task commits
with its state.
"""

from entrepot.services.dynamodb.dynamodb import DynamoDB, OnItemChanged
from entrepot.services.dynamodb.operations import operations
from entrepot.services.dynamodb.schema import MIGRATIONS
from entrepot.services.dynamodb.stream_operations import stream_operations

__all__ = ["MIGRATIONS", "DynamoDB", "OnItemChanged", "operations", "stream_operations"]
