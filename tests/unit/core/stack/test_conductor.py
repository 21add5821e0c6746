"""What a conductor shows before it did anything; what it does is tested with a Redis, in tests/integration."""

from __future__ import annotations

import threading
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.stack.app import Sender
from edgejoule.stack.conductor import QUEUES, Conductor
from edgejoule.stack.coordination import Coordination
from edgejoule.stack.metrics import Metrics

NOWHERE = "redis://127.0.0.1:1/0"


def test_counters_begin_at_0_so_that_the_first_failure_counts(tmp_path: Path) -> None:
    kinds = Kinds({"build": "edgejoule_agent.steps.build", "score": "edgejoule_evaluator.steps.score"})
    metrics = Metrics("conductor")
    Conductor(
        FolderStore(tmp_path / "store"), Coordination(NOWHERE), Sender(NOWHERE), kinds, threading.Event(), metrics
    )
    samples = [
        sample
        for family in text_string_to_metric_families(metrics.page()[1].decode())
        for sample in family.samples
        if sample.name.endswith("_total")
    ]
    failures = {s.labels["kind"]: s.value for s in samples if s.name == "edgejoule_step_failures_total"}
    lost = {s.labels["queue"]: s.value for s in samples if s.name == "edgejoule_workers_lost_total"}
    assert failures == {"build": 0, "score": 0}
    assert lost == dict.fromkeys(QUEUES, 0)
