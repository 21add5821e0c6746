"""A worker or a conductor of toy steps: ``run_toy_stack.py worker STORE BROKER QUEUE...``, ``conductor STORE BROKER``.

The environment variable TOY_TIMING holds its times in JSON, TOY_IDLE_EXIT_S a worker's patience.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading

from edgejoule.kinds import Kinds
from edgejoule.stack.annotations import annotations_of
from edgejoule.stack.app import Sender
from edgejoule.stack.conductor import Conductor
from edgejoule.stack.coordination import Coordination, Timing
from edgejoule.stack.health import watched
from edgejoule.stack.metrics import Metrics, showing, workspace_of
from edgejoule.stack.worker import serve
from edgejoule.store import open_store

MODULES = {
    "toy": "toy_step",
    "measure": "toy_measure",
    "limited": "toy_limited",
    "talkative": "toy_talkative",
    "broken": "toy_broken",
    "on-board": "toy_board",
    "build": "edgejoule_agent.steps.build",
    "benchmark": "edgejoule_agent.steps.benchmark",
    "predict": "edgejoule_agent.steps.predict",
}


def main() -> int:
    role, where, broker, *queues = sys.argv[1:]
    times = json.loads(os.environ.get("TOY_TIMING", "{}"))
    store = open_store(where, os.environ)
    coordination = Coordination(broker, Timing(**times))
    kinds = Kinds(MODULES)
    if role == "worker":
        idle_exit_s = float(os.environ.get("TOY_IDLE_EXIT_S", "inf"))
        return serve(
            queues, broker=broker, store=store, coordination=coordination, kinds=kinds, idle_exit_s=idle_exit_s
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    metrics = Metrics("conductor", workspace_of())
    with showing(metrics), watched(metrics, store, coordination):
        told = annotations_of(os.environ)
        Conductor(store, coordination, Sender(broker), kinds, stopping, metrics, told).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
