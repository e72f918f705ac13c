"""ExplainAccess of Entrepot's own API: why somebody may or may not do something, answered by IAM's own evaluator."""

from entrepot.composition import Composition
from entrepot.database import Reader
from entrepot.operations import Call, Operation, Permission, Principal, ReadOperation, Request, Response
from entrepot.services.files.errors import ResourceNotFoundError, ValidationError
from entrepot.services.iam.explain import Considered
from entrepot.services.transfer import User
from entrepot.sftp.paths import HomeDirectory, Place
from entrepot.sftp.session import list_context
from entrepot.sftp.status import StatusError

ON_BUCKETS = ("s3:ListBucket", "s3:GetBucketLocation")
"""Actions whose resource is the bucket, whatever the path."""


def operations(rooms: Composition) -> list[Operation]:
    """Return the operations that explain decisions."""
    resource = rooms.account.arn("entrepot", "server")

    def explain_access(reader: Reader, request: Request, call: Call) -> Response:
        """ExplainAccess: `user_name` or `role_arn`, an `action`, and a `resource` or an SFTP `path`."""
        principal, user = _principal(rooms, reader, request)
        target, context = _target(rooms, user, request)
        wanted = Permission(request["action"], target, {**context, **(request.get("context") or {})})
        explained = rooms.iam.explain(reader, principal, wanted)
        return {
            "allowed": explained.decision.allowed,
            "reason": explained.decision.reason,
            "statement": explained.decision.statement,
            "action": wanted.action,
            "resource": wanted.resource,
            "principal_arn": principal.arn,
            "context": dict(wanted.context),
            "statements": [_statement(considered) for considered in explained.statements],
        }

    return [ReadOperation("ExplainAccess", lambda _: (Permission("entrepot:ExplainAccess", resource),), explain_access)]


def _principal(rooms: Composition, reader: Reader, request: Request) -> tuple[Principal, User | None]:
    user_name, role_arn = request.get("user_name"), request.get("role_arn")
    if bool(user_name) == bool(role_arn):
        raise ValidationError("Name either user_name or role_arn.")
    if role_arn:
        return rooms.iam.principal_for_role(role_arn, "explained"), None
    user = rooms.transfer.find_user(reader, str(user_name))
    if user is None:
        raise ResourceNotFoundError(f"There is no SFTP user {user_name}.")
    return rooms.transfer.principal(user), user


def _target(rooms: Composition, user: User | None, request: Request) -> tuple[str, dict[str, str]]:
    """Return the resource's ARN, and the condition keys that SFTP would send."""
    resource, path = request.get("resource"), request.get("path")
    if bool(resource) == bool(path):
        raise ValidationError("Name either resource (an ARN) or path (as the SFTP user sees it).")
    if resource:
        return str(resource), {}
    if user is None:
        raise ValidationError("A path is what an SFTP user sees: name user_name, or the resource's ARN.")
    place = _place(user, str(path))
    if place.bucket is None:
        raise ValidationError(f"{path} is a folder of the home directory's layout: IAM is not asked about it.")
    if request["action"] in ON_BUCKETS:
        return rooms.account.s3_arn(place.bucket), list_context(place.folder)
    return rooms.account.s3_arn(place.bucket, place.folder if str(path).endswith("/") else place.key), {}


def _place(user: User, path: str) -> Place:
    home = HomeDirectory(user)
    try:
        return home.place(home.parse(path.encode()))
    except StatusError as error:
        raise ValidationError(f"{user.user_name} cannot name {path}: {error}") from None


def _statement(considered: Considered) -> Response:
    return {
        "label": considered.label,
        "kind": considered.kind,
        "effect": "Allow" if considered.allows else "Deny",
        "text": considered.text,
        "action_matches": considered.action_matches,
        "resource_matches": considered.resource_matches,
        "conditions": [{"key": answer.key, "holds": answer.holds} for answer in considered.conditions],
        "applies": considered.applies,
    }
