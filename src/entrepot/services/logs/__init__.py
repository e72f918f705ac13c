"""CloudWatch Logs: log groups, log streams and their events, in a store of their own.

This room owns the file of log events, its writer thread, retention, the filter pattern language, Insights, metric filters,
subscription filters with their deliveries, and live tails. The ledger knows
nothing of it: volume here must never slow a commit there, so whatever must outlive a group's retention belongs into the
ledger. Others write through the typed callable `WriteLog` and never wait.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/Welcome.html
"""

from entrepot.services.logs.operations import operations
from entrepot.services.logs.ports import DeliveryStream, InvokeFunction, RecordMetric
from entrepot.services.logs.service import FoundLine, Logs, LogStatistics

__all__ = [
    "DeliveryStream",
    "FoundLine",
    "InvokeFunction",
    "LogStatistics",
    "Logs",
    "RecordMetric",
    "operations",
]
