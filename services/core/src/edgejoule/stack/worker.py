"""A worker of the stack: takes steps from queues, one at a time, and carries each out in a process of its own.

Celery brings the messages. Whether a message still counts, and for how long its step is ours, Redis says: a
message's claim becomes a lease, which a thread renews until the step is over.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from uuid import uuid4

import redis
from celery import bootsteps
from celery.worker import strategy

from edgejoule.errors import CorruptBlobError, StoreError
from edgejoule.execution import attempt, now
from edgejoule.kinds import Kinds, StepKind
from edgejoule.locks import host_lock
from edgejoule.stack.alive import touch
from edgejoule.stack.app import make_app
from edgejoule.stack.coordination import Coordination, Damaged, Ended, Progress, Wake
from edgejoule.stack.messages import SIZE_LIMIT_BYTES, TASK, Refused, StepMessage, check_message
from edgejoule.stack.metrics import Metrics, showing, workspace_of
from edgejoule.store import Attempt, Store
from edgejoule.worker import Stopped

_log = logging.getLogger(__name__)


class StepWorker:
    """Carries out messages, whatever their transport.

    Args:
        name: of the worker, for people.
        stopping: set from outside to stop the step under way; it then starts elsewhere at once.
        metrics: where it tells what it does.
    """

    def __init__(
        self,
        store: Store,
        coordination: Coordination,
        kinds: Kinds,
        name: str,
        stopping: threading.Event,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._kinds = kinds
        self._name = name
        self._stopping = stopping
        self._metrics = metrics or Metrics("worker")
        self._idle_since: float | None = time.monotonic()

    def idle_s(self) -> float:
        """How long there was no step for us; messages that are refused or dropped are none. 0 during a step."""
        since = self._idle_since
        return 0.0 if since is None else time.monotonic() - since

    def carry_out(self, value: object) -> None:
        """Carry out the step of a message, if it is one and still counts. Raises only redis.RedisError."""
        try:
            message, kind = check_message(value, self._kinds)
        except Refused as error:
            _log.error("refused a message: %s", error)
            self._metrics.add("edgejoule_messages_dropped_total", reason="refused")
            return
        holder = f"{self._name}#{uuid4().hex[:8]}"
        if not self._coordination.take(message.key, message.claim, holder):
            _log.info("dropped a message for %s: it is taken, or was sent anew", message.step)
            self._metrics.add("edgejoule_messages_dropped_total", reason="taken")
            return
        self._idle_since = None
        news: Wake = Ended(key=message.key)
        trouble = False
        began = time.monotonic()
        self._metrics.set("edgejoule_worker_busy", 1, queue=kind.queue)
        with _Beat(self._coordination, message.key, holder, self._name, self._stopping, self._metrics) as beat:
            try:
                self._execute(message, kind, beat)
            except Stopped:
                _log.warning("stopped %s: %s", message.step, beat.verdict or "this worker ends")
            except CorruptBlobError as error:
                _log.error("%s cannot start: %s", message.step, error)
                news = error_news(message, error)
            except StoreError as error:
                _log.error("%s is left to others: %s", message.step, error)
                trouble = True
            except Exception as error:  # noqa: BLE001 - the worker lives on; the step fails in the end
                _log.exception("%s ended in a fault of the worker", message.step)
                trouble = not self._record(message, f"{type(error).__name__}: {error}", time.monotonic() - began)
        self._release(message.key, holder, news)
        if trouble:
            self._stopping.wait(self._coordination.timing.trouble_s)
        self._metrics.set("edgejoule_worker_busy", 0, queue=kind.queue)
        self._idle_since = time.monotonic()

    def _execute(self, message: StepMessage, kind: StepKind, beat: _Beat) -> None:
        ready = message.as_ready()
        with self._store.lease(message.key, beat.pause("for another process of this host that is doing it")) as lease:
            if self._store.manifest(message.key):
                return
            inputs: dict[str, Path] = {}
            for name, sha256 in message.inputs.items():
                try:
                    inputs[name] = self._store.fetch(sha256)
                except CorruptBlobError as error:
                    raise _DamagedInput(sha256, str(error)) from error
            busy = beat.pause("for others on this host to end" if kind.exclusive else "for a measurement on this host")
            with host_lock(exclusive=kind.exclusive, pause=busy) as host:
                beat.at_work()
                began = time.monotonic()
                result = attempt(
                    message.as_step(),
                    ready,
                    kind,
                    self._store,
                    inputs,
                    on_progress=beat.advance,
                    stopping=beat.stopping,
                    inherit=(lease, host),
                )
        took_s = time.monotonic() - began
        self._metrics.observe("edgejoule_step_duration_seconds", took_s, kind=kind.name, outcome=result.outcome)
        outcome, reason = result.outcome, f": {result.reason}" if result.reason else ""
        _log.info("%s: %s%s", message.step, outcome, reason)

    def _record(self, message: StepMessage, reason: str, duration_s: float) -> bool:
        """Record a failure that is not the step's, so that it is not tried for ever; false if that failed too."""
        try:
            self._store.add_attempt(
                message.key,
                Attempt(
                    step=message.step,
                    outcome="failed",
                    reason=f"its worker met a fault: {reason}",
                    transient=True,
                    at=now(),
                    host=socket.gethostname(),
                    duration_s=duration_s,
                ),
            )
        except StoreError as error:
            _log.error("%s", error)
            return False
        return True

    def _release(self, key: str, holder: str, news: Wake) -> None:
        """Give the lease back. Should Redis not answer for as long as a lease lasts, it ends by itself."""
        deadline = time.monotonic() + self._coordination.timing.lease_s
        while True:
            try:
                return self._coordination.release(key, holder, news)
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    _log.error("the lease of %s could not be given back: %s", key, error)
                    return
                time.sleep(self._coordination.timing.beat_s / 4)


class _DamagedInput(CorruptBlobError):
    """Which input it is that is damaged."""

    def __init__(self, sha256: str, reason: str) -> None:
        super().__init__(reason)
        self.sha256 = sha256


def error_news(message: StepMessage, error: CorruptBlobError) -> Wake:
    """What to tell the conductor of a damaged blob: which one, where it is an input."""
    if isinstance(error, _DamagedInput):
        return Damaged(key=message.key, blob=error.sha256, reason=str(error))
    return Ended(key=message.key)


class _Beat:
    """Renews a lease from a thread of its own while the ``with`` block runs.

    Attributes:
        verdict: why the step is not ours any more; None while it is.
    """

    def __init__(
        self,
        coordination: Coordination,
        key: str,
        holder: str,
        worker: str,
        stopping: threading.Event,
        metrics: Metrics,
    ) -> None:
        self.verdict: Literal["lost", "cancelled"] | None = None
        self._metrics = metrics
        self._coordination = coordination
        self._key = key
        self._holder = holder
        self._began = time.monotonic()
        self._progress = Progress(worker=worker)
        self._worker_stops = stopping
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def __enter__(self) -> _Beat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def stopping(self) -> bool:
        """Whether to stop the step."""
        return self.verdict is not None or self._worker_stops.is_set()

    def pause(self, reason: str) -> Callable[[], None]:
        """A pause between two tries at a lock, which gives up when the step is to stop."""

        def pause() -> None:
            self._progress = self._progress.model_copy(update={"waits": reason})
            if self.verdict is not None or self._worker_stops.wait(0.1):
                raise Stopped

        return pause

    def at_work(self) -> None:
        """The step waits for nothing any more."""
        self._began = time.monotonic()
        self._progress = self._progress.model_copy(update={"waits": None})

    def advance(self, done: float, total: float, unit: str) -> None:
        self._progress = self._progress.model_copy(update={"done": done, "total": total, "unit": unit})

    def _run(self) -> None:
        while True:
            try:
                told = self._progress.model_copy(update={"elapsed_s": time.monotonic() - self._began})
                self._coordination.tell_progress(self._key, told)
                answer = self._coordination.renew(self._key, self._holder)
            except redis.RedisError as error:  # nothing is known, so the step goes on; whoever has it, one commits
                _log.warning("the lease of %s could not be renewed: %s", self._key, error)
                self._metrics.add("edgejoule_lease_errors_total")
            else:
                if answer != "held":
                    self.verdict = answer
                    return
            if self._over.wait(self._coordination.timing.beat_s):
                return


# --- Celery's side ----------------------------------------------------------------------------------


def bounded_strategy(task: Any, app: Any, consumer: Any) -> Callable[..., Any]:
    """Celery's way of receiving a task, which drops what is too large before it is parsed."""
    receive = strategy.default(task, app, consumer)

    def receive_bounded(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> Any:
        if len(message.body) > SIZE_LIMIT_BYTES:
            _log.error("refused a message of %d bytes: the limit is %d", len(message.body), SIZE_LIMIT_BYTES)
            return message.ack()
        return receive(message, body, ack, reject, callbacks, **options)

    return receive_bounded


def serve(
    queues: Sequence[str],
    *,
    broker: str,
    store: Store,
    coordination: Coordination,
    kinds: Kinds,
    alive: Path | None = None,
    idle_exit_s: float | None = None,
    log_level: str = "INFO",
) -> int:
    """Work on these queues until SIGTERM or SIGINT; the exit code.

    The step under way is then stopped and given back, unless a second signal ends everything at once.

    Args:
        alive: file that is touched while the main loop turns.
        idle_exit_s: end, as by SIGTERM, after so long without a step; never where not given.
    """
    stopping = threading.Event()
    name = f"{socket.gethostname()}:{os.getpid()}"
    metrics = Metrics("worker", workspace_of())
    for queue in queues:
        metrics.set("edgejoule_worker_info", 1, queue=queue)
        metrics.set("edgejoule_worker_busy", 0, queue=queue)
    for reason in ("refused", "taken"):
        metrics.begin("edgejoule_messages_dropped_total", reason=reason)
    steps = StepWorker(store, coordination, kinds, name, stopping, metrics)
    app = make_app(broker, queues)

    @app.task(name=TASK, Strategy=staticmethod(bounded_strategy))  # type: ignore[untyped-decorator]
    def step(message: Any) -> None:
        steps.carry_out(message)

    def end_when_idle(seconds: float) -> None:
        if steps.idle_s() >= seconds and not stopping.is_set():
            _log.info("nothing to do for %g s: this worker ends", seconds)
            os.kill(os.getpid(), signal.SIGTERM)  # a step that comes in now is given back

    class Signs(bootsteps.StartStopStep):  # type: ignore[misc]
        """Signs of life, from the loop that takes the messages."""

        requires = ("celery.worker.components:Timer",)

        def start(self, parent: Any) -> None:
            if alive is not None:
                parent.timer.call_repeatedly(1.0, touch, (alive,))
            if idle_exit_s is not None:
                parent.timer.call_repeatedly(1.0, end_when_idle, (idle_exit_s,))

    app.steps["worker"].add(Signs)
    worker = app.Worker(
        hostname=f"{'+'.join(queues)}@{name}",
        queues=list(queues),
        pool="threads",
        concurrency=1,
        loglevel=log_level,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    _stop_steps_on_signals(stopping)
    with showing(metrics):
        worker.start()
    return int(worker.exitcode or 0)


def _stop_steps_on_signals(stopping: threading.Event) -> None:
    """Have Celery's own handling of SIGTERM and SIGINT stop the step first."""
    from celery.signals import worker_shutting_down

    def stop(**_: object) -> None:
        stopping.set()

    worker_shutting_down.connect(stop, weak=False)
