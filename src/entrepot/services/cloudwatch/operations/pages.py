"""Tokens that lead through listings."""

import base64

from entrepot.operations import Request
from entrepot.services.cloudwatch.errors import InvalidNextTokenError


def start_of(request: Request) -> int:
    """Return the number of entries before the page that a request asks for."""
    token = request.get("NextToken")
    if not token:
        return 0
    try:
        number = int(base64.urlsafe_b64decode(token.encode()).decode())
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 40:
        raise InvalidNextTokenError("The token for the next page is invalid; begin again without it.")
    return number


def token_at(start: int) -> str:
    """Return the token of the page that begins after `start` entries."""
    return base64.urlsafe_b64encode(str(start).encode()).decode()
