"""How store and Redis fare, looked at from a thread of the conductor's: a slow answer is told, and delays nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from edgejoule.errors import StoreError
from edgejoule.stack.coordination import Coordination
from edgejoule.stack.metrics import Metrics
from edgejoule.store import Store

EVERY_S = 10.0

_log = logging.getLogger(__name__)


@contextmanager
def watched(metrics: Metrics, store: Store, coordination: Coordination) -> Iterator[None]:
    """Look every now and then while the block lasts."""
    over = threading.Event()

    def run() -> None:
        while True:
            look(metrics, store, coordination)
            if over.wait(EVERY_S):
                return

    thread = threading.Thread(target=run, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def look(metrics: Metrics, store: Store, coordination: Coordination) -> None:
    """Ask both something small, once."""
    _ask(metrics, "store", store.run_names)  # which the conductor's account may list
    memory: dict[str, int] = {}
    _ask(metrics, "redis", lambda: memory.update(coordination.memory_bytes()))
    for name in ("used", "limit"):
        if name in memory:
            metrics.set(f"edgejoule_redis_memory_{name}_bytes", memory[name])


def _ask(metrics: Metrics, what: str, ask: Callable[[], object]) -> None:
    began = time.monotonic()
    try:
        ask()
    except (StoreError, redis.RedisError) as error:
        _log.warning("%s does not answer: %s", what, error)
        metrics.set(f"edgejoule_{what}_up", 0)
        return
    metrics.set(f"edgejoule_{what}_up", 1)
    metrics.set(f"edgejoule_{what}_answer_seconds", time.monotonic() - began)
