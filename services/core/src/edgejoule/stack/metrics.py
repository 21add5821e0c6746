"""The metrics of one process of the stack: values by the table of ``edgejoule.metrics``, shown at a port of their own.

A name or a label that the table lacks is a fault of ours and raises KeyError or ValueError. Only what is shown
costs anything worth mentioning, and nobody waits for a scrape.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
from prometheus_client import exposition

from edgejoule import __version__
from edgejoule.errors import EdgejouleError
from edgejoule.metrics import Exporter, Metric, of_exporter

_log = logging.getLogger(__name__)
_PATIENCE_S = 5.0  # with a client that says nothing

Page = Callable[[], tuple[str, bytes]]
"""What a path answers: its type and its bytes."""


class Metrics:
    """The values of one process.

    Args:
        workspace: whose disk is shown.
    """

    def __init__(self, exporter: Exporter, workspace: Path | None = None) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = prometheus.CollectorRegistry()
        self._workspace = workspace
        self._hidden: set[str] = set()
        self._replaced: dict[str, set[tuple[str, ...]]] = {}
        self._metrics: dict[str, Any] = {metric.name: self._make(metric) for metric in of_exporter(exporter)}
        self.set("edgejoule_build_info", 1, version=__version__, python=platform.python_version())

    def _make(self, metric: Metric) -> Any:
        labels, registry = tuple(metric.labels), self._registry
        match metric.type:
            case "counter":
                return prometheus.Counter(metric.name, metric.help, labels, registry=registry)
            case "histogram":
                return prometheus.Histogram(metric.name, metric.help, labels, registry=registry, buckets=metric.buckets)
            case _:
                return prometheus.Gauge(metric.name, metric.help, labels, registry=registry)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._of(name, labels).set(value)
        if name in self._hidden:
            self._hidden.remove(name)
            self._registry.register(self._metrics[name])

    def hide(self, name: str) -> None:
        """Show a gauge no more until it is set again: nobody knows it, and 0 would be a value."""
        if name not in self._hidden:
            self._hidden.add(name)
            self._registry.unregister(self._metrics[name])

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Have a counter grow."""
        self._of(name, labels).inc(amount)

    def begin(self, name: str, **labels: str) -> None:
        """Show a counter at 0 before anything happened: increase() of a series that begins with 1 misses that first."""
        self._of(name, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Count a value in a histogram."""
        self._of(name, labels).observe(value)

    def replace(self, name: str, values: Mapping[Any, float]) -> None:
        """Set a gauge for these tuples of labels, in the table's order, and for no others."""
        for labels, value in values.items():
            self._metrics[name].labels(*labels).set(value)
        for labels in self._replaced.get(name, set()) - values.keys():
            self._metrics[name].remove(*labels)
        self._replaced[name] = set(values)

    def _of(self, name: str, labels: Mapping[str, str]) -> Any:
        return self._metrics[name].labels(**labels) if labels else self._metrics[name]

    def page(self) -> tuple[str, bytes]:
        """What a scrape gets."""
        if self._workspace is not None:
            disk = shutil.disk_usage(self._workspace)
            self.set("edgejoule_disk_free_bytes", disk.free, volume="workspace")
            self.set("edgejoule_disk_size_bytes", disk.total, volume="workspace")
        return exposition.CONTENT_TYPE_PLAIN_0_0_4, exposition.generate_latest(self._registry)


def workspace_of(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that a process of the stack fills, where it is said and there."""
    place = environment.get("EDGEJOULE_WORKSPACE")
    return Path(place) if place and Path(place).is_dir() else None


def address_of(words: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; without a host, of this host alone.

    >>> address_of("0.0.0.0:9464"), address_of("9464"), address_of("[::1]:9464")
    (('0.0.0.0', 9464), ('127.0.0.1', 9464), ('::1', 9464))

    Raises:
        EdgejouleError: it is none.
    """
    host, _, port = words.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise EdgejouleError(
            f"EDGEJOULE_METRICS is {words!r}, which is no address: write HOST:PORT, as in 0.0.0.0:9464"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


@contextmanager
def showing(
    metrics: Metrics, address: str | None = None, pages: Mapping[str, Page] | None = None
) -> Iterator[int | None]:
    """Show metrics at ``/metrics``, and other pages, while the block lasts; gives the port.

    Args:
        address: as ``address_of`` takes it; what EDGEJOULE_METRICS says when not given, and nowhere when that does not.

    Raises:
        EdgejouleError: nobody may listen there.
    """
    address = address or os.environ.get("EDGEJOULE_METRICS")
    if not address:
        yield None
        return
    try:
        server = _Server(address_of(address), {"/metrics": metrics.page, **(pages or {})})
    except OSError as error:
        raise EdgejouleError(
            f"metrics cannot be shown at {address} ({error.strerror}): set EDGEJOULE_METRICS to another place"
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="metrics", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Page]) -> None:
        self.pages = pages
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of ours to report."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    server_version = "edgejoule"
    sys_version = ""
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.split("?")[0])
        if page is None:
            self.send_error(404, f"there are {', '.join(sorted(self.server.pages))}")
            return
        try:
            kind, body = page()
        except Exception:  # noqa: BLE001 - whoever scrapes is to see that it failed
            _log.exception("a fault of the metrics' page %s", self.path)
            self.send_error(500, "a fault; see the log")
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: Any) -> None:
        """Scrapes are not logged."""
