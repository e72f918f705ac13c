"""Every metric of CloudWatch that this installation records by itself, with AWS's names, units and dimensions where AWS has it.

What is not listed cannot be recorded; docs/metrics.md is written from here. Sources:
https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html,
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html,
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html,
https://docs.aws.amazon.com/transfer/latest/userguide/monitoring.html,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html
"""

from collections.abc import Mapping
from dataclasses import dataclass

OWN = "Entrepot"
"""The namespace of what AWS has no metric for: files and their deliveries."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A metric: each of `dimensions` is one set of names under which it is recorded; the empty one is over all."""

    namespace: str
    name: str
    unit: str
    dimensions: tuple[tuple[str, ...], ...]
    meaning: str


_FUNCTION = (("FunctionName",), ())
_MACHINE = (("StateMachineArn",), ())
_RULE = (("RuleName",), ())
_SERVER = (("ServerId",),)
_REQUESTS = (("BucketName", "FilterId"),)
_STORAGE = (("BucketName", "StorageType"),)
_EXPECTATION = (("Expectation",), ())

CATALOGUE = (
    Listed("AWS/Events", "FailedInvocations", "Count", _RULE, "Deliveries that were given up."),
    Listed("AWS/Events", "Invocations", "Count", _RULE, "Events that reached a target."),
    Listed("AWS/Events", "InvocationsSentToDlq", "Count", _RULE, "Events given up into a target's dead-letter queue."),
    Listed("AWS/Events", "MatchedEvents", "Count", _RULE, "Events that matched a rule; over all: that matched any."),
    Listed("AWS/Events", "TriggeredRules", "Count", _RULE, "Rules that an event matched."),
    Listed(
        "AWS/Lambda", "ConcurrentExecutions", "Count", _FUNCTION, "Workers that run the function (every ten seconds)."
    ),
    Listed(
        "AWS/Lambda",
        "Duration",
        "Milliseconds",
        _FUNCTION,
        "How long an invocation took, the wait for a worker included.",
    ),
    Listed(
        "AWS/Lambda", "Errors", "Count", _FUNCTION, "Invocations that ended with the function's error or a time-out."
    ),
    Listed("AWS/Lambda", "Invocations", "Count", _FUNCTION, "Invocations that ran."),
    Listed("AWS/Lambda", "Throttles", "Count", _FUNCTION, "Invocations that found no worker."),
    Listed("AWS/S3", "4xxErrors", "Count", _REQUESTS, "Requests that were answered with a client's error."),
    Listed("AWS/S3", "5xxErrors", "Count", _REQUESTS, "Requests that were answered with a server's error."),
    Listed("AWS/S3", "AllRequests", "Count", _REQUESTS, "Requests of the API, which functions call too."),
    Listed("AWS/S3", "BucketSizeBytes", "Bytes", _STORAGE, "Content of all versions, once a day."),
    Listed("AWS/S3", "BytesDownloaded", "Bytes", _REQUESTS, "Bytes that answers carried."),
    Listed("AWS/S3", "BytesUploaded", "Bytes", _REQUESTS, "Bytes that requests carried."),
    Listed("AWS/S3", "DeleteRequests", "Count", _REQUESTS, "DELETE requests."),
    Listed("AWS/S3", "GetRequests", "Count", _REQUESTS, "GET requests for objects."),
    Listed("AWS/S3", "HeadRequests", "Count", _REQUESTS, "HEAD requests."),
    Listed("AWS/S3", "ListRequests", "Count", _REQUESTS, "Requests that list a bucket."),
    Listed("AWS/S3", "NumberOfObjects", "Count", _STORAGE, "Objects with all their versions, once a day."),
    Listed("AWS/S3", "PostRequests", "Count", _REQUESTS, "POST requests."),
    Listed("AWS/S3", "PutRequests", "Count", _REQUESTS, "PUT requests for objects."),
    Listed("AWS/States", "ExecutionTime", "Milliseconds", _MACHINE, "From an execution's begin to its end."),
    Listed("AWS/States", "ExecutionsAborted", "Count", _MACHINE, "Executions that were stopped."),
    Listed("AWS/States", "ExecutionsFailed", "Count", _MACHINE, "Executions that failed."),
    Listed("AWS/States", "ExecutionsStarted", "Count", _MACHINE, "Executions that began."),
    Listed("AWS/States", "ExecutionsSucceeded", "Count", _MACHINE, "Executions that succeeded."),
    Listed("AWS/States", "ExecutionsTimedOut", "Count", _MACHINE, "Executions that timed out."),
    Listed("AWS/Transfer", "BytesIn", "Bytes", _SERVER, "Bytes of files that came in over SFTP."),
    Listed("AWS/Transfer", "BytesOut", "Bytes", _SERVER, "Bytes of files that went out over SFTP."),
    Listed("AWS/Transfer", "FilesIn", "Count", _SERVER, "Files that came in over SFTP."),
    Listed("AWS/Transfer", "FilesOut", "Count", _SERVER, "Files that went out over SFTP."),
    Listed(OWN, "Bytes", "Bytes", (("Direction",),), "Bytes that arrived (`in`) and that were delivered (`out`)."),
    Listed(OWN, "DeliveryDuration", "Milliseconds", ((),), "From a file's arrival to its delivery."),
    Listed(OWN, "ExpectationsDuplicate", "Count", _EXPECTATION, "Files beyond how many were expected."),
    Listed(OWN, "ExpectationsLate", "Count", _EXPECTATION, "Expected files that came after the deadline."),
    Listed(OWN, "ExpectationsMet", "Count", _EXPECTATION, "Expected files that came in time."),
    Listed(OWN, "ExpectationsMissed", "Count", _EXPECTATION, "Windows that closed without a file."),
    Listed(OWN, "ExpectationsTooSmall", "Count", _EXPECTATION, "Expected files that were too small."),
    Listed(OWN, "ExpectationsUnmet", "Count", ((),), "Expectations whose newest window brought no usable file."),
    Listed(OWN, "Files", "Count", (("Status",),), "Files that reached a status: `uploaded`, `transferred`, `failed`."),
    Listed(OWN, "OldestInvocationAge", "Seconds", ((),), "Age of the oldest invocation that waits for a worker."),
    Listed(OWN, "OldestUndeliveredAge", "Seconds", ((),), "Age of the oldest file that is not delivered."),
    Listed(OWN, "PendingDeliveries", "Count", ((),), "Events that wait for their targets."),
    Listed(OWN, "Sessions", "Count", ((),), "SFTP sessions that are open."),
)

UNITS: Mapping[tuple[str, str], str] = {(listed.namespace, listed.name): listed.unit for listed in CATALOGUE}
