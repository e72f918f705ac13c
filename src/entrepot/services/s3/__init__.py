"""S3: buckets, objects and their versions, multipart uploads, and the events of their changes.

Owns the tables `s3_*` and decides when content in the blob store may go. Names are rows: a copy or rename touches no
content, a listing is an index scan. Must not know who listens to its events; `server.py` passes that in.
"""

from entrepot.services.s3.events import detail_type, event_detail
from entrepot.services.s3.objects import (
    Attributes,
    Bucket,
    CopiedFrom,
    ObjectCreated,
    ObjectDeleted,
    ObjectVersion,
    OnObjectCreated,
    OnObjectDeleted,
)
from entrepot.services.s3.operations import operations
from entrepot.services.s3.schema import MIGRATIONS
from entrepot.services.s3.scrub import Damaged, ScrubReport, scrub
from entrepot.services.s3.service import S3
from entrepot.services.s3.usage import usage

__all__ = [
    "MIGRATIONS",
    "S3",
    "Attributes",
    "Bucket",
    "CopiedFrom",
    "Damaged",
    "ObjectCreated",
    "ObjectDeleted",
    "ObjectVersion",
    "OnObjectCreated",
    "OnObjectDeleted",
    "ScrubReport",
    "detail_type",
    "event_detail",
    "operations",
    "scrub",
    "usage",
]
