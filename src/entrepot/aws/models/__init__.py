"""The service models: botocore's own, and Entrepot's API (`entrepot/2026-11-01/service-2.json`) in the same form.

Models are loaded at first use, one service at a time, and kept.
"""

from typing import TYPE_CHECKING, Any

from entrepot.service_models import FOLDER, service_model

__all__ = ["SERVICES", "SERVICE_OF_SIGNING_NAME", "SERVICE_OF_SIGNING_NAME_AND_TARGET", "service_model", "session"]

if TYPE_CHECKING:
    import boto3

SERVICES = (
    "s3", "dynamodb", "events", "stepfunctions", "lambda", "logs", "sts", "iam", "sns", "sqs", "cloudwatch",
    "transfer", "entrepot", "dynamodbstreams",
)  # fmt: skip
"""The services whose requests are understood (by botocore's names); which operations run is decided elsewhere."""

SERVICE_OF_SIGNING_NAME = {
    "states": "stepfunctions",
    "monitoring": "cloudwatch",
    **{name: name for name in SERVICES if name not in ("stepfunctions", "cloudwatch", "dynamodbstreams")},
}
"""botocore's service name by the service name in a credential scope."""

SERVICE_OF_SIGNING_NAME_AND_TARGET = {("dynamodb", "DynamoDBStreams_20120810"): "dynamodbstreams"}
"""The same for a service that signs as another does, by the first part of X-Amz-Target."""


def session(**options: Any) -> "boto3.session.Session":
    """Return a boto3 session (options as `boto3.Session`'s) that also knows the service `entrepot`."""
    import boto3  # here, because the server needs none of it and starts a tenth of a second sooner without
    import botocore.session

    inner = botocore.session.Session()
    inner.get_component("data_loader").search_paths.append(FOLDER)
    return boto3.session.Session(botocore_session=inner, **options)
