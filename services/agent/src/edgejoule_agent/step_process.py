"""One step in a process of its own, as core's worker does it on the hosts; thin, and valid on Python 3.6.

``python -m edgejoule_agent.step_process <descriptor>`` reads one line of JSON, the request, on standard input and
writes JSON lines to the descriptor: ``{"progress": [done, total, unit]}`` and at last ``{"done": true}`` or
``{"error": {...}}``. Standard input stays open as the lifeline: when it ends, the agent is gone, and the step ends
with all it started.

:func:`run_step` is the agent's half.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from edgejoule_agent.errors import HostError, is_full_disk
from edgejoule_agent.isolate import give_way

Progress = Callable[[float, float, str], None]

GRACE_S = 3.0  # that a step may take to end when it is asked to
KILLED_S = 1.0  # for the dead to be gone; longer only where nobody reaps orphans
TICK_S = 0.2
PROGRESS_EVERY_S = 0.1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# OpenMP's threads wait asleep: spinning, they would take the processor from others
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
MESSAGE_CHARACTERS = 2000
OUTCOMES = ("unsupported", "failed", "oom", "throttled", "unreachable")
SENT_BY_PEOPLE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(Exception):
    """The step was stopped while under way; nothing of it counts."""


class Report(NamedTuple):
    """How an attempt ended."""

    outcome: str
    reason: Optional[str]
    transient: bool


class Limits(NamedTuple):
    """How long a step may take, and how long it may say nothing of its progress."""

    time_s: float
    silence_s: float


def run_step(
    request: Mapping[str, Any],
    log: str,
    limits: Limits,
    on_progress: Progress,
    stopping: Callable[[], bool],
    inherit: Sequence[int] = (),
) -> Report:
    """Carry out one attempt in a child process and wait for it.

    Args:
        request: ``module``, ``parameters``, ``inputs`` (name to path), ``outputs`` and ``scratch`` (folders).
        inherit: descriptors of locks that must last for as long as the child lives.

    Raises:
        Stopped: ``stopping`` turned true; the child is gone.
        HostError: the disk is full, or there are no processes to be had.
    """
    events, events_out = os.pipe()
    try:
        with open(log, "wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "edgejoule_agent.step_process", str(events_out)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[events_out, *inherit],
                start_new_session=True,
            )
    except OSError as error:
        os.close(events)
        raise HostError(f"the step's process cannot be started ({error}): free memory or disk") from error
    finally:
        os.close(events_out)
    try:
        with contextlib.suppress(BrokenPipeError):  # it is dead already; its exit code tells
            child.stdin.write(json.dumps(request).encode("utf-8") + b"\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
        return _follow(child, events, limits, on_progress, stopping)
    finally:
        _end(child)
        os.close(events)


def _follow(child: Any, events: int, limits: Limits, on_progress: Progress, stopping: Callable[[], bool]) -> Report:
    deadline = time.monotonic() + limits.time_s
    heard_at = time.monotonic()
    last: Dict[str, Any] = {}
    for event in _events(child, events):
        if event is not None and "progress" in event:
            heard_at = time.monotonic()
            on_progress(*event["progress"])
        elif event is not None:
            last = event
        elif stopping():
            raise Stopped
        elif time.monotonic() > deadline:
            return Report("failed", f"ran longer than its limit of {limits.time_s:g} s", True)
        elif time.monotonic() > heard_at + limits.silence_s:
            return Report("failed", f"hung: no progress for {limits.silence_s:g} s", True)
    return _report(last, child.wait())


def _events(child: Any, events: int) -> Iterator[Optional[Dict[str, Any]]]:
    """What the step says, and None at each tick; ends with the step, whoever else holds the pipe open."""
    pending = b""
    while True:
        alive = child.poll() is None
        readable = select.select([events], [], [], TICK_S if alive else 0)[0]
        if readable:
            chunk = os.read(events, 1 << 16)
            if not chunk:
                return
            lines = (pending + chunk).split(b"\n")
            pending = lines.pop()
            for line in lines:
                yield json.loads(line.decode("utf-8"))
        elif not alive:
            return
        yield None


def _report(last: Mapping[str, Any], exit_code: int) -> Report:
    """What the step's last word and its exit code come to."""
    error = last.get("error")
    if error:
        if error["full_disk"]:
            raise HostError("the disk is full ({}): make room".format(error["message"]))
        return Report(error["outcome"], error["message"], error["transient"])
    if exit_code == -signal.SIGKILL:
        reason = "the system killed the step, most likely because memory ran out: free memory, or give it less to do"
        return Report("oom", reason, True)
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return Report("failed", f"the step's process died of {name}", -exit_code in SENT_BY_PEOPLE)
    if exit_code != 0 or "done" not in last:
        return Report("failed", f"the step's process ended with exit code {exit_code} and no result", False)
    return Report("ok", None, False)


def _end(child: Any) -> None:
    """Leave nothing of the step's process group: first ask, then kill, then what it left behind."""
    if child.poll() is None:
        _signal_group(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    _signal_group(child, signal.SIGKILL)
    child.wait()
    gone_by = time.monotonic() + KILLED_S
    while _signal_group(child, 0) and time.monotonic() < gone_by:
        time.sleep(0.005)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


def _signal_group(child: Any, number: int) -> bool:
    """Whether there was anyone to signal; 0 only asks."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
        return True
    return False


# --- the step's half ---------------------------------------------------------------------------------


class Job:
    """What a step sees; the same as core's."""

    def __init__(self, request: Mapping[str, Any], progress: Progress) -> None:
        self.parameters = dict(request["parameters"])
        self.inputs = {name: Path(path) for name, path in request["inputs"].items()}
        self.scratch = Path(request["scratch"])
        self._folder = Path(request["outputs"])
        self._progress = progress

    def inputs_named(self, prefix: str) -> List[Path]:
        """Files of a numbered input (``images-000``, ``images-001``, ...), in order."""
        return [self.inputs[name] for name in sorted(self.inputs) if name.startswith(prefix + "-")]

    def read_json(self, name: str) -> Any:
        """The parsed JSON of input ``name``."""
        return json.loads(self.inputs[name].read_text(encoding="utf-8"))

    def output(self, name: str) -> Path:
        """Where to write output ``name``."""
        return self._folder / name

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as canonical JSON, so that equal records have equal hashes."""
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        self.output(name).write_text(text, encoding="utf-8")

    def progress(self, done: float, total: float, unit: str = "") -> None:
        """Say how far the step is; a hung step stops saying so."""
        self._progress(done, total, unit)


class _Left(BaseException):
    """SIGTERM came: unwind the step, so that it puts its house in order, then die of the signal."""


def main() -> None:
    """Carry out the request on standard input."""
    give_way()
    events = int(sys.argv[1])
    os.set_inheritable(events, False)
    request = json.loads(_first_line().decode("utf-8"))
    _hold_lifeline()
    signal.signal(signal.SIGTERM, _leave)
    threads = str(max(1, int(request["parameters"].get("threads") or 1)))
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, threads), **WAITING)  # before numpy and its kind come in
    said_at = [0.0]

    def progress(done: float, total: float, unit: str) -> None:
        now = time.monotonic()
        if now - said_at[0] >= PROGRESS_EVERY_S or done >= total:
            said_at[0] = now
            _say(events, {"progress": [float(done), float(total), unit]})

    try:
        importlib.import_module(request["module"]).run(Job(request, progress))
    except _Left:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the agent is told
        _say(events, {"error": _describe(error)})
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        sys.exit(1)
    _say(events, {"done": True})


def _first_line() -> bytes:
    """Read the request without buffering, so that the lifeline's end is left for its watcher."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 1 << 16)
        if not chunk:
            sys.exit("edgejoule_agent.step_process is started by the agent, with one line of JSON on standard input")
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


def _leave(number: int, frame: Any) -> None:
    raise _Left


def _describe(error: BaseException) -> Dict[str, Any]:
    """What an exception means for the step."""
    outcome = getattr(error, "outcome", None)
    expected = outcome in OUTCOMES
    if isinstance(error, MemoryError):
        outcome, message = "oom", "memory ran out: free memory, or give the step less to do"
    else:
        outcome = outcome if expected else "failed"
        message = str(error) if expected else f"{type(error).__name__}: {error}"
    return {
        "outcome": outcome,
        "message": message[:MESSAGE_CHARACTERS] or type(error).__name__,
        "transient": expected and bool(getattr(error, "transient", False)),
        "full_disk": is_full_disk(error),
    }


def _say(events: int, event: Mapping[str, Any]) -> None:
    os.write(events, json.dumps(event).encode("utf-8") + b"\n")


if __name__ == "__main__":
    main()
