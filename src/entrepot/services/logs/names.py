"""The names of log groups, given as they are or as ARNs; and the tokens that lead through listings."""

import base64
import re

from entrepot.services.logs.errors import InvalidParameterError

_GROUP_NAME = re.compile(r"[.\-_/#A-Za-z0-9]{1,512}")


def group_name(given: str, arn_prefix: str) -> str:
    """Return a group's name, given as name or as ARN under `arn_prefix`; InvalidParameterError for anything else."""
    name = given
    if name.startswith(arn_prefix):
        # Grafana cuts the star from the ARN that DescribeLogGroups answered with, and leaves the colon, as AWS allows.
        name = name[len(arn_prefix) :].removesuffix("*").removesuffix(":")
    if not _GROUP_NAME.fullmatch(name):
        raise InvalidParameterError(
            f"1 validation error detected: Value '{name[:600]}' at 'logGroupName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+"
        )
    return name


def sealed(text: str) -> str:
    """Return a token that carries `text`."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def opened(token: str) -> str:
    """Return what a token carries; InvalidParameterError when it is none of ours."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidParameterError("The specified nextToken is invalid.") from None
