"""`stack.toml` → resources. One transaction brings the ledger to what the file says: nothing is half-applied.

Resources are made through the same operations that AWS's tools call, so that AWS's own validation speaks; an error is
told with the file it comes from. Users, rules and roles that the file no longer names are removed, because they grant
access or cause work; buckets, tables and whatever was made through the API stay.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from entrepot.arns import Account
from entrepot.database import Migration, Transaction
from entrepot.errors import AwsError
from entrepot.operations import Call, Operations
from entrepot.services.dynamodb import DynamoDB
from entrepot.services.events import Events
from entrepot.services.iam import IAM
from entrepot.services.lambda_ import FunctionConfiguration, Lambda
from entrepot.services.s3 import S3
from entrepot.services.stepfunctions import StepFunctions
from entrepot.services.transfer import HomeDirectoryMapping, SshPublicKey, Transfer, User
from entrepot.settings import Settings, SettingsError, StackFolder, Target, line_of
from entrepot.stack import topics
from entrepot.stack.alarms import alarm_request

FILE_LIMIT_BYTES = 1 << 20
"""A larger pattern, definition, policy or key file is refused."""

MIGRATIONS = (
    Migration(
        "stack",
        1,
        ("CREATE TABLE stack_resource (kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name))",),
    ),
)


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms that a stack furnishes."""

    account: Account
    operations: Operations
    s3: S3
    iam: IAM
    transfer: Transfer
    dynamodb: DynamoDB
    events: Events
    stepfunctions: StepFunctions
    lambda_: Lambda


class Stack:
    """A stack's files, read once; `apply` writes them into the ledger."""

    def __init__(self, folder: StackFolder, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self._text = folder.stack_file.read_text("utf-8")
        self._check_references()
        self.files: dict[str, str] = {name: self._read(name, place) for name, place in self._file_names()}

    def _file_names(self) -> Iterator[tuple[str, list[str]]]:
        settings = self.settings
        for name, role in settings.roles.items():
            yield role.policy, ["roles", name, "policy"]
        for name, rule in settings.rules.items():
            yield rule.event_pattern, ["rules", name, "event_pattern"]
        for name, machine in settings.state_machines.items():
            yield machine.definition, ["state_machines", name, "definition"]
        for name, user in settings.users.items():
            if user.session_policy is not None:
                yield user.session_policy, ["users", name, "session_policy"]
            for key in user.public_keys:
                if not _is_key(key):
                    yield key, ["users", name, "public_keys"]

    def _read(self, name: str, place: list[str]) -> str:
        path = self.folder.path(name)
        try:
            if path.stat().st_size > FILE_LIMIT_BYTES:
                raise self.error(place, f"{name} is larger than {FILE_LIMIT_BYTES} bytes")
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
            raise self.error(place, f"{name} cannot be read: {reason}") from error

    def error(self, place: list[str], message: str) -> SettingsError:
        """Return an error that names the line of `stack.toml`."""
        line = line_of(self._text, place)
        return SettingsError(f"{self.folder.stack_file.name}:{line}: {message} (in [{'.'.join(place[:2])}])")

    def _check_references(self) -> None:
        """Refuse names that nothing in the file defines."""
        settings = self.settings

        def known(kind: str, name: str | None, defined: Mapping[str, object], *place: str) -> None:
            if name is not None and name not in defined and not name.startswith("arn:"):
                there = ", ".join(sorted(defined)) or "none"
                raise self.error(list(place), f"there is no {kind} {name!r}; there are: {there}")

        for name, pipeline in settings.pipelines.items():
            known("bucket", pipeline.source_bucket, settings.buckets, "pipelines", name, "source_bucket")
            known("table", pipeline.metadata_table, settings.tables, "pipelines", name, "metadata_table")
            if pipeline.source_bucket == pipeline.destination_bucket:
                raise self.error(
                    ["pipelines", name, "destination_bucket"],
                    f"source and destination are both {pipeline.source_bucket!r}: each delivery would be a new arrival",
                )
        for name, user in settings.users.items():
            known("role", user.role, settings.roles, "users", name, "role")
        for name, machine in settings.state_machines.items():
            known("role", machine.role, settings.roles, "state_machines", name, "role")
        for name, function in settings.functions.items():
            known("role", function.role, settings.roles, "functions", name, "role")
        for name, rule in settings.rules.items():
            for target in rule.targets:
                where = ("rules", name, "targets")
                known("state machine", target.state_machine, settings.state_machines, *where)
                known("function", target.function, settings.functions, *where)
                known("role", target.role, settings.roles, *where)

        for name, alarm in settings.alarms.items():
            for action in (*alarm.alarm_actions, *alarm.ok_actions):
                known("topic", action, settings.topics, "alarms", name)

    # ── applying ─────────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, tx: Transaction, services: Services, call: Call) -> None:
        """Make every resource as the file says; raise SettingsError and leave nothing behind."""
        _Application(self, tx, services, call).run()


class _Application:
    """One run of `apply`: the transaction, the services and who acts."""

    def __init__(self, stack: Stack, tx: Transaction, services: Services, call: Call) -> None:
        self.stack = stack
        self.settings = stack.settings
        self.tx = tx
        self.services = services
        self.call = call
        self.account = services.account

    def run(self) -> None:
        settings = self.settings
        steps: tuple[tuple[str, Mapping[str, Any], Callable[[str, Any], None]], ...] = (
            ("buckets", settings.buckets, self._bucket),
            ("tables", settings.tables, self._table),
            ("roles", settings.roles, self._role),
            ("users", settings.users, self._user),
            ("functions", settings.functions, self._function),
            ("topics", settings.topics, self._topic),
            ("state_machines", settings.state_machines, self._state_machine),
            ("rules", settings.rules, self._rule),
            ("alarms", settings.alarms, self._alarm),
            ("expectations", settings.expectations, self._expectation),
        )
        for section, entries, put in steps:
            for name, entry in entries.items():
                with self._located([section, name], section, name):
                    put(name, entry)
        self._remove("rules", settings.rules, self._remove_rule)
        self._remove("alarms", settings.alarms, self._remove_alarm)
        self._remove("expectations", settings.expectations, self._remove_expectation)
        wanted = topics.subscription_names(self.account, settings.topics)
        self._remove(
            "subscriptions", wanted, lambda name: topics.remove_subscription(self._operate, self.account, name)
        )
        self._remove("users", settings.users, lambda name: self.services.transfer.delete_user(self.tx, name))
        self._remove("roles", settings.roles, self._remove_role)

    @contextmanager
    def _located(self, place: list[str], section: str, name: str) -> Iterator[None]:
        try:
            yield
        except AwsError as error:
            raise self.stack.error(
                place, f"{self._file_of(section, name)}{type(error).code}: {error.message}"
            ) from error

    def _file_of(self, section: str, name: str) -> str:
        match section:
            case "rules":
                return f"{self.settings.rules[name].event_pattern}: "
            case "state_machines":
                return f"{self.settings.state_machines[name].definition}: "
            case "roles":
                return f"{self.settings.roles[name].policy}: "
            case "users":
                files = [key for key in self.settings.users[name].public_keys if not _is_key(key)]
                return f"{', '.join(files)}: " if files else ""
        return ""

    def _operate(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        return self.services.operations.transact(self.tx, service, operation, request, self.call)

    def _role_arn(self, role: str) -> str:
        return role if role.startswith("arn:") else self.account.iam_arn(f"role/{role}")

    def _bucket(self, name: str, bucket: Any) -> None:
        try:
            self._operate("s3", "CreateBucket", Bucket=name, **self._location())
        except AwsError as error:
            if type(error).code != "BucketAlreadyOwnedByYou":
                raise
        status = self._operate("s3", "GetBucketVersioning", Bucket=name).get("Status")
        if bucket.versioning != (status == "Enabled") and (bucket.versioning or status is not None):
            wanted = "Enabled" if bucket.versioning else "Suspended"
            self._operate("s3", "PutBucketVersioning", Bucket=name, VersioningConfiguration={"Status": wanted})
        notifications: dict[str, Any] = {"EventBridgeConfiguration": {}} if bucket.event_bridge else {}
        self._operate("s3", "PutBucketNotificationConfiguration", Bucket=name, NotificationConfiguration=notifications)

    def _location(self) -> dict[str, Any]:
        """Return what CreateBucket wants to hear of the region: nothing in us-east-1, its name elsewhere."""
        region = self.account.region
        return {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}

    def _table(self, name: str, table: Any) -> None:
        attributes = [(table.partition_key, table.partition_key_type, "HASH")]
        if table.sort_key is not None:
            attributes.append((table.sort_key, table.sort_key_type, "RANGE"))
        definitions = [{"AttributeName": attribute, "AttributeType": kind} for attribute, kind, _ in attributes]
        schema = [{"AttributeName": attribute, "KeyType": role} for attribute, _, role in attributes]
        try:
            found = self._operate("dynamodb", "DescribeTable", TableName=name)["Table"]
        except AwsError as error:
            if type(error).code != "ResourceNotFoundException":
                raise
            self._operate(
                "dynamodb",
                "CreateTable",
                TableName=name,
                AttributeDefinitions=definitions,
                KeySchema=schema,
                BillingMode="PAY_PER_REQUEST",
            )
            found = {"KeySchema": schema}
        if found["KeySchema"] != schema:
            raise self.stack.error(
                ["tables", name], f"the table exists with another key ({found['KeySchema']}); a key cannot be changed"
            )
        self._time_to_live(name, table.time_to_live)
        if table.stream is not None and found.get("StreamSpecification", {}).get("StreamViewType") != table.stream:
            if "StreamSpecification" in found:
                self._operate("dynamodb", "UpdateTable", TableName=name, StreamSpecification={"StreamEnabled": False})
            view = {"StreamEnabled": True, "StreamViewType": table.stream}
            self._operate("dynamodb", "UpdateTable", TableName=name, StreamSpecification=view)

    def _time_to_live(self, table_name: str, attribute_name: str | None) -> None:
        """Let items expire by an attribute; what the file does not say stays as it was set."""
        found = self._operate("dynamodb", "DescribeTimeToLive", TableName=table_name)["TimeToLiveDescription"]
        current = found.get("AttributeName")
        if attribute_name is None or attribute_name == current:
            return
        for name, enabled in ((current, False), (attribute_name, True)):
            if name is not None:
                wanted = {"AttributeName": name, "Enabled": enabled}
                self._operate("dynamodb", "UpdateTimeToLive", TableName=table_name, TimeToLiveSpecification=wanted)

    def _role(self, name: str, role: Any) -> None:
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {
                        "Service": [
                            f"{service}.amazonaws.com" for service in ("transfer", "events", "states", "lambda", "logs")
                        ]
                    },
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        self.services.iam.put_role(
            self.tx, name, trust_policy=json.dumps(trust), policies={"policy": self.stack.files[role.policy]}
        )
        self._remember("roles", name)

    def _user(self, name: str, user: Any) -> None:
        mappings = tuple(HomeDirectoryMapping(m.entry, m.target) for m in user.home_directory_mappings)
        self.services.transfer.put_user(
            self.tx,
            User(
                user_name=name,
                role_arn=self._role_arn(user.role),
                home_directory=user.home_directory,
                home_directory_type="LOGICAL" if mappings else "PATH",
                home_directory_mappings=mappings,
                policy=None if user.session_policy is None else self.stack.files[user.session_policy],
                tags=user.tags,
                ssh_public_keys=tuple(SshPublicKey(body) for body in self._keys_of(user)),
            ),
        )
        self._remember("users", name)

    def _keys_of(self, user: Any) -> Iterator[str]:
        for key in user.public_keys:
            if _is_key(key):
                yield key.strip()
                continue
            for line in self.stack.files[key].splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    yield line.strip()

    def _function(self, name: str, function: Any) -> None:
        folder = self.stack.folder.path(function.folder)
        module = function.handler.partition(".")[0].replace("/", ".").split(".")[0]
        if not folder.is_dir():
            raise self.stack.error(["functions", name, "folder"], f"{function.folder} is not a folder")
        if function.runtime.startswith("python") and not any(
            (folder / place).exists() for place in (f"{module}.py", f"{module}/__init__.py", module)
        ):
            raise self.stack.error(
                ["functions", name, "handler"], f"{function.folder} has no {module}.py for handler {function.handler!r}"
            )
        if function.runtime.startswith("nodejs") and not any(
            (folder / f"{function.handler.rpartition('.')[0]}{ending}").exists() for ending in (".js", ".mjs", ".cjs")
        ):
            raise self.stack.error(
                ["functions", name, "handler"], f"{function.folder} has no .js, .mjs or .cjs for {function.handler!r}"
            )
        role_arn = self._role_arn(function.role)
        there = self.services.lambda_.find(self.tx, name) or FunctionConfiguration(name, role_arn, function.handler)
        self.services.lambda_.put_function(
            self.tx,
            replace(  # what stack.toml does not say (layers, a dead-letter queue) stays as it was set
                there,
                role_arn=role_arn,
                handler=function.handler,
                runtime=function.runtime,
                timeout_s=function.timeout_s,
                memory_size_mb=function.memory_size_mb,
                environment=function.environment,
                code_folder=folder,
                reserved_concurrency=function.reserved_concurrency,
                minimum_warm=function.minimum_warm,
            ),
        )

    def _topic(self, name: str, topic: Any) -> None:
        for subscription_name in topics.put_topic(self._operate, self.account, name, topic):
            self._remember("subscriptions", subscription_name)

    def _alarm(self, name: str, alarm: Any) -> None:
        self._operate("cloudwatch", "PutMetricAlarm", **alarm_request(self.account, name, alarm))
        self._remember("alarms", name)

    def _expectation(self, name: str, expectation: Any) -> None:
        self._operate("entrepot", "PutExpectation", name=name, **msgspec.structs.asdict(expectation))
        self._remember("expectations", name)

    def _state_machine(self, name: str, machine: Any) -> None:
        definition, role_arn = self.stack.files[machine.definition], self._role_arn(machine.role)
        logging: dict[str, Any] = {"level": machine.log_level, "includeExecutionData": machine.log_execution_data}
        if machine.log_level != "OFF":
            group = self.account.arn("logs", f"log-group:/aws/vendedlogs/states/{name}:*")
            logging["destinations"] = [{"cloudWatchLogsLogGroup": {"logGroupArn": group}}]
        arn = self.account.arn("states", f"stateMachine:{name}")
        try:
            self._operate("stepfunctions", "DescribeStateMachine", stateMachineArn=arn)
        except AwsError as error:
            if type(error).code != "StateMachineDoesNotExist":
                raise
            self._operate(
                "stepfunctions",
                "CreateStateMachine",
                name=name,
                definition=definition,
                roleArn=role_arn,
                type=machine.type,
                loggingConfiguration=logging,
            )
            return
        self._operate(
            "stepfunctions",
            "UpdateStateMachine",
            stateMachineArn=arn,
            definition=definition,
            roleArn=role_arn,
            loggingConfiguration=logging,
        )

    def _rule(self, name: str, rule: Any) -> None:
        self._operate(
            "events",
            "PutRule",
            Name=name,
            EventPattern=self.stack.files[rule.event_pattern],
            State="ENABLED" if rule.enabled else "DISABLED",
            Description=rule.description,
        )
        wanted = {target.id for target in rule.targets}
        found = self._operate("events", "ListTargetsByRule", Rule=name)["Targets"]
        if stale := sorted({target["Id"] for target in found} - wanted):
            self._operate("events", "RemoveTargets", Rule=name, Ids=stale)
        if rule.targets:
            result = self._operate(
                "events", "PutTargets", Rule=name, Targets=[self._target(name, target) for target in rule.targets]
            )
            for failure in result.get("FailedEntries", []):
                raise self.stack.error(
                    ["rules", name, "targets"], f"target {failure['TargetId']!r}: {failure['ErrorMessage']}"
                )
        self._remember("rules", name)

    def _target(self, rule: str, target: Target) -> dict[str, Any]:
        arns = {
            "state_machine": target.state_machine
            and self.account.arn("states", f"stateMachine:{target.state_machine}"),
            "function": target.function and self.account.arn("lambda", f"function:{target.function}"),
            "log_group": target.log_group and self.account.arn("logs", f"log-group:{target.log_group}"),
            "arn": target.arn,
        }
        named = [arn for arn in arns.values() if arn]
        if len(named) != 1:
            raise self.stack.error(
                ["rules", rule, "targets"], f"target {target.id!r} needs exactly one of {', '.join(arns)}"
            )
        entry: dict[str, Any] = {"Id": target.id, "Arn": named[0]}
        if target.role is not None:
            entry["RoleArn"] = self._role_arn(target.role)
        if target.input is not None:
            entry["Input"] = target.input
        if target.input_path is not None:
            entry["InputPath"] = target.input_path
        if target.input_template is not None:
            entry["InputTransformer"] = {
                "InputPathsMap": target.input_paths or {},
                "InputTemplate": target.input_template,
            }
        retry = {
            "MaximumRetryAttempts": target.maximum_retry_attempts,
            "MaximumEventAgeInSeconds": target.maximum_event_age_s,
        }
        if policy := {name: value for name, value in retry.items() if value is not None}:
            entry["RetryPolicy"] = policy
        return entry

    # ── what the file no longer names ────────────────────────────────────────────────────────────────────────────

    def _remember(self, kind: str, name: str) -> None:
        self.tx.execute(
            "INSERT INTO stack_resource (kind, name) VALUES (?, ?) ON CONFLICT (kind, name) DO NOTHING", (kind, name)
        )

    def _remove(self, kind: str, wanted: Mapping[str, object], remove: Callable[[str], None]) -> None:
        for (name,) in self.tx.all("SELECT name FROM stack_resource WHERE kind = ? ORDER BY name", (kind,)):
            if name in wanted:
                continue
            try:
                remove(name)
            except AwsError as error:
                if (
                    type(error).status != 404
                    and "NotFound" not in type(error).code
                    and "NoSuch" not in type(error).code
                ):
                    raise
            self.tx.execute("DELETE FROM stack_resource WHERE kind = ? AND name = ?", (kind, name))

    def _remove_alarm(self, name: str) -> None:
        self._operate("cloudwatch", "DeleteAlarms", AlarmNames=[name])

    def _remove_expectation(self, name: str) -> None:
        self._operate("entrepot", "DeleteExpectation", name=name)

    def _remove_rule(self, name: str) -> None:
        targets = self._operate("events", "ListTargetsByRule", Rule=name)["Targets"]
        if targets:
            self._operate("events", "RemoveTargets", Rule=name, Ids=[target["Id"] for target in targets])
        self._operate("events", "DeleteRule", Name=name)

    def _remove_role(self, name: str) -> None:
        for policy in self._operate("iam", "ListRolePolicies", RoleName=name)["PolicyNames"]:
            self._operate("iam", "DeleteRolePolicy", RoleName=name, PolicyName=policy)
        self._operate("iam", "DeleteRole", RoleName=name)


def _is_key(text: str) -> bool:
    return text.startswith(("ssh-", "ecdsa-", "sk-"))
