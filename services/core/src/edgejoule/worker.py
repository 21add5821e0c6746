"""One step in a process of its own, so that no crash, leak or stray thread of it reaches anything else.

``python -m edgejoule.worker <descriptor>`` reads one line of JSON, the request, on standard input and
writes JSON lines to the descriptor: ``{"progress": [done, total, unit]}`` and at last ``{"done": true}`` or
``{"error": {...}}``. What the step prints goes to its log. Standard input stays open as the lifeline: when
it ends, the parent is gone, and the worker ends its whole process group. (A parent-death signal would
reach only the worker, not what it started.)

:func:`run_worker` is the parent's half.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from edgejoule.errors import OutOfMemoryError, StepError, StoreError, TimeLimitError
from edgejoule.job import Job, Progress

if TYPE_CHECKING:  # pydantic would double the time that a worker takes to start
    from edgejoule.records import Status

GRACE_S = 3.0
"""How long a worker that was asked to end may take before it is made to."""
KILLED_S = 1.0
"""How long the killed may take to be gone; they take longer only where nobody reaps orphans."""

_TICK_S = 0.2
_PROGRESS_EVERY_S = 0.1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# OpenMP's threads spin for some microseconds, then wait asleep. Spinning for long, as they would, two of them trained
# 13 times as slowly beside other work; asleep at once, up to 1.8 times as slowly on an idle machine.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
_MESSAGE_CHARACTERS = 2000  # the whole of it is in the log
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# Of NumPy, whose errors have no errno: where room is asked for beforehand, and where a write is cut short. The agent
# has the same, as neither may import the other.
_FULL_DISK_WORDS = re.compile(r"Not enough free space to write|\d+ requested and \d+ written")
_OUTCOMES = ("unsupported", "failed", "oom", "throttled", "unreachable")


class Stopped(Exception):
    """The run was stopped while the step was under way; nothing of it counts."""


@dataclass(frozen=True)
class Request:
    """One attempt at one step: its module, and what :class:`~edgejoule.job.Job` needs."""

    module: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    outputs: str
    scratch: str


@dataclass(frozen=True)
class Report:
    """How an attempt ended."""

    outcome: Status
    reason: str | None = None
    transient: bool = False


def threads_of(parameters: Mapping[str, Any]) -> int:
    """How many threads a step with these parameters uses.

    >>> threads_of({}), threads_of({"threads": 2})
    (1, 2)
    """
    return max(1, int(parameters.get("threads") or 1))


# --- the parent's half -----------------------------------------------------------------------------


def run_worker(
    request: Request,
    *,
    log: Path,
    time_limit_s: float,
    silence_limit_s: float,
    on_progress: Progress,
    stopping: Callable[[], bool],
    inherit: Sequence[int] = (),
) -> Report:
    """Carry out one attempt in a child process and wait for it.

    Args:
        silence_limit_s: a step that says nothing of its progress for so long hangs.
        inherit: descriptors of locks that must outlast this process for as long as the child lives.

    Raises:
        Stopped: ``stopping`` turned true; the child is gone.
        StoreError: the disk is full.
        StepError: the system gives no process.
    """
    events, events_out = os.pipe()
    try:
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-u", "-X", "faulthandler", "-m", "edgejoule.worker", str(events_out)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(events_out, *inherit),
                start_new_session=True,
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # nothing in the user's folder may pose as a module
            )
    except OSError as error:
        os.close(events)
        raise StepError(f"the step's process cannot be started ({error}): free memory or disk and run again") from error
    finally:
        os.close(events_out)
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # the child is dead already; its exit code tells
            process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            process.stdin.flush()
        return _follow(process, events, time_limit_s, silence_limit_s, on_progress, stopping)
    finally:
        _end(process)
        os.close(events)


def _follow(
    process: subprocess.Popen[bytes],
    events: int,
    time_limit_s: float,
    silence_limit_s: float,
    on_progress: Progress,
    stopping: Callable[[], bool],
) -> Report:
    deadline = time.monotonic() + time_limit_s
    heard_at = time.monotonic()
    last: dict[str, Any] = {}
    for event in _events(process, events):
        if event is not None and "progress" in event:
            heard_at = time.monotonic()
            on_progress(*event["progress"])
        elif event is not None:
            last = event
        elif stopping():
            raise Stopped
        elif time.monotonic() > deadline:
            return Report("failed", f"ran longer than its limit of {time_limit_s:g} s", TimeLimitError.transient)
        elif time.monotonic() > heard_at + silence_limit_s:
            return Report("failed", f"hung: no progress for {silence_limit_s:g} s", TimeLimitError.transient)
    return _report(last, process.wait())


def _events(process: subprocess.Popen[bytes], events: int) -> Iterator[dict[str, Any] | None]:
    """What the worker says, and None at each tick; ends with the worker, whoever else holds the pipe open."""
    pending = b""
    while True:
        alive = process.poll() is None
        readable, _, _ = select.select([events], [], [], _TICK_S if alive else 0)
        if readable:
            if not (chunk := os.read(events, 1 << 16)):
                return
            *lines, pending = (pending + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines)
        elif not alive:
            return
        yield None


def _report(last: dict[str, Any], exit_code: int) -> Report:
    """What the worker's last word and its exit code come to."""
    if error := last.get("error"):
        if error["full_disk"]:
            raise StoreError(f"the disk is full ({error['message']}): make room and run again; finished steps are kept")
        return Report(error["outcome"], error["message"], error["transient"])
    if exit_code == -signal.SIGKILL:
        return Report(
            "oom",
            "the system killed the step, most likely because memory ran out: free memory, or give it less to do",
            OutOfMemoryError.transient,
        )
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return Report("failed", f"the step's process died of {name}", transient=-exit_code in _SENT_BY_PEOPLE)
    if exit_code != 0 or "done" not in last:
        return Report("failed", f"the step's process ended with exit code {exit_code} and no result")
    return Report("ok")


_SENT_BY_PEOPLE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the worker's process group: first ask, then kill, then what it left behind."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    gone_by = time.monotonic() + KILLED_S
    while _signal_group(process, 0) and time.monotonic() < gone_by:
        time.sleep(0.005)
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Whether there was anyone to signal; 0 only asks."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
        return True
    return False


# --- the child's half ------------------------------------------------------------------------------


def main() -> None:
    """Carry out the request on standard input."""
    events = int(sys.argv[1])
    os.set_inheritable(events, False)
    request = Request(**json.loads(_first_line()))
    _hold_lifeline()
    signal.signal(signal.SIGTERM, _leave)
    threads = str(threads_of(request.parameters))
    os.environ.update({**dict.fromkeys(_THREAD_VARIABLES, threads), **_WAITING})  # before numpy and its kind come in
    try:
        module = importlib.import_module(request.module)
        module.run(_job(request, events))
    except _Left:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
        _say(events, {"error": _describe(error)})
        with suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        sys.exit(1)
    _say(events, {"done": True})


class _Left(BaseException):
    """SIGTERM came: unwind the step, so that it puts its house in order, then die of the signal."""


def _first_line() -> bytes:
    """Read the request without buffering, so that the lifeline's end is left for its watcher."""
    line = b""
    while not line.endswith(b"\n"):
        if not (chunk := os.read(0, 1 << 16)):
            sys.exit("edgejoule.worker is started by edgejoule, with one line of JSON on standard input")
        line += chunk
    return line


def _hold_lifeline() -> None:
    """Watch what was standard input from a thread; the step's own standard input is empty."""
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        while os.read(lifeline, 1):
            continue
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise _Left


def _job(request: Request, events: int) -> Job:
    said_at = 0.0

    def progress(done: float, total: float, unit: str) -> None:
        nonlocal said_at
        now = time.monotonic()
        if now - said_at >= _PROGRESS_EVERY_S or done >= total:
            said_at = now
            _say(events, {"progress": [float(done), float(total), unit]})

    inputs = {name: Path(path) for name, path in request.inputs.items()}
    return Job(request.parameters, inputs, Path(request.outputs), Path(request.scratch), progress)


def _describe(error: BaseException) -> dict[str, Any]:
    """What an exception means for the step; the agent's errors carry the same two attributes as ours."""
    outcome = getattr(error, "outcome", None)
    expected = outcome in _OUTCOMES
    if isinstance(error, MemoryError):
        outcome, message = "oom", "memory ran out: free memory, or give the step less to do"
    else:
        outcome = outcome if expected else "failed"
        message = str(error) if expected else f"{type(error).__name__}: {error}"
    return {
        "outcome": outcome,
        "message": message[:_MESSAGE_CHARACTERS],
        "transient": expected and bool(getattr(error, "transient", False)),
        "full_disk": _is_full_disk(error),
    }


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether the error, or one that it came of, is a full disk: the host's fault, not the step's."""
    if error is None:
        return False
    if isinstance(error, OSError) and (error.errno in _FULL_DISK or _FULL_DISK_WORDS.match(str(error))):
        return True
    return _is_full_disk(error.__cause__ or error.__context__)


def _say(events: int, event: dict[str, Any]) -> None:
    os.write(events, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    main()
