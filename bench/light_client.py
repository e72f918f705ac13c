"""A client of the endpoint that costs less than what it measures: SigV4 and HTTP by hand, several requests on their way at once.

boto3 takes about a millisecond of CPU a call, so that on few cores it would measure itself. Run as a program it makes one
process of `start_executions`; what it prints is one line of JSON.
"""

import hashlib
import hmac
import json
import socket
import sys
import time
from urllib.parse import urlsplit

CONNECTIONS = 16
"""Requests of one process that are on their way at the same time."""


class LightClient:
    """Calls of one `application/x-amz-json-1.0` service over keep-alive connections."""

    def __init__(self, url: str, region: str, key_id: str, secret: str, connections: int = CONNECTIONS) -> None:
        place = urlsplit(url)
        assert place.hostname is not None and place.port is not None
        self._host = f"{place.hostname}:{place.port}"
        self._key_id = key_id
        self._region = region
        self._secret = secret
        self._signing: tuple[str, bytes] = ("", b"")
        self._sockets = [socket.create_connection((place.hostname, place.port)) for _ in range(connections)]
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._sockets:
            connection.close()

    def call_all(self, target: str, bodies: list[bytes]) -> list[bytes]:
        """Call `target` (`AWSStepFunctions.StartExecution`) with each body, at most one a connection; return the answers."""
        assert len(bodies) <= len(self._sockets)
        used = self._sockets[: len(bodies)]
        for connection, body in zip(used, bodies, strict=True):
            connection.sendall(self._request(target, body))
        return [_answer(connection) for connection in used]

    def _request(self, target: str, body: bytes) -> bytes:
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{at[:8]}/{self._region}/states/aws4_request"
        signed = "host;x-amz-date;x-amz-target"
        canonical = (
            f"POST\n/\n\nhost:{self._host}\nx-amz-date:{at}\nx-amz-target:{target}\n\n{signed}\n"
            f"{hashlib.sha256(body).hexdigest()}"
        )
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self._key(at[:8]), text.encode(), hashlib.sha256).hexdigest()
        return (
            f"POST / HTTP/1.1\r\nHost: {self._host}\r\nX-Amz-Date: {at}\r\nX-Amz-Target: {target}\r\n"
            f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self._key_id}/{scope}, SignedHeaders={signed}, "
            f"Signature={signature}\r\n\r\n"
        ).encode() + body

    def _key(self, day: str) -> bytes:
        if self._signing[0] != day:
            key = f"AWS4{self._secret}".encode()
            for part in (day, self._region, "states", "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._signing = (day, key)
        return self._signing[1]


def _answer(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionError("The server closed the connection.")
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65_536)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{head[:40]!r} {body[:500]!r}")
    return body


def start_executions(url: str, region: str, key_id: str, secret: str, machine_arn: str, count: int) -> float:
    """Start `count` executions as fast as answers come; return this process's CPU seconds."""
    client = LightClient(url, region, key_id, secret)
    body = json.dumps({"stateMachineArn": machine_arn, "input": '{"file_id":"1","customer":"acme"}'}).encode()
    began_s = time.process_time()
    for first in range(0, count, CONNECTIONS):
        client.call_all("AWSStepFunctions.StartExecution", [body] * min(CONNECTIONS, count - first))
    client.close()
    return time.process_time() - began_s


if __name__ == "__main__":
    order = json.loads(sys.stdin.readline())
    print("connected", flush=True)
    sys.stdin.readline()
    print(json.dumps({"cpu_s": start_executions(**order)}), flush=True)
