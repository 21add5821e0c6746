"""A step kind for tests that runs on a board; valid on Python 3.6, as the agent is."""

import os
import signal
import time
from pathlib import Path
from typing import Any

VERSION = 1
QUEUE = "device"
EXCLUSIVE = False
OUTPUTS = ("text", "noise-*")
SOURCES = ()
SILENCE_LIMIT_S = 60.0


class NotHereError(Exception):
    outcome = "unsupported"
    transient = False


def run(job: Any) -> None:
    """Parameters: ``ticks`` of 20 ms, ``megabytes`` of noise, ``do`` something odd, ``diary`` to write into."""
    parameters = job.parameters
    print("the toy is at work")  # noqa: T201 - for its log
    for tick in range(parameters.get("ticks", 0)):
        job.progress(tick + 1, parameters["ticks"], "ticks")
        time.sleep(0.02)
    odd = parameters.get("do")
    if odd == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if odd == "unsupported":
        raise NotHereError("this board has no INT8")
    if odd == "crash":
        raise ValueError("a bug in the toy")
    if odd == "full_disk":
        marker = Path(parameters["marker"])
        if not marker.exists():
            marker.touch()
            with open("/dev/full", "w") as file:
                file.write("x")
    if odd == "odd_file":
        job.output(".odd").write_text("of a name that no message may hold")
    texts = [job.inputs[name].read_text() for name in sorted(job.inputs)]
    job.output("text").write_text("+".join([parameters["name"], *texts]))
    if parameters.get("megabytes"):
        job.output("noise-000").write_bytes(bytes(range(256)) * 4096 * parameters["megabytes"])
    if parameters.get("diary"):
        with open(parameters["diary"], "a") as diary:
            diary.write(f"{parameters['name']} {os.getpid()}\n")
