"""The signature under what is delivered: the stack's own RSA key and certificate.

Receivers check it as AWS's documentation says: they fetch SigningCertURL and verify the string that `string_to_sign`
builds. Source: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

import base64
import os
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from entrepot import clock
from entrepot.errors import EntrepotError

KEY_BITS = 2_048
VALID_DAYS = 3_650
"""Life of the certificate: ten years, as it is made once with the stack."""

PATH_PREFIX = "/SimpleNotificationService-"
"""Where the certificate is served, followed by its serial number and `.pem`."""

_NOTIFICATION_KEYS = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION_KEYS = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


def string_to_sign(document: Mapping[str, object]) -> bytes:
    """Return what is signed of a document: the names and values of some of its members, a line each."""
    keys = _NOTIFICATION_KEYS if document["Type"] == "Notification" else _CONFIRMATION_KEYS
    return "".join(f"{key}\n{document[key]}\n" for key in keys if document.get(key) is not None).encode()


class Signer:
    """The key and the certificate in one PEM file, made when they are first needed. Usable from any thread."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._key: rsa.RSAPrivateKey | None = None
        self._certificate: x509.Certificate | None = None

    def sign(self, document: Mapping[str, object], version: str) -> str:
        """Return the signature in Base64: RSA PKCS #1 v1.5 with SHA-1 (version 1) or SHA-256 (version 2)."""
        key, _ = self._load()
        digest: hashes.HashAlgorithm = hashes.SHA256() if version == "2" else hashes.SHA1()  # noqa: S303 - AWS's version 1
        return base64.b64encode(key.sign(string_to_sign(document), padding.PKCS1v15(), digest)).decode()

    def certificate_path(self) -> str:
        """Return the path under which the endpoint serves the certificate."""
        return f"{PATH_PREFIX}{self._load()[1].serial_number:032x}.pem"

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM text."""
        return self._load()[1].public_bytes(serialization.Encoding.PEM)

    def _load(self) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
        with self._lock:
            if self._key is None or self._certificate is None:
                self._key, self._certificate = self._read() if self._file.exists() else self._make()
            return self._key, self._certificate

    def _read(self) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
        try:
            content = self._file.read_bytes()
            key = serialization.load_pem_private_key(content, password=None)
            certificate = x509.load_pem_x509_certificate(content)
        except (OSError, ValueError, TypeError) as error:
            raise EntrepotError(f"{self._file}, the key that signs notifications, cannot be used: {error}. "
                                "Remove it and a new one is made.") from error  # fmt: skip
        if not isinstance(key, rsa.RSAPrivateKey):
            raise EntrepotError(f"{self._file} holds no RSA key. Remove it and a new one is made.")
        return key, certificate

    def _make(self) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
        key = rsa.generate_private_key(public_exponent=65_537, key_size=KEY_BITS)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Entrepot notifications")])
        now = clock.now()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=VALID_DAYS))
            .sign(key, hashes.SHA256())
        )
        content = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + certificate.public_bytes(serialization.Encoding.PEM)
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._file)
        except OSError as error:
            raise EntrepotError(
                f"{self._file}, the key that signs notifications, cannot be written: {error}."
            ) from error
        return key, certificate
