"""Amazon SQS: standard and FIFO queues, their messages, and dead-letter redrive.

Owns queues, messages, de-duplication and visibility. It must not know who sends or receives: rules and state machines
call its operations inside their own transactions, so that a message and the state that sent it commit together.
"""

from entrepot.services.sqs.operations import operations
from entrepot.services.sqs.schema import MIGRATIONS
from entrepot.services.sqs.service import SQS

__all__ = ["MIGRATIONS", "SQS", "operations"]
