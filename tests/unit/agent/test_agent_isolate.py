import os

import psutil
import pytest

from edgejoule_agent import errors
from edgejoule_agent.isolate import run

WORK = """
import os, signal, sys, time
import numpy as np
from edgejoule_agent.errors import EngineError

def double(request, progress):
    print("a runtime's chatter")
    progress(1, 2, "halves")
    return {"twice": 2 * request["number"]}

def refuse(request, progress):
    raise EngineError("wrong numbers")

def score(request, progress):
    with open("/proc/self/oom_score_adj") as file:
        return int(file.read())

def crash(request, progress):
    os.kill(os.getpid(), signal.SIGSEGV)

def killed(request, progress):
    os.kill(os.getpid(), signal.SIGKILL)

def hang(request, progress):
    time.sleep(60)

def eat(request, progress):
    held = [bytearray(os.urandom(1) * 20000000) for _ in range(10)]
    time.sleep(60)

def exhaust(request, progress):
    raise MemoryError

def abort(request, progress):
    os.write(2, b"terminate called: cudaErrorMemoryAllocation: out of memory")
    os.abort()

def fill(request, progress):
    with open("/dev/full", "w") as file:
        file.write("x")

def save(request, progress):
    with open("/dev/full", "wb", buffering=0) as file:
        np.zeros(10**6).tofile(file)

def stumble(request, progress):
    raise ValueError("no such thing")
"""
LIMIT = 10**9


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    (tmp_path / "isolated_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


def silent(done, total, unit):
    pass


def test_run_returns_the_result_and_tells_progress():
    told = []
    result = run("isolated_work:double", {"number": 21}, lambda *word: told.append(word), LIMIT, 30)
    assert result == {"twice": 42}
    assert told == [(1, 2, "halves")]


def test_a_child_is_the_first_that_the_kernel_ends():
    assert run("isolated_work:score", {}, silent, LIMIT, 30) == 1000


def test_a_child_is_ended_where_the_host_falls_under_the_floor():
    host = psutil.virtual_memory().total
    with pytest.raises(errors.OutOfMemoryError, match=f"was ended, since this host had less than {host / 1e6:.0f} MB"):
        run("isolated_work:hang", {}, silent, LIMIT, 30, floor_bytes=host)
    assert run("isolated_work:double", {"number": 21}, silent, LIMIT, 30, floor_bytes=1) == {"twice": 42}


def test_run_says_how_long_it_waits_for_work_that_tells_nothing():
    passed = []
    with pytest.raises(errors.TimeLimitError):
        run("isolated_work:hang", {}, silent, LIMIT, 1, passed.append)
    assert len(passed) >= 2
    assert passed == sorted(passed)
    assert 0 < passed[0] < 1 <= passed[-1]


@pytest.mark.parametrize(
    ("task", "error", "match", "memory", "time_s"),
    [
        ("refuse", errors.EngineError, "^wrong numbers$", LIMIT, 30),
        ("crash", errors.EngineError, "crashed with SIGSEGV", LIMIT, 30),
        ("killed", errors.OutOfMemoryError, "killed .signal 9.", LIMIT, 30),
        ("hang", errors.TimeLimitError, "longer than its limit of 1 s", LIMIT, 1),
        ("eat", errors.OutOfMemoryError, "over its limit of 100 MB", 10**8, 30),
        ("exhaust", errors.OutOfMemoryError, "ran out of memory: MemoryError", LIMIT, 30),
        ("abort", errors.OutOfMemoryError, "ran out of memory: terminate called: cudaErrorMemoryAllocation", LIMIT, 30),
        ("stumble", errors.EngineError, "ended with status 1: ValueError: no such thing", LIMIT, 30),
    ],
)
def test_run_raises_what_ended_the_child(task, error, match, memory, time_s):
    with pytest.raises(error, match=match):
        run("isolated_work:" + task, {}, silent, memory, time_s)


@pytest.mark.parametrize("task", ["fill", "save"])
def test_a_full_disk_in_the_child_is_the_hosts_fault(task):
    with pytest.raises(errors.HostError, match=f"isolated_work:{task}: ") as caught:
        run("isolated_work:" + task, {}, silent, LIMIT, 30)
    assert errors.is_full_disk(caught.value)


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("Not enough free space to write 8000000 bytes", True),
        ("1000000 requested and 511 written", True),
        ("no such thing", False),
    ],
)
def test_numpys_words_for_a_full_disk_are_known(said, full):
    assert errors.is_full_disk(OSError(said)) is full


def test_every_error_has_an_outcome_and_says_whether_to_retry():
    outcomes = {"failed", "unsupported", "oom"}
    for value in vars(errors).values():
        if isinstance(value, type):
            assert value.outcome in outcomes
            assert isinstance(value.transient, bool)
