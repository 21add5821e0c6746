"""What a conductor shows; what it does beside that is tested with workers, in tests/integration."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import RedisServer

from edgejoule import runs
from edgejoule.execution import now
from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.plan import Cell, Plan, Step
from edgejoule.stack.app import Sender
from edgejoule.stack.conductor import QUEUES, RUN_METRICS, Conductor
from edgejoule.stack.coordination import Coordination, Ended, Timing
from edgejoule.stack.messages import check_message, open_envelope
from edgejoule.stack.metrics import Metrics
from edgejoule.stack.run_files import mark_submitted
from edgejoule.store import Attempt

NOWHERE = "redis://127.0.0.1:1/0"
TOYS = Path(__file__).parents[1] / "toys"
QUICK = Timing(beat_s=0.1, look_s=0.1, leader_s=1.0, back_off_s=(0.05,))
STEP = Step("build/m/base/fp32/nano", "toy", {"name": "a"})
PLAN = Plan({STEP.id: STEP}, (Cell("m", "m", "base", "fp32", "nano", (STEP.id,)),))


def shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """A metric's values by its labels' values."""
    families = text_string_to_metric_families(metrics.page()[1].decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in samples}


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def conducting(redis: RedisServer, store: FolderStore) -> Iterator[Metrics]:
    """A conductor of toys at work; gives what it shows."""
    metrics, stopping = Metrics("conductor"), threading.Event()
    coordination = Coordination(redis.url, QUICK)
    conductor = Conductor(store, coordination, Sender(redis.url), Kinds({"toy": "toy_step"}), stopping, metrics)
    thread = threading.Thread(target=conductor.serve)
    thread.start()
    try:
        yield metrics
    finally:
        stopping.set()
        thread.join(20)
        coordination.close()
    assert not thread.is_alive()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """A store with a run of one cell, whose step nobody carries out yet."""
    monkeypatch.syspath_prepend(TOYS)
    store = FolderStore(tmp_path / "store")
    runs.save(runs.Run("test", {}, PLAN), store)
    mark_submitted("test", store)
    return store


def fail_once(redis: RedisServer, store: FolderStore) -> None:
    """Be a worker, that takes the step and fails at it."""
    coordination = Coordination(redis.url, QUICK)
    taken: list[str] = []

    def take() -> bool:
        data = coordination.next_message("evaluate", 0.1)
        if data is not None:
            message, _ = check_message(open_envelope(data), Kinds({"toy": "toy_step"}))
            if coordination.take(message.key, message.claim, "worker"):
                taken.append(message.key)
        return bool(taken)

    wait_until(take)
    store.add_attempt(
        taken[0],
        Attempt(step=STEP.id, outcome="failed", reason="r", transient=True, at=now(), host="h", duration_s=0.1),
    )
    coordination.release(taken[0], "worker", Ended(key=taken[0]))
    coordination.close()


def test_counters_begin_at_0_so_that_the_first_failure_counts(tmp_path: Path) -> None:
    kinds = Kinds({"build": "edgejoule_agent.steps.build", "score": "edgejoule_evaluator.steps.score"})
    metrics = Metrics("conductor")
    Conductor(
        FolderStore(tmp_path / "store"), Coordination(NOWHERE), Sender(NOWHERE), kinds, threading.Event(), metrics
    )
    assert shown(metrics, "edgejoule_step_failures_total") == {("build",): 0, ("score",): 0}
    assert shown(metrics, "edgejoule_workers_lost_total") == {(queue,): 0 for queue in QUEUES}


def test_failure_is_counted_once_and_not_again_by_the_next_conductor(
    redis_server: RedisServer, store: FolderStore
) -> None:
    redis_server.client().flushall()
    for _ in range(2):
        with conducting(redis_server, store) as metrics:
            fail_once(redis_server, store)
            wait_until(lambda: shown(metrics, "edgejoule_step_failures_total") != {("toy",): 0})
            assert shown(metrics, "edgejoule_step_failures_total") == {("toy",): 1}


def test_conductor_that_knows_nothing_shows_no_run_and_no_cell(tmp_path: Path, store: FolderStore) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    try:
        with conducting(redis, store) as metrics:
            wait_until(lambda: shown(metrics, "edgejoule_runs_active") == {(): 1})
            wait_until(lambda: shown(metrics, "edgejoule_cell_state"))
            redis.kill()
            wait_until(lambda: shown(metrics, "edgejoule_conductor_leads") == {(): 0})
            assert [name for name in RUN_METRICS if shown(metrics, name)] == []
            assert shown(metrics, "edgejoule_cell_state") == {}
            redis.start()
            wait_until(lambda: shown(metrics, "edgejoule_steps_planned") == {(): 1})
    finally:
        redis.kill()
