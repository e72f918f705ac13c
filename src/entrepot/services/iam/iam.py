"""IAM: the compiled policies of this process, and the questions that the other rooms ask.

`authorize` is synchronous and works on memory. A change made here is in force when its write is answered; other
processes notice it by the version row within REFRESH_INTERVAL_S.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

from entrepot import clock
from entrepot.arns import Account
from entrepot.credentials import Credentials
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import AccessDeniedError, StorageError
from entrepot.operations import Decision, Permission, Principal
from entrepot.services.iam import roles
from entrepot.services.iam.credentials import (
    MAX_SESSION_POLICY_LENGTH,
    USER_ID,
    AccessKeys,
    Claims,
    expiry_ms,
    role_principal,
    root_principal,
)
from entrepot.services.iam.errors import MalformedPolicyDocumentError, ValidationError
from entrepot.services.iam.evaluate import FoldedVariables, evaluate, fold
from entrepot.services.iam.explain import Explanation, explain
from entrepot.services.iam.policy import Policies, compile_policy
from entrepot.services.iam.resource_policy import beside_resource_policy
from entrepot.services.iam.roles import CompiledRole, Role, UserKey
from entrepot.services.iam.service_linked import ADMINISTRATOR, NOTHING, SERVICE_POLICIES

Audit: TypeAlias = Callable[[Principal, Permission, Decision], None]

REFRESH_INTERVAL_S = 1.0
"""How often another process's changes are looked for."""

PRINCIPALS = 1_024
"""Principals whose variables are remembered."""

SESSION_POLICIES = 1_024
"""Compiled session policies that are remembered."""

MIN_DURATION_S = 900
"""The shortest life of temporary credentials (AWS's limit)."""

MAX_DURATION_S = 129_600
"""The longest life of temporary credentials (AWS's limit for GetSessionToken)."""

_PRINCIPAL_TYPES = {"root": "Account", "user": "User", "role": "AssumedRole", "service": "Service"}

log = logging.getLogger(__name__)


class IAM:
    """Roles, keys and decisions of one account. `start` it before the first question."""

    def __init__(self, database: Database, account: Account, *, secret: bytes, audit: Audit | None = None) -> None:
        """`secret` is the stack's master secret (32 bytes); `audit` sees every decision and must not block."""
        self.account = account
        self._database = database
        self._audit = audit
        self._keys = AccessKeys(account, secret)
        self._roles: dict[str, CompiledRole] = {}
        self._user_keys: dict[str, UserKey] = {}
        self._lock = threading.Lock()  # decisions are taken on the event loop and in the ledger's writer thread
        self._variables: dict[int, tuple[Principal, FoldedVariables]] = {}
        self._session_policies: dict[str, Policies | None] = {}
        self._version = -1
        self._changes = 0
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load all roles and keys, and keep looking for other processes' changes."""
        await self.refresh()
        self._refreshing = asyncio.create_task(self._refresh_forever(), name="iam-refresh")

    async def stop(self) -> None:
        """Stop looking for changes."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
            self._refreshing = None

    async def refresh(self) -> None:
        """Load everything again when the version row says that it changed."""
        if await self._database.read(roles.version) == self._version:
            return
        while True:
            changes = self._changes
            version, compiled, user_keys = await self._database.scan(self._load)
            if changes == self._changes:  # else what was read may lack a change of our own
                break
        self._version, self._roles, self._user_keys = version, compiled, user_keys

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            try:
                await self.refresh()
            except StorageError as error:
                log.warning("Changes of roles and keys by other processes could not be looked for: %s", error)
            except Exception:  # the task's top frame
                log.exception("Changes of roles and keys by other processes could not be looked for")

    def _load(self, reader: Reader) -> tuple[int, dict[str, CompiledRole], dict[str, UserKey]]:
        compiled: dict[str, CompiledRole] = {}
        for role in roles.list_roles(reader, self.account, "/", "", roles.MAX_ROLES):
            found = roles.compile_role(reader, self.account, role.role_name)
            if found is not None:
                compiled[role.arn] = found
        rows = reader.all(
            "SELECT access_key_id, user_name, kind, role_arn FROM iam_access_key LIMIT ?", (roles.MAX_ACCESS_KEYS,)
        )
        return roles.version(reader), compiled, {row[0]: UserKey(*row) for row in rows}

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────

    def authorize(self, principal: Principal, permission: Permission) -> Decision:
        """Decide, and tell the audit. Never raises: whatever goes wrong, an audit that fails too, denies."""
        try:
            decision = self._decide(principal, permission)
            if self._audit is not None:
                self._audit(principal, permission, decision)
        except Exception as error:  # whatever goes wrong while deciding must deny
            log.exception("Deciding %s on %s for %s failed", permission.action, permission.resource, principal.arn)
            return Decision(False, "", f"its policies could not be evaluated ({type(error).__name__})")
        return decision

    def _decide(self, principal: Principal, permission: Permission) -> Decision:
        session_policy = None
        if principal.session_policy is not None:
            session_policy = self._session_policy(principal.session_policy)
            if session_policy is None:
                return Decision(False, "session policy", "its session policy is not valid")
        policies = self.policies_of(principal)
        variables = self._remembered_variables(principal)
        uses_time = policies.uses_time or bool(permission.resource_policy)
        if uses_time or (session_policy is not None and session_policy.uses_time):
            variables = FoldedVariables(variables, **time_variables())
        decision = evaluate(policies, session_policy, permission, variables)
        if not permission.resource_policy:
            return decision
        return beside_resource_policy(decision, principal, permission, variables)

    def explain(self, reader: Reader, principal: Principal, permission: Permission) -> Explanation:
        """Tell why a role's session is allowed or denied something, statement by statement; the audit is not told.

        Raises MalformedPolicyDocumentError when one of its policies cannot be read.
        """
        role_name = (principal.role_arn or "").rsplit("/", 1)[-1]
        documents = roles.policy_documents(reader, role_name) if role_name else []
        variables = self.variables_of(principal) | time_variables()
        return explain(documents, principal.session_policy, permission, variables)

    def _remembered_variables(self, principal: Principal) -> FoldedVariables:
        """Return the variables of a principal, which serves many requests of one session."""
        remembered = self._variables.get(id(principal))
        if remembered is not None and remembered[0] is principal:
            return remembered[1]
        variables = fold(self.variables_of(principal))
        with self._lock:
            self._variables[id(principal)] = (principal, variables)
            if len(self._variables) > PRINCIPALS:
                self._variables.pop(next(iter(self._variables)))
        return variables

    def policies_of(self, principal: Principal) -> Policies:
        """Return the identity policies of a principal; none for whom nobody knows."""
        if principal.role_arn is not None:
            compiled = self._roles.get(principal.role_arn)
            if compiled is None:
                return NOTHING
            user_id = principal.variables.get(USER_ID)
            if user_id is not None and user_id.partition(":")[0] != compiled.role.role_id:
                return NOTHING  # a session of a role that is gone; this one only has its name
            return compiled.policies
        if principal.kind == "root":
            return ADMINISTRATOR
        if principal.kind == "service":
            return SERVICE_POLICIES.get(principal.name, NOTHING)
        return NOTHING

    def variables_of(self, principal: Principal) -> "dict[str, str]":
        """Return what policy variables and condition keys say about the principal, the time left out."""
        variables = {
            "aws:PrincipalArn": principal.role_arn or principal.arn,
            "aws:PrincipalAccount": self.account.account_id,
            "aws:PrincipalType": _PRINCIPAL_TYPES[principal.kind],
        }
        if principal.kind == "user":
            variables["aws:username"] = principal.name
        for key, value in principal.tags.items():
            variables[f"aws:PrincipalTag/{key}"] = value
        variables.update(principal.variables)
        return variables

    def _session_policy(self, text: str) -> Policies | None:
        """Return a compiled session policy, or None when it is malformed."""
        try:
            return self._session_policies[text]
        except KeyError:
            pass
        compiled: Policies | None
        try:
            compiled = compile_policy(text, "session policy")
        except MalformedPolicyDocumentError as error:
            log.warning("A session policy is malformed, everything is denied: %s", error.message)
            compiled = None
        with self._lock:
            self._session_policies[text] = compiled
            if len(self._session_policies) > SESSION_POLICIES:
                self._session_policies.pop(next(iter(self._session_policies)))
        return compiled

    # ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────

    def find_credentials(self, access_key_id: str, session_token: str | None) -> Credentials | None:
        """Return the credentials of a key, or None when there is no such key. Expired ones are returned as they are."""
        if session_token is not None:
            return self._keys.verify(access_key_id, session_token)
        key = self._user_keys.get(access_key_id)
        return None if key is None else self._user_credentials(key)

    def issue_credentials(
        self, role_arn: str, session_name: str, *, duration_s: int = 3_600, session_policy: str | None = None
    ) -> Credentials:
        """Return temporary credentials for a session of a role. Raises ValidationError, MalformedPolicyDocument."""
        self._check_session(session_name, duration_s, session_policy)
        role_id = self.role_id(role_arn)
        return self._keys.issue(Claims(role_arn, session_name, expiry_ms(duration_s), session_policy, role_id))

    def issue_session_token(self, principal: Principal, duration_s: int = 43_200) -> Credentials:
        """Return temporary credentials with the caller's own rights (GetSessionToken)."""
        if principal.kind == "root":
            self._check_session(principal.name, duration_s, None)
            return self._keys.issue(Claims(None, principal.name, expiry_ms(duration_s)))
        if principal.session_policy is not None or principal.role_arn is None or principal.kind != "user":
            raise AccessDeniedError("Cannot call GetSessionToken with session credentials")
        return self.issue_credentials(principal.role_arn, principal.name, duration_s=duration_s)

    def assume_role(
        self, caller: Principal, role_arn: str, session_name: str, duration_s: int, session_policy: str | None
    ) -> Credentials:
        """Return temporary credentials if the role's trust policy names the caller; else raise AccessDenied."""
        compiled = self._roles.get(role_arn)
        if compiled is None or not compiled.trust.trusts(caller):
            raise AccessDeniedError(
                f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
            )
        limit_s = compiled.role.max_session_duration_s
        if duration_s > limit_s:
            raise ValidationError("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
        return self.issue_credentials(role_arn, session_name, duration_s=duration_s, session_policy=session_policy)

    def assumed_principal(self, caller: Principal, role_arn: str, session_name: str) -> Principal:
        """Return who acts in a session of another role that the caller takes on (a task's Credentials).

        Raises AccessDenied unless the caller may assume the role and the role's trust policy names the caller.
        """
        allowed = self.authorize(caller, Permission("sts:AssumeRole", role_arn)).allowed
        compiled = self._roles.get(role_arn)
        if not allowed or compiled is None or not compiled.trust.trusts(caller):
            raise AccessDeniedError(
                f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
            )
        return role_principal(role_arn, session_name)

    def principal_for_role(self, role_arn: str, session_name: str) -> Principal:
        """Return who acts in a session of a role: a state machine's execution, a function."""
        return role_principal(role_arn, session_name)

    def arn_of_role(self, role_name: str) -> str:
        """Return a role's ARN, which has its path; for a role that does not exist, the ARN without one."""
        found = (compiled.role for compiled in list(self._roles.values()))
        return next((r.arn for r in found if r.role_name == role_name), self.account.iam_arn(f"role/{role_name}"))

    def role_id(self, role_arn: str) -> str | None:
        """Return a role's unique id (`AROA…`), or None when there is no such role."""
        compiled = self._roles.get(role_arn)
        return None if compiled is None else compiled.role.role_id

    def _check_session(self, session_name: str, duration_s: int, session_policy: str | None) -> None:
        roles.check_name("roleSessionName", session_name, 64)
        if not MIN_DURATION_S <= duration_s <= MAX_DURATION_S:
            raise ValidationError(
                f"1 validation error detected: Value '{duration_s}' at 'durationSeconds' failed to satisfy constraint: "
                f"Member must have value between {MIN_DURATION_S} and {MAX_DURATION_S}"
            )
        if session_policy is not None:
            compile_policy(session_policy, "session policy", max_length=MAX_SESSION_POLICY_LENGTH)

    def _user_credentials(self, key: UserKey) -> Credentials:
        if key.kind == "root":
            principal = root_principal(self.account)
        else:
            arn = self.account.iam_arn(f"user/{key.user_name}")
            principal = Principal(arn, "user", key.user_name, role_arn=key.role_arn)
        return Credentials(key.access_key_id, self._keys.secret_access_key(key.access_key_id), None, principal)

    # ── changes, within the caller's transaction ─────────────────────────────────────────────────────────────────

    def put_role(
        self,
        tx: Transaction,
        role_name: str,
        *,
        trust_policy: str,
        policies: "dict[str, str] | None" = None,
        description: str = "",
    ) -> Role:
        """Create or replace a role with exactly these inline policies (name → JSON text); for the stack.

        Raises MalformedPolicyDocument, LimitExceeded, ValidationError.
        """
        if tx.one("SELECT 1 FROM iam_role WHERE role_name = ?", (role_name,)) is None:
            roles.insert_role(tx, self.account, role_name, trust_policy, description=description)
        else:
            roles.update_trust_policy(tx, self.account, role_name, trust_policy)
        wanted = policies or {}
        for name in roles.list_role_policies(tx, role_name):
            if name not in wanted:
                roles.delete_role_policy(tx, self.account, role_name, name)
        for name, document in wanted.items():
            roles.put_role_policy(tx, self.account, role_name, name, document)
        self.role_changed(tx, role_name)
        return roles.get_role(tx, self.account, role_name)

    def put_user_key(
        self,
        tx: Transaction,
        user_name: str,
        *,
        kind: Literal["root", "user"] = "root",
        role_arn: str | None = None,
    ) -> Credentials:
        """Create the long-lived key of an API user; the same user of the same stack always has the same key.

        Kind `root` is the operator, who may do everything; a `user` has the policies of `role_arn`.
        """
        roles.check_name("userName", user_name, 64)
        key = UserKey(self._keys.derived_key_id(user_name), user_name, kind, role_arn)
        roles.insert_user_key(tx, key)
        version = roles.raise_version(tx)

        def commit() -> None:
            self._user_keys[key.access_key_id] = key
            self._version_is(version)

        tx.after_commit(commit)
        return self._user_credentials(key)

    def delete_user_keys(self, tx: Transaction, user_name: str) -> None:
        """Take all keys from an API user."""
        deleted = roles.delete_user_keys(tx, user_name)
        version = roles.raise_version(tx)

        def commit() -> None:
            for access_key_id in deleted:
                self._user_keys.pop(access_key_id, None)
            self._version_is(version)

        tx.after_commit(commit)

    def role_changed(self, tx: Transaction, role_name: str, arn: str | None = None) -> None:
        """Compile a role anew (`arn` when it may be gone); in force once the transaction is durable."""
        compiled = roles.compile_role(tx, self.account, role_name)
        version = roles.raise_version(tx)

        def commit() -> None:
            if compiled is not None:
                self._roles[compiled.role.arn] = compiled
            elif arn is not None:
                self._roles.pop(arn, None)
            self._version_is(version)

        tx.after_commit(commit)

    def _version_is(self, version: int) -> None:
        """Note our own change; a gap means that another process changed something too, so that all is loaded again."""
        self._changes += 1
        if version == self._version + 1:
            self._version = version


def time_variables() -> dict[str, str]:
    """Return the condition keys that the clock supplies, names in lower case."""
    now_ms = clock.now_ms()
    return {"aws:epochtime": str(now_ms // 1000), "aws:currenttime": clock.iso(now_ms)}
