"""An example of a receiver of alerts: prints what an Alertmanager posts, a line for each alert.

    python receiver.py 0.0.0.0:9095

Messages are those of Alertmanager's webhook_config (prometheus.io, "Alerting configuration"), version 4.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LIMIT_BYTES = 1 << 20


def lines_of(message: Mapping[str, Any]) -> Iterator[str]:
    """What to say of a message.

    >>> told = {"summary": "nano is hot: cpu", "runbook_url": "http://127.0.0.1:3000/d/runbook-DeviceHot"}
    >>> alert = {"status": "firing", "labels": {"alertname": "DeviceHot", "severity": "warning"}, "annotations": told}
    >>> print(*lines_of({"alerts": [alert]}))
    firing   warning  DeviceHot: nano is hot: cpu (http://127.0.0.1:3000/d/runbook-DeviceHot)
    """
    for alert in message["alerts"]:
        labels, told = alert["labels"], alert["annotations"]
        words = f"{labels['alertname']}: {told.get('summary', '')} ({told.get('runbook_url', 'no runbook')})"
        yield f"{alert['status']:8} {labels.get('severity', ''):8} {words}"


class Receiver(BaseHTTPRequestHandler):
    timeout = 5.0

    def do_GET(self) -> None:
        """For the health check."""
        self._answer(200)

    def do_POST(self) -> None:
        try:
            size = min(int(self.headers.get("Content-Length", "0")), LIMIT_BYTES)
            lines = list(lines_of(json.loads(self.rfile.read(size))))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._answer(400)
            return
        print(*lines, sep="\n", flush=True)
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        """Requests are not logged."""


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    ThreadingHTTPServer((host, int(port)), Receiver).serve_forever()
