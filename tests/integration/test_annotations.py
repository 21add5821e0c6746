"""A Grafana is told where runs and cells begin and end, by the request of its documented API; nothing waits for it."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer, free_ports

sys.path.insert(0, str(Path(__file__).parent))
from toy_stack import Stack, toy

from edgejoule.errors import EdgejouleError
from edgejoule.plan import Cell, Plan
from edgejoule.stack.annotations import Annotations, annotations_of


class Grafana(http.server.ThreadingHTTPServer):
    """Takes annotations as Grafana's "Annotations API" has it: POST /api/annotations with a bearer token."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.status = 200
        self.told: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Grafana

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.status
        if self.path != "/api/annotations":
            status = 404
        elif self.headers["Authorization"] != f"Bearer {self.server.token}":
            status = 401
        elif self.headers["Content-Type"] != "application/json":
            status = 415
        else:
            self.server.told.append(json.loads(body))
        answer = b'{"message":"Annotation added","id":1}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    server = Grafana("glsa_of_a_test")
    yield server
    server.shutdown()
    server.server_close()


def test_a_run_and_its_cell_are_told_from_begin_to_end(
    grafana: Grafana, redis_server: RedisServer, tmp_path: Path
) -> None:
    redis_server.client().flushall()
    stack = Stack(tmp_path, redis_server)
    before_ms = 1000 * time.time()
    try:
        stack.conductor(EDGEJOULE_GRAFANA=grafana.url + "/", EDGEJOULE_GRAFANA_TOKEN=grafana.token)
        steps = [toy("first", ticks=20), toy("second", "first", ticks=20)]
        cell = Cell("toy", "toy", "base", "fp32", "nano", ("first", "second"))
        stack.submit(Plan({step.id: step for step in steps}, (cell,)))
        stack.worker()
        stack.finish()
        stack.wait_until(lambda: len(grafana.told) >= 4)
    finally:
        stack.close()
    texts = [each["text"] for each in grafana.told]
    assert texts[0] == "run test goes on"
    assert sorted(texts) == sorted(["run test goes on", f"{cell.name} begins", f"{cell.name}: ok", "run test: done"])
    for each in grafana.told:
        assert each.keys() == {"time", "tags", "text"}
        assert isinstance(each["time"], int)  # milliseconds since 1970
        assert before_ms - 1 <= each["time"] <= 1000 * time.time()
        assert each["tags"] == (
            ["edgejoule", "run"] if each["text"].startswith("run") else ["edgejoule", "cell", "device:nano"]
        )


@pytest.mark.parametrize("status", [401, 500, None])
def test_a_grafana_that_refuses_or_is_away_stops_nobody_and_is_said_once(
    grafana: Grafana, caplog: pytest.LogCaptureFixture, status: int | None
) -> None:
    grafana.status = status or 200
    url = grafana.url if status else f"http://127.0.0.1:{free_ports(1)[0]}"
    told = Annotations(url, grafana.token)
    began = time.monotonic()
    told.run_goes_on("a")
    told.run_ended("a", "done")
    assert time.monotonic() - began < 0.5
    told.wait()
    (said,) = caplog.messages
    assert said.startswith(f"Grafana at {url}/api/annotations gets no annotations: ")
    assert "glsa" not in said
    if status:
        grafana.status = 200
        told.run_ended("a", "done")
        told.wait()
        assert [each["text"] for each in grafana.told][-1] == "run a: done"
        assert len(caplog.messages) == 1


def test_a_grafana_that_hangs_holds_nobody_up(grafana: Grafana, caplog: pytest.LogCaptureFixture) -> None:
    held = threading.Event()
    grafana.finish_request = lambda *words: held.wait()  # type: ignore[method-assign]
    told = Annotations(grafana.url, grafana.token)
    began = time.monotonic()
    for number in range(1200):
        told.run_ended(str(number), "done")
    assert time.monotonic() - began < 1
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["it is too slow"]
    held.set()


def test_what_is_told_of_cells_are_their_boundaries(grafana: Grafana) -> None:
    told = Annotations(grafana.url, grafana.token)
    for before, state in (
        ("ok", "waiting"),
        ("waiting", "running"),
        ("running", "waiting"),
        ("waiting", "running"),
        ("running", "unsupported"),
        ("unsupported", "failed"),
    ):
        told.cell_changed("a/fp32/nano", "nano", before, state)
    told.wait()
    assert [each["text"] for each in grafana.told] == ["a/fp32/nano begins"] * 2 + ["a/fp32/nano: unsupported"]


def test_nobody_is_told_without_a_token_and_what_is_no_address_is_refused() -> None:
    assert annotations_of({}) is None
    assert annotations_of({"EDGEJOULE_GRAFANA": "http://grafana:3000", "EDGEJOULE_GRAFANA_TOKEN": "none"}) is None
    with pytest.raises(EdgejouleError, match="EDGEJOULE_GRAFANA is no address of a Grafana: write it as http"):
        annotations_of({"EDGEJOULE_GRAFANA": "grafana:3000", "EDGEJOULE_GRAFANA_TOKEN": "a"})
