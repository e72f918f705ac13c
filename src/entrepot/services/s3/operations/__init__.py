"""The operations of S3 under AWS's names: the edge where PascalCase ends. Requests and responses are botocore's shapes."""

from entrepot.operations import Operation, Require
from entrepot.services.s3.operations import buckets, listings, multipart, objects, tagging
from entrepot.services.s3.service import S3


def operations(service: S3, require: Require) -> list[Operation]:
    """Return everything that is served of botocore's service `s3`; `require` is the gate's, for decisions key by key."""
    return [
        *buckets.operations(service),
        *objects.operations(service, require),
        *listings.operations(service),
        *multipart.operations(service),
        *tagging.operations(service),
    ]
