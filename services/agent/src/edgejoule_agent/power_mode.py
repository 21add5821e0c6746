"""A Jetson's power mode: put on for a measurement that asks for it, and back afterwards, also after a crash.

NVIDIA's program ``nvpmodel`` changes it (``-m ID``, for root), and keeps it over restarts of the board in
/var/lib/nvpmodel/status (L4T's guide, "Platform Power and Performance"). So what to put back is written to a file in
the agent's folder before anything is changed, and goes only once it is back: :func:`put_back` at the agent's start,
after each of its jobs and before each measurement finds what a killed process left.

Where it was killed in the middle of nvpmodel, the status may still name the mode from before while the clocks are the
other's: nothing tells, so nvpmodel is called then too.

An agent in a container has neither root's rights nor the program. Where EDGEJOULE_POWER_SOCKET names a socket, the
board's root runs nvpmodel behind it (l4t/edgejoule_power.py), one at a time, also those of an agent that was killed.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import socket
import subprocess
import time
from typing import Any, Dict, Iterator, Optional, Tuple

from edgejoule_agent import jetson
from edgejoule_agent.errors import HostError, UnsupportedError

PROGRAM_S = 60.0  # it takes a second or two
SETTLE_S = 10.0  # for its status file to say so
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"  # where L4T has it; a service's PATH may lack sbin
FILE = "power-mode.json"
SOCKET = "EDGEJOULE_POWER_SOCKET"
ANSWER_S = 140.0  # more than what is behind the socket takes: a minute for its turn, a minute for nvpmodel

_log = logging.getLogger("edgejoule-agent")


def state_folder() -> str:
    """The agent's folder: what it must not forget."""
    return os.environ.get("EDGEJOULE_AGENT_STATE") or os.path.expanduser("~/.edgejoule-agent")


@contextlib.contextmanager
def held(name: str, folder: str, root: str = "/") -> Iterator[None]:
    """Have power mode ``name`` on within the block; nothing is changed where it is on already.

    Args:
        folder: of the agent's own, for what to put back.

    Raises:
        UnsupportedError: there is no such mode, or this process may not or cannot put it on.
        HostError: nvpmodel did not do it.
    """
    put_back(folder, root)
    try:
        modes = {mode: number for number, mode in jetson.power_modes(root).names.items()}
        before, _ = jetson.power_mode(root)
    except jetson.Unknown as reason:
        raise UnsupportedError(f"power mode {name} was asked for, and this device has none ({reason})") from None
    if name not in modes:
        raise UnsupportedError(f"power mode {name} was asked for, and this board has {', '.join(sorted(modes))}")
    if before == name:
        yield
        return
    asked = f"power mode {name} was asked for, and {before} is on"
    by_hand = f"put it on by hand (sudo nvpmodel -m {modes[name]}), then measure again"
    refusal = why_not()
    if refusal:
        raise UnsupportedError(f"{asked}: {refusal}, or {by_hand}")
    if (jetson.probe(root) or {}).get("clocks_locked"):
        raise UnsupportedError(f"{asked}: jetson_clocks has locked the clocks, and a change would undo that; {by_hand}")
    _write(folder, {"put_back": before, "put_on": name})
    try:
        with _changing(folder) as lock:
            _put_on(name, root, lock)
        yield
    finally:
        put_back(folder, root)


def why_not() -> Optional[str]:
    """Why this process cannot put a power mode on, and what lets it; None if it can, where the board has modes."""
    if os.environ.get(SOCKET):
        try:
            _ask("modes")
        except HostError as error:
            return f"{error}; see systemctl status edgejoule-power.socket on the board"
        return None
    in_container = "make jetson-deploy POWER_MODES=1 lets one in a container"
    if os.geteuid() != 0:
        return f"only root may change it, and the agent is not root; {in_container}"
    if shutil.which("nvpmodel", path=PROGRAMS) is None:
        return f"the program nvpmodel is not here, as in a container; {in_container}"
    return None


def put_back(folder: str, root: str = "/") -> None:
    """Put back the mode that a measurement found, if it has not been; a mode that others put on since stays.

    One that this board does not have any more cannot be, which is logged, and then it is forgotten.

    Raises:
        HostError: nvpmodel does not do it; the message names the file that keeps it.
    """
    path = os.path.join(folder, FILE)
    kept = _read(path)
    if kept is None:
        return
    wanted = kept["put_back"]
    try:
        with _changing(folder) as lock:
            if _is_gone(wanted, root):
                _log.warning("%s: there is no power mode %s to put back on this board any more; dropped", path, wanted)
            elif _on(root) in (kept["put_on"], wanted, None):
                _put_on(wanted, root, lock)
                _log.info("power mode %s is on again", wanted)
    except HostError as error:
        raise HostError(f"{error} (it is to be put back, says {path})") from error
    os.unlink(path)


@contextlib.contextmanager
def _changing(folder: str) -> Iterator[int]:
    """The right to run nvpmodel, as a lock on the folder that nvpmodel inherits: it may outlive who called it.

    Raises:
        HostError: another one is at it for longer than that takes.
    """
    until_s = time.monotonic() + PROGRAM_S
    lock = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise HostError(f"an nvpmodel from before has not ended within {PROGRAM_S:.0f} s") from None
                time.sleep(0.1)
        yield lock
    finally:
        os.close(lock)


def _put_on(name: str, root: str, lock: int) -> None:
    """Raises HostError."""
    try:
        modes = jetson.power_modes(root).names
    except jetson.Unknown as reason:
        raise HostError(f"power mode {name} cannot be put on: {reason}") from None
    wanted = [number for number, mode in modes.items() if mode == name]
    if not wanted:
        raise HostError(f"power mode {name} cannot be put on: that mode is not here any more")
    named_before = _on(root) == name
    try:
        code, last = _nvpmodel(wanted[0], lock)
    except HostError as error:
        raise HostError(f"power mode {name} cannot be put on: {error}") from error
    by_hand = f"put it on by hand (sudo nvpmodel -m {wanted[0]}; some modes take a restart of the board)"
    if named_before and code != 0:  # the status cannot tell whether it did it
        raise HostError(
            f"power mode {name} did not come on: nvpmodel ended with {code} and last said: {last}; {by_hand}"
        )
    until_s = time.monotonic() + SETTLE_S
    while _on(root) != name:
        if time.monotonic() > until_s:
            raise HostError(
                f"power mode {name} did not come on within {SETTLE_S:.0f} s; nvpmodel last said: {last}; {by_hand}"
            )
        time.sleep(0.1)


def _nvpmodel(number: int, lock: int) -> Tuple[int, str]:
    """Have a mode put on: nvpmodel's exit code and last words. Raises HostError: it did not run to its end."""
    if os.environ.get(SOCKET):
        answer = _ask(f"put on {number}")
        return answer["code"], answer["said"] or "nothing"
    program = shutil.which("nvpmodel", path=PROGRAMS)
    if program is None:
        raise HostError("nvpmodel is not here any more")
    try:
        # standard input is empty: some modes ask whether to restart the board, and it must not
        done = subprocess.run(
            [program, "-m", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROGRAM_S,
            check=False,
            pass_fds=(lock,),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(str(error)) from error
    return done.returncode, done.stdout.decode("utf-8", "replace").strip().split("\n")[-1][:200] or "nothing"


def _ask(request: str) -> Dict[str, Any]:
    """What the board's root answers behind the socket. Raises HostError."""
    path = os.environ[SOCKET]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(path)
            connection.sendall(request.encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline(4096)
    except OSError as error:
        raise HostError(f"the board's root does not answer at {path} ({error.strerror or error})") from error
    try:
        answer: Dict[str, Any] = json.loads(line.decode())
    except ValueError:
        raise HostError(f"the board's root broke off at {path}, and may have begun") from None
    if "error" in answer:
        raise HostError(f"the board's root says: {answer['error']}")
    return answer


def _on(root: str) -> Optional[str]:
    """The mode that the status names, or None."""
    with contextlib.suppress(jetson.Unknown):
        return jetson.power_mode(root)[0]
    return None


def _is_gone(name: str, root: str) -> bool:
    """Whether the board declares its modes and this is none of them."""
    with contextlib.suppress(jetson.Unknown):
        return name not in jetson.power_modes(root).names.values()
    return False


def _read(path: str) -> Optional[Dict[str, Any]]:
    """What to put back, or None; a file that is none is left by nobody of ours, and goes."""
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        if isinstance(kept, dict) and {"put_back", "put_on"} <= set(kept):
            return kept
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        pass
    _log.warning("%s cannot be read, so no power mode is put back: see sudo nvpmodel -q", path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return None


def _write(folder: str, kept: Dict[str, str]) -> None:
    """Write it whole or not at all, safe from a loss of power. Raises HostError."""
    path = os.path.join(folder, FILE)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(f"the folder {folder} cannot be used ({error.strerror}): no power mode is changed") from error
