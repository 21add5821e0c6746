"""A server that misbehaves as its script says, on a real socket."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Script:
    """What the server does; each answer takes one entry of ``cut_after`` and ``status`` while there are any."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int | None] = field(default_factory=list)  # bytes of the body, then the connection drops
    status: list[int | None] = field(default_factory=list)
    ranges: bool = True
    etag: bool = True
    always_cut: bool = False
    asked: list[str | None] = field(default_factory=list)  # the Range headers of the GETs
    change_after: int | None = None  # the file is another one from this GET on
    changed: bytes = b""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        script = self.server.script
        content = script.files.get(self.path)
        if body:
            script.asked.append(self.headers["Range"])
            if script.change_after is not None and len(script.asked) > script.change_after:
                content = script.changed
            if script.status and (status := script.status.pop(0)):
                return self._refuse(status)
        if content is None:
            return self._refuse(404)
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if self.headers["Range"] and script.ranges and self.headers["If-Range"] == etag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
        self.send_response(206 if start else 200)
        if script.etag:
            self.send_header("ETag", etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return None
        cut = script.cut_after.pop(0) if script.cut_after else None
        if script.always_cut:
            cut = len(content) // 3
        self.wfile.write(content[start:][:cut])
        if cut is not None:
            self.close_connection = True
        return None

    def _refuse(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.script = Script()
        http.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield http
        http.shutdown()
        thread.join()
