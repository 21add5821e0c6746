"""`make jetson-deploy` and its kin over a real ssh, against boards that are played: each ends in the documented state."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import RedisServer

sys.path.insert(0, str(Path(__file__).parent))
from played_board import PlayedBoard
from toy_gateway import BoardStack

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "l4t" / "deploy.py"

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh client")


class Bench:
    """A gateway with a store, a played board, and the commands of a person between them."""

    def __init__(self, stack: BoardStack, folder: Path) -> None:
        self.stack = stack
        self._folder = folder
        self.board: PlayedBoard

    def play(self, kind: str) -> PlayedBoard:
        self.board = PlayedBoard(self._folder / "board", kind)
        return self.board

    def start(self, command: str, port: int | None = None, **settings: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "EDGEJOULE_STORE": self.stack.where,
            "EDGEJOULE_BROKER": self.stack.redis.url,
            "HOST": "jetson@127.0.0.1",
            "NAME": "nano",
            "GATEWAY": f"https://localhost:{self.stack.port}",
            "CA": str(self.stack.certificate),
            "SSH_OPTIONS": self.board.ssh_options(port),
            **settings,
        }
        return subprocess.Popen(
            [sys.executable, str(DEPLOY), command],
            env=environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, port: int | None = None, **settings: str) -> tuple[int, str]:
        process = self.start(command, port, **settings)
        said, _ = process.communicate(timeout=100)
        return process.returncode, said

    def deploy(self) -> str:
        code, said = self.run("deploy")
        assert code == 0, said
        return said

    def devices(self) -> dict[str, str]:
        """Name to state of its token."""
        command = [str(Path(sys.executable).with_name("edgejoule")), "devices", "list", "--json", "--store"]
        found = subprocess.run([*command, self.stack.where], capture_output=True, check=True).stdout
        return {device["name"]: device["token"] for device in json.loads(found)}


@pytest.fixture
def bench(redis_server: RedisServer, tmp_path: Path) -> Iterator[Bench]:
    redis_server.client().flushall()
    stack = BoardStack(tmp_path, redis_server)
    stack.gateway()
    bench = Bench(stack, tmp_path)
    yield bench
    bench.board.close()
    stack.close()


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("nano_jp4", "Jetson Nano 4 GB, L4T 32.7.1: image r32.7 on nvcr.io/nvidia/l4t-base:r32.7.1, Python 3.6"),
        (
            "orin_nano_jp6",
            "Jetson Orin Nano 8 GB, L4T 36.4.3: image r36.4 on nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime",
        ),
    ],
)
def test_board_goes_from_nothing_to_registered_to_removed(bench: Bench, kind: str, row: str) -> None:
    board = bench.play(kind)
    said = bench.deploy()
    assert row in said
    assert bench.devices() == {"nano": "valid"}
    (container,) = board.docker("containers").values()
    assert container["HostConfig"]["--runtime"] == ["nvidia"]
    token = board.folder / "docker" / "volumes" / "edgejoule-agent" / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text().strip()
    assert secret not in said
    assert secret not in (board.folder / "docker.log").read_text()
    assert not re.search(r"None|Traceback", said), said

    code, said = bench.run("status")
    assert code == 0, said
    assert "token valid, last heard of at 20" in said
    code, said = bench.run("logs")
    assert code == 0
    assert "serves this board" in said

    # run twice: nothing is made anew, and the agent is not disturbed
    before = board.docker("containers")
    said = bench.deploy()
    assert "image, token and container stand already" in said
    assert board.docker("containers") == before
    assert token.read_text().strip() == secret

    code, said = bench.run("remove", NAME="")
    assert code == 0, said
    assert board.is_untouched()
    assert bench.devices() == {"nano": "revoked"}
    code, said = bench.run("remove")
    assert code == 0
    assert "nothing of ours was there" in said
