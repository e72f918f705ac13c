"""Amazon Resource Names: built from an `Account`, taken apart into an `Arn`.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arn:
    """The six parts of `arn:partition:service:region:account:resource`."""

    partition: str
    service: str
    region: str
    account_id: str
    resource: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account_id}:{self.resource}"


def parse(text: str) -> Arn:
    """Return the parts of `text`; raise ValueError when it is not an ARN."""
    parts = text.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or not parts[2] or not parts[5]:
        raise ValueError(f"not an ARN: {text!r}")
    return Arn(parts[1], parts[2], parts[3], parts[4], parts[5])


@dataclass(frozen=True, slots=True)
class Account:
    """The account and region that every resource of this stack belongs to."""

    account_id: str = "000000000000"
    region: str = "us-east-1"
    partition: str = "aws"

    def arn(self, service: str, resource: str) -> str:
        """Return a regional ARN: `arn:aws:states:us-east-1:000000000000:stateMachine:transfer`."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"

    def iam_arn(self, resource: str) -> str:
        """Return an IAM ARN, which has no region: `arn:aws:iam::000000000000:role/transfer`."""
        return f"arn:{self.partition}:iam::{self.account_id}:{resource}"

    def s3_arn(self, bucket: str, key: str | None = None) -> str:
        """Return an S3 ARN, which has neither region nor account: `arn:aws:s3:::bucket/key`."""
        suffix = bucket if key is None else f"{bucket}/{key}"
        return f"arn:{self.partition}:s3:::{suffix}"
