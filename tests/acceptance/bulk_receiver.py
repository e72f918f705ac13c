"""A small `_bulk` endpoint, as OpenSearch answers it: documents by index and id, with failures on demand."""

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

USER, PASSWORD = "writer", "pässword"


class BulkReceiver:
    """Keeps documents. `down`: everything is answered 503. `statuses`: by words in a document's message, the status of its item,
    once each."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.taken: list[str] = []
        self.requests = 0
        self.down = False
        self.statuses: dict[str, int] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = receiver.answer(self.path, self.headers.get("Authorization", ""), body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # A server that is killed hangs up.
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, Any]:
        """Take a request; return status and answer."""
        self.requests += 1
        if authorization != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            return 401, {"error": "unauthorized"}
        if self.down or path.partition("?")[0] != "/_bulk":
            return (503 if self.down else 404), {"error": "no"}
        assert body.endswith(b"\n")
        lines = [json.loads(line) for line in body.decode().splitlines()]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            word = next((word for word in self.statuses if word in document["@message"]), None)
            if word is not None:
                items.append(
                    {"index": {"status": self.statuses.pop(word), "error": {"type": "failed", "reason": word}}}
                )
                continue
            place = (action["index"]["_index"], action["index"]["_id"])
            items.append({"index": {"status": 200 if place in self.documents else 201}})
            self.documents[place] = document
            self.taken.append(document["@message"])
        return 200, {"took": 1, "errors": any("error" in item["index"] for item in items), "items": items}

    @property
    def messages(self) -> list[str]:
        """The messages of all documents, each once."""
        return sorted(document["@message"] for document in list(self.documents.values()))

    def __enter__(self) -> "BulkReceiver":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
