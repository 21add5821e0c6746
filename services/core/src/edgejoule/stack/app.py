"""How Celery is set up: JSON and nothing else, one step at a time, acknowledged when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery import Celery
from kombu.entity import Queue

from edgejoule.stack.messages import TASK, StepMessage
from edgejoule.stack.transport import URGENT

SETTINGS: Mapping[str, Any] = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    "task_create_missing_queues": False,
    # A message is acknowledged when its step is over; who is given it twice sees by claim and lease that it was.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,  # a waiting message stays in the queue, where idle workers and KEDA see it
    "broker_transport": "edgejoule.stack.transport:Transport",
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": {"socket_keepalive": True, "health_check_interval": 10},
    "task_publish_retry": False,  # the conductor has its own way to try again
    "worker_enable_remote_control": False,
    "worker_hijack_root_logger": False,
    "worker_send_task_events": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "task_default_queue": "unused",
}


def make_app(broker: str, queues: Iterable[str] = ()) -> Celery:
    """The Celery application; a worker's consumes ``queues``."""
    app = Celery("edgejoule", broker=broker, set_as_current=False, fixups=[])
    app.conf.update(SETTINGS)
    app.conf.task_queues = [_queue(name) for name in queues] or None
    return app


class Sender:
    """Puts messages into queues; for one thread."""

    def __init__(self, broker: str) -> None:
        self._app = make_app(broker)

    def send(self, message: StepMessage, queue: str, *, first: bool = False) -> None:
        """Send a step whose claim is set.

        Args:
            first: before those that wait already.

        Raises:
            kombu.exceptions.OperationalError: the broker does not answer.
        """
        with self._app.producer_or_acquire() as producer:
            self._app.send_task(
                TASK,
                kwargs={"message": message.model_dump()},
                task_id=message.claim,
                queue=_queue(queue),
                producer=producer,
                priority=URGENT if first else 0,
                argsrepr="()",
                kwargsrepr=message.step,
            )

    def close(self) -> None:
        self._app.close()


def _queue(name: str) -> Queue:
    """A queue without an exchange: nothing has to be bound, so a flushed Redis forgets nothing."""
    return Queue(name)  # type: ignore[no-untyped-call]
