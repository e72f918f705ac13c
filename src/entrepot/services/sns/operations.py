"""The edge of SNS: AWS's operations in botocore's shapes (service `sns`).

Source: https://docs.aws.amazon.com/sns/latest/api/API_Operations.html
"""

from entrepot.operations import Operation
from entrepot.services.sns.publish_operations import publish_operations
from entrepot.services.sns.service import SNS
from entrepot.services.sns.subscription_operations import subscription_operations
from entrepot.services.sns.topic_operations import topic_operations


def operations(sns: SNS) -> list[Operation]:
    """Return SNS's operations."""
    return [*topic_operations(sns), *subscription_operations(sns), *publish_operations(sns)]
