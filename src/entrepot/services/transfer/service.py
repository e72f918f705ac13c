"""The Transfer service: one server per stack, and who its sessions act as."""

from collections.abc import Callable

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.operations import Principal
from entrepot.services.transfer import sessions as session_rows
from entrepot.services.transfer import users
from entrepot.services.transfer.errors import ResourceNotFoundError
from entrepot.services.transfer.users import USER_VARIABLE, User


class Transfer:
    """Users, keys and sessions of the one SFTP server of this stack.

    Call `start` after the migrations. The SFTP server reports its sessions here and sets `on_disconnect`, so that a
    session of this process ends at once; those of other processes end when their process next looks.
    """

    def __init__(self, database: Database, account: Account) -> None:
        self.database = database
        self.account = account
        self.server_id = f"s-{ids.derived('transfer-server', account.account_id, account.region)[:17]}"
        self.created_at_ms = 0
        self.host_key_fingerprint = ""
        self.on_disconnect: Callable[[str], None] | None = None
        self.activity_of: Callable[[str], session_rows.Activity | None] = lambda session_id: None
        """What a live session of this process does; the SFTP server sets it."""
        self.on_file_sent: Callable[[int], None] = lambda size_bytes: None
        """Hears of every file that went out; whoever measures sets it."""

    @property
    def server_arn(self) -> str:
        """The ARN of the server."""
        return self.account.arn("transfer", f"server/{self.server_id}")

    @property
    def log_group(self) -> str:
        """The log group of the server, as AWS names it."""
        return f"/aws/transfer/{self.server_id}"

    def user_arn(self, user_name: str) -> str:
        """The ARN of a user."""
        return self.account.arn("transfer", f"user/{self.server_id}/{user_name}")

    async def start(self) -> None:
        """Record the server, and close sessions that a dead process left open."""

        def begin(tx: Transaction) -> int:
            tx.execute(
                "INSERT INTO transfer_server (server_id, created_at_ms) VALUES (?, ?) "
                "ON CONFLICT (server_id) DO NOTHING",
                (self.server_id, clock.now_ms()),
            )
            session_rows.close_abandoned(tx)
            row = tx.one("SELECT created_at_ms FROM transfer_server WHERE server_id = ?", (self.server_id,))
            assert row is not None
            return int(row[0])

        self.created_at_ms = await self.database.write(begin)

    def check_server(self, server_id: str) -> None:
        """Raise ResourceNotFoundError for any server but this one."""
        if server_id != self.server_id:
            raise ResourceNotFoundError("Unknown server", server_id, "Server")

    # ── users: transactional functions for stack/ and operations.py ──────────────────────────────────────────────

    def put_user(self, tx: Transaction, user: User) -> None:
        """Write the user and exactly these keys; raise InvalidRequestError."""
        users.put_user(tx, user)

    def delete_user(self, tx: Transaction, user_name: str) -> None:
        """Remove a user; raise ResourceNotFoundError."""
        users.delete_user(tx, self.server_id, user_name)

    def find_user(self, reader: Reader, user_name: str) -> User | None:
        """Return the user with keys, or None."""
        return users.find_user(reader, user_name)

    def user_names(self, reader: Reader) -> list[str]:
        """Return the names of all users, sorted."""
        return [name for (name,) in reader.all("SELECT user_name FROM transfer_user ORDER BY user_name LIMIT 100000")]

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def live_sessions(self) -> list[session_rows.Session]:
        """Return the sessions that live in any process, the newest first (at most 1,000)."""
        return await self.database.read(lambda reader: session_rows.list_sessions(reader, live=True))

    async def sessions(self, limit: int = 100) -> list[session_rows.Session]:
        """Return the newest sessions, closed ones too."""
        return await self.database.read(lambda reader: session_rows.list_sessions(reader, live=False, limit=limit))

    def find_session(self, reader: Reader, session_id: str) -> session_rows.Session | None:
        """Return a session, alive or ended, or None."""
        return session_rows.find_session(reader, session_id)

    async def disconnect(self, session_id: str) -> bool:
        """End a session; return False when no such session lives."""
        found = await self.database.write(lambda tx: session_rows.request_disconnect(tx, session_id))
        if found and self.on_disconnect is not None:
            self.on_disconnect(session_id)
        return found

    def principal(self, user: User) -> Principal:
        """Return who a session of the user acts as: its role, narrowed by its session policy.

        The policy variables are AWS's (https://docs.aws.amazon.com/transfer/latest/userguide/users-policies-session.html):
        `transfer:HomeDirectory` is `bucket/folder`. A LOGICAL user has them where the entry `/` is mapped.
        """
        role_name = user.role_arn.rpartition("/")[2]
        arn = (
            f"arn:{self.account.partition}:sts::{self.account.account_id}:"
            f"assumed-role/{role_name}/transfer-user-{user.user_name}"
        )
        variables = {"transfer:UserName": user.user_name, "aws:username": user.user_name}
        if home := _home(user):
            bucket, _, folder = home.partition("/")
            variables |= {
                "transfer:HomeDirectory": home,
                "transfer:HomeBucket": bucket,
                "transfer:HomeFolder": folder,
            }
        return Principal(arn, "role", user.user_name, user.role_arn, user.policy, variables, user.tags)


def _home(user: User) -> str:
    """Return `bucket/folder` of the user's home, or '' where there is none."""
    path = user.home_directory
    if user.home_directory_type == "LOGICAL":
        path = next((m.target for m in user.home_directory_mappings if not m.entry.strip("/")), "")
    return "/".join(segment for segment in path.replace(USER_VARIABLE, user.user_name).split("/") if segment)
