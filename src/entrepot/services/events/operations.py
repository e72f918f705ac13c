"""The edge: EventBridge's operations in the shape of botocore's model `events`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    Request,
    Response,
)
from entrepot.services.events import edge, schedule, tags
from entrepot.services.events import input as inputs
from entrepot.services.events import targets as destinations
from entrepot.services.events.api_destination_operations import api_destination_operations
from entrepot.services.events.archive_operations import archive_operations
from entrepot.services.events.bus_operations import bus_operations
from entrepot.services.events.bus_policy import policy_operations
from entrepot.services.events.connection_operations import connection_operations
from entrepot.services.events.edge import bus_arn, bus_name_of, check_name, page, tag_map
from entrepot.services.events.entry_operations import entry_operations
from entrepot.services.events.errors import LimitExceededError, ValidationError
from entrepot.services.events.pattern import EventPattern
from entrepot.services.events.rules import (
    DEFAULT_BUS,
    RULES_LIMIT,
    TARGETS_LIMIT,
    Rule,
    require_bus,
    target_of,
)
from entrepot.services.events.service import Events

TARGETS_OF_ONE_CALL_LIMIT = 100

_NAME = re.compile(r"[.\-_A-Za-z0-9]{1,64}")


def operations(events: Events) -> list[Operation]:
    """Return the operations of `events`."""
    on_rule, on_any = _on_rule(events), _on_any(events)
    read, write = edge.reads(events), edge.writes(events)
    return [
        write("PutRule", _on_put_rule(events), put_rule),
        write("DeleteRule", on_rule("DeleteRule"), delete_rule),
        read("DescribeRule", on_rule("DescribeRule"), describe_rule),
        read("ListRules", on_any("ListRules"), list_rules),
        write("EnableRule", on_rule("EnableRule"), enable_rule),
        write("DisableRule", on_rule("DisableRule"), disable_rule),
        write("PutTargets", _on_put_targets(events), put_targets),
        write("RemoveTargets", on_rule("RemoveTargets"), remove_targets),
        read("ListTargetsByRule", on_rule("ListTargetsByRule"), list_targets_by_rule),
        read("ListRuleNamesByTarget", on_any("ListRuleNamesByTarget"), list_rule_names_by_target),
        *entry_operations(events),
        *bus_operations(events),
        *policy_operations(events),
        *archive_operations(events),
        *connection_operations(events),
        *api_destination_operations(events),
    ]


# ── what IAM is asked ────────────────────────────────────────────────────────────────────────────────────────────────


def _bus_name(request: Mapping[str, Any]) -> str:
    return bus_name_of(request.get("EventBusName"))


def _on_rule(events: Events) -> Callable[[str], Permissions]:
    def permissions(action: str) -> Permissions:
        def of(request: Request) -> list[Permission]:
            name = request.get("Name") or request.get("Rule") or ""
            return [Permission(f"events:{action}", events.rules.rule_arn(_bus_name(request), name))]

        return of

    return permissions


def _pass_role(role_arn: str) -> Permission:
    return Permission("iam:PassRole", role_arn, {"iam:PassedToService": "events.amazonaws.com"})


def _on_put_rule(events: Events) -> Permissions:
    on_rule = _on_rule(events)("PutRule")
    return lambda request: [*on_rule(request), *([_pass_role(request["RoleArn"])] if request.get("RoleArn") else [])]


def _on_put_targets(events: Events) -> Permissions:
    """A rule acts later, as the target's role or as the service: whoever sets it up must be allowed that much himself."""
    on_rule = _on_rule(events)("PutTargets")

    def of(request: Request) -> list[Permission]:
        needed = list(on_rule(request))
        for target in request.get("Targets") or ():
            if target.get("RoleArn"):
                needed.append(_pass_role(target["RoleArn"]))
            else:
                needed += destinations.permissions(str(target.get("Arn", "")))
            dead_letters = target.get("DeadLetterConfig") or {}
            if dead_letters.get("Arn"):
                needed.append(Permission("sqs:SendMessage", dead_letters["Arn"]))
        return needed

    return of


def _on_any(events: Events) -> Callable[[str], Permissions]:
    return lambda action: lambda request: [Permission(f"events:{action}", "*")]


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_rule(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Create or replace a rule."""
    name, bus_name = request["Name"], _bus_name(request)
    check_name(name, "name", 64)
    require_bus(tx, bus_name)
    edge.check_text(request)
    expression, pattern = request.get("ScheduleExpression") or "", request.get("EventPattern") or ""
    if expression:
        if bus_name != DEFAULT_BUS:
            raise ValidationError("ScheduleExpression is supported only on the default event bus.")
        schedule.parse(expression)
    if not pattern and not expression:
        raise ValidationError("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    edge.check_pattern_length(pattern)
    if pattern:
        EventPattern.parse(pattern)
    state = request.get("State") or "ENABLED"
    if state not in ("ENABLED", "DISABLED"):
        raise ValidationError(f"State {state} is not supported here; use ENABLED or DISABLED.")
    count = tx.one("SELECT count(*) FROM events_rule WHERE bus_name = ? AND name <> ?", (bus_name, name))
    if count is not None and count[0] >= RULES_LIMIT:
        raise LimitExceededError(f"The requested resource exceeds the maximum number allowed: {RULES_LIMIT} rules.")
    arn = events.rules.rule_arn(bus_name, name)
    is_new = tx.one("SELECT 1 FROM events_rule WHERE bus_name = ? AND name = ?", (bus_name, name)) is None
    events.rules.put(
        tx,
        Rule(
            bus_name,
            name,
            arn,
            pattern,
            state,
            request.get("Description") or "",
            request.get("RoleArn") or "",
            (),
            expression,
        ),
    )
    if is_new:  # As in AWS, tags that come with an update are not looked at; TagResource changes them.
        tags.put(tx, arn, tag_map(request.get("Tags")))
    return {"RuleArn": arn}


def delete_rule(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Delete a rule; one that is not there is deleted already, as AWS sees it."""
    name, bus_name = request["Name"], _bus_name(request)
    require_bus(tx, bus_name)
    if events.rules.targets(tx, bus_name, name):
        raise ValidationError("Rule can't be deleted since it has targets.")
    events.rules.delete(tx, bus_name, name)
    tags.forget(tx, events.rules.rule_arn(bus_name, name))
    return {}


def _rule_shape(events: Events, rule: Rule) -> Response:
    shape = {
        "Name": rule.name,
        "Arn": rule.arn,
        "State": rule.state,
        "EventBusName": rule.bus_name,
    }
    if rule.event_pattern:
        shape["EventPattern"] = rule.event_pattern
    if rule.schedule_expression:
        shape["ScheduleExpression"] = rule.schedule_expression
    if rule.description:
        shape["Description"] = rule.description
    if rule.role_arn:
        shape["RoleArn"] = rule.role_arn
    return shape


def describe_rule(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return one rule."""
    rule = events.rules.get(reader, _bus_name(request), request["Name"])
    return {**_rule_shape(events, rule), "CreatedBy": events.account.account_id}


def list_rules(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return rules by name."""
    bus_name, prefix = _bus_name(request), request.get("NamePrefix") or ""
    require_bus(reader, bus_name)
    rules = [rule for rule in events.rules.all(reader, bus_name) if rule.name.startswith(prefix)]
    names, token = page([rule.name for rule in rules], request)
    by_name = {rule.name: rule for rule in rules}
    return {"Rules": [_rule_shape(events, by_name[name]) for name in names], **token}


def enable_rule(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Let a rule match again."""
    events.rules.set_state(tx, _bus_name(request), request["Name"], "ENABLED")
    return {}


def disable_rule(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Keep a rule from matching; what it matched before is still delivered."""
    events.rules.set_state(tx, _bus_name(request), request["Name"], "DISABLED")
    return {}


# ── targets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_targets(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Add targets to a rule; all of them or, with an error, none."""
    name, bus_name = request["Rule"], _bus_name(request)
    events.rules.get(tx, bus_name, name)
    edge.check_text(request)
    definitions = request["Targets"]
    if not 0 < len(definitions) <= TARGETS_OF_ONE_CALL_LIMIT:
        raise ValidationError(f"Targets must have between 1 and {TARGETS_OF_ONE_CALL_LIMIT} entries.")
    for definition in definitions:
        if not _NAME.fullmatch(definition["Id"]):
            raise ValidationError(
                f"Target id {definition['Id']!r} must match [.\\-_A-Za-z0-9]+ (at most 64 characters)."
            )
        target = target_of(definition)
        destinations.check(target)
        if target.arn == bus_arn(events, bus_name):
            raise ValidationError(
                f"Parameter {target.arn} is not valid. Reason: an event bus cannot be its own target."
            )
        inputs.check(target)
        _check_retry_policy(definition)
        events.rules.put_target(tx, bus_name, name, target)
    if len(events.rules.targets(tx, bus_name, name)) > TARGETS_LIMIT:
        raise LimitExceededError(
            f"The requested resource exceeds the maximum number allowed: {TARGETS_LIMIT} targets of rule {name}."
        )
    return {"FailedEntryCount": 0, "FailedEntries": []}


def _check_retry_policy(definition: Mapping[str, Any]) -> None:
    policy = definition.get("RetryPolicy") or {}
    if not 0 <= policy.get("MaximumRetryAttempts", 0) <= 185:
        raise ValidationError("MaximumRetryAttempts must be between 0 and 185.")
    if not 60 <= policy.get("MaximumEventAgeInSeconds", 60) <= 86_400:
        raise ValidationError("MaximumEventAgeInSeconds must be between 60 and 86400.")


def remove_targets(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Remove targets from a rule; those that are not there are reported."""
    name, bus_name = request["Rule"], _bus_name(request)
    events.rules.get(tx, bus_name, name)
    failed = [
        {
            "TargetId": target_id,
            "ErrorCode": "ResourceNotFoundException",
            "ErrorMessage": f"Rule {name} does not have a target with the Id {target_id}.",
        }
        for target_id in request["Ids"]
        if not events.rules.remove_target(tx, bus_name, name, target_id)
    ]
    return {"FailedEntryCount": len(failed), "FailedEntries": failed}


def list_targets_by_rule(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return the targets of a rule, as they were put."""
    name, bus_name = request["Rule"], _bus_name(request)
    events.rules.get(reader, bus_name, name)
    found = {target.target_id: target for target in events.rules.targets(reader, bus_name, name)}
    names, token = page(list(found), request)
    return {"Targets": [dict(found[target_id].definition) for target_id in names], **token}


def list_rule_names_by_target(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return the names of the rules that deliver to an ARN."""
    bus_name = _bus_name(request)
    require_bus(reader, bus_name)
    names, token = page(events.rules.names_by_target(reader, bus_name, request["TargetArn"]), request)
    return {"RuleNames": names, **token}
