"""A step kind for tests: its parameters say what it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

VERSION = 1
QUEUE = "evaluate"
EXCLUSIVE = False
OUTPUTS = ("text",)
SOURCES = ()


class UnsupportedByToyError(Exception):
    """As the agent's own: no class of ours, the same two attributes."""

    outcome = "unsupported"
    transient = False


class FlakyError(Exception):
    outcome = "failed"
    transient = True


def run(job: Any) -> None:
    began = time.time()
    sys.stdout.write("noise \x1b[2J on standard output\n")
    sys.stderr.write("noise on standard error\n")
    parameters = job.parameters
    for tick in range(int(parameters.get("ticks", 0))):
        job.progress(tick + 1, parameters["ticks"], "ticks")
        time.sleep(0.02)
    DEEDS[parameters.get("do", "join")](job)
    if diary := parameters.get("diary"):
        with open(diary, "a") as file:
            file.write(f"{parameters['name']} {began} {time.time()}\n")


def join(job: Any) -> None:
    texts = [job.inputs[name].read_text() for name in sorted(job.inputs)]
    job.output("text").write_text("+".join([str(job.parameters.get("name", "")), *texts]))


def constant(job: Any) -> None:
    job.output("text").write_text("constant")


def nothing(job: Any) -> None:
    pass


def link(job: Any) -> None:
    job.output("text").symlink_to("/etc/hostname")


def unsupported(job: Any) -> None:
    raise UnsupportedByToyError("the toy has no INT8")


def crash(job: Any) -> None:
    raise ValueError("a bug in the toy")


def flaky(job: Any) -> None:
    """Fails until it was tried ``parameters['until']`` times; its scratch folder counts."""
    tries = job.scratch / "tries"
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if len(tries.read_text()) < job.parameters["until"]:
        raise FlakyError("not yet")
    join(job)


def full_disk(job: Any) -> None:
    with open("/dev/full", "w") as file:
        file.write("x")


def full_disk_of_numpy(job: Any) -> None:
    import numpy as np

    np.zeros(1 << 20).tofile("/dev/full")


def full_disk_once(job: Any) -> None:
    marker = Path(job.parameters["marker"])
    if not marker.exists():
        marker.touch()
        full_disk(job)
    join(job)


def crash_once(job: Any) -> None:
    marker = Path(job.parameters["marker"])
    if not marker.exists():
        marker.touch()
        crash(job)
    join(job)


def killed(job: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(job: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(job: Any) -> None:
    os._exit(0)


def memory(job: Any) -> None:
    raise MemoryError


def threads(job: Any) -> None:
    job.output("text").write_text(os.environ["OMP_NUM_THREADS"])


def sleep(job: Any) -> None:
    """Sleeps, and has a child that would sleep on for long; writes both process ids down first."""
    child = subprocess.Popen(["sleep", "300"])
    Path(job.parameters["pids"]).write_text(f"{os.getpid()} {child.pid}")
    try:
        time.sleep(job.parameters.get("seconds", 300))
    finally:
        Path(job.parameters["pids"] + ".unwound").touch()
    join(job)


DEEDS = {
    "join": join,
    "constant": constant,
    "nothing": nothing,
    "link": link,
    "unsupported": unsupported,
    "crash": crash,
    "crash_once": crash_once,
    "flaky": flaky,
    "full_disk": full_disk,
    "full_disk_of_numpy": full_disk_of_numpy,
    "full_disk_once": full_disk_once,
    "killed": killed,
    "segfault": segfault,
    "leave": leave,
    "memory": memory,
    "threads": threads,
    "sleep": sleep,
}
