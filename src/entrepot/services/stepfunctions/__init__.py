"""Step Functions: state machines in the Amazon States Language, and their durable executions.

`language/` reads definitions, `interpreter.py` and `steps/` step through them without any I/O, `executor.py` makes each step
durable and acts, `maps/` runs the children of distributed Maps, `integrations.py` knows what a task's resource stands for,
`operations/` is the API; `versions.py`, `activities.py`, `maps/` and `http_task.py` are subjects of their own,
`single_state.py` runs one state for TestState. This room must not import another service: tasks go through the gate
(`Operations`), what others want to know goes through typed callables.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/welcome.html
"""

from .executor import ExecutionChange, OnExecutionChanged
from .http_task import ConnectionParameters, OpenConnection
from .integrations import PrincipalForRole, request_ids
from .machines import Logging, Machine
from .operations import operations
from .schema import MIGRATIONS
from .service import StepFunctions

__all__ = [
    "MIGRATIONS",
    "ConnectionParameters",
    "ExecutionChange",
    "Logging",
    "Machine",
    "OnExecutionChanged",
    "OpenConnection",
    "PrincipalForRole",
    "StepFunctions",
    "operations",
    "request_ids",
]
