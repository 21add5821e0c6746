"""The program ``edgejoule``, started once and forked for each call, for tests that call it many times.

``python started_once.py`` imports the command line and what its commands need, torch among it, which takes seconds.
Each call is a child of that process, with a folder, standard streams and an exit code of its own, that runs and ends as
the script ``edgejoule`` would. It is forked before any thread is there and before any command ran.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

TIMEOUT_S = 100
_PRELOADED = (
    *("edgejoule.executor", "edgejoule.matrix", "edgejoule.options", "edgejoule.progress", "edgejoule.reconcile"),
    *("edgejoule.records", "edgejoule.runs", "edgejoule.spec", "edgejoule.tables", "edgejoule.workspace"),
    *("edgejoule_analyst.commands", "edgejoule_trainer.data.commands", "edgejoule_trainer.model_commands"),
    *("edgejoule_trainer.weights.commands", "edgejoule_trainer.detectors.nanodet_m", "torch", "onnx"),
)


class StartedOnce:
    """The program in an environment; ends with the ``with`` block, or with this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def __enter__(self) -> StartedOnce:
        self._socket, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)  # one answer per read
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait()

    def run(self, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """``edgejoule`` with these arguments in a folder; as `subprocess.run` with its output captured.

        Raises:
            TimeoutExpired: it took longer than ``TIMEOUT_S``; it is gone.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            request = json.dumps([str(folder), list(arguments)]).encode()
            socket.send_fds(self._socket, [request], [out.fileno(), err.fileno()])
            child = self._answer()
            self._socket.settimeout(TIMEOUT_S)
            try:
                code = self._answer()
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                self._answer()
                raise subprocess.TimeoutExpired(["edgejoule", *arguments], TIMEOUT_S) from None
            finally:
                self._socket.settimeout(None)
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
        return subprocess.CompletedProcess(["edgejoule", *arguments], code, *said)

    def _answer(self) -> int:
        if not (line := self._socket.recv(64)):
            raise RuntimeError(f"the program that forks has ended with {self._process.wait()}")
        return int(line)


def _serve(requests: socket.socket) -> list[str]:
    """Fork for each request. Returns in the children alone, with what they are to do."""
    while True:
        request, streams, _, _ = socket.recv_fds(requests, 1 << 16, 2)
        if not request:
            raise SystemExit
        if len(os.listdir("/proc/self/task")) != 1:
            raise SystemExit("threads are there already: a fork would lose them")
        child = os.fork()
        if child == 0:
            requests.close()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
            folder, arguments = json.loads(request)
            os.chdir(folder)
            return list(arguments)
        for stream in streams:
            os.close(stream)
        requests.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def main() -> NoReturn:
    from edgejoule.cli import main as edgejoule

    del sys.path[0]  # the folder of this file, which the script does not see
    for name in _PRELOADED:
        importlib.import_module(name)
    sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv[0] = str(Path(sys.executable).with_name("edgejoule"))
    edgejoule()


if __name__ == "__main__":
    main()
