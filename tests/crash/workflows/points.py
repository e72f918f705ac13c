"""Where the server dies: every named point that workflows reach (docs/durability.md)."""

from typing import Final

TRANSITIONS: Final = (
    "database.before-commit",
    "database.after-commit",
    "stepfunctions.before-commit",
    "stepfunctions.after-commit",
)
"""Reached by everything that happens, hundreds of times in a life."""

MOMENTS: Final = (
    "events.before-delivery",
    "events.after-delivery",
    "stepfunctions.before-task",
    "stepfunctions.after-task",
    "stepfunctions.before-timer",
    "stepfunctions.before-answer",
    "stepfunctions.before-parent",
    "stepfunctions.before-resume",
    "stepfunctions.after-history",
    "stepfunctions.map-items-read",
    "stepfunctions.map-children-begin",
    "stepfunctions.map-results",
    "sqs.after-receive",
    "lambda.after-invocation",
)
"""Reached now and then."""

POINTS: Final = (*TRANSITIONS, *MOMENTS)
