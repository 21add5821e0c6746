"""A step in a process of its own: however it ends, the agent is told what to make of it, and nothing is left of it."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from edgejoule_agent.errors import HostError
from edgejoule_agent.step_process import Limits, Stopped, run_step


@pytest.fixture
def carry_out(tmp_path, monkeypatch):
    """Runs a toy step; gives the report, the outputs' folder and the log."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))

    def run(limits=None, stopping=lambda: False, inputs=None, on_progress=lambda *_: None, **parameters):
        outputs, scratch = tmp_path / "outputs", tmp_path / "scratch"
        for folder in (outputs, scratch):
            folder.mkdir()
        request = {
            "module": "toy_steps",
            "parameters": parameters,
            "inputs": {name: str(path) for name, path in (inputs or {}).items()},
            "outputs": str(outputs),
            "scratch": str(scratch),
        }
        log = tmp_path / "log"
        report = run_step(request, str(log), limits or Limits(60, 60), on_progress, stopping)
        return report, outputs, log.read_text()

    return run


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_step_reads_inputs_and_writes_outputs_with_its_threads(carry_out, tmp_path):
    (tmp_path / "a").write_text("A")
    (tmp_path / "b").write_text("B")
    said = []
    inputs = {"from-b": tmp_path / "b", "from-a": tmp_path / "a"}
    report, outputs, log = carry_out(inputs=inputs, on_progress=lambda *p: said.append(p), threads=2, ticks=20)
    assert report == ("ok", None, False)
    assert (outputs / "text").read_text() == "A+B"
    assert (outputs / "record").read_text() == '{"threads":"2","waits":"PASSIVE"}'
    assert said[-1] == (20.0, 20.0, "ticks")
    assert 2 <= len(said) < 20  # not each
    assert "noise on standard output" in log
    assert "noise on standard error" in log


@pytest.mark.parametrize(
    ("do", "outcome", "reason", "transient"),
    [
        ("crash", "failed", "ValueError: a bug", False),
        ("expected", "unsupported", "no INT8 here", False),
        ("killed", "oom", "the system killed the step", True),
        ("segfault", "failed", "died of SIGSEGV", False),
        ("leave", "failed", "exit code 0 and no result", False),
        ("memory", "oom", "memory ran out", False),
    ],
)
def test_end_of_a_step_is_told_apart(carry_out, do, outcome, reason, transient):
    report, _, _ = carry_out(do=do)
    assert (report.outcome, report.transient) == (outcome, transient)
    assert reason in report.reason


@pytest.mark.parametrize("do", ["full_disk", "full_disk_of_a_child"])
def test_full_disk_is_the_hosts_fault(carry_out, do):
    with pytest.raises(HostError, match="the disk is full"):
        carry_out(do=do)


def test_error_is_told_though_the_log_takes_nothing_more(carry_out, tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    with pytest.raises(HostError, match="the disk is full"):
        carry_out(do="full_disk")


@pytest.mark.parametrize(
    ("limits", "reason"), [(Limits(1, 60), "limit of 1 s"), (Limits(60, 1), "no progress for 1 s")]
)
def test_step_that_takes_too_long_is_ended_with_all_it_started(carry_out, tmp_path, limits, reason):
    report, _, _ = carry_out(limits=limits, do="sleep", pids=str(tmp_path / "pids"))
    assert (report.outcome, report.transient) == ("failed", True)
    assert reason in report.reason
    assert not any(is_alive(pid) for pid in (tmp_path / "pids").read_text().split())


def test_step_that_is_stopped_leaves_nothing(carry_out, tmp_path):
    pids = tmp_path / "pids"
    stop = threading.Event()
    threading.Thread(target=lambda: (wait_until(lambda: pids.exists() and pids.read_text()), stop.set())).start()
    with pytest.raises(Stopped):
        carry_out(stopping=stop.is_set, do="sleep", pids=str(pids))
    assert not any(is_alive(pid) for pid in pids.read_text().split())


def test_step_dies_with_its_agent(tmp_path):
    import subprocess
    import sys

    folder = Path(__file__).parent
    pids = tmp_path / "pids"
    for name in ("outputs", "scratch"):
        (tmp_path / name).mkdir()
    request = {
        "module": "toy_steps",
        "parameters": {"do": "sleep", "pids": str(pids)},
        "inputs": {},
        "outputs": str(tmp_path / "outputs"),
        "scratch": str(tmp_path / "scratch"),
    }
    code = (
        "import json, sys; from edgejoule_agent.step_process import *; "
        "run_step(json.loads(sys.argv[1]), sys.argv[2], Limits(60, 60), print, lambda: False)"
    )
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    agent = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(request), str(tmp_path / "log")], env=dict(os.environ, PYTHONPATH=path)
    )
    wait_until(lambda: pids.exists() and pids.read_text())
    agent.kill()
    agent.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids.read_text().split()))
