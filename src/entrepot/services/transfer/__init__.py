"""AWS Transfer Family: the server's identity, its users and their keys, SFTP sessions, and uploads that were cut off.

Owns the tables `transfer_*` and `partial_upload`. It knows no protocol (that is `sftp/`), decides no permission (that
is `services/iam`) and never touches objects.
"""

from entrepot.services.transfer.operations import operations
from entrepot.services.transfer.public_keys import PublicKey, parse_public_key
from entrepot.services.transfer.schema import MIGRATIONS
from entrepot.services.transfer.service import Transfer
from entrepot.services.transfer.sessions import Activity, OpenFile, Session, SessionStart, SessionTotals
from entrepot.services.transfer.users import HomeDirectoryMapping, SshPublicKey, User

__all__ = [
    "MIGRATIONS",
    "Activity",
    "HomeDirectoryMapping",
    "OpenFile",
    "PublicKey",
    "Session",
    "SessionStart",
    "SessionTotals",
    "SshPublicKey",
    "Transfer",
    "User",
    "operations",
    "parse_public_key",
]
