"""The composition: the only place that chooses adapters, wires the rooms together and carries what crosses between them."""

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from entrepot import clock, console, ids, stack
from entrepot.arns import Account
from entrepot.aws import Endpoint, PublicAnswer
from entrepot.blobs.local import LocalBlobStore
from entrepot.console import Visitor
from entrepot.database import Reader, Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.loglines import LogLine
from entrepot.operations import Call, Decision, Operation, Operations, Permission, Principal
from entrepot.outbound import Outbound, Policy
from entrepot.sealing import Seal
from entrepot.services import (
    cloudwatch,
    dynamodb,
    events,
    expectations,
    files,
    iam,
    lambda_,
    logs,
    s3,
    sns,
    sqs,
    stepfunctions,
    sts,
    transfer,
)
from entrepot.settings import Settings, SettingsError, StackFolder
from entrepot.stack import Services, Stack
from entrepot.telemetry import Levels, Telemetry, Tracing, Usage, exporter_to

_log = logging.getLogger("entrepot")

AUDIT_LOG_GROUP = "/entrepot/audit"
"""Every denied access, with the statement that decided."""

TIMELINE_INVOCATIONS = 20
TIMELINE_LINES = 200
"""At most so many invocations of an execution are looked up for a timeline, and so many lines shown."""

TIMELINE_LATE_MS = 60_000
"""A function's last lines may be written so long after its execution went on (a time-out, for one)."""

MIGRATIONS = (
    *cloudwatch.MIGRATIONS,
    *console.MIGRATIONS,
    *dynamodb.MIGRATIONS,
    *events.MIGRATIONS,
    *expectations.MIGRATIONS,
    *files.MIGRATIONS,
    *iam.MIGRATIONS,
    *lambda_.MIGRATIONS,
    *s3.MIGRATIONS,
    *sns.MIGRATIONS,
    *sqs.MIGRATIONS,
    *stack.MIGRATIONS,
    *stepfunctions.MIGRATIONS,
    *transfer.MIGRATIONS,
)


class Composition:
    """All rooms over one data folder, wired, not yet serving."""

    def __init__(self, folder: StackFolder, settings: Settings, data: Path) -> None:
        self.folder = folder
        self.settings = settings
        self.data = data
        self.account = Account(settings.stack.account_id, settings.stack.region)
        self.root = Call(
            Principal(self.account.iam_arn("root"), "root", "operator"), ids.random_uuid(), user_agent="entrepot"
        )
        self.database = SQLiteDatabase(data / "ledger.db")
        self.database.migrate(MIGRATIONS)
        self.blobs = LocalBlobStore(data)
        self.outbound = _outbound(folder, settings)
        self._delivery_clients = {
            name: _outbound(folder, settings, section.ca_file) for name, section in settings.log_deliveries.items()
        }
        self.logs = logs.Logs(
            data / "logs",
            self.account,
            record_metric=self._record_log_metric,
            invoke_function=self._invoke_subscribed,
            delivery_streams=[
                logs.DeliveryStream(
                    name,
                    section.url,
                    section.index,
                    section.user,
                    None if section.password_file is None else folder.path(section.password_file),
                    self._delivery_clients[name].send,
                )
                for name, section in settings.log_deliveries.items()
            ],
        )
        self.write_log = self.logs.write_log
        secret = _secret(folder)
        self.iam = iam.IAM(self.database, self.account, secret=secret, audit=self._audit)
        self.operations = Operations(self.database, self.iam.authorize)
        self._background: set[asyncio.Task[Any]] = set()
        self.transfer = transfer.Transfer(self.database, self.account)
        self.expectations = expectations.Expectations(
            self.database,
            self.account,
            emit=self._emit_expectation_event,
            on_outcome=lambda name, kind: self.telemetry.expectation(name, kind),
            arrived_since=self._arrived_since,
        )
        self.files = files.Files(
            self.database,
            self.account,
            pipelines=[
                files.Pipeline(entry.source_bucket, entry.destination_bucket, entry.metadata_table)
                for entry in settings.pipelines.values()
            ],
            put_metadata_item=self._put_metadata_item,
            redeliver=self._redeliver,
            delete_metadata_item=self._delete_metadata_item,
            session=self._session,
            execution_history=self._execution_history,
            log_lines=self._log_lines,
            on_settled=self._file_settled,
            on_recorded=self.expectations.file_arrived,
        )
        self.dynamodb = dynamodb.DynamoDB(self.database, self.account, on_item_changed=self.files.item_changed)
        self.s3 = s3.S3(
            self.database,
            self.blobs,
            self.account,
            on_object_created=self._object_created,
            on_object_deleted=self._object_deleted,
        )
        self.events = events.Events(
            self.database,
            self.account,
            self.operations,
            principal_for_role=self.iam.principal_for_role,
            service_principal=Principal(
                f"arn:{self.account.partition}:iam::{self.account.account_id}:service/events.amazonaws.com",
                "service",
                "events.amazonaws.com",
            ),
            on_delivered=self._delivered,
            on_delivery_failed=self._delivery_failed,
            on_replayed=self._replayed,
            check_policy=iam.check_resource_policy,
            send=self.outbound.send,
            seal=Seal(secret, "events connections"),
            write_log=self.write_log,
        )
        self.stepfunctions = stepfunctions.StepFunctions(
            self.database,
            self.account,
            self.operations,
            principal_for_role=self.iam.principal_for_role,
            assume_role=self.iam.assumed_principal,
            write_log=self.write_log,
            on_execution_changed=self._execution_changed,
            send=self.outbound.send,
            open_connection=self._open_connection,
        )
        self.endpoint = Endpoint(self.operations, self.iam.find_credentials, self.account, public=self._public)
        self.lambda_ = lambda_.Lambda(
            self.database,
            self.account,
            folder=data / "functions",
            issue_credentials=lambda role, session: self.iam.issue_credentials(role, session, duration_s=43_200),
            isolation="enforce" if settings.workers.isolation == "enforce" else "best-effort",
            worker_limit=settings.workers.limit or lambda_.WORKER_LIMIT,
            node_modules=folder.path(settings.workers.node_modules) if settings.workers.node_modules else None,
            endpoint_url=lambda: self.endpoint.url,
            write_log=self.write_log,
            on_invoked=lambda *facts: self.telemetry.invocation(*facts),
            neighbours=lambda_.Neighbours(
                self.operations,
                self.iam.principal_for_role,
                self._read_object,
                lambda text: events.EventPattern.parse(text).matches,
                iam.admits,
            ),
        )
        self.sns = sns.SNS(
            self.database,
            self.account,
            self.operations,
            endpoint_url=lambda: settings.server.public_url or self.endpoint.url,
            key_file=folder.notifications_key_file,
            compile_pattern=lambda text: events.EventPattern.parse(text).matches,
            check_policy=iam.check_resource_policy,
            send=self.outbound.send,
            mail_server=_mail_server(folder, settings),
            write_log=self.write_log,
        )
        self.sqs = sqs.SQS(self.database, self.account, endpoint_url=lambda: self.endpoint.url)
        self.cloudwatch = cloudwatch.CloudWatch(
            self.database,
            self.account,
            data / "metrics",
            run_action=self._run_alarm_action,
            emit=self._emit_alarm_event,
        )
        self.telemetry = Telemetry(self.cloudwatch, self.transfer.server_id)
        self.tracing = self._tracing()
        self.events.on_matched = self.telemetry.event_matched
        self.transfer.on_file_sent = self.telemetry.file_sent
        self.operations.on_performed = self._performed
        for service, room in self._rooms():
            self.operations.add(service, room)

    def _rooms(self) -> list[tuple[str, list[Operation]]]:
        return [
            ("cloudwatch", cloudwatch.operations(self.cloudwatch)),
            ("dynamodb", dynamodb.operations(self.dynamodb)),
            ("dynamodbstreams", dynamodb.stream_operations(self.dynamodb)),
            ("events", events.operations(self.events)),
            ("iam", iam.operations(self.iam)),
            ("lambda", lambda_.operations(self.lambda_)),
            ("logs", logs.operations(self.logs)),
            ("s3", s3.operations(self.s3, self.operations.require)),
            ("sns", sns.operations(self.sns)),
            ("sqs", sqs.operations(self.sqs)),
            ("stepfunctions", stepfunctions.operations(self.stepfunctions)),
            ("sts", sts.operations(self._sts())),
            ("transfer", transfer.operations(self.transfer)),
            ("entrepot", files.operations(self.files)),
            ("entrepot", console.operations(self.database, self.account, self.settings.stack.name)),
            ("entrepot", expectations.operations(self.expectations)),
        ]

    def _sts(self) -> sts.STS:
        return sts.STS(self.account, self.iam.assume_role, self.iam.issue_session_token, self.iam.role_id)

    def services(self) -> Services:
        """Return the rooms that a stack furnishes."""
        return Services(
            self.account,
            self.operations,
            self.s3,
            self.iam,
            self.transfer,
            self.dynamodb,
            self.events,
            self.stepfunctions,
            self.lambda_,
        )

    async def furnish(self) -> None:
        """Bring the ledger to what the stack's files say, in one transaction."""
        furniture, services = Stack(self.folder, self.settings), self.services()
        await self.iam.start()
        await self.database.write(lambda tx: furniture.apply(tx, services, self.root))

    async def _public(self, method: str, path: str, query: Mapping[str, str]) -> PublicAnswer | None:
        """Answer what needs no signature: the links in notifications and mails, and the certificate that signs them."""
        if not sns.public_links.is_public(method, path, query):
            return None
        return await sns.public_links.answer(self.sns, path, query)

    async def close(self) -> None:
        """Close what a composition opens; rooms that were started are stopped before."""
        await self.iam.stop()
        for client in (self.outbound, *self._delivery_clients.values()):
            await client.close()
        await self.blobs.close()
        await self.database.close()

    # ── what crosses between rooms ───────────────────────────────────────────────────────────────────────────────

    def _object_created(self, tx: Transaction, created: s3.ObjectCreated, call: Call) -> None:
        """The object is visible, its event is queued and its record exists: in one transaction."""
        event_id = self._publish(tx, "Object Created", created, call) if created.event_bridge else None
        self.files.record_upload(tx, created, call, event_id)
        if created.copied_from is not None:
            self.files.object_copied(tx, created)

    def _object_deleted(self, tx: Transaction, deleted: s3.ObjectDeleted, call: Call) -> None:
        if deleted.event_bridge:
            self._publish(tx, "Object Deleted", deleted, call)
        self.files.object_deleted(tx, deleted)

    def _publish(self, tx: Transaction, kind: str, what: Any, call: Call) -> str:
        return self._put_event(tx, "aws.s3", kind, [self.account.s3_arn(what.bucket)], s3.event_detail(what, call))

    def _put_event(
        self, tx: Transaction, source: str, kind: str, resources: Sequence[str], detail: Mapping[str, Any]
    ) -> str:
        """Put an event of one of AWS's services on the default bus; return its id."""
        event = {
            "version": "0",
            "id": ids.random_uuid(),
            "detail-type": kind,
            "source": source,
            "account": self.account.account_id,
            "time": clock.iso(clock.now_ms())[:19] + "Z",
            "region": self.account.region,
            "resources": list(resources),
            "detail": detail,
        }
        return self.events.put_event(tx, event)

    def _emit_expectation_event(self, tx: Transaction, kind: str, resource: str, detail: Mapping[str, Any]) -> None:
        self._put_event(tx, "entrepot.expectations", kind, [resource], detail)

    def _arrived_since(self, reader: Reader, key_prefix: str, since_ms: int) -> list[expectations.Arrival]:
        """Return the newest files of a new expectation's open window."""
        return [
            expectations.Arrival(
                one.file_id, one.pipeline.source_bucket, one.key, one.customer_id, one.size_bytes, one.uploaded_at_ms
            )
            for one in files.recent_files(reader, key_prefix, since_ms)
        ]

    # ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────

    def _file_settled(self, settled: files.Settled) -> None:
        if settled.status == "uploaded":
            self.telemetry.file_arrived(settled.size_bytes, over_sftp=settled.over_sftp)
        else:
            self.telemetry.file_settled(settled.status, settled.size_bytes, settled.duration_ms)
            if self.tracing is not None:
                self.tracing.settled(settled.file_id)

    def _tracing(self) -> Tracing | None:
        endpoint = self.settings.tracing.otlp_endpoint
        if not endpoint:
            return None
        return Tracing(
            exporter_to(endpoint),
            self.settings.stack.name,
            tell_story=lambda file_id: files.story_of(self.files, file_id),
            on_traced=self.telemetry.traced,
        )

    def _execution_changed(self, tx: Transaction, change: stepfunctions.ExecutionChange) -> None:
        self.files.execution_changed(tx, change)
        began_ms = change.started_at_ms
        duration_ms = None if change.stopped_at_ms is None else change.stopped_at_ms - began_ms
        tx.after_commit(lambda: self.telemetry.execution(change.state_machine_arn, change.status, duration_ms))

    def _delivered(self, tx: Transaction, delivery: events.Delivery) -> None:
        self.files.delivered(tx, delivery)
        rule_name = delivery.rule_arn.rsplit("/", 1)[-1]
        tx.after_commit(lambda: self.telemetry.delivery(rule_name, failed=False))

    def _delivery_failed(self, tx: Transaction, delivery: events.Delivery) -> None:
        self.files.delivery_failed(tx, delivery)
        rule_name = delivery.rule_arn.rsplit("/", 1)[-1]
        dead_letter = delivery.dead_letter_arn is not None
        tx.after_commit(lambda: self.telemetry.delivery(rule_name, failed=True, dead_letter=dead_letter))

    def _performed(
        self, service: str, name: str, request: Mapping[str, Any], outcome: Mapping[str, Any] | AwsError
    ) -> None:
        if service != "s3" or "Bucket" not in request:
            return
        error_status = outcome.status if isinstance(outcome, AwsError) else 0
        bytes_out = 0 if name != "GetObject" or isinstance(outcome, AwsError) else outcome.get("ContentLength") or 0
        bytes_in = request.get("ContentLength") or 0
        self.telemetry.s3_request(name, request["Bucket"], error_status, bytes_in, bytes_out)

    async def usage(self) -> Usage:
        """Return what buckets hold."""
        return await self.database.scan(s3.usage)

    async def levels(self) -> Levels:
        """Return what is now: sessions, files by status, queues and their ages."""
        now_ms = clock.now_ms()
        counts, oldest_ms = await self.database.scan(
            lambda reader: (self.files.count_by_status(reader), self.files.oldest_undelivered_ms(reader))
        )
        pending, letters, unmet = await self.database.read(
            lambda reader: (
                self.events.count_pending(reader),
                self.events.count_dead_letters(reader),
                self.expectations.count_unmet(reader),
            )
        )
        pool = self.lambda_.pool.statistics()
        return Levels(
            sessions=len(await self.transfer.live_sessions()),
            files=counts,
            oldest_undelivered_s=None if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000,
            pending_deliveries=pending,
            dead_letters=letters,
            queued_invocations=pool.waiting,
            oldest_invocation_s=pool.oldest_age_s,
            dropped_log_lines=self.logs.statistics().dropped,
            unmet_expectations=unmet,
            concurrent_executions={
                key: busy for key, (_, busy, _, _) in self.lambda_.pool.all_counts().items() if ":" not in key
            },
        )

    # ── what filters of log groups set off ───────────────────────────────────────────────────────────────────────

    def _record_log_metric(
        self, namespace: str, name: str, dimensions: Sequence[tuple[str, str]], value: float, unit: str, at_ms: int
    ) -> None:
        self.cloudwatch.record(cloudwatch.Metric(namespace, name, tuple(dimensions)), value, unit=unit, at_ms=at_ms)

    async def _invoke_subscribed(self, function_arn: str, payload: bytes, source_arn: str) -> None:
        """Invoke a function that is subscribed to a log group; without a payload, ask whether it could be."""
        kind = "Event" if payload else "DryRun"
        request = {"FunctionName": function_arn, "InvocationType": kind, "Payload": payload or b"{}"}
        call = Call(
            self._service_principal("logs"),
            ids.random_uuid(),
            user_agent="logs.amazonaws.com",
            source_arn=source_arn,
        )
        await self.operations.perform("lambda", "Invoke", request, call)

    # ── what alarms set off ──────────────────────────────────────────────────────────────────────────────────────

    def _emit_alarm_event(
        self, tx: Transaction, kind: str, resources: Sequence[str], detail: Mapping[str, Any]
    ) -> None:
        self._put_event(tx, "aws.cloudwatch", kind, resources, detail)

    def _run_alarm_action(self, tx: Transaction, action: str, subject: str, message: str) -> None:
        """Publish to a topic within the transaction, or invoke a function after it."""
        call = Call(self._service_principal("cloudwatch"), ids.random_uuid(), user_agent="cloudwatch.amazonaws.com")
        if ":sns:" in action:
            request = {"TopicArn": action, "Subject": subject, "Message": message}
            self.operations.transact(tx, "sns", "Publish", request, call)
        elif ":lambda:" in action:
            invoke = {"FunctionName": action, "InvocationType": "Event", "Payload": message.encode()}
            tx.after_commit(lambda: self._in_background(self.operations.perform("lambda", "Invoke", invoke, call)))
        else:
            raise UnsupportedActionError(f"The action {action} is not supported here: name a topic or a function.")

    def _service_principal(self, service: str) -> Principal:
        name = f"{service}.amazonaws.com"
        arn = f"arn:{self.account.partition}:iam::{self.account.account_id}:service/{name}"
        return Principal(arn, "service", name)

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(_tell_failure)

    def _put_metadata_item(self, tx: Transaction, table_name: str, item: dict[str, Any]) -> None:
        self.dynamodb.update_item(tx, table_name, {"file_id": item["file_id"]}, item)

    def _delete_metadata_item(self, tx: Transaction, table_name: str, file_id: str) -> None:
        self.dynamodb.delete_item(tx, table_name, {"file_id": file_id})

    async def _read_object(self, call: Call, bucket: str, key: str, version_id: str | None, limit_bytes: int) -> bytes:
        """Return a function's code from a bucket, with the caller's rights."""
        request = {"Bucket": bucket, "Key": key, **({"VersionId": version_id} if version_id else {})}
        answer = await self.operations.perform("s3", "GetObject", request, call)
        body = answer["Body"]
        if not hasattr(body, "__aiter__"):
            return bytes(body)
        content = bytearray()
        async for piece in body:
            content += piece
            if len(content) > limit_bytes:
                break  # whoever asked refuses it for its size
        return bytes(content)

    def _redeliver(self, tx: Transaction, event: Mapping[str, Any], attempt: int) -> int:
        return self.events.redeliver_matching(tx, event, attempt)

    def _replayed(self, tx: Transaction, event_id: str, replay_name: str, starts_execution: bool) -> int | None:
        return files.replayed(self.files, tx, event_id, replay_name, starts_execution)

    async def _open_connection(self, arn: str, renew: bool) -> stepfunctions.ConnectionParameters:
        """Return what a connection of EventBridge adds to the request of an HTTP task."""
        found = await self.events.connections.parameters(arn, renew=renew)
        return stepfunctions.ConnectionParameters(found.headers, found.query, found.body)

    # ── what a file's timeline is made of ────────────────────────────────────────────────────────────────────────

    def _session(self, reader: Reader, session_id: str) -> files.SessionFacts | None:
        session = self.transfer.find_session(reader, session_id)
        if session is None:
            return None
        start = session.start
        return files.SessionFacts(
            start.user_name, start.source_ip, start.client, start.key_fingerprint, start.logged_in_at_ms
        )

    async def _execution_history(self, execution_arn: str) -> Sequence[Mapping[str, Any]]:
        try:
            return await self.database.read(lambda reader: self.stepfunctions.recorded_events(reader, execution_arn))
        except AwsError:
            return []

    async def _log_lines(
        self, file: files.FileRecord, histories: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Sequence[files.LoggedLine]:
        """Return the lines of exactly this file: of its executions, and of the invocations that these made."""
        since_ms = until_ms = file.uploaded_at_ms
        for history in histories.values():
            until_ms = max([until_ms, *(round(event["timestamp"].timestamp() * 1000) for event in history[-1:])])
        until_ms += TIMELINE_LATE_MS
        states, functions = [
            [group.name for group in await self.logs.groups(prefix=prefix, limit=50)]
            for prefix in ("/aws/vendedlogs/states/", "/aws/lambda/")
        ]
        found: list[files.LoggedLine] = []
        for arn, history in histories.items():
            lines = await self.logs.search(states, since_ms, until_ms, arn, TIMELINE_LINES)
            found += [files.LoggedLine(line.timestamp_ms, line.group, line.message) for line in lines]
            for request_id in stepfunctions.request_ids(arn, history)[:TIMELINE_INVOCATIONS]:
                found += await self._invocation_lines(functions, since_ms, until_ms, request_id)
        return sorted(found, key=lambda line: line.at_ms)[:TIMELINE_LINES]

    async def _invocation_lines(
        self, groups: Sequence[str], since_ms: int, until_ms: int, request_id: str
    ) -> list[files.LoggedLine]:
        """Return all that a function wrote in one invocation: from START to REPORT, also what does not name it."""
        named = await self.logs.search(groups, since_ms, until_ms, request_id, TIMELINE_LINES)
        if not named:
            return []
        first, last = named[0], named[-1]
        request = {
            "logGroupName": first.group,
            "logStreamName": first.stream,
            "startTime": first.timestamp_ms,
            "endTime": last.timestamp_ms + 1,
            "startFromHead": True,
        }
        answer = await self.operations.perform("logs", "GetLogEvents", request, self.root)
        events = answer["events"]
        places = [place for place, event in enumerate(events) if request_id in event["message"]]
        return [
            files.LoggedLine(event["timestamp"], first.group, event["message"])
            for event in events[places[0] : places[-1] + 1]
        ]

    # ── the console ──────────────────────────────────────────────────────────────────────────────────────────────

    def console_principal(self, name: str) -> Principal:
        """Return who somebody at the console is: the operator, under their own name."""
        return Principal(self.account.iam_arn(f"console/{name}"), "root", f"console/{name}")

    def audit_console(self, visitor: Visitor, source_ip: str, action: str, resource: str) -> None:
        """Write an audit line for a change that somebody makes at the console."""
        line = {"decision": "CHANGE", "principal": f"console/{visitor.name}", "source_ip": source_ip}
        now_ms = clock.now_ms()
        text = json.dumps({**line, "action": action, "resource": resource}, separators=(",", ":"))
        self.write_log(AUDIT_LOG_GROUP, clock.iso(now_ms)[:10], LogLine(now_ms, text))

    def _audit(self, principal: Principal, permission: Permission, decision: Decision) -> None:
        """Write an audit line for every denial; allowed accesses are in the rooms' own logs."""
        if decision.allowed:
            return
        line = {
            "decision": "DENY",
            "principal": principal.arn,
            "action": permission.action,
            "resource": permission.resource,
            "statement": decision.statement,
            "reason": decision.reason,
        }
        now_ms = clock.now_ms()
        stream = clock.iso(now_ms)[:10]
        self.write_log(AUDIT_LOG_GROUP, stream, LogLine(now_ms, json.dumps(line, separators=(",", ":"))))


def _mail_server(folder: StackFolder, settings: Settings) -> sns.MailServer | None:
    section = settings.smtp
    if not section.host:
        return None
    password_file = None if section.password_file is None else folder.path(section.password_file)
    ca_file = None if settings.outbound.ca_file is None else folder.path(settings.outbound.ca_file)
    return sns.MailServer(
        host=section.host,
        port=section.port,
        from_address=section.from_address,
        starttls=section.starttls,
        tls=section.tls,
        user=section.user,
        password_file=password_file,
        ca_file=ca_file,
    )


def _outbound(folder: StackFolder, settings: Settings, ca_file: str | None = None) -> Outbound:
    """Return the client for requests to the outside; raise SettingsError. `ca_file` is instead of the one of [outbound]."""
    section = settings.outbound
    ca_file = ca_file or section.ca_file
    try:
        policy = Policy.of(section.denied_networks, section.plain_http_networks)
    except ValueError as error:
        raise SettingsError(f"{folder.show(folder.stack_file)}: [outbound]: {error}.") from None
    return Outbound(policy, ca_file=None if ca_file is None else folder.path(ca_file))


class UnsupportedActionError(AwsError):
    """An alarm names an action of a kind that this installation has not."""

    code = "ValidationError"
    status = 400


def _tell_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("What an alarm set off failed: %s", task.exception())


def _secret(folder: StackFolder) -> bytes:
    """Return the stack's master secret; raise SettingsError."""
    try:
        secret = bytes.fromhex(folder.secret_file.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{folder.show(folder.secret_file)}: cannot be used: {error}. It holds 64 hex digits, made by `entrepot init`; "
            "without it, issued access keys are void."
        ) from error
    if len(secret) < 32:
        raise SettingsError(f"{folder.show(folder.secret_file)}: too short; it holds 64 hex digits.")
    return secret
