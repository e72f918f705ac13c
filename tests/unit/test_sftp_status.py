"""Every error of ours has an SFTP status, and no text that tells of the server's insides."""

import importlib
import pkgutil

import entrepot.services
from entrepot.errors import AccessDeniedError, AwsError, EntrepotError, StorageError, StorageFullError
from entrepot.sftp import status
from entrepot.sftp.status import StatusError, of_error


def _errors(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(found for child in root.__subclasses__() for found in _errors(child))]


def test_the_mapping_is_total() -> None:
    for package in pkgutil.iter_modules(entrepot.services.__path__, "entrepot.services."):
        for module in pkgutil.iter_modules(importlib.import_module(package.name).__path__, f"{package.name}."):
            if module.name.endswith(".errors"):
                importlib.import_module(module.name)
    errors = _errors(AwsError) + _errors(EntrepotError)
    assert len(errors) > 20
    codes = {status.NO_SUCH_FILE, status.PERMISSION_DENIED, status.FAILURE, status.OP_UNSUPPORTED}
    for error in errors:
        instance = error.__new__(error)
        Exception.__init__(instance, "secret /var/lib/ledger")
        if isinstance(instance, AwsError):
            instance.message = "message"
        answer = of_error(instance)
        assert answer.code in codes, error
        assert "/var/lib" not in answer.text


def test_the_codes() -> None:
    from entrepot.services.s3 import errors as s3

    assert of_error(s3.NoSuchKeyError("k")).code == status.NO_SUCH_FILE
    assert of_error(s3.NoSuchBucketError("b")).code == status.NO_SUCH_FILE
    assert of_error(AccessDeniedError("x")).code == status.PERMISSION_DENIED
    assert of_error(s3.PreconditionFailedError("If-None-Match")).text == "The file exists already"
    assert "No space left on the server" in of_error(StorageFullError("disk")).text
    assert of_error(StorageError("disk")).code == status.FAILURE
    assert of_error(ValueError("inside")).text == "The server failed; its log has the cause."
    assert of_error(StatusError(3, "x")).code == 3
