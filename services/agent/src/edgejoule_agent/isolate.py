"""Run one piece of work in a process of its own, under a memory and a time limit.

The child (``python -m edgejoule_agent.isolate module:function``) reads a JSON request on stdin and writes
JSON lines: ``{"progress": [done, total, unit]}`` and at last ``{"result": ...}``, ``{"error": ..., "message": ...}`` or
``{"full_disk": message}``.
A runtime that crashes, hangs or eats the memory takes only the child with it; whose next word of progress
to a parent that is gone ends it too.
"""

import contextlib
import errno
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Iterator, Mapping, Optional

import psutil

from edgejoule_agent import errors

Progress = Callable[[float, float, str], None]

POLL_S = 0.2  # often enough to stop a leak, rare enough not to disturb what is measured
OUT_OF_MEMORY_WORDS = (
    *("MemoryError", "bad_alloc", "Failed to allocate", "Cannot allocate memory"),
    *("cudaErrorMemoryAllocation", "Error Code 2: OutOfMemory"),  # CUDA's, TensorRT's
)


def run(
    task: str,
    request: Mapping[str, Any],
    progress: Progress,
    memory_limit_bytes: int,
    time_limit_s: float,
    waiting: Optional[Callable[[float], None]] = None,
    floor_bytes: int = 0,
) -> Any:
    """Call ``task`` (``module:function``) with ``(request, progress)`` in a child and return its JSON result.

    Args:
        waiting: called with the seconds that have passed, several times a second, for work that cannot tell its own
            progress.
        floor_bytes: of MemAvailable of the host, below which the child is ended.

    Raises:
        AgentError: the one the child raised.
        HostError: it found the disk full; its cause is an OSError that says so.
        OutOfMemoryError: the child grew over the limit, the host fell under the floor, or the kernel ended the child.
        TimeLimitError: it took longer than ``time_limit_s``.
        EngineError: it crashed; the message holds the signal or its last line on stderr.
    """
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "edgejoule_agent.isolate", task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        try:
            for message in _messages(child, task, request, memory_limit_bytes, time_limit_s, waiting, floor_bytes):
                if "progress" in message:
                    progress(*message["progress"])
                elif "full_disk" in message:
                    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    raise errors.HostError(f"{task}: {message['full_disk']}") from full
                elif "error" in message:
                    raise getattr(errors, message["error"])(message["message"])
                else:
                    return message["result"]
            raise _death(child.wait(), task, stderr)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _messages(
    child: Any,
    task: str,
    request: Mapping[str, Any],
    memory_limit_bytes: int,
    time_limit_s: float,
    waiting: Optional[Callable[[float], None]],
    floor_bytes: int,
) -> Iterator[Any]:
    """The child's JSON lines, until it closes its output; the limits are watched meanwhile."""
    start = time.monotonic()
    deadline = start + time_limit_s
    try:
        child.stdin.write(json.dumps(request).encode("utf-8"))
        child.stdin.close()
    except BrokenPipeError:
        return  # it died before it read; its exit status tells why
    descriptor, rest = child.stdout.fileno(), b""
    while True:
        if select.select([descriptor], [], [], POLL_S)[0]:
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield json.loads(line.decode("utf-8"))
        if _resident_bytes(child.pid) > memory_limit_bytes:
            raise errors.OutOfMemoryError(
                f"{task} grew over its limit of {memory_limit_bytes / 1e6:.0f} MB and was ended; "
                "free memory or take a smaller model"
            )
        if floor_bytes and psutil.virtual_memory().available < floor_bytes:
            raise errors.OutOfMemoryError(
                f"{task} was ended, since this host had less than {floor_bytes / 1e6:.0f} MB left; "
                "free memory or take a smaller model"
            )
        if waiting is not None:
            waiting(time.monotonic() - start)
        if time.monotonic() > deadline:
            raise errors.TimeLimitError(f"{task} took longer than its limit of {time_limit_s:.0f} s and was ended")


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it has just ended; its exit status tells the rest
        return 0


def _death(status: int, task: str, stderr: Any) -> errors.AgentError:
    """The error for a child that ended without a result."""
    stderr.seek(0)
    said = stderr.read().decode("utf-8", "replace").strip()
    last = said.split("\n")[-1][:300]
    if any(word in said for word in OUT_OF_MEMORY_WORDS):
        return errors.OutOfMemoryError(f"{task} ran out of memory: {last}; free memory or take a smaller model")
    if status == -signal.SIGKILL:
        return errors.OutOfMemoryError(f"{task} was killed (signal 9), as the kernel does when memory runs out")
    if status < 0:
        return errors.EngineError(
            f"{task} crashed with {signal.Signals(-status).name}; it last said: {last or 'nothing'}"
        )
    return errors.EngineError(f"{task} ended with status {status}: {last or 'it said nothing'}")


def give_way() -> None:
    """Have the kernel end this process first where memory runs out: a step can begin anew, the agent tells of it.

    So an engine whose memory the GPU holds costs itself, not a neighbour (proc(5), oom_score_adj).
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def main() -> None:
    """The child's side."""
    give_way()
    # what runtimes print on stdout must not mix with our lines
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    def progress(done: float, total: float, unit: str) -> None:
        send({"progress": [done, total, unit]})

    module, function = sys.argv[1].split(":")
    request = json.loads(sys.stdin.read())
    try:
        send({"result": getattr(importlib.import_module(module), function)(request, progress)})
    except Exception as error:
        if errors.is_full_disk(error):
            send({"full_disk": str(error)})
        elif isinstance(error, errors.AgentError):
            send({"error": type(error).__name__, "message": str(error)})
        else:
            raise


if __name__ == "__main__":
    main()
