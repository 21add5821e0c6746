"""The exporter's own port, and the threads that read the sensors."""

import contextlib
import http.server
import logging
import platform
import random
import socket
import socketserver
import threading
import time
from typing import Any, Callable, Iterator, Tuple

from edgejoule_agent import host, metrics
from edgejoule_agent.errors import SettingsError
from edgejoule_agent.exporter import cells, exposition
from edgejoule_agent.exporter.board import POWER_S, STATES_S, Board

PATIENCE_S = 5.0  # with a client that says nothing

_log = logging.getLogger("edgejoule-agent")


def address_of(words: str) -> Tuple[str, int]:
    """Host and port of ``HOST:PORT``; without a host, of this host alone.

    >>> address_of("0.0.0.0:9464"), address_of("9464"), address_of("[::1]:9464")
    (('0.0.0.0', 9464), ('127.0.0.1', 9464), ('::1', 9464))

    Raises:
        SettingsError: it is none.
    """
    host, _, port = words.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{words!r} is no address to show metrics at: write HOST:PORT, as in 0.0.0.0:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


@contextlib.contextmanager
def serving(address: str, state: str, board: Board) -> Iterator[int]:
    """Show the metrics of a board and of the agent in ``state`` for as long as the block lasts; gives the port.

    Args:
        address: as ``address_of`` takes it; port 0 takes any that is free.

    Raises:
        SettingsError: nobody may listen there.
    """
    table = metrics.load()
    version = host.installed_version("edgejoule-agent") or "unknown"
    build = {"version": version, "python": platform.python_version()}

    def scrape() -> str:
        found: exposition.Readings = {"edgejoule_build_info": [(build, 1)]}
        found.update(board.readings())
        found.update(cells.readings(state))
        return exposition.render(table, found)

    try:
        server = _Server(address_of(address), scrape)
    except OSError as error:
        raise SettingsError(f"metrics cannot be shown at {address} ({error.strerror}): name another place") from error
    over = threading.Event()
    threads = [
        threading.Thread(target=_read_on, args=(board.read_power, POWER_S, True, over), name="power", daemon=True),
        threading.Thread(target=_read_on, args=(board.read_states, STATES_S, False, over), name="sensors", daemon=True),
        threading.Thread(target=server.serve_forever, args=(0.2,), name="metrics", daemon=True),
    ]
    for thread in threads:
        thread.start()
    port = int(server.server_address[1])
    _log.info("metrics are shown at port %d", port)
    try:
        yield port
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join(PATIENCE_S)  # a sensor that hangs holds nobody up


def _read_on(read: Callable[[], None], period_s: float, drawn: bool, over: threading.Event) -> None:
    """Read once in every period: at its begin, or at a moment drawn from it, so that no load hides by keeping step."""
    begin_s, number = time.monotonic(), 0
    while not over.wait(begin_s + (number + drawn * random.random()) * period_s - time.monotonic()):
        try:
            read()
        except Exception:  # noqa: BLE001 - the others are shown on; what this one read grows old and is left out
            _log.exception("a fault of the exporter")
        number = max(number + 1, int((time.monotonic() - begin_s) / period_s))  # periods slept through stay empty


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, address: Tuple[str, int], scrape: Callable[[], str]) -> None:
        self.scrape = scrape
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        http.server.HTTPServer.__init__(self, address, _Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's question for this host's name, which a board without a resolver waits long for."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "edgejoule-agent", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of ours to report."""


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = PATIENCE_S
    server_version = "edgejoule-agent"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.split("?")[0] != "/metrics":
            self.send_error(404, "metrics are at /metrics")
            return
        server: Any = self.server
        try:
            body = server.scrape().encode("utf-8")
        except Exception:  # noqa: BLE001 - whoever scrapes is to see that it failed
            _log.exception("a fault of the exporter")
            self.send_error(500, "a fault of the exporter; see its log")
            return
        self.send_response(200)
        self.send_header("Content-Type", exposition.CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Scrapes are not logged."""
