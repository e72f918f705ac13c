"""What is wrong with a query, and where.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_MalformedQueryException.html
"""

from entrepot.errors import AwsError


class MalformedQueryError(AwsError):
    """The query string is not valid. Its members name the characters that are at fault."""

    code = "MalformedQueryException"
    status = 400

    def __init__(self, message: str, start: int, end: int) -> None:
        """Say `message` of the characters from `start` up to `end` of the query string."""
        location = {"startCharOffset": start, "endCharOffset": end}
        super().__init__(message, queryCompileError={"location": location, "message": message})
        self.start = start
        self.end = end


class QueryLimitError(AwsError):
    """Too many queries run at the same time."""

    code = "LimitExceededException"
    status = 400
