"""What can happen to a request before there is an answer. Any status that a server answers is an answer, no error."""

from entrepot.errors import EntrepotError


class OutboundError(EntrepotError):
    """There is no answer. The text names the host, never headers, query or body: these may hold secrets."""


class InvalidRequestError(OutboundError):
    """The request cannot be sent at all: its URL, method or a header is malformed."""


class DeniedError(OutboundError):
    """The policy forbids the address that the name leads to, or plain HTTP to it. Trying again does not help."""


class ConnectionFailedError(OutboundError):
    """No connection, a connection that broke, a certificate that does not verify, or an answer that is no HTTP."""


class UnknownHostError(ConnectionFailedError):
    """The name has no address. Trying again soon does not help."""


class TimedOutError(OutboundError):
    """The answer did not come whole within the request's time."""
