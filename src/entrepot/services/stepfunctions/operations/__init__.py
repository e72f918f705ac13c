"""The edge of Step Functions: botocore's service `stepfunctions`, camelCase dictionaries in and out, a module per subject.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

from entrepot.operations import Operation
from entrepot.services.stepfunctions.operations import (
    activities,
    executions,
    map_runs,
    state_machines,
    tags,
    testing,
    versions,
    workers,
)
from entrepot.services.stepfunctions.service import StepFunctions


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations of botocore's service `stepfunctions`."""
    return [
        operation
        for subject in (state_machines, versions, executions, map_runs, workers, activities, tags, testing)
        for operation in subject.operations(service)
    ]
