"""A board over ssh: one connection of the system's ``ssh`` that all commands share. The rim of the deployment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

CHUNK_BYTES = 1 << 16
SAY_AFTER_S = 2.0
SAY_EVERY_S = 10.0


class Unreachable(Exception):
    """The board cannot be reached, or not any more."""


class Answer(NamedTuple):
    """What a command came to; ``text``: its stdout, and its stderr where the two were joined."""

    code: int
    text: str


class Board:
    """``with Board(host, options) as board``: connected within the block.

    Args:
        host: ``user@host``, or a name of the ssh configuration.
        options: more words for ssh.
    """

    def __init__(self, host: str, options: Sequence[str] = ()) -> None:
        # ssh takes an IPv6 address as it is, its zone behind %, and would look for a host named [fd00::1]
        found = re.fullmatch(
            r"([A-Za-z0-9_][\w.-]*@)?(?:\[([\da-fA-F:.]+(?:%\w+)?)\]|([A-Za-z0-9_:][\w.:%-]*))", host, re.ASCII
        )
        if not found:
            raise Unreachable(f"HOST={host!r} is no user@board")
        self.host = (found[1] or "") + (found[2] or found[3])
        self._options = [*options, "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
        self._options += ["-o", "ConnectTimeout=15"]
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._losses = 0

    def __enter__(self) -> Board:
        self._folder = tempfile.TemporaryDirectory(prefix="ej-")  # short: a socket's path has 104 characters at most
        log = Path(self._folder.name) / "log"
        # A master of its own, started first: one that a command leaves behind would hold that command's pipes open. It
        # asks for passwords and host keys on the terminal.
        with open(log, "wb") as errors:
            command = ["ssh", *self._options, "-S", self._socket, "-M", "-N", "-f", self.host]
            code = _call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        if code != 0:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            self.__exit__()
            raise Unreachable(f"{self.host} cannot be reached by ssh: {said[-1] if said else f'ssh ended with {code}'}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            _call(["ssh", "-S", self._socket, "-O", "exit", self.host], **quiet)
            self._folder.cleanup()
            self._folder = None

    @property
    def _socket(self) -> str:
        assert self._folder
        return str(Path(self._folder.name) / "s")

    def run(
        self,
        command: str,
        source: BinaryIO | None = None,
        say: Callable[[str], None] | None = None,
        join: bool = False,
    ) -> Answer:
        """Have the board's shell carry out a command.

        Args:
            source: what it reads; nothing if None.
            say: told each line that it prints, and now and then how far ``source`` is and that it still goes on.
            join: its stderr into its stdout.

        Raises:
            Unreachable: the connection broke before it ended.
        """
        if self._losses > 1:  # after one, ssh connects anew
            raise Unreachable(f"{self.host} stays out of reach")
        words = ["ssh", *self._options, "-S", self._socket, self.host, command]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if source is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if join else errors,
            start_new_session=True,  # ^C is for us alone
        )
        lines: list[str] = []
        reader = threading.Thread(target=_read, args=(process.stdout, lines, say), daemon=True)
        reader.start()
        try:
            with _Clock(say) as clock:
                if source is not None:
                    assert process.stdin
                    _send(source, process.stdin, clock)
                code = process.wait()
                reader.join()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            errors.seek(0)
            told = errors.read().decode("utf-8", "replace").strip()
            errors.close()
        self._losses = self._losses + 1 if code == 255 else 0
        if code == 255:  # ssh's own
            told = told or (lines[-1] if lines else "")
            raise Unreachable(f"the connection to {self.host} broke off{f' ({told.splitlines()[-1]})' if told else ''}")
        return Answer(code, "\n".join(lines if code == 0 or join else [*lines, *told.splitlines()]))


def _call(command: Sequence[str], **streams: object) -> int:
    """Run a command that may ask on the terminal; 127 where there is no such program."""
    try:
        return subprocess.run(command, check=False, **streams).returncode  # type: ignore[call-overload,no-any-return]
    except FileNotFoundError:
        raise Unreachable("there is no ssh here: install an OpenSSH client") from None


def _read(stream: BinaryIO, lines: list[str], say: Callable[[str], None] | None) -> None:
    for raw in stream:
        line = raw.decode("utf-8", "replace").rstrip()
        lines.append(line)
        if say is not None and line:
            say(line)


def _send(source: BinaryIO, stream: IO[bytes], clock: _Clock) -> None:
    """Hand everything over; a reader that does not want it all has its reasons, which its exit code tells."""
    try:
        while True:
            chunk = source.read(CHUNK_BYTES)
            if not chunk:
                break
            stream.write(chunk)
            clock.sent += len(chunk)
        stream.close()
    except BrokenPipeError:
        pass


class _Clock:
    """Says that something goes on, after two seconds and then every ten."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.sent = 0
        self._say = say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Clock:
        if self._say is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        began, pause = time.monotonic(), SAY_AFTER_S
        while not self._over.wait(pause):
            sent = f", {self.sent / 1e6:.0f} MB sent" if self.sent > 1e6 else ""
            assert self._say
            self._say(f"... {time.monotonic() - began:.0f} s{sent}")
            pause = SAY_EVERY_S


def tell(line: str) -> None:
    """A line for the person, at once."""
    sys.stdout.write(line + os.linesep)
    sys.stdout.flush()
