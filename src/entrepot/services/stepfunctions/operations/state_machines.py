"""The operations on state machines: create, change, describe, list, delete, validate.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
"""

from dataclasses import replace

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, ReadOperation, Request, Response, WriteOperation
from entrepot.services.stepfunctions import machines, versions
from entrepot.services.stepfunctions.errors import (
    InvalidLoggingConfiguration,
    MissingRequiredParameter,
    StateMachineDoesNotExist,
    ValidationException,
)
from entrepot.services.stepfunctions.language.diagnostics import ERROR, NOT_SERVED, WARNING
from entrepot.services.stepfunctions.language.parse import validate
from entrepot.services.stepfunctions.language.references import variable_references
from entrepot.services.stepfunctions.machines import Logging, Machine
from entrepot.services.stepfunctions.operations.map_runs import arn_of_child
from entrepot.services.stepfunctions.operations.requests import (
    limit_of,
    machine_of,
    next_page,
    on,
    on_every,
    on_machine,
    refuse_keys,
    standard_arn,
    text,
    token,
)
from entrepot.services.stepfunctions.service import StepFunctions

DIAGNOSTICS_LIMIT = 100
"""Most diagnostics of an answer. Source: ValidateStateMachineDefinition."""


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations on state machines."""
    edge = _Machines(service)
    by_arn = "stateMachineArn"
    return [
        WriteOperation("CreateStateMachine", edge.on_new_machine, edge.create_state_machine),
        WriteOperation("UpdateStateMachine", edge.on_update, edge.update_state_machine),
        WriteOperation("DeleteStateMachine", on("DeleteStateMachine", by_arn), edge.delete_state_machine),
        ReadOperation("DescribeStateMachine", on_machine("DescribeStateMachine"), edge.describe_state_machine),
        ReadOperation(
            "DescribeStateMachineForExecution",
            on("DescribeStateMachineForExecution", "executionArn"),
            edge.describe_state_machine_for_execution,
        ),
        ReadOperation("ListStateMachines", on_every("ListStateMachines"), edge.list_state_machines),
        ReadOperation(
            "ValidateStateMachineDefinition",
            on_every("ValidateStateMachineDefinition"),
            edge.validate_state_machine_definition,
        ),
    ]


class _Machines:
    def __init__(self, service: StepFunctions) -> None:
        self._service = service
        self._account = service.account

    def on_new_machine(self, request: Request) -> list[Permission]:
        arn = self._account.arn("states", f"stateMachine:{request.get('name', '*')}")
        return [Permission("states:CreateStateMachine", arn), *_pass_role(request)]

    def on_update(self, request: Request) -> list[Permission]:
        arn = str(request.get("stateMachineArn") or "*")
        return [Permission("states:UpdateStateMachine", arn), *_pass_role(request)]

    def create_state_machine(self, tx: Transaction, request: Request, call: Call) -> Response:
        _check_settings(request)
        machine = self._service.create_state_machine(
            tx,
            name=text(request, "name"),
            definition=text(request, "definition"),
            role_arn=text(request, "roleArn"),
            type_=request.get("type") or "STANDARD",
            logging=_logging(request) or Logging(),
            tracing=_tracing(request) or "{}",
            tags={tag["key"]: tag.get("value", "") for tag in request.get("tags") or ()},
        )
        shown: Response = {"stateMachineArn": machine.arn, "creationDate": clock.from_ms(machine.created_at_ms)}
        return shown | self._published(tx, machine, request)

    def update_state_machine(self, tx: Transaction, request: Request, call: Call) -> Response:
        _check_settings(request)
        members = ("definition", "roleArn", "loggingConfiguration", "tracingConfiguration")
        if all(request.get(member) is None for member in members) and not request.get("publish"):
            raise MissingRequiredParameter("Either the definition, the role ARN, or the configuration must be given.")
        machine = machine_of(tx, self._account, request)
        updated = self._service.update_state_machine(
            tx,
            machine,
            definition=request.get("definition"),
            role_arn=request.get("roleArn"),
            logging=_logging(request),
            tracing=_tracing(request),
        )
        shown: Response = {"updateDate": clock.from_ms(updated.updated_at_ms)}
        if not machines.has_first_revision(tx, updated):
            shown["revisionId"] = updated.revision
        return shown | self._published(tx, updated, request)

    def _published(self, tx: Transaction, machine: Machine, request: Request) -> Response:
        if not request.get("publish"):
            return {}
        version = versions.publish(tx, self._account, machine, request.get("versionDescription") or "")
        return {"stateMachineVersionArn": version.arn}

    def delete_state_machine(self, tx: Transaction, request: Request, call: Call) -> Response:
        try:
            machine = machine_of(tx, self._account, request)
            machines.delete(tx, machine)
            versions.delete_all(tx, machine)
        except StateMachineDoesNotExist:
            return {}
        return {}

    def describe_state_machine(self, reader: Reader, request: Request, call: Call) -> Response:
        arn = text(request, "stateMachineArn")
        version = versions.get(reader, self._account, arn) if machines.split_arn(arn)[1] else None
        machine = versions.resolve(reader, self._account, arn, 0.0).machine
        shown = {
            **_described(reader, machine, request),
            "status": "ACTIVE",
            "type": machine.type,
            "creationDate": clock.from_ms(machine.created_at_ms),
        }
        if version is not None:
            shown |= {"stateMachineArn": version.arn, "creationDate": clock.from_ms(version.created_at_ms)}
            if version.description:
                shown["description"] = version.description
        return shown

    def describe_state_machine_for_execution(self, reader: Reader, request: Request, call: Call) -> Response:
        execution = self._service.execution(reader, standard_arn(request, children=True))
        machine = execution.machine
        shown = {**_described(reader, machine, request), "updateDate": clock.from_ms(machine.updated_at_ms)}
        run_arn = arn_of_child(reader, self._account, execution)
        return shown if run_arn is None else {**shown, "mapRunArn": run_arn, "label": machine.name.partition("/")[2]}

    def list_state_machines(self, reader: Reader, request: Request, call: Call) -> Response:
        limit = limit_of(request)
        found = machines.page(reader, self._account, token(request, str, ""), limit + 1)
        shown = [
            {
                "stateMachineArn": machine.arn,
                "name": machine.name,
                "type": machine.type,
                "creationDate": clock.from_ms(machine.created_at_ms),
            }
            for machine in found[:limit]
        ]
        return {"stateMachines": shown, **next_page(found, limit, lambda machine: machine.name)}

    def validate_state_machine_definition(self, reader: Reader, request: Request, call: Call) -> Response:
        limit = min(int(request.get("maxResults") or DIAGNOSTICS_LIMIT), DIAGNOSTICS_LIMIT)
        definition = text(request, "definition")
        found = list(validate(definition, request.get("type") == "EXPRESS"))
        if not found:
            found = [replace(told, severity=WARNING, code=NOT_SERVED) for told in self._service.unserved(definition)]
        result = "FAIL" if any(d.severity == ERROR for d in found) else "OK"
        if request.get("severity", ERROR) == ERROR:
            found = [d for d in found if d.severity == ERROR]
        diagnostics = [
            {"severity": d.severity, "code": d.code, "message": d.message}
            | ({} if d.location is None else {"location": d.location})
            for d in found
        ]
        return {"result": result, "diagnostics": diagnostics[:limit], "truncated": len(diagnostics) > limit}


def _pass_role(request: Request) -> list[Permission]:
    role_arn = request.get("roleArn")
    return [Permission("iam:PassRole", role_arn, {"iam:PassedToService": "states.amazonaws.com"})] if role_arn else []


def _check_settings(request: Request) -> None:
    if request.get("versionDescription") and not request.get("publish"):
        raise ValidationException("Version description can only be set when publish is true")
    refuse_keys(request)


def _logging(request: Request) -> Logging | None:
    given = request.get("loggingConfiguration")
    if given is None:
        return None
    destinations = given.get("destinations") or []
    if len(destinations) > 1 or (not destinations and (given.get("level") or "OFF") != "OFF"):
        raise InvalidLoggingConfiguration("Invalid Logging Configuration: Must specify exactly one Log Destination.")
    group = destinations[0].get("cloudWatchLogsLogGroup") if destinations else None
    return machines.check_logging(
        given.get("level") or "OFF",
        bool(given.get("includeExecutionData", False)),
        None if group is None else group.get("logGroupArn"),
    )


def _tracing(request: Request) -> str | None:
    """Return the tracing configuration as it is kept; nothing is traced, since there is no X-Ray here."""
    given = request.get("tracingConfiguration")
    if given is None:
        return None
    return '{"enabled":true}' if given.get("enabled") else "{}"


def _described(reader: Reader, machine: Machine, request: Request) -> Response:
    logging: Response = {
        "level": machine.logging.level,
        "includeExecutionData": machine.logging.include_execution_data,
    }
    if machine.logging.level != "OFF":
        account = machine.arn.split(":stateMachine:")[0].replace(":states:", ":logs:")
        arn = f"{account}:log-group:{machine.log_group_name}:*"
        logging["destinations"] = [{"cloudWatchLogsLogGroup": {"logGroupArn": arn}}]
    shown: Response = {
        "stateMachineArn": machine.arn,
        "name": machine.name,
        "roleArn": machine.role_arn,
        "definition": machine.definition,
        "loggingConfiguration": logging,
        "tracingConfiguration": {"enabled": machine.tracing != "{}"},
        "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
    }
    references = {name: list(found) for name, found in variable_references(machine.definition).items()}
    if request.get("includedData") == "METADATA_ONLY":
        shown["definition"] = "{}"
    elif references:
        shown["variableReferences"] = references
    if not machines.has_first_revision(reader, machine):
        shown["revisionId"] = machine.revision
    return shown
