"""What a function is: its configuration, checked as AWS checks it, and the ways to name it.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from entrepot.arns import Account
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceNotFoundError, ValidationError

TIMEOUT_LIMIT_S = 900
MEMORY_MINIMUM_MB, MEMORY_LIMIT_MB = 128, 10_240
ENVIRONMENT_LIMIT_BYTES = 4_096
"""AWS's limits for a function's time-out, memory and environment."""

LATEST = "$LATEST"
"""The version that can be changed."""

RUNTIMES = frozenset(
    {f"python3.{minor}" for minor in range(9, 15)} | {f"nodejs{major}.x" for major in (18, 20, 22, 24)}
)
"""Runtimes that are taken: all of Python on the Python that runs the server, all of Node.js on the machine's node."""

RESERVED_VARIABLES = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""A function's environment may not set these."""

EPHEMERAL_MINIMUM_MB, EPHEMERAL_LIMIT_MB = 512, 10_240
"""AWS's limits for /tmp."""

LAYERS_LIMIT = 5
"""Layers of a function. AWS's limit."""

_NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}", re.ASCII)
_HANDLER = re.compile(r"[^\s]{1,128}")
_ROLE = re.compile(r"arn:aws[a-zA-Z-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+", re.ASCII)
_VARIABLE = re.compile(r"[a-zA-Z]\w+", re.ASCII)
_QUALIFIER = re.compile(r"\$LATEST|[a-zA-Z0-9-_$]{1,128}", re.ASCII)
_REFERENCE = re.compile(
    r"(?:arn:aws[\w-]*:lambda:(?P<region>[a-z0-9-]+):)?(?:(?P<account>\d{12}):)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9-_]{1,64})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]+))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class FunctionConfiguration:
    """A function as deployed. `code_sha256` (hex) names its code; the service fills it in, with the times.

    `code_folder` is where `put_function` takes the code from (a copy is made); None keeps the code there is.
    `reserved_concurrency` None shares the pool; 0 refuses every invocation. `minimum_warm` workers are kept ready.
    `layers` are the ARNs of layer versions, in order; `layers_folder` names their merged content beside the code.
    """

    name: str
    role_arn: str
    handler: str
    runtime: str = "python3.11"
    timeout_s: int = 3
    memory_size_mb: int = 128
    environment: Mapping[str, str] = field(default_factory=dict)
    code_folder: Path | None = None
    description: str = ""
    reserved_concurrency: int | None = None
    minimum_warm: int = 0
    log_group: str = ""
    code_sha256: str = ""
    code_size_bytes: int = 0
    modified_at_ms: int = 0
    revision_id: str = ""
    version: str = LATEST
    layers: tuple[str, ...] = ()
    layer_sizes_bytes: tuple[int, ...] = ()
    layers_folder: str = ""
    dead_letter_arn: str = ""
    ephemeral_storage_mb: int = 512
    architectures: tuple[str, ...] = ("x86_64",)

    @property
    def key(self) -> str:
        """What tells this version of this function from all others: its name, with the version unless it is $LATEST."""
        return self.name if self.version == LATEST else f"{self.name}:{self.version}"

    @property
    def log_group_name(self) -> str:
        """The log group of the function's workers."""
        return self.log_group or f"/aws/lambda/{self.name}"

    def to_json(self) -> str:
        """Return the row's text."""
        return json.dumps(asdict(replace(self, code_folder=None)), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "FunctionConfiguration":
        """Return what `to_json` wrote; members of other versions are left out."""
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {key: value for key, value in json.loads(text).items() if key in known}
        for key, value in values.items():
            values[key] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def check(configuration: FunctionConfiguration) -> None:
    """Raise ValidationError or InvalidParameterValueError when AWS would refuse the configuration."""
    if not _NAME.fullmatch(configuration.name):
        refuse(configuration.name, "functionName", "satisfy regular expression pattern: [a-zA-Z0-9-_]{1,64}")
    if not _ROLE.fullmatch(configuration.role_arn):
        pattern = "arn:(aws[a-zA-Z-]*)?:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+"
        refuse(configuration.role_arn, "role", f"satisfy regular expression pattern: {pattern}")
    if not _HANDLER.fullmatch(configuration.handler):
        refuse(configuration.handler, "handler", "satisfy regular expression pattern: [^\\s]{1,128}")
    if configuration.runtime not in RUNTIMES:
        raise InvalidParameterValueError(
            f"Value {configuration.runtime[:100]} at 'runtime' failed to satisfy constraint: Member must satisfy enum "
            f"value set: [{', '.join(sorted(RUNTIMES))}] or be a valid ARN",
            Type="User",
        )
    if not 1 <= configuration.timeout_s <= TIMEOUT_LIMIT_S:
        refuse(configuration.timeout_s, "timeout", f"have value between 1 and {TIMEOUT_LIMIT_S}")
    if not MEMORY_MINIMUM_MB <= configuration.memory_size_mb <= MEMORY_LIMIT_MB:
        refuse(
            configuration.memory_size_mb, "memorySize", f"have value between {MEMORY_MINIMUM_MB} and {MEMORY_LIMIT_MB}"
        )
    if len(configuration.description) > 256:
        refuse(configuration.description, "description", "have length less than or equal to 256")
    if configuration.reserved_concurrency is not None and configuration.reserved_concurrency < 0:
        refuse(
            configuration.reserved_concurrency, "reservedConcurrentExecutions", "have value greater than or equal to 0"
        )
    if not EPHEMERAL_MINIMUM_MB <= configuration.ephemeral_storage_mb <= EPHEMERAL_LIMIT_MB:
        refuse(configuration.ephemeral_storage_mb, "ephemeralStorage.size",
               f"have value between {EPHEMERAL_MINIMUM_MB} and {EPHEMERAL_LIMIT_MB}")  # fmt: skip
    _check_environment(configuration.environment)


def _check_environment(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name):
            refuse(name, "environment.variables", "satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+")
        if "\0" in value:
            raise InvalidParameterValueError(f"The environment variable {name} contains a NUL character.")
    if reserved := sorted(RESERVED_VARIABLES & set(environment)):
        raise InvalidParameterValueError(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            f"provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}",
            Type="User",
        )
    if len(json.dumps(dict(environment)).encode()) > ENVIRONMENT_LIMIT_BYTES:
        raise InvalidParameterValueError(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            f"provided exceeded the {ENVIRONMENT_LIMIT_BYTES // 1024}KB limit. String measured: "
            f"{json.dumps(dict(environment))[:200]}",
            Type="User",
        )


def refuse(value: object, member: str, constraint: str) -> NoReturn:
    """Raise ValidationError as AWS words it."""
    raise ValidationError(
        f"1 validation error detected: Value '{str(value)[:200]}' at '{member}' failed to satisfy constraint: "
        f"Member must {constraint}"
    )


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Reference:
    """A function as a caller names it. `qualifier` is a version, an alias, `$LATEST`, or "" when none is given."""

    name: str
    qualifier: str = ""

    @property
    def is_latest(self) -> bool:
        """Whether the function itself is meant, and neither a version nor an alias."""
        return self.qualifier in ("", LATEST)


def function_arn(account: Account, name: str, qualifier: str = "") -> str:
    """Return `arn:aws:lambda:region:account:function:name`, with `:qualifier` where one is given."""
    return account.arn("lambda", f"function:{name}:{qualifier}" if qualifier else f"function:{name}")


def reference(account: Account, text: str, qualifier: str | None = None) -> Reference:
    """Return what a name, a partial ARN (`123456789012:name`) or an ARN stands for, each with or without a qualifier.

    ResourceNotFoundError for another account or region: there is one of each here.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        pattern = (
            "(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\\d{1}:)?(\\d{12}:)?(function:)?([a-zA-Z0-9-_\\.]+)"
            "(:(\\$LATEST|[a-zA-Z0-9-_]+))?"
        )
        refuse(text, "functionName", f"satisfy regular expression pattern: {pattern}")
    if qualifier is not None and not _QUALIFIER.fullmatch(qualifier):
        refuse(qualifier, "qualifier", "satisfy regular expression pattern: \\$LATEST|[a-zA-Z0-9-_$]+")
    if match["region"] not in (None, account.region) or match["account"] not in (None, account.account_id):
        raise not_found(text)
    if match["qualifier"] and qualifier and match["qualifier"] != qualifier:
        raise InvalidParameterValueError(
            "The derived qualifier from the function name does not match the specified qualifier.", Type="User"
        )
    return Reference(match["name"], match["qualifier"] or qualifier or "")


def not_found(arn: str) -> ResourceNotFoundError:
    """Return AWS's error for a function, a version or an alias that is not there."""
    return ResourceNotFoundError(f"Function not found: {arn}", Type="User")
