"""A browser on this machine, and no other, is sent the page of `npmobilenet explore` and the layers it asks for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from npmobilenet.errors import InputError, NpMobilenetError
from npmobilenet.views.explore_page import page
from npmobilenet.views.explorer import Explorer

HOST = "127.0.0.1"


class ExploreServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1 alone; port 0 takes a free one. `serve_forever` answers until `shutdown`.

    Raises `InputError` if the port is taken.
    """

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        self.explorer, self.one_at_a_time = explorer, threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(f"port {port} of {HOST}: {error.strerror or error}; --port 0 takes a free one") from error
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        self.address = f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: ExploreServer
    timeout = 30  # seconds that a connection may be silent

    def do_GET(self) -> None:
        """The page at /, `layer/N` as JSON, `blob/KEY` as bytes."""
        if self.headers.get("Host") not in self.server.hosts:  # a name of someone else's that leads here
            self._answer(403, "text/plain", b"this server answers to 127.0.0.1 alone")
            return
        try:
            with self.server.one_at_a_time:
                kind, body = self._found(self.path.partition("?")[0].strip("/"))
        except NpMobilenetError as error:
            self._answer(404, "text/plain", str(error).encode("utf-8", "backslashreplace"))
            return
        self._answer(200, kind, body)

    def _found(self, path: str) -> tuple[str, bytes]:
        explorer = self.server.explorer
        if not path:
            return "text/html", page(explorer, alone=False).encode("utf-8", "backslashreplace")
        what, _, key = path.partition("/")
        if what == "blob":
            return "application/octet-stream", explorer.blob(key)
        if what == "layer" and key.isdecimal() and len(key) < 6:
            return "application/json", json.dumps(explorer.layer(int(key))).encode()
        raise InputError("there is no such page")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed for a request."""
