"""A stand-in for the Hugging Face Hub on this machine, which can be told to fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(slots=True)
class Hub:
    """Repositories by name, each a dictionary of files; large ones are announced as LFS files.

    `faults`: for a file's name what its next answers do: "cut" closes the connection halfway, "stall" stops
    halfway, "corrupt" sends other bytes, "short" announces half the length. `requests`: (file, Range header).
    """

    repositories: dict[str, dict[str, bytes]]
    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    endpoint: str = ""

    def listing(self, repository: str) -> dict[str, object]:
        """What the API says about a repository."""
        siblings = [_sibling(name, data) for name, data in self.repositories[repository].items()]
        return {"id": repository, "sha": COMMIT, "siblings": siblings}


def _sibling(name: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    about: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
    if name.endswith((".bin", ".safetensors")):
        about["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return about


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/models/"):
            self._answer_listing(path.removeprefix("/api/models/").partition("/revision/"))
            return
        repository, _, rest = path.removeprefix("/").partition("/resolve/")
        commit, _, name = rest.partition("/")
        data = self.hub.repositories.get(repository, {}).get(name)
        if data is None or commit != COMMIT:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        self._answer_file(name, data)

    def _answer_listing(self, asked: tuple[str, str, str]) -> None:
        repository, _, revision = asked
        if repository not in self.hub.repositories:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif self.hub.faults["api"]:
            self._send(200, b"<html>log in first</html>", {})
        else:
            self._send(200, json.dumps(self.hub.listing(repository)).encode(), {})

    def _answer_file(self, name: str, data: bytes) -> None:
        wanted = self.headers["Range"]
        self.hub.requests.append((name, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if wanted else {}
        body = data[start:]
        fault = self.hub.faults[name].popleft() if self.hub.faults[name] else "none"
        if fault == "corrupt":
            body = bytes(255 - byte for byte in body)
        if fault == "short":
            body = body[: len(body) // 2]
        self._send(206 if wanted else 200, body, headers, cut=fault in ("cut", "stall"))
        if fault == "stall":
            self.hub.closing.wait(30)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub on a port of this machine."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
