"""The connection to the running server: botocore clients for its public API, with the operator's access key."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from entrepot import settings
from entrepot.errors import EntrepotError
from entrepot.settings import StackFolder

StackOption = Annotated[Path, typer.Option("-C", "--stack", metavar="DIR", help="The stack's folder.")]
HERE = Path()

NOT_FOUND_CODES = frozenset(
    {"ResourceNotFoundException", "ExecutionDoesNotExist", "StateMachineDoesNotExist", "NoSuchKey", "NoSuchBucket"}
)


class NotFoundError(EntrepotError):
    """What was asked for does not exist."""


class UnreachableError(EntrepotError):
    """No server answers for this stack."""


class Connection:
    """One stack's running server."""

    def __init__(self, folder: Path) -> None:
        self.stack = StackFolder(folder)
        self.settings = settings.load(self.stack)
        run_file = self.stack.path(self.settings.storage.folder) / "run.json"
        try:
            self.run: dict[str, Any] = json.loads(run_file.read_text())
            self.key: dict[str, str] = json.loads(self.stack.operator_file.read_text())
        except FileNotFoundError:
            raise UnreachableError(
                f"No server is running for {self.stack.folder}. Start it with `entrepot up {folder}`."
            ) from None
        except PermissionError as error:
            raise EntrepotError(
                f"{error.filename} may only be read by its owner; use the account that ran init."
            ) from None
        self.endpoint_url: str = self.run["api"]

    def client(self, service: str) -> Any:
        """Return a botocore client for a service of the server ("s3", "entrepot", …)."""
        import botocore.config  # here, because commands that ask no server start sooner without

        from entrepot.aws.models import session

        make: Any = session().client  # its overloads know only AWS's services
        return make(
            service,
            endpoint_url=self.endpoint_url,
            region_name=self.run["region"],
            aws_access_key_id=self.key["access_key_id"],
            aws_secret_access_key=self.key["secret_access_key"],
            config=botocore.config.Config(
                retries={"total_max_attempts": 2},
                connect_timeout=5,
                read_timeout=65,
                s3={"addressing_style": "path"},
                # Step Functions' StartSyncExecution and TestState would go to the host `sync-127.0.0.1`.
                inject_host_prefix=False,
            ),
        )


@contextmanager
def connected(folder: Path) -> Iterator[Connection]:
    """Yield the connection; turn what the API answers into errors for the operator."""
    connection = Connection(folder)
    import botocore.exceptions

    try:
        yield connection
    except botocore.exceptions.ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code in NOT_FOUND_CODES:
            raise NotFoundError(message or code) from error
        raise EntrepotError(f"{code}: {message}") from error
    except botocore.exceptions.HTTPClientError as error:
        raise UnreachableError(
            f"The server at {connection.endpoint_url} does not answer ({error}). Is `entrepot up {folder}` running?"
        ) from error
