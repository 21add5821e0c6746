"""Whatever dies, hangs or lies: the run completes, each step is done once, and nothing is left in Redis."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from servers import BUCKET, RedisServer, S3Server
from toy_stack import QUICK, Stack, plan_of, toy

from edgejoule.executor import run_plan
from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan
from edgejoule.reconcile import Ready, resolve
from edgejoule.stack.messages import make_message


@pytest.fixture
def stack(redis_server: RedisServer, tmp_path: Path) -> Iterator[Stack]:
    redis_server.client().flushall()
    stack = Stack(tmp_path, redis_server)
    yield stack
    stack.close()


def diamond(stack: Stack, count: int = 10, ticks: int = 3) -> Plan:
    """Steps of which each reads two earlier ones, and a last one that reads them all."""
    steps = []
    for number in range(count):
        upstream = [f"s{up}" for up in (number - 3, number - 4) if up >= 0]
        steps.append(toy(f"s{number}", *upstream, ticks=ticks, diary=str(stack.diary)))
    return plan_of(*steps, toy("last", *(step.id for step in steps), diary=str(stack.diary)))


def sleeper(stack: Stack, seconds: float = 300, name: str = "sleeper") -> Plan:
    """A step that sleeps and writes its process ids down, and one that reads it."""
    pids = str(stack.folder / "pids")
    return plan_of(toy(name, do="sleep", seconds=seconds, pids=pids, diary=str(stack.diary)), toy("after", name))


def wait_for_sleeper(stack: Stack) -> list[int]:
    pids = stack.folder / "pids"
    stack.wait_until(lambda: pids.exists() and pids.read_text())
    return [int(pid) for pid in pids.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- what should happen -------------------------------------------------------------------------------


def test_stack_gives_the_outputs_of_the_embedded_executor(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = diamond(stack)
    stack.conductor()
    stack.worker()
    stack.worker()
    stack.submit(plan)
    events = stack.finish()

    assert events == dict.fromkeys(plan.steps, "finished")
    assert stack.done_by_toys() == sorted(plan.steps)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "unit/core/toys"))
    monkeypatch.syspath_prepend(os.environ["PYTHONPATH"])
    embedded = FolderStore(stack.folder / "embedded")
    outcomes = run_plan(plan, embedded, run="test", kinds=Kinds({"toy": "toy_step"})).outcomes
    for outcome in outcomes.values():
        assert outcome.manifest
        kept = stack.store.manifest(outcome.key or "")
        assert kept
        assert kept.outputs == outcome.manifest.outputs


def test_failure_reaches_what_depends_on_it_and_the_rest_goes_on(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(plan_of(toy("a", do="crash"), toy("b", "a"), toy("c", do="unsupported"), toy("d", "c"), toy("e")))

    assert stack.finish() == {"a": "failed", "b": "skipped", "c": "unsupported", "d": "skipped", "e": "finished"}


def test_steps_of_one_key_are_done_once_for_all_runs(stack: Stack) -> None:
    shared = toy("shared", ticks=20, diary=str(stack.diary))
    stack.conductor()
    stack.worker()
    stack.worker()
    stack.submit(plan_of(shared, toy("x", "shared")), "one")
    stack.submit(plan_of(shared, toy("y", "shared")), "other")

    assert stack.finish("one").keys() == {"shared", "x"}
    assert stack.finish("other").keys() == {"shared", "y"}
    assert stack.done_by_toys() == ["shared"]


def test_device_steps_wait_for_the_worker_of_their_device(stack: Stack) -> None:
    stack.conductor()
    stack.worker("evaluate")
    stack.submit(plan_of(toy("m", kind="measure", device="nano"), toy("e")))
    stack.wait_until(lambda: any(event["step"] == "e" for event in stack.store.events("test")))
    assert stack.redis.client().llen("device.nano") == 1
    stack.worker("device.nano")

    assert stack.finish() == {"e": "finished", "m": "finished"}


# --- workers ------------------------------------------------------------------------------------------


def test_worker_started_on_demand_ends_when_idle_and_not_during_a_longer_step(stack: Stack) -> None:
    stack.conductor()
    worker = stack.worker(TOY_IDLE_EXIT_S="1.5")
    stack.submit(plan_of(toy("long", ticks=200, diary=str(stack.diary)), toy("after", "long")))

    assert stack.finish() == {"long": "finished", "after": "finished"}
    assert stack.done_by_toys() == ["long"]  # and it was not begun twice
    assert worker.wait(10) == 0
    assert "this worker ends" in stack.logs("worker")


def test_killed_workers_step_runs_again_elsewhere(stack: Stack) -> None:
    stack.conductor()
    first = stack.worker()
    stack.submit(sleeper(stack, seconds=0.5))
    pids = wait_for_sleeper(stack)
    first.kill()
    stack.wait_until(lambda: not any(is_alive(pid) for pid in pids), 5)
    killed_at = time.monotonic()
    stack.worker()
    stack.finish()

    assert time.monotonic() - killed_at < QUICK.lease_s + 10
    assert stack.done_by_toys() == ["sleeper"]
    (key,) = [
        manifest.key
        for key in stack.done_keys()
        if (manifest := stack.store.manifest(key)) and manifest.step == "sleeper"
    ]
    (loss,) = stack.store.attempts(key)
    assert loss.lost
    assert "its worker was lost" in loss.reason


def test_lost_step_comes_before_those_that_wait(stack: Stack) -> None:
    stack.conductor()
    first = stack.worker()
    steps = [toy(f"w{number}", diary=str(stack.diary)) for number in range(6)]
    lost = toy("sleeper", do="sleep", seconds=0.5, pids=str(stack.folder / "pids"), diary=str(stack.diary))
    stack.submit(plan_of(lost, *steps))
    wait_for_sleeper(stack)
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == len(steps))
    first.kill()
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == len(steps) + 1)
    stack.worker()
    events = stack.finish()

    assert set(events.values()) == {"finished"}
    assert stack.diary.read_text().split()[0] == "sleeper"


def test_worker_told_to_stop_gives_its_step_back_at_once_and_records_no_failure(stack: Stack) -> None:
    stack.conductor()
    first = stack.worker()
    stack.submit(sleeper(stack, seconds=2))
    pids = wait_for_sleeper(stack)
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    assert not any(is_alive(pid) for pid in pids)
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == 1, QUICK.lease_s / 2)
    stack.worker()
    stack.finish()

    assert not list((stack.folder / "store/attempts").rglob("*.json"))


def test_worker_paused_past_its_lease_stops_when_it_wakes_and_one_manifest_counts(stack: Stack) -> None:
    stack.conductor()
    first = stack.worker()
    stack.submit(sleeper(stack, seconds=6))
    wait_for_sleeper(stack)
    (key,) = [name.partition(":")[2] for name in stack.coordination.left_over()]
    holder = stack.coordination.standings([key])[key].holder
    first.send_signal(signal.SIGSTOP)
    stack.worker()
    stack.wait_until(lambda: stack.coordination.standings([key])[key].holder not in (None, holder))
    first.send_signal(signal.SIGCONT)
    stack.finish()

    assert stack.done_by_toys() == ["sleeper"]
    assert "stopped sleeper: lost" in stack.logs("worker")


def test_worker_paused_on_one_host_does_not_hold_up_another(
    redis_server: RedisServer, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts have workspaces of their own, so the sleeper's work goes on elsewhere while its first worker is paused."""
    redis_server.client().flushall()
    settings = s3_server.environment(prefix="stack-faults")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EDGEJOULE_WORKSPACE", str(tmp_path / "user"))
    stack = Stack(tmp_path, redis_server, store=settings["EDGEJOULE_STORE"])
    try:
        stack.conductor()
        first = stack.worker(EDGEJOULE_WORKSPACE=str(tmp_path / "first"), EDGEJOULE_LOCKS=str(tmp_path))
        stack.submit(sleeper(stack, seconds=2))
        wait_for_sleeper(stack)
        first.send_signal(signal.SIGSTOP)
        stack.worker(EDGEJOULE_WORKSPACE=str(tmp_path / "second"), EDGEJOULE_LOCKS=str(tmp_path))
        stack.finish()
        first.send_signal(signal.SIGCONT)
        stack.wait_until(lambda: "sleeper: ok" in stack.logs("worker1") or "stopped sleeper" in stack.logs("worker1"))

        listed = s3_server.client().list_objects_v2(Bucket=BUCKET, Prefix="stack-faults/manifests/")
        assert listed["KeyCount"] == 2
        stack.wait_until(lambda: not stack.coordination.left_over(), 5)
    finally:
        stack.close()


def test_step_that_hangs_is_ended_three_times_and_fails(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    hanging = toy("a", kind="talkative", do="sleep", pids=str(stack.folder / "pids"))
    stack.submit(plan_of(hanging, toy("b")))

    assert stack.finish() == {"a": "failed", "b": "finished"}
    assert stack.logs("worker").count("a: failed: hung: no progress for 0.5 s") == 3


def test_step_killed_for_memory_each_time_fails_after_three_attempts(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(plan_of(toy("a", do="killed"), toy("b")))

    assert stack.finish() == {"a": "oom", "b": "finished"}
    (attempts,) = [
        stack.store.attempts(folder.name)
        for folder in (stack.folder / "store/attempts").iterdir()
        if list(folder.glob("*.json"))
    ]
    assert [attempt.outcome for attempt in attempts] == ["oom"] * 3


def test_full_disk_leaves_the_step_to_others_and_is_no_failure(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(plan_of(toy("a", do="full_disk_once", marker=str(stack.folder / "was full"))))

    assert stack.finish() == {"a": "finished"}
    assert "a is left to others: the disk is full" in stack.logs("worker")


def test_step_whose_blob_is_damaged_is_done_again_before_it_is_read(stack: Stack) -> None:
    stack.conductor()
    stack.worker()
    stack.submit(plan_of(toy("alpha")), "first")
    stack.finish("first")
    (key,) = stack.done_keys()
    manifest = stack.store.manifest(key)
    assert manifest
    blob = stack.store.fetch(manifest.outputs["text"].sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"xlpha")  # of the same size: only reading shows it
    stack.submit(plan_of(toy("alpha"), toy("b", "alpha")))

    assert stack.finish() == {"alpha": "finished", "b": "finished"}
    assert len(list((stack.folder / "store/quarantine").iterdir())) == 2
    assert not list((stack.folder / "store/attempts").rglob("*.json"))


# --- the conductor ----------------------------------------------------------------------------------------


def test_conductor_killed_and_started_again_loses_nothing(stack: Stack) -> None:
    plan = diamond(stack, ticks=8)
    conductor = stack.conductor()
    stack.worker()
    stack.submit(plan)
    for done in (2, 5):
        stack.wait_until(lambda done=done: len(stack.done_by_toys()) >= done)
        conductor.kill()
        conductor = stack.conductor()
    stack.finish()

    assert stack.done_by_toys() == sorted(plan.steps)


def test_one_conductor_acts_and_the_other_takes_over(stack: Stack) -> None:
    first = stack.conductor()
    stack.wait_until(lambda: "acting" in stack.logs("conductor"))
    stack.conductor()
    stack.submit(plan_of(*(toy(f"s{number}", diary=str(stack.diary)) for number in range(5))))
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == 5)
    time.sleep(3 * QUICK.look_s)
    assert stack.redis.client().llen("evaluate") == 5
    assert stack.logs("conductor").count("acting") == 1
    first.kill()
    stack.worker()
    stack.finish()

    assert stack.done_by_toys() == [f"s{number}" for number in range(5)]


def test_conductor_woken_after_another_took_over_stands_by(stack: Stack) -> None:
    first = stack.conductor()
    stack.wait_until(lambda: "acting" in stack.logs("conductor"))
    first.send_signal(signal.SIGSTOP)
    stack.conductor()
    stack.wait_until(lambda: stack.logs("conductor").count("acting") == 2)
    first.send_signal(signal.SIGCONT)
    stack.wait_until(lambda: "standing by" in stack.logs("conductor"))


# --- Redis ------------------------------------------------------------------------------------------------


def test_redis_killed_and_started_again_loses_nothing(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    stack = Stack(tmp_path, server)
    try:
        plan = diamond(stack, ticks=8)
        stack.conductor()
        stack.worker()
        stack.worker()
        stack.submit(plan)
        for done in (2, 6):
            stack.wait_until(lambda done=done: len(stack.done_by_toys()) >= done)
            server.kill()
            time.sleep(0.5)
            server.start()
        stack.finish()

        assert sorted(set(stack.done_by_toys())) == sorted(plan.steps)
        assert len(stack.done_keys()) == len(plan.steps)
    finally:
        stack.close()
        server.kill()


def test_redis_flushed_loses_nothing_and_no_step_is_done_twice(stack: Stack) -> None:
    plan = diamond(stack, ticks=8)
    stack.conductor()
    stack.worker()
    stack.worker()
    stack.submit(plan)
    for done in (1, 4, 7):
        stack.wait_until(lambda done=done: len(stack.done_by_toys()) >= done)
        stack.redis.client().flushall()
    stack.finish()

    assert stack.done_by_toys() == sorted(plan.steps)


def test_message_lost_between_queue_and_worker_is_sent_again(stack: Stack) -> None:
    stack.conductor()
    stack.submit(plan_of(toy("a"), toy("b")))
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == 2)
    stack.redis.client().lpop("evaluate")
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == 2, 10)
    stack.worker()

    assert stack.finish() == {"a": "finished", "b": "finished"}


def test_messages_delivered_twice_are_carried_out_once(stack: Stack) -> None:
    stack.conductor()
    steps = [toy(f"s{number}", ticks=5, diary=str(stack.diary)) for number in range(4)]
    stack.submit(plan_of(*steps))
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == 4)
    messages = stack.redis.client().lrange("evaluate", 0, -1)
    stack.redis.client().rpush("evaluate", *messages, *messages)
    stack.worker()
    stack.worker()
    stack.finish()

    assert stack.done_by_toys() == [step.id for step in steps]
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == 0)


# --- people -------------------------------------------------------------------------------------------------


def test_hostile_messages_are_refused_and_the_worker_lives(stack: Stack) -> None:
    worker = stack.worker()
    for body in hostile_messages(stack):
        stack.redis.client().lpush("evaluate", body)
    stack.wait_until(lambda: stack.redis.client().llen("evaluate") == 0)
    stack.conductor()
    stack.submit(plan_of(toy("a")))
    stack.finish()

    assert worker.poll() is None
    assert not (stack.folder / "pwned").exists()
    log = stack.logs("worker")
    assert "refused a message: inputs.x: String should match pattern" in log
    assert "no installed package announces the step kind 'no-such-kind'" in log
    assert "does not have the key" in log
    assert "refused a message of 104857" in log
    assert "pickle" in log
    assert len(stack.done_keys()) == 1


class Exploit:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


def hostile_messages(stack: Stack) -> Iterator[bytes]:
    step = toy("evil")
    ready = resolve(step, 1, {})
    assert isinstance(ready, Ready)
    good = make_message(step, 1, ready, uuid.uuid4().hex).model_dump()
    pickled = base64.b64encode(pickle.dumps([[], {"message": Exploit(stack.folder / "pwned")}, {}])).decode()
    yield envelope(pickled, content_type="application/x-python-serialize")
    yield envelope(as_body({**good, "kind": "no-such-kind"}))
    yield envelope(as_body({**good, "inputs": {"x": "../../etc/passwd"}}))
    yield envelope(as_body({**good, "parameters": {"name": "another"}}))
    yield envelope(as_body({**good, "claim": "*"}))
    yield envelope(as_body({**good, "extra": 1}))
    yield envelope(as_body("no mapping"))
    yield envelope(as_body(good))  # well-formed, but nobody claimed it
    yield envelope(as_body({**good, "parameters": {"x": "y" * (100 << 20)}}))
    yield envelope(as_body(good), task="os.system")
    yield envelope(base64.b64encode(b"{").decode())
    yield envelope(base64.b64encode(b"[]").decode())
    yield b"no JSON at all"
    yield b"[1, 2]"


def as_body(message: object) -> str:
    return base64.b64encode(json.dumps([[], {"message": message}, {}]).encode()).decode()


def envelope(body: str, content_type: str = "application/json", task: str = "edgejoule.step") -> bytes:
    """A message as Celery puts it into a queue of Redis."""
    id = str(uuid.uuid4())
    properties = {
        "correlation_id": id,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "evaluate"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": id,
    }
    headers = {"lang": "py", "task": task, "id": id, "root_id": id, "argsrepr": "()", "kwargsrepr": "{}"}
    message = {
        "body": body,
        "content-encoding": "binary" if "python" in content_type else "utf-8",
        "content-type": content_type,
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(message).encode()
