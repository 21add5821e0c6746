"""Kombu's way to Redis, but for two things.

A message that is none is dropped and told, and ends no worker. Kombu trusts what lies in a queue to have the form of a
message. What has not raises in the middle of the worker's main loop, ends it, and may be put back to end the next one.

An urgent message goes to the front of its queue. Kombu's own priorities are queues of other names beside it, which
neither the gateway nor an autoscaler looks at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from kombu.transport import redis
from kombu.utils.json import dumps

URGENT = 9
"""The priority of a message that comes before those that wait already."""

_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
_log = logging.getLogger(__name__)


class Channel(redis.Channel):
    """Reads on when a message cannot be understood; puts urgent ones first."""

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        if message["properties"].get("priority") == URGENT:
            with self.conn_or_acquire() as client:
                client.rpush(queue, dumps(message))  # type: ignore[no-untyped-call]
        else:
            super()._put(queue, message, **options)  # type: ignore[no-untyped-call]

    def basic_consume(self, queue: Any, no_ack: Any, callback: Callable[[Any], Any], *rest: Any, **options: Any) -> Any:
        def receive(message: Any) -> Any:
            try:
                return callback(message)
            except _MALFORMED as error:
                _log.error("refused a message of a form that is none of ours: %r", error)
                message.ack()

        return super().basic_consume(queue, no_ack, receive, *rest, **options)  # type: ignore[no-untyped-call]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except _MALFORMED as error:
            _log.error("refused what is no message at all: %r", error)
            return True


class Transport(redis.Transport):
    """To be named as Celery's ``broker_transport``."""

    Channel = Channel
