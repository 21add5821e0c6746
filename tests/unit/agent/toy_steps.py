"""Steps that an agent carries out in tests; valid on Python 3.6."""

import os
import signal
import sys
import time

VERSION = 3


def run(job):
    deed = job.parameters.get("do", "join")
    print("noise on standard output")  # noqa: T201
    sys.stderr.write("noise on standard error\n")
    for tick in range(job.parameters.get("ticks", 0)):
        job.progress(tick + 1, job.parameters["ticks"], "ticks")
        time.sleep(0.02)
    DEEDS[deed](job)
    if job.parameters.get("diary"):
        with open(job.parameters["diary"], "a") as diary:
            diary.write("done\n")


def join(job):
    texts = [job.inputs[name].read_text() for name in sorted(job.inputs)]
    job.output("text").write_text("+".join(texts))
    job.write_json("record", {"threads": os.environ["OMP_NUM_THREADS"], "waits": os.environ["OMP_WAIT_POLICY"]})


def crash(job):
    raise ValueError("a bug")


def expected(job):
    from edgejoule_agent.errors import UnsupportedError

    raise UnsupportedError("no INT8 here")


def full_disk(job):
    with open("/dev/full", "w") as file:
        file.write("x")


def full_disk_of_a_child(job):
    from edgejoule_agent.isolate import run

    run("toy_steps:fill", {}, lambda *_: None, 10**9, 30)


def fill(request, progress):
    full_disk(None)


def dangling(job):
    os.symlink("/nowhere", str(job.output("text")))


def folder(job):
    job.output("text").mkdir()


def hurt_log(job):
    join(job)
    log = job.output("text").parent.parent / "log"
    log.unlink()
    log.symlink_to("/")


def killed(job):
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(job):
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(job):
    os._exit(0)


def memory(job):
    raise MemoryError


def sleep(job):
    child = os.fork()
    if child:
        with open(job.parameters["pids"], "w") as file:
            file.write("{} {}".format(os.getpid(), child))
    time.sleep(60)


DEEDS = {
    f.__name__: f
    for f in (
        *(join, crash, dangling, expected, folder, full_disk, full_disk_of_a_child),
        *(hurt_log, killed, segfault, leave, memory, sleep),
    )
}
