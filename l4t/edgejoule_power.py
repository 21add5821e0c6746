"""Root's part of a board's power modes: one request of the agent in its container, answered. Python 3.6, alone.

systemd starts it anew for each connection to the socket that only the agent's user may open (edgejoule-power.socket);
the connection is its standard input. A request is one line, its answer one line of JSON:

    modes       {"modes": [0, 1]}, the ids that /etc/nvpmodel.conf declares
    put on 1    {"code": 0, "said": "..."}, how ``nvpmodel -m 1`` ended and its last words

Anything else, and an id that is not declared, is answered {"error": "..."}. Nothing of a request reaches a shell or a
path; all that reaches nvpmodel is a number.

Who asks stays connected until the answer. One that is gone before nvpmodel begins was killed, and who came after it
may have put the mode from before back already, so nothing is done for it. One nvpmodel runs at a time, and holds the
lock itself.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List

CONF = "/etc/nvpmodel.conf"
LOCK = "/run/edgejoule-power.lock"
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"  # where L4T has nvpmodel
LONGEST = 32  # bytes of a request
ASKING_S = 5.0
PROGRAM_S = 60.0  # for nvpmodel, which takes a second or two, and for one from before to end


class Refused(Exception):
    """Why nothing came of it."""


def main() -> int:
    """Answer the request on standard input; the exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=0) as connection:
        connection.settimeout(ASKING_S)
        request, answer = b"", {}  # type: bytes, Dict[str, Any]
        try:
            request = connection.recv(LONGEST)
            answer = answer_to(request, connection)
        except (Refused, OSError) as error:
            answer = {"error": str(error)}
        line = json.dumps(answer)
        sys.stderr.write(f"{request!r}: {line}\n")
        sys.stderr.flush()  # before 3.9 a journal waits for the end otherwise
        with contextlib.suppress(OSError):  # nobody may be there any more
            connection.sendall(line.encode() + b"\n")
    return 0


def answer_to(request: bytes, connection: socket.socket) -> Dict[str, Any]:
    """Raises Refused."""
    if request == b"modes\n":
        return {"modes": declared()}
    asked = re.fullmatch(rb"put on (\d{1,6})\n", request)
    if asked is None:
        raise Refused("that is no request")
    number = int(asked.group(1))
    if number not in declared():
        raise Refused(f"{CONF} declares no mode {number}")
    program = shutil.which("nvpmodel", path=PROGRAMS)
    if program is None:
        raise Refused(f"there is no nvpmodel in {PROGRAMS}")
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    _take(lock)
    if _is_gone(connection):
        raise Refused("who asked is gone")
    return _run([program, "-m", str(number)], lock)


def declared() -> List[int]:
    """The ids of the modes that the board has, as the agent reads the same file (edgejoule_agent.jetson)."""
    with open(CONF, encoding="utf-8", errors="replace") as file:
        lines = file.read(1 << 20).splitlines()
    found = [re.match(r"\s*<\s*POWER_MODEL\s+([^>]*)>", line) for line in lines]
    modes = [dict(re.findall(r"(\w+)\s*=\s*(\S+)", line.group(1))) for line in found if line]
    return [int(mode["ID"]) for mode in modes if "NAME" in mode and re.fullmatch(r"[0-9]{1,6}", mode.get("ID", ""))]


def _take(lock: int) -> None:
    """Raises Refused: an nvpmodel from before holds it for longer than that takes."""
    until_s = time.monotonic() + PROGRAM_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until_s:
                raise Refused(f"an nvpmodel from before has not ended within {PROGRAM_S:.0f} s") from None
            time.sleep(0.1)


def _is_gone(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(ASKING_S)


def _run(command: List[str], lock: int) -> Dict[str, Any]:
    """Raises Refused."""
    with tempfile.TemporaryFile() as output:
        try:
            # standard input is empty: some modes ask whether to restart the board, and it must not
            code = subprocess.call(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": PROGRAMS},
                pass_fds=(lock,),
                timeout=PROGRAM_S,
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"nvpmodel did not end within {PROGRAM_S:.0f} s, and was killed") from None
        output.seek(max(0, output.seek(0, os.SEEK_END) - 4096))
        said = output.read().decode("utf-8", "replace").strip()
    return {"code": code, "said": said.split("\n")[-1][:200]}


if __name__ == "__main__":
    sys.exit(main())
