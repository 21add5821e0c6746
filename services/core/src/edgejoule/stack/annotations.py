"""Where runs and cells begin and end, told to a Grafana as annotations, where one is named.

A view of a view: nothing waits for it, and a Grafana that is away or refuses costs a line in the log. One request of
the documented HTTP API ("Annotations API", create annotation) is all that is needed, by the standard library; why by no
client of Grafana's, ADR 16 says.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from edgejoule.errors import EdgejouleError

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # with a Grafana that does not answer
_WAITING = 1000  # annotations that may wait for it; more are dropped
_FEW = ("waiting", "running")  # states of a cell in which nothing has ended


class Annotations:
    """Tells a Grafana, from a thread of its own.

    Args:
        url: its address, as http://grafana:3000.
        token: of a service account that may write annotations.
    """

    def __init__(self, url: str, token: str) -> None:
        self._address = f"{url.rstrip('/')}/api/annotations"
        self._token = token
        self._waiting: queue.Queue[tuple[float, str, tuple[str, ...]]] = queue.Queue(_WAITING)
        self._failed = False
        self._begun: set[str] = set()
        threading.Thread(target=self._send_on, name="annotations", daemon=True).start()

    def run_goes_on(self, run: str) -> None:
        """A run was taken up; told once."""
        if run not in self._begun:
            self._begun.add(run)
            self._tell(f"run {run} goes on", "run")

    def run_ended(self, run: str, end: str) -> None:
        self._begun.discard(run)
        self._tell(f"run {run}: {end}", "run")

    def cell_changed(self, name: str, device: str, before: str, state: str) -> None:
        """A cell went from one state to another; told when it begins and when it ends."""
        if state == "running" and before == "waiting":
            self._tell(f"{name} begins", "cell", f"device:{device}")
        elif state not in _FEW and before in _FEW:
            self._tell(f"{name}: {state}", "cell", f"device:{device}")

    def wait(self) -> None:
        """Until all has been told, or given up."""
        self._waiting.join()

    def _tell(self, text: str, *tags: str) -> None:
        try:
            self._waiting.put_nowait((time.time(), text, ("edgejoule", *tags)))
        except queue.Full:
            self._note("it is too slow")

    def _send_on(self) -> None:
        while True:
            at_s, text, tags = self._waiting.get()
            try:
                self._send({"time": round(1000 * at_s), "tags": tags, "text": text})
                self._failed = False
            except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
                self._note(str(error))
            finally:
                self._waiting.task_done()

    def _send(self, message: Mapping[str, object]) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._address, json.dumps(message).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            answer.read()

    def _note(self, reason: str) -> None:
        """Say so once, until it works again."""
        if not self._failed:
            self._failed = True
            _log.warning("Grafana at %s gets no annotations: %s", self._address, reason)


def annotations_of(environment: Mapping[str, str]) -> Annotations | None:
    """By the settings; None where no Grafana is named, or no token is given.

    Raises:
        EdgejouleError: what is named is no address.
    """
    url, token = environment.get("EDGEJOULE_GRAFANA"), environment.get("EDGEJOULE_GRAFANA_TOKEN")
    if not url or token in (None, "", "none"):
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EdgejouleError("EDGEJOULE_GRAFANA is no address of a Grafana: write it as http://grafana:3000")
    return Annotations(url, str(token))
