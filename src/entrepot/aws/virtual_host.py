"""Where S3's bucket is named: in the path, or in the host (`bucket.localhost`, `bucket.s3.localhost`).

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
"""

import re

from entrepot.aws.http import HttpRequest

_SUFFIX = ".localhost"
_ENDPOINT_LABELS = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:[.-][a-z0-9-]+)?\Z")


def path_style(request: HttpRequest) -> str:
    """Return the request's path with the bucket in front, percent-encoded as it came.

    Only names below `localhost` carry a bucket; every other host is addressed path-style.
    """
    host = (request.header("host") or "").lower()
    name = host.rpartition(":")[0] if re.search(r":\d+\Z", host) else host
    if not name.endswith(_SUFFIX):
        return request.path
    labels = name[: -len(_SUFFIX)]
    match = _ENDPOINT_LABELS.match(labels)
    bucket = match.group("bucket") if match else labels
    return f"/{bucket}{request.path}" if bucket else request.path
