"""HTTP requests to the outside: one bounded client for all rooms.

Owns which networks may be reached, time-outs, size limits and TLS. It must not know what a request is for: credentials,
retries and what a status means are the callers' business. Redirects are not followed, cookies and proxies not used.
"""

from entrepot.outbound.client import Outbound
from entrepot.outbound.errors import (
    ConnectionFailedError,
    DeniedError,
    InvalidRequestError,
    OutboundError,
    TimedOutError,
    UnknownHostError,
)
from entrepot.outbound.messages import Request, Response, Send
from entrepot.outbound.policy import Policy

__all__ = [
    "ConnectionFailedError",
    "DeniedError",
    "InvalidRequestError",
    "Outbound",
    "OutboundError",
    "Policy",
    "Request",
    "Response",
    "Send",
    "TimedOutError",
    "UnknownHostError",
]
