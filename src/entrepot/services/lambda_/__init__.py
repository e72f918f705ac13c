"""Lambda: functions, and the worker processes that run them.

AWS's own runtime client (`awslambdaric`) runs unmodified in warm child processes and fetches its work from our Runtime
API, so that context objects, error shapes and time-outs are AWS's. This room owns functions with their versions, aliases,
layers and policies, their code, the workers, the durable queue of asynchronous invocations with its destinations, and the
event source mappings. A synchronous invocation never writes to the ledger.

Source: https://docs.aws.amazon.com/lambda/latest/api/welcome.html
"""

from entrepot.services.lambda_.configuration import FunctionConfiguration
from entrepot.services.lambda_.invocation import InvocationResult
from entrepot.services.lambda_.neighbours import Neighbours
from entrepot.services.lambda_.operations import operations
from entrepot.services.lambda_.pool import WORKER_LIMIT
from entrepot.services.lambda_.schema import MIGRATIONS
from entrepot.services.lambda_.service import IssueCredentials, Lambda

__all__ = [
    "MIGRATIONS",
    "WORKER_LIMIT",
    "FunctionConfiguration",
    "InvocationResult",
    "IssueCredentials",
    "Lambda",
    "Neighbours",
    "operations",
]
