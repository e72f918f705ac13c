"""The edge of CloudWatch: botocore's service `cloudwatch`.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Operations.html
"""

from entrepot.operations import Operation
from entrepot.services.cloudwatch.operations import alarms, dashboards, metrics
from entrepot.services.cloudwatch.service import CloudWatch


def operations(cloudwatch: CloudWatch) -> list[Operation]:
    """Return CloudWatch's operations."""
    return [*metrics.operations(cloudwatch), *alarms.operations(cloudwatch), *dashboards.operations(cloudwatch)]
