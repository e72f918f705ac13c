"""DynamoDB: tables, items and expressions.

This room owns table definitions (`tables.py`), items and index entries (`items.py`, `encoding.py`), attribute values
(`values.py`) and the expression language (`tokens.py`, `expressions.py`, `binding.py`, `conditions.py`, `updates.py`,
`queries.py`). Every operation on items is a read or one write transaction, so that a state machine's task commits with
its state.
"""

from entrepot.services.dynamodb.dynamodb import DynamoDB, OnItemChanged
from entrepot.services.dynamodb.operations import operations
from entrepot.services.dynamodb.schema import MIGRATIONS

__all__ = ["MIGRATIONS", "DynamoDB", "OnItemChanged", "operations"]
