"""The stack's settings: `stack.toml` plus `ENTREPOT_*` variables, as one typed, frozen tree.

This module owns the shape of the file and where in it an error is; `stack/` turns the tree into resources. It is the
only module that reads the environment. An unknown key is an error that names the file and line.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from entrepot.errors import EntrepotError
from entrepot.outbound.policy import DENIED_NETWORKS, PLAIN_HTTP_NETWORKS

STACK_FILE = "stack.toml"
STACK_FILE_LIMIT_BYTES = 1 << 20
"""A larger `stack.toml` is refused."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
BucketName = Annotated[str, msgspec.Meta(min_length=3, max_length=63)]


class SettingsError(EntrepotError):
    """A mistake in the stack's files. The text begins with `file:line:` (or `file: $.json.path:`)."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class StackSection(_Section, frozen=True):
    """`[stack]`: the names under which the resources are known."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "entrepot"
    account_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{12}$")] = "000000000000"
    region: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"


class ServerSection(_Section, frozen=True):
    """`[server]`: where it listens. Port 0 means any free port. `console_port` is the web console's, see `[console]`.
    `public_url` is how others reach the API (the links in notifications and mails), where that is not the listener's address."""

    host: str = "127.0.0.1"
    sftp_port: Port = 2222
    api_port: Port = 4566
    console_port: Port = 8080
    drain_timeout_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 20
    public_url: Annotated[str, msgspec.Meta(pattern=r"^(https?://[!-~]+[^/])?$")] = ""


class ConsoleSection(_Section, frozen=True):
    """`[console]`: the web console. `login` is "auto" (asked for unless it listens on loopback) or "always"; `hosts` are the
    names under which it is reached besides addresses and `localhost`; `public_url` is how browsers reach it through a proxy that
    speaks TLS. Where a login is asked for, `/metrics` is for loopback, or for the bearer token in `metrics_token_file`."""

    login: Annotated[str, msgspec.Meta(pattern="^(auto|always)$")] = "auto"
    host: str | None = None
    hosts: tuple[str, ...] = ()
    public_url: Annotated[str, msgspec.Meta(pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+)?$")] = ""
    metrics_token_file: str | None = None


class OidcSection(_Section, frozen=True):
    """`[oidc]`: logins to the console through an OpenID Connect provider. Who has one of the verified `emails` (an address, or
    `@domain`) or is in one of the `groups` may come in. The redirect URI to register is `/login/oidc/callback` of the console."""

    issuer: Annotated[str, msgspec.Meta(pattern=r"^(https?://[!-~]+)?$")] = ""
    client_id: str = ""
    client_secret_file: str | None = None
    emails: tuple[Annotated[str, msgspec.Meta(pattern=r"^[^\s@]*@[^\s@]+$")], ...] = ()
    groups: tuple[str, ...] = ()
    groups_claim: str = "groups"
    scopes: tuple[str, ...] = ("openid", "email", "profile")


class StorageSection(_Section, frozen=True):
    """`[storage]`: where state lives. `crash_at` (tests only) kills the process at a named point of its path."""

    folder: str = "data"
    crash_at: str = ""


class OutboundSection(_Section, frozen=True):
    """`[outbound]`: HTTP requests to the outside (API destinations, `http:invoke`). `denied_networks` are never called;
    plain HTTP goes to `plain_http_networks` only; `ca_file` (PEM) has authorities to trust besides the system's."""

    denied_networks: tuple[str, ...] = DENIED_NETWORKS
    plain_http_networks: tuple[str, ...] = PLAIN_HTTP_NETWORKS
    ca_file: str | None = None


class SmtpSection(_Section, frozen=True):
    """`[smtp]`: the server that takes the mails of SNS topics; without `host` none go out. `starttls` demands TLS after the
    greeting, `tls` from the first byte (port 465); `password_file` holds the password of `user`."""

    host: str = ""
    port: Port = 587
    from_address: Annotated[str, msgspec.Meta(pattern=r"^[^\s<>\"]{1,250}$")] = msgspec.field(
        name="from", default="entrepot@localhost"
    )
    starttls: bool = True
    tls: bool = False
    user: str = ""
    password_file: str | None = None


class TracingSection(_Section, frozen=True):
    """`[tracing]`: with `otlp_endpoint`, each file becomes a trace that is sent there by OTLP over HTTP; needs the packages of
    `pip install 'entrepot[tracing]'`."""

    otlp_endpoint: Annotated[str, msgspec.Meta(pattern=r"^(https?://[!-~]+)?$")] = ""


class WorkersSection(_Section, frozen=True):
    """`[workers]`: the processes that run functions.

    `isolation` is "best-effort" (use what this machine permits, and say what is missing) or "enforce" (do not start when a part
    is missing). `limit` workers of all functions together serve short invocations; by default two for each processor.
    `node_modules` is the folder in which npm installed aws-lambda-ric, for functions on Node.js that do not bring it along.
    """

    isolation: Annotated[str, msgspec.Meta(pattern="^(enforce|best-effort)$")] = "best-effort"
    limit: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    node_modules: str | None = None


class Bucket(_Section, frozen=True):
    """`[buckets.NAME]`: `event_bridge` says whether the bucket's changes are events, as S3's notification configuration."""

    versioning: bool = False
    event_bridge: bool = True


class Pipeline(_Section, frozen=True):
    """`[pipelines.NAME]`: files that appear in the source bucket are recorded, with a row in the table."""

    source_bucket: BucketName
    destination_bucket: BucketName
    metadata_table: str


class Table(_Section, frozen=True):
    """`[tables.NAME]`: a DynamoDB table with a partition key and maybe a sort key; both strings by default. `time_to_live` names
    the attribute by which items expire, `stream` what a stream of its changes shows."""

    partition_key: str
    partition_key_type: Annotated[str, msgspec.Meta(pattern="^[SNB]$")] = "S"
    sort_key: str | None = None
    sort_key_type: Annotated[str, msgspec.Meta(pattern="^[SNB]$")] = "S"
    time_to_live: str | None = None
    stream: Annotated[str, msgspec.Meta(pattern="^(KEYS_ONLY|NEW_IMAGE|OLD_IMAGE|NEW_AND_OLD_IMAGES)$")] | None = None


class Role(_Section, frozen=True):
    """`[roles.NAME]`: an IAM role whose policy document is the file `policy`."""

    policy: str


class HomeDirectoryMapping(_Section, frozen=True):
    """One entry of a LOGICAL home directory."""

    entry: str
    target: str


class User(_Section, frozen=True):
    """`[users.NAME]`: an SFTP user, as AWS Transfer defines them."""

    role: str
    home_directory: str = ""
    home_directory_mappings: tuple[HomeDirectoryMapping, ...] = ()
    public_keys: tuple[str, ...] = ()
    session_policy: str | None = None
    tags: dict[str, str] = {}


class TopicSubscription(_Section, frozen=True):
    """`[[topics.NAME.subscriptions]]`: who gets the topic's messages: `email`, `email-json`, `https`, `http`, `chat` (a webhook
    that takes `{"text": …}`), `sqs` or `lambda` with an address, a URL, or a queue's or function's name or ARN."""

    protocol: str
    endpoint: str
    filter_policy: str | None = None
    filter_policy_scope: Annotated[str, msgspec.Meta(pattern="^(MessageAttributes|MessageBody)$")] = "MessageAttributes"
    raw: bool = False


class Topic(_Section, frozen=True):
    """`[topics.NAME]`: an SNS topic; `display_name` is the sender that mail shows."""

    display_name: str = ""
    subscriptions: tuple[TopicSubscription, ...] = ()


class Alarm(_Section, frozen=True):
    """`[alarms.NAME]`: a CloudWatch alarm on one metric. `alarm_actions` and `ok_actions` are topics of this file, or ARNs of
    topics and functions; `statistic` is Sum, Average, Minimum, Maximum, SampleCount or a percentile such as p99."""

    metric_name: str
    threshold: float
    namespace: str = "Entrepot"
    dimensions: dict[str, str] = {}
    statistic: str = "Sum"
    period_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 60
    evaluation_periods: Annotated[int, msgspec.Meta(ge=1, le=1_440)] = 1
    datapoints_to_alarm: Annotated[int, msgspec.Meta(ge=1, le=1_440)] | None = None
    comparison_operator: str = "GreaterThanThreshold"
    treat_missing_data: Annotated[str, msgspec.Meta(pattern="^(missing|ignore|breaching|notBreaching)$")] = (
        "notBreaching"
    )
    description: str = ""
    alarm_actions: tuple[str, ...] = ()
    ok_actions: tuple[str, ...] = ()


class Expectation(_Section, frozen=True):
    """`[expectations.NAME]`: files that should arrive `by` a time of day (HH:MM) on `days` that are none of `holidays`.

    In `key_pattern`, `*` and `?` stay within a folder and `**` does not; without `customer_id` or `source_bucket` it is about
    anybody's and anywhere. A file counts from `window_s` before the deadline, and is late for `grace_s` after it.
    """

    key_pattern: str
    by: str
    time_zone: str = "UTC"
    days: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri")
    holidays: tuple[str, ...] = ()
    customer_id: str = ""
    source_bucket: str = ""
    minimum_size_bytes: Annotated[int, msgspec.Meta(ge=0)] = 1
    maximum_files: Annotated[int, msgspec.Meta(ge=1)] = 1
    window_s: Annotated[int, msgspec.Meta(ge=1, le=604_800)] = 43_200
    grace_s: Annotated[int, msgspec.Meta(ge=0, le=43_200)] = 0
    description: str = ""


class LogDelivery(_Section, frozen=True):
    """`[log_deliveries.NAME]`: OpenSearch or Elasticsearch at `url`, where subscription filters deliver log events to by the name
    `arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME`. `index` has the fields of strftime for the event's time (UTC);
    `password_file` holds the password of `user`; `ca_file` (PEM) has authorities to trust besides the system's."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]+$")]
    index: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][%YmdHjUVGa-z0-9._-]*$")] = "entrepot-logs-%Y.%m.%d"
    user: str = ""
    password_file: str | None = None
    ca_file: str | None = None


class Target(_Section, frozen=True):
    """`[[rules.NAME.targets]]`: exactly one of `state_machine`, `function`, `log_group`, `arn`."""

    id: str
    state_machine: str | None = None
    function: str | None = None
    log_group: str | None = None
    arn: str | None = None
    role: str | None = None
    input: str | None = None
    input_path: str | None = None
    input_paths: dict[str, str] | None = None
    input_template: str | None = None
    maximum_retry_attempts: Annotated[int, msgspec.Meta(ge=0, le=185)] | None = None
    maximum_event_age_s: Annotated[int, msgspec.Meta(ge=60, le=86400)] | None = None


class Rule(_Section, frozen=True):
    """`[rules.NAME]`: an EventBridge rule whose pattern is the file `event_pattern`."""

    event_pattern: str
    targets: tuple[Target, ...] = ()
    enabled: bool = True
    description: str = ""


class StateMachine(_Section, frozen=True):
    """`[state_machines.NAME]`: a state machine whose definition (ASL) is the file `definition`.

    `log_execution_data` adds inputs and outputs to its log lines.
    """

    definition: str
    role: str
    type: Annotated[str, msgspec.Meta(pattern="^(STANDARD|EXPRESS)$")] = "STANDARD"
    log_level: Annotated[str, msgspec.Meta(pattern="^(ALL|ERROR|FATAL|OFF)$")] = "ALL"
    log_execution_data: bool = False


class Function(_Section, frozen=True):
    """`[functions.NAME]`: a Lambda function whose code is the folder."""

    folder: str
    handler: str
    role: str
    runtime: str = "python3.11"
    timeout_s: Annotated[int, msgspec.Meta(ge=1, le=900)] = 3
    memory_size_mb: Annotated[int, msgspec.Meta(ge=128, le=10240)] = 128
    environment: dict[str, str] = {}
    reserved_concurrency: Annotated[int, msgspec.Meta(ge=0)] | None = None
    minimum_warm: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0


class Settings(_Section, frozen=True):
    """All of `stack.toml`. `sftp` is the raw section: its keys are the fields of `sftp.SFTPSettings`."""

    stack: StackSection = StackSection()
    server: ServerSection = ServerSection()
    console: ConsoleSection = ConsoleSection()
    oidc: OidcSection = OidcSection()
    storage: StorageSection = StorageSection()
    workers: WorkersSection = WorkersSection()
    outbound: OutboundSection = OutboundSection()
    smtp: SmtpSection = SmtpSection()
    tracing: TracingSection = TracingSection()
    sftp: dict[str, Any] = {}
    buckets: dict[BucketName, Bucket] = {}
    pipelines: dict[str, Pipeline] = {}
    tables: dict[str, Table] = {}
    roles: dict[str, Role] = {}
    users: dict[str, User] = {}
    rules: dict[str, Rule] = {}
    state_machines: dict[str, StateMachine] = {}
    functions: dict[str, Function] = {}
    topics: dict[str, Topic] = {}
    alarms: dict[str, Alarm] = {}
    log_deliveries: dict[str, LogDelivery] = {}
    expectations: dict[str, Expectation] = {}


class StackFolder:
    """A stack's folder and the places in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def stack_file(self) -> Path:
        return self.folder / STACK_FILE

    def path(self, relative: str) -> Path:
        """Return a path that is relative to the folder (or absolute, as it is)."""
        return self.folder / relative

    @property
    def operator_file(self) -> Path:
        """The operator's access key, as JSON (mode 0600)."""
        return self.folder / "keys" / "operator.json"

    @property
    def notifications_key_file(self) -> Path:
        """The key and certificate that sign notifications, as PEM (mode 0600), made when it is missing."""
        return self.folder / "keys" / "notifications.pem"

    @property
    def secret_file(self) -> Path:
        """The secret from which access keys and session tokens are derived (mode 0600)."""
        return self.folder / "keys" / "secret"

    def show(self, path: Path) -> str:
        """Return the path as the operator wrote it: relative to the folder where it is inside."""
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)


def load(folder: StackFolder, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and validate `stack.toml`; raise SettingsError."""
    path = folder.stack_file
    try:
        if path.stat().st_size > STACK_FILE_LIMIT_BYTES:
            raise SettingsError(f"{path}: larger than {STACK_FILE_LIMIT_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file. Make a stack with `entrepot init {folder.folder}`, or name its folder with -C."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at line ")
        line = place.partition(",")[0] if place else str(text.count("\n") + 1)
        raise SettingsError(f"{path.name}:{line}: not TOML: {message}") from error
    _overlay(tree, os.environ if environment is None else environment)
    return _convert(tree, path.name, text)


def _convert(tree: dict[str, Any], file_name: str, text: str) -> Settings:
    """Validate section by section, so that an error can name the very entry."""

    def convert(value: Any, shape: Any, *path: str) -> Any:
        try:
            return msgspec.convert(value, shape, strict=True)
        except msgspec.ValidationError as error:
            raise SettingsError(describe(file_name, text, str(error), list(path))) from error

    shapes = get_type_hints(Settings)
    sections: dict[str, Any] = {}
    for name, value in tree.items():
        shape = shapes.get(name)
        if shape is None:
            known = ", ".join(shapes)
            raise SettingsError(f"{file_name}:{line_of(text, [name])}: unknown section [{name}]; there are: {known}")
        if get_origin(shape) is dict and name != "sftp" and isinstance(value, dict):
            key_shape, entry_shape = get_args(shape)
            sections[name] = {
                convert(key, key_shape, name, key): convert(entry, entry_shape, name, key)
                for key, entry in value.items()
            }
        else:
            sections[name] = convert(value, shape, name)
    return Settings(**sections)


_OVERRIDABLE: Mapping[str, type[_Section] | None] = {
    "STACK": StackSection,
    "SERVER": ServerSection,
    "CONSOLE": ConsoleSection,
    "STORAGE": StorageSection,
    "WORKERS": WorkersSection,
    "SFTP": None,
}


def _overlay(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Put `ENTREPOT_SECTION_KEY` variables over the file's values."""
    for variable, value in sorted(environment.items()):
        if not variable.startswith("ENTREPOT_"):
            continue
        section, _, key = variable.removeprefix("ENTREPOT_").partition("_")
        if section not in _OVERRIDABLE or not key:
            raise SettingsError(
                f"{variable}: no such setting. Variables are ENTREPOT_<SECTION>_<KEY> with a section of "
                f"{', '.join(sorted(_OVERRIDABLE))}."
            )
        key = key.lower()
        struct = _OVERRIDABLE[section]
        if struct is not None and key not in struct.__struct_fields__:
            raise SettingsError(f"{variable}: [{section.lower()}] has no key {key!r}.")
        tree.setdefault(section.lower(), {})[key] = _scalar(value)


def _scalar(value: str) -> str | int | bool:
    if value in ("true", "false"):
        return value == "true"
    return int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) and not re.fullmatch(r"0[0-9]+", value) else value


def describe(file_name: str, text: str, error: str, above: list[str]) -> str:
    """Return `file:line: what is wrong` for a msgspec error such as "… unknown field `x` - at `$.server`"."""
    message, _, location = error.partition(" - at `")
    path = above + [part for part in re.split(r"[.\[\]]+", location.rstrip("`").removeprefix("$")) if part]
    section = ".".join(path)
    if match := re.search(r"unknown field `([^`]+)`", message):
        path.append(match.group(1))
        message = f"unknown key {match.group(1)!r}"
    elif match := re.search(r"missing required field `([^`]+)`", message):
        message = f"the key {match.group(1)!r} is missing"
    return f"{file_name}:{line_of(text, path)}: {message} in [{section}]"


def line_of(text: str, path: list[str]) -> int:
    """Return the 1-based line of a TOML key; the nearest table above it when the key is not written out.

    The TOML parser of the standard library keeps no positions, so this looks for headers and keys as text. A `...` in
    the path (msgspec's name for any key of a mapping) matches whatever comes.
    """
    lines = text.splitlines()
    best, best_depth = 1, 0
    header: tuple[str, ...] = ()
    names = [part for part in path if not part.isdigit()]
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if match := re.match(r"^\[{1,2}\s*([^\]#]+?)\s*\]{1,2}", stripped):
            header = tuple(part.strip().strip("\"'") for part in match.group(1).split("."))
            place = header
        elif match := re.match(r"^([A-Za-z0-9_\"'.-]+)\s*=", stripped):
            place = (*header, *(part.strip("\"'") for part in match.group(1).split(".")))
        else:
            continue
        depth = 0
        for mine, wanted in zip(place, names, strict=False):
            if wanted not in ("...", mine):
                break
            depth += 1
        if depth > best_depth and depth >= len(place):
            best, best_depth = number, depth
    return best
