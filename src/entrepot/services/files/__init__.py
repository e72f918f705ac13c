"""Files: the record of each file that arrived, and its timeline from the login to the delivery.

Owns one row per version in a pipeline's source bucket, written in the transaction that makes the version visible, and
projects onto it what the other rooms report. It must not start, copy or deliver anything itself: it keeps accounts.
"""

from entrepot.services.files.listing import recent_files
from entrepot.services.files.operations import operations
from entrepot.services.files.ports import (
    DeleteMetadataItem,
    ExecutionHistory,
    FindSession,
    LoggedLine,
    LogLines,
    PutMetadataItem,
    Redeliver,
    SessionFacts,
    Settled,
)
from entrepot.services.files.record import FileRecord, Pipeline
from entrepot.services.files.redrive import replayed
from entrepot.services.files.schema import MIGRATIONS
from entrepot.services.files.service import Files
from entrepot.services.files.story import Story, story_of

__all__ = [
    "MIGRATIONS",
    "DeleteMetadataItem",
    "ExecutionHistory",
    "FileRecord",
    "Files",
    "FindSession",
    "LogLines",
    "LoggedLine",
    "Pipeline",
    "PutMetadataItem",
    "Redeliver",
    "SessionFacts",
    "Settled",
    "Story",
    "operations",
    "recent_files",
    "replayed",
    "story_of",
]
