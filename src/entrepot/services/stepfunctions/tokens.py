"""Task tokens: what `$$.Task.Token` is, and how it leads back to its task.

A token names its execution and task, and holds a digest that nobody can guess; the frame of the task keeps the whole token, so
that a token is good as long as its task waits for it, also after a restart.
"""

import base64
import hashlib
import json

from entrepot import arns

from .errors import InvalidToken

MAX_TOKEN_CHARACTERS = 2_048
"""The longest token. Source: SendTaskSuccess."""


def make(execution_arn: str, task_id: int, chance: float) -> str:
    """Return the token of a task; `chance` is a random number that came with what happened."""
    proof = hashlib.sha256(f"{execution_arn} {task_id} {chance!r}".encode()).hexdigest()[:32]
    return base64.urlsafe_b64encode(json.dumps([execution_arn, task_id, proof]).encode()).decode()


def execution_arn(token: str) -> str:
    """Return the ARN of the execution that made a token. Raises InvalidToken."""
    try:
        arn, task_id, proof = json.loads(base64.b64decode(token[:MAX_TOKEN_CHARACTERS], b"-_", validate=True))
        is_ours = arns.parse(arn).service == "states" and isinstance(task_id, int) and isinstance(proof, str)
    except (ValueError, TypeError, AttributeError, RecursionError):
        is_ours = False
    if not is_ours:
        raise InvalidToken("Invalid Token: 'Invalid token'")
    return str(arn)
