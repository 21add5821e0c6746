"""What a person asks of the stack: submit, follow, cancel, retry, read logs; its rows are those of an embedded run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from servers import RedisServer, S3Server

sys.path.insert(0, str(Path(__file__).parent))
import bad_input
from toy_stack import TOYS, Stack, plan_of, toy

from edgejoule.durations import Durations
from edgejoule.errors import EdgejouleError
from edgejoule.kinds import Kinds
from edgejoule.plan import Cell, Plan, Source, Step
from edgejoule.progress import Display
from edgejoule.runs import Run
from edgejoule.stack.run_files import state_of_run
from edgejoule.stack.submit import cancel, do_local_part, hand_over, read_logs, retry
from edgejoule.stack.watch import Watcher, follow, matrix, watch

KINDS = Kinds({"toy": "toy_step", "measure": "toy_measure", "talkative": "toy_talkative"})
EDGEJOULE = str(Path(sys.executable).with_name("edgejoule"))
ACCURACY = ("status", "ap", "ap50", "ap75", "ar100", "operating_point", "fidelity")


@pytest.fixture
def stack(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    redis_server.client().flushall()
    stack = Stack(tmp_path, redis_server)
    yield stack
    stack.close()


def sleeping(stack: Stack, seconds: float = 300) -> Plan:
    return plan_of(toy("a", do="sleep", seconds=seconds, pids=str(stack.folder / "pids")), toy("b", "a"))


def wait_for_sleeper(stack: Stack) -> None:
    pids = stack.folder / "pids"
    stack.wait_until(lambda: pids.exists() and pids.read_text())


def test_cancelled_run_stops_and_leaves_nothing_and_goes_on_when_retried(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(sleeping(stack, seconds=2))
    wait_for_sleeper(stack)
    cancel("test", stack.store, stack.coordination)
    stack.wait_until(lambda: state_of_run("test", stack.store).end == "cancelled")
    stack.wait_until(lambda: not stack.coordination.left_over(), 5)
    assert "stopped a: cancelled" in stack.logs("worker")
    assert stack.done_keys() == set()
    with pytest.raises(EdgejouleError, match="run 'test' has ended already: cancelled"):
        cancel("test", stack.store, stack.coordination)
    assert retry("test", stack.store, stack.coordination, kinds=KINDS) == []

    assert stack.finish() == {"a": "finished", "b": "finished"}


def test_cancelling_a_run_leaves_the_steps_that_another_wants(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(sleeping(stack, seconds=1), "one")
    stack.submit(sleeping(stack, seconds=1), "other")
    wait_for_sleeper(stack)
    cancel("one", stack.store, stack.coordination)

    assert stack.finish("other") == {"a": "finished", "b": "finished"}
    assert state_of_run("one", stack.store).end == "cancelled"


def test_failed_step_is_tried_again_when_asked(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(plan_of(toy("a", do="crash_once", marker=str(stack.folder / "crashed")), toy("b", "a")))
    assert stack.finish() == {"a": "failed", "b": "skipped"}
    assert retry("test", stack.store, stack.coordination, kinds=KINDS) == ["a"]

    assert stack.finish() == {"a": "finished", "b": "finished"}


def test_logs_hold_what_each_attempt_printed(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(plan_of(toy("a", do="flaky", until=2), toy("b", do="crash"), toy("c", "b")))
    stack.finish()

    first, second = read_logs("a", "test", stack.store, KINDS)
    assert first[0] == "attempt 1: failed: not yet"
    assert b"FlakyError" in first[1]
    assert second[0] == "attempt 2: ok"
    assert b"noise on standard error" in second[1]
    with pytest.raises(EdgejouleError, match="step 'c' was not tried yet: it could not start, because of b"):
        read_logs("c", "test", stack.store, KINDS)
    with pytest.raises(EdgejouleError, match="has no step 'd'"):
        read_logs("d", "test", stack.store, KINDS)


class Recorder(Display):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def start(self, step: str, work: object) -> None:
        self.said.append(("start", step))

    def finish(self, outcome: Any) -> None:
        self.said.append(("cached" if outcome.cached else outcome.outcome, outcome.step))


def test_what_reads_local_files_is_done_here_and_the_rest_is_followed(stack: Stack) -> None:
    file = stack.folder / "annotations.txt"
    file.write_text("outside")
    reads = Step("import", "toy", {"name": "import"}, {"file": stack.store.hashes.source(file)})
    plan = plan_of(reads, toy("a", "import", ticks=60), toy("b", "a"))
    run = Run("test", {}, plan)
    display = Recorder()
    local = do_local_part(run, stack.store, kinds=KINDS, display=display)
    watcher = Watcher(plan, stack.store, stack.coordination, KINDS)
    watcher.look()
    stack.conductor()
    stack.worker()
    hand_over(run, stack.store, stack.coordination)
    ended = follow("test", watcher, stack.store, local.outcomes, display=display)

    assert ended.executed == ["import", "a", "b"]
    assert [said for said in display.said if said != ("start", "b")] == [
        *(("start", "import"), ("ok", "import"), ("start", "a"), ("ok", "a"), ("ok", "b"))
    ]


def test_step_that_reads_files_of_another_host_is_refused_with_a_sentence(stack: Stack) -> None:
    reads = Step("import", "toy", {"name": "import"}, {"file": Source(Path("/elsewhere"), "0" * 64)})
    stack.conductor()
    stack.submit(plan_of(reads, toy("a", "import")))

    assert stack.finish() == {"import": "skipped", "a": "skipped"}
    (outcome,) = Watcher(plan_of(reads), stack.store, None, KINDS).look()
    assert "submit the spec again" in (outcome.reason or "")


def test_run_of_an_unknown_kind_is_refused_and_says_why(stack: Stack) -> None:
    stack.conductor()
    stack.submit(plan_of(Step("a", "no-such-kind")))
    state = stack.wait_until(lambda: (state := state_of_run("test", stack.store)).end and state)

    assert state.end == "refused"
    assert "no installed package announces the step kind 'no-such-kind'" in state.reason


def test_matrix_shows_rows_and_who_works_on_what(stack: Stack) -> None:
    plan = Plan(sleeping(stack, seconds=300).steps, (Cell("m", "toy", "base", "fp32", "host", ("a", "b")),))
    stack.conductor()
    worker = stack.worker()
    stack.submit(plan)
    wait_for_sleeper(stack)
    watcher = Watcher(plan, stack.store, stack.coordination, KINDS)
    stack.wait_until(lambda: watcher.look() or watcher.progress)
    text = io.StringIO()
    Console(file=text, width=120).print(matrix("test", watcher, Durations({"toy": 1.0})))

    assert "m/fp32/host" in text.getvalue()
    assert f":{worker.pid}" in text.getvalue()
    assert "at work 0/2" in text.getvalue()
    assert "0/2 steps" in text.getvalue()


def test_watching_ends_with_the_run_and_tells_changes_where_no_terminal_is(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    plan = plan_of(toy("a"), toy("b", "a"))
    stack.submit(plan)
    text = io.StringIO()
    watch("test", plan, stack.store, stack.coordination, KINDS, Console(file=text))

    assert text.getvalue().splitlines()[-1] == "test: 2/2 steps"


# --- the commands themselves, on an S3 server, with real steps -----------------------------------------------


@pytest.mark.timeout(300)
def test_run_on_the_stack_gives_the_rows_of_the_run_in_one_process(
    redis_server: RedisServer, s3_server: S3Server, tmp_path: Path
) -> None:
    redis_server.client().flushall()
    bad_input.make_template(tmp_path)
    start = Path(__file__).parents[2] / "examples/nanodet_m_shapes.safetensors"
    spec = {**bad_input.SPEC, "models": [{"detector": "nanodet_m", "weights": str(start), "input": 160}]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    common = {**os.environ, "OMP_NUM_THREADS": "1", "EDGEJOULE_LOCKS": str(tmp_path)}
    embedded = ["run", "spec.yaml", "--store", "store", "--out", "embedded"]
    subprocess.run([EDGEJOULE, *embedded], cwd=tmp_path, env=common, check=True, capture_output=True)

    def on_host(name: str) -> dict[str, str]:
        lead = {"EDGEJOULE_BROKER": redis_server.url, "EDGEJOULE_WORKSPACE": str(tmp_path / name)}
        return {**common, **s3_server.environment(prefix="stack-commands"), **lead}

    processes = []
    roles = {"c": ["conductor"], "t": ["worker", "train", "device.host"], "e": ["worker", "evaluate", "analyze"]}
    for name, words in roles.items():
        with open(tmp_path / f"{name}.log", "wb") as log:
            processes.append(
                subprocess.Popen([EDGEJOULE, *words], cwd=tmp_path, env=on_host(name), stdout=log, stderr=log)
            )
    try:
        command = [EDGEJOULE, "run", "spec.yaml", "--on", "stack", "--out", "stack"]
        done = subprocess.run(command, cwd=tmp_path, env=on_host("user"), capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in tmp_path.glob("?.log"))
        assert [subprocess.run([EDGEJOULE, "alive"], env=on_host(name)).returncode for name in "cte"] == [0, 0, 0]
        logs = [EDGEJOULE, "logs", "analyze"]
        assert subprocess.run(logs, env=on_host("user"), capture_output=True, text=True).returncode == 0
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(20) for process in processes]
    assert codes == [0, 0, 0]
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("stack", "embedded")]
    for row, other in zip(*(result["rows"] for result in results), strict=True):
        if row["runtime"] == other["runtime"]:  # a build takes the faster one, which is not always the same
            assert [row[key] for key in ACCURACY] == [other[key] for key in ACCURACY]
        for made in ("weights", "onnx", "data"):
            assert row["hashes"][made] == other["hashes"][made]
