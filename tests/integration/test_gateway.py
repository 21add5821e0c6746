"""Boards behind the gateway, over real TLS: their results are those of the host, and are delivered once."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from servers import RedisServer, S3Server
from toy_cell import commit_files
from toy_gateway import KINDS, BoardStack, on_board, stop
from toy_stack import TOYS, plan_of

from edgejoule import runs
from edgejoule.executor import run_plan
from edgejoule.folder_store import FolderStore
from edgejoule.plan import Cell, Plan, Ref, Step, step_key
from edgejoule.protocols import PRESETS
from edgejoule.records import BenchmarkRecord, EngineRecord, PredictRecord
from edgejoule.stack.frontier import survey_frontier
from edgejoule.stack.run_files import state_of_run
from edgejoule.stack.submit import cancel, retry
from edgejoule_agent.predict import predict

ROOT = Path(__file__).parents[2]
PYTHON36 = ROOT / ".venv36" / "bin" / "python"


@pytest.fixture
def stack(redis_server: RedisServer, tmp_path: Path) -> Iterator[BoardStack]:
    redis_server.client().flushall()
    stack = BoardStack(tmp_path, redis_server)
    yield stack
    stack.close()


def test_board_carries_out_steps_and_its_results_are_committed(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(plan_of(on_board("a", ticks=3), on_board("b", "a", megabytes=3)))
    assert stack.finish() == {"a": "finished", "b": "finished"}
    keys = stack.done_keys()
    assert len(keys) == 2
    texts = [stack.store.fetch(stack.store.manifest(key).outputs["text"].sha256).read_text() for key in keys]
    assert sorted(texts) == ["a", "b+a"]
    assert {stack.store.manifest(key).made.host for key in keys} == {"nano"}
    stack.wait_until(lambda: not list(stack.store.inbox().iterdir()))
    stack.wait_until(lambda: not (stack.state_of() / "job").exists())


def test_board_gives_the_records_and_engine_of_the_host_itself(
    redis_server: RedisServer, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.client().flushall()
    settings = {
        **s3_server.environment(prefix=tmp_path.name),
        "EDGEJOULE_WORKSPACE": str(tmp_path / "workspace"),
        "EDGEJOULE_LOCKS": str(tmp_path),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    stack = BoardStack(tmp_path, redis_server, store=settings["EDGEJOULE_STORE"])
    try:
        plan = real_plan()
        embedded = FolderStore(tmp_path / "embedded")
        for store in (stack.store, embedded):
            commit_files(plan.steps["files"], store, tmp_path)
        stack.conductor()
        stack.gateway()
        stack.board("host")
        stack.submit(plan)
        assert stack.finish(seconds=100) == {"build": "finished", "benchmark": "finished"}
        here = run_plan(plan, embedded, run="test", kinds=KINDS).outcomes["build"]
        assert here.manifest
        there = stack.store.manifest(here.key or "")
        assert there
        assert there.outputs.keys() == here.manifest.outputs.keys()
        assert there.made.host == "host"
        ours, theirs = (
            EngineRecord.model_validate_json(store.fetch(manifest.outputs["record"].sha256).read_bytes())
            for store, manifest in ((embedded, here.manifest), (stack.store, there))
        )
        timed = {"candidates", "chosen_because", "hardware", "options", "size_bytes"}  # the faster of two wins
        assert theirs.model_dump(exclude=timed) == ours.model_dump(exclude=timed)
        assert {c.runtime: c.correct for c in theirs.candidates} == {c.runtime: c.correct for c in ours.candidates}
        assert stack.store.fetch(there.outputs["engine"].sha256).stat().st_size == theirs.size_bytes
        measured = survey_frontier(plan, KINDS, stack.store).outcomes["benchmark"].manifest
        assert measured
        record = BenchmarkRecord.model_validate_json(stack.store.fetch(measured.outputs["record"].sha256).read_bytes())
        assert record.latency_ms.n == 5
    finally:
        stack.close()


def test_board_predicts_with_its_own_engine_and_its_detections_are_committed(stack: BoardStack) -> None:
    parameters = {"threads": 1, "operating": {"confidence": 0.25, "nms_iou": 0.45}}
    files, build = (real_plan("nano").steps[name] for name in ("files", "build"))
    of_board = {"engine": Ref("build", "engine"), "engine_record": Ref("build", "record")}
    look = Step("look", "predict", parameters, {**of_board, "images-000": Ref("files", "images-000")})
    row = Cell("toy", "toy", "base", "fp32", "nano", ("build", "look"))  # by which the conductor knows whose step it is
    commit_files(files, stack.store, stack.folder)
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(Plan({step.id: step for step in (files, build, look)}, (row,)))
    assert stack.finish() == {"build": "finished", "look": "finished"}

    outcomes = survey_frontier(runs.load("test", stack.store).plan, KINDS, stack.store).outcomes
    built, seen = outcomes["build"].manifest, outcomes["look"].manifest
    assert built
    assert seen
    assert (seen.outcome, seen.made.host, seen.outputs.keys()) == ("ok", "nano", {"detections", "operating", "record"})
    given = {name: stack.store.fetch(blob.sha256) for name, blob in built.outputs.items()}
    record = json.loads(given["record"].read_bytes())
    here = {name: stack.folder / name for name in ("detections", "operating")}
    shard = stack.folder / "shard.tar"
    told = predict(given["engine"], record, shard, parameters, here, lambda done, total, unit: None)
    theirs = PredictRecord.model_validate_json(stack.store.fetch(seen.outputs["record"].sha256).read_bytes())
    assert theirs == PredictRecord.model_validate(told)
    assert theirs.detections > 0
    for name, path in here.items():
        assert stack.store.fetch(seen.outputs[name].sha256).read_bytes() == path.read_bytes()


def real_plan(device: str = "host") -> Plan:
    """A tiny model is built and measured on a device; what they read lies in the store."""
    files = Step("files", "toy", {"name": "files"})
    build = Step(
        "build",
        "build",
        {"precision": "fp32", "threads": 1, "device": device},
        {"onnx": Ref("files", "onnx"), "images-000": Ref("files", "images-000")},
    )
    protocol = {**PRESETS["quick"].measuring(), "warmup_iterations": 2, "iterations": 5}
    benchmark = Step(
        "benchmark",
        "benchmark",
        {"device": device, "trial": 0, "threads": 1, "seed": 0, "session": "s", "protocol": protocol},
        {
            "engine": Ref("build", "engine"),
            "engine_record": Ref("build", "record"),
            "images-000": Ref("files", "images-000"),
        },
    )
    return plan_of(files, build, benchmark)


# --- faults -------------------------------------------------------------------------------------------


def by_board(stack: BoardStack, **parameters: Any) -> Plan:
    return plan_of(on_board("a", diary=str(stack.diary), **parameters), on_board("b", "a", diary=str(stack.diary)))


def finish(stack: BoardStack, seconds: float = 60) -> None:
    """Both steps are done, each once, and nothing of them is left anywhere."""
    assert set(stack.finish(seconds=seconds).values()) == {"finished"}  # a conductor tells not what it finds done
    assert len(stack.done_keys()) == 2
    assert stack.done_by_toys() == ["a", "b"]
    stack.wait_until(lambda: not list(stack.store.inbox().iterdir()))
    stack.wait_until(lambda: not (stack.state_of() / "job").exists())


def at_work(stack: BoardStack) -> Callable[[], bool]:
    """Whether the board has said how far it is."""

    def true() -> bool:
        found = stack.coordination.left_over()
        keys = [name.partition(":")[2] for name in found if name.startswith("lease:")]
        return any(said.done > 0 for said in stack.coordination.progress(keys).values())

    return true


def test_gateway_killed_in_the_middle_of_an_upload_goes_on_with_it(stack: BoardStack) -> None:
    stack.conductor()
    gateway = stack.gateway()
    stack.network.budget = 20 << 20
    stack.board()
    stack.submit(by_board(stack, megabytes=30))
    stack.wait_until(lambda: stack.network.cuts, 30)
    stop(gateway)
    arrived = sum(path.stat().st_size for path in stack.store.inbox().glob("*/files/noise-000"))
    assert 10 << 20 < arrived <= 20 << 20
    stack.network.mend()
    stack.gateway()
    finish(stack)
    assert stack.network.carried < (30 << 20) + (8 << 20)  # not sent anew


def test_network_lost_for_longer_than_the_lease_loses_no_work(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(by_board(stack, ticks=300))
    stack.wait_until(at_work(stack))
    stack.network.cut()
    stack.wait_until(lambda: stack.redis.client().llen("device.nano"), 20)  # sent anew, for this board alone
    stack.network.mend()
    finish(stack)
    assert len(stack.store.attempts(key_of(stack, "a"))) == 0


def test_result_made_while_everything_else_was_lost_is_delivered_once(stack: BoardStack) -> None:
    conductor = stack.conductor()
    gateway = stack.gateway()
    stack.board()
    stack.submit(by_board(stack, ticks=50))
    stack.wait_until(at_work(stack))
    stop(gateway)
    stop(conductor)
    stack.wait_until(lambda: (stack.state_of() / "job" / "result.json").exists(), 20)
    stack.redis.client().flushall()
    stack.conductor()
    stack.gateway()
    finish(stack)


def test_board_that_dies_begins_the_step_anew(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    board = stack.board()
    stack.submit(by_board(stack, ticks=100))
    stack.wait_until(at_work(stack))
    stop(board)
    stack.board()
    finish(stack)
    (attempt,) = stack.store.attempts(key_of(stack, "a"))
    assert (attempt.lost, attempt.host) == (True, "nano")


def test_board_that_is_told_to_end_gives_its_step_back(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    board = stack.board()
    stack.submit(by_board(stack, ticks=100))
    stack.wait_until(at_work(stack))
    stop(board, signal.SIGTERM)
    assert board.returncode == 0
    stack.board()
    finish(stack)
    assert stack.store.attempts(key_of(stack, "a")) == []


def test_board_that_waits_for_a_job_ends_at_once_and_loses_none(redis_server: RedisServer, tmp_path: Path) -> None:
    redis_server.client().flushall()
    stack = BoardStack(tmp_path, redis_server, limits={"poll_s": 60.0})
    try:
        stack.conductor()
        stack.gateway()
        board = stack.board()
        (log,) = tmp_path.glob("board*.log")
        stack.wait_until(lambda: "serves this board" in log.read_text(), 20)
        time.sleep(1)  # it asks for a job now
        board.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert board.wait(20) == 0
        assert time.monotonic() - began < 5
        stack.submit(by_board(stack))
        stack.board()
        finish(stack)
        assert stack.store.attempts(key_of(stack, "a")) == []
    finally:
        stack.close()


def test_board_that_dies_with_its_result_undelivered_delivers_it_when_it_is_back(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    board = stack.board()
    stack.submit(by_board(stack, ticks=50))
    stack.wait_until(at_work(stack))
    stack.network.cut()
    stack.wait_until(lambda: (stack.state_of() / "job" / "result.json").exists(), 20)
    stop(board)
    stack.network.mend()
    stack.board()
    finish(stack)


def cannot_be_read(file: Path) -> None:
    file.unlink()
    file.symlink_to("/proc/self/mem")  # opens, and fails with EIO when it is read


def is_cut_short(file: Path) -> None:
    os.truncate(file, 1 << 20)


def is_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (cannot_be_read, "cannot be read (Input/output error)"),
        (is_cut_short, "had 16777216 bytes and ends before byte"),
        (is_a_folder, "cannot be read (Is a directory)"),
    ],
)
def test_result_hurt_on_its_board_fails_in_the_middle_of_an_upload_and_others_are_delivered(
    stack: BoardStack, hurt: Callable[[Path], None], said: str
) -> None:
    stack.conductor()
    stack.gateway()
    stack.network.budget = 8 << 20
    stack.board()
    stack.submit(by_board(stack, megabytes=16))
    stack.wait_until(lambda: stack.network.cuts, 30)
    noise = stack.state_of() / "job" / "outputs" / "noise-000"
    hurt(noise)
    stack.network.mend()
    assert set(stack.finish(seconds=60).values()) == {"finished"}
    assert stack.done_by_toys() == ["a", "a", "b"]
    (attempt,) = stack.store.attempts(key_of(stack, "a"))
    assert (attempt.outcome, attempt.transient) == ("failed", True)
    assert f"noise-000 of its result cannot be read on its board: {noise} {said}" in attempt.reason
    (log,) = stack.folder.glob("board*.log")
    told = [line for line in log.read_text().splitlines() if str(noise) in line]
    assert any(" ERROR a: " in line for line in told)
    assert not any("out of reach" in line for line in told)


def test_full_disk_of_a_board_is_no_fault_of_the_step(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(by_board(stack, do="full_disk", marker=str(stack.folder / "marker")))
    finish(stack)
    assert stack.store.attempts(key_of(stack, "a")) == []


@pytest.mark.parametrize(
    ("do", "outcome", "reason", "attempts"),
    [("crash", "failed", "ValueError: a bug in the toy", 1), ("killed", "oom", "the system killed the step", 3)],
)
def test_failure_on_a_board_is_recorded_with_its_log(
    stack: BoardStack, do: str, outcome: str, reason: str, attempts: int
) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(by_board(stack, do=do))
    assert stack.finish() == {"a": outcome, "b": "skipped"}
    found = stack.store.attempts(key_of(stack, "a"))
    assert len(found) == attempts
    assert reason in found[-1].reason
    assert b"the toy is at work" in (stack.store.read_log(key_of(stack, "a"), attempts) or b"")


def test_result_that_the_gateway_does_not_take_fails_and_holds_up_no_other(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(plan_of(on_board("a", do="odd_file"), on_board("b")))
    assert stack.finish() == {"a": "failed", "b": "finished"}
    (attempt,) = stack.store.attempts(key_of(stack, "a"))
    assert "its result cannot be delivered: the gateway " in attempt.reason
    assert "does not take it (422): outputs..odd" in attempt.reason


def test_unsupported_on_a_board_is_a_result(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(plan_of(on_board("a", do="unsupported")))
    stack.finish()
    manifest = stack.store.manifest(key_of(stack, "a"))
    assert manifest
    assert (manifest.outcome, manifest.reason) == ("unsupported", "this board has no INT8")


def test_cancelled_run_stops_the_step_on_its_board(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(by_board(stack, ticks=3000))
    stack.wait_until(at_work(stack))
    cancel("test", stack.store, stack.coordination)
    stack.wait_until(lambda: state_of_run("test", stack.store).end == "cancelled")
    stack.wait_until(lambda: not (stack.state_of() / "job").exists(), 15)
    stack.wait_until(lambda: not stack.coordination.left_over(), 20)
    assert stack.done_by_toys() == []


def test_steps_of_a_board_that_stays_away_end_as_unreachable_and_can_be_retried(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    redis_server.client().flushall()
    stack = BoardStack(tmp_path, redis_server, limits={"unreachable_s": 2.0})
    try:
        stack.conductor()
        stack.gateway()
        stop(stack.board())
        stack.submit(by_board(stack))
        assert stack.finish() == {"a": "unreachable", "b": "skipped"}
        assert "was not heard of" in stack.store.attempts(key_of(stack, "a"))[-1].reason
        retry("test", stack.store, stack.coordination, kinds=KINDS)
        stack.board()
        stack.wait_until(lambda: len(stack.done_keys()) == 2)
    finally:
        stack.close()


def key_of(stack: BoardStack, name: str) -> str:
    """The key of a step without inputs."""
    step = runs.load("test", stack.store).plan.steps[name]
    return step_key(step.kind, KINDS[step.kind].version, step.parameters, {})


@pytest.mark.skipif(not PYTHON36.exists(), reason="make test-py36 makes it")
def test_board_under_python_36_does_the_same(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board(python=str(PYTHON36), PYTHONPATH=f"{ROOT / 'services/agent/src'}:{TOYS}")
    stack.submit(by_board(stack, ticks=20, megabytes=3))
    finish(stack)
