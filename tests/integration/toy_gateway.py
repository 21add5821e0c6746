"""A stack with a gateway and boards, each a process of its own, and a network between them that can be cut."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from network import Network
from servers import RedisServer, free_ports
from toy_stack import QUICK, TOYS, Stack

sys.path.insert(0, str(TOYS))
from run_toy_stack import MODULES

from edgejoule.boards import new_token, register
from edgejoule.kinds import Kinds
from edgejoule.plan import Ref, Step, step_key
from edgejoule.reconcile import Ready
from edgejoule.stack.app import Sender
from edgejoule.stack.coordination import Timing
from edgejoule.stack.messages import StepMessage, make_message, queue_of
from edgejoule_gateway.certificate import make_certificate

LIMITS = {"poll_s": 5.0, "report_every_s": 0.3, "silence_s": 3.0, "registry_s": 0.3, "spare_bytes": 0}


HELLO = {
    "agent": "0.1.0",
    "kinds": {"on-board": 1, "build": 2, "benchmark": 2, "predict": 2},
    "hardware": {"processor": "a toy"},
    "environment": {"kernel": "6.1"},
}
KINDS = Kinds(MODULES)


def on_board(id: str, *upstream: str, **parameters: Any) -> Step:
    """A toy step for the board ``nano``."""
    inputs = {f"from-{name}": Ref(name, "text") for name in upstream}
    return Step(id, "on-board", {"name": id, "device": "nano", **parameters}, inputs)


class BoardStack(Stack):
    """A stack whose gateway has the certificate ``gateway.crt``, and is reached over ``network``."""

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        *,
        timing: Timing = QUICK,
        store: str | None = None,
        limits: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(folder, redis, timing=replace(timing, lease_s=3.0), store=store)
        self.certificate, self.key = folder / "gateway.crt", folder / "gateway.key"
        make_certificate(["localhost", "127.0.0.1"], self.certificate, self.key)
        (self.port,) = free_ports(1)
        self.network = Network(self.port)
        self._environment["TOY_LIMITS"] = json.dumps({**LIMITS, **(limits or {})})
        self._environment["TOY_TIMING"] = json.dumps(asdict(replace(timing, lease_s=3.0)))

    def gateway(self, **environment: str) -> subprocess.Popen[bytes]:
        script = str(TOYS / "run_toy_gateway.py")
        arguments = [self.where, self.redis.url, str(self.port), str(self.certificate), str(self.key)]
        process = self._run("gateway", [sys.executable, script, *arguments], **environment)
        self.wait_until(self._listens)
        return process

    def board(self, name: str = "nano", python: str = sys.executable, **environment: str) -> subprocess.Popen[bytes]:
        """An agent with a token of its own, which it keeps over restarts."""
        token = self.folder / f"{name}.token"
        if not token.exists():
            token.write_text(new_token(name))
            register(name, token.read_text(), self.store)
        arguments = ["--gateway", f"https://localhost:{self.network.port}", "--token-file", str(token)]
        arguments += ["--ca", str(self.certificate), "--state", str(self.state_of(name))]
        return self._run("board", [python, str(TOYS / "run_toy_agent.py"), *arguments], **environment)

    def offer(self, step: Step, inputs: dict[str, str] | None = None, device: str | None = None) -> StepMessage:
        """Send a step as the conductor does; ``device``: that of its row, for a kind whose steps do not name one."""
        kind = KINDS[step.kind]
        key = step_key(step.kind, kind.version, step.parameters, inputs or {})
        message = make_message(step, kind.version, Ready(key, inputs or {}), uuid4().hex)
        assert self.coordination.claim({key: message.claim}) == [key]
        sender = Sender(self.redis.url)
        sender.send(message, queue_of(step, kind, device))
        sender.close()
        return message

    def client(self, name: str = "nano") -> Client:
        """Someone who holds the token of a board, said hello and can do toys, builds, benchmarks and predictions."""
        token = new_token(name)
        register(name, token, self.store)
        client = Client(self, token)
        self.wait_until(lambda: client.ask("/v1/hello", HELLO)[0] == 200)
        return client

    def state_of(self, name: str = "nano") -> Path:
        return self.folder / f"state-{name}"

    def close(self) -> None:
        self.network.close()
        super().close()

    def _run(self, role: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        number = len(self._processes)
        with open(self.folder / f"{role}{number}.log", "wb") as log:
            process = subprocess.Popen(command, env={**self._environment, **environment}, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Client:
    """Whoever speaks to the gateway, by a connection for each request."""

    def __init__(self, stack: BoardStack, token: str) -> None:
        self._port = stack.port
        self._context = ssl.create_default_context(cafile=str(stack.certificate))
        self.token = token
        self.device = token.partition(".")[0]

    def connect(self) -> ssl.SSLSocket:
        """A bare connection."""
        plain = socket.create_connection(("localhost", self._port), 10)
        return self._context.wrap_socket(plain, server_hostname="localhost")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPSConnection("localhost", self._port, timeout=20, context=self._context)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()

    def ask(self, path: str, message: object = None) -> tuple[int, Any]:
        """The status and the parsed answer to a message."""
        status, body, _ = self.request("POST", path, json.dumps(message or {}).encode())
        return status, json.loads(body) if body else None

    def job(self) -> dict[str, Any]:
        """The next job, of which there is one."""
        status, job = self.ask("/v1/job")
        assert status == 200, job
        return cast("dict[str, Any]", job)

    def result(self, job: str, outputs: dict[str, bytes], **fields: object) -> tuple[int, Any]:
        """Hand in a result with these outputs, of which nothing is sent yet."""
        blobs = {name: {"sha256": sha256(data), "size_bytes": len(data)} for name, data in outputs.items()}
        result = {"outcome": "ok", "reason": None, "transient": False, "duration_s": 1.5, "log": None, "outputs": blobs}
        return self.ask(f"/v1/jobs/{job}/result", {**result, **fields})

    def upload(self, job: str, name: str, data: bytes, offset: int = 0) -> int:
        """Send (the rest of) a file; the status."""
        headers = {"Upload-Offset": str(offset)}
        return self.request("PUT", f"/v1/jobs/{job}/files/{name}", data[offset:], headers)[0]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """End a process and wait for it."""
    process.send_signal(number)
    process.wait(20)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
