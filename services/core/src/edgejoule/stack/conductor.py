"""The conductor: finds out what is ready and sends it to the workers. One acts; others stand by.

It keeps in memory how far each run is, and every step under way (a *flight*). All of it can be had from the store
again, so whatever goes wrong, it forgets everything and begins anew. Workers wake it; when a word of theirs is lost, or
they are, it finds out by looking at claims and leases.
"""

from __future__ import annotations

import heapq
import logging
import random
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import redis
from kombu.exceptions import OperationalError

from edgejoule import runs
from edgejoule.errors import CorruptManifestError, EdgejouleError, StoreError
from edgejoule.execution import now
from edgejoule.kinds import Kinds
from edgejoule.plan import Step
from edgejoule.reconcile import Ready, StepOutcome, check, makers, put_outcome_files
from edgejoule.stack.alive import touch
from edgejoule.stack.annotations import Annotations
from edgejoule.stack.app import Sender
from edgejoule.stack.cells import Cells
from edgejoule.stack.coordination import Changed, Coordination, Damaged, Ended, Standing, Wake
from edgejoule.stack.frontier import Frontier, devices_of, found
from edgejoule.stack.messages import make_message, queue_of
from edgejoule.stack.metrics import Metrics
from edgejoule.stack.run_files import End, mark_ended, state_of_run
from edgejoule.store import PLAN_FILE, Attempt, Store

_log = logging.getLogger(__name__)

_TURN_S = 1.0  # the longest that the main loop waits for news
_PAUSE_S = 2.0  # before beginning anew, when store or Redis failed
QUEUES = ("train", "evaluate", "analyze")  # of workers; each device has one besides
RUN_METRICS = ("edgejoule_runs_active", "edgejoule_steps_planned", "edgejoule_steps_done")
QUEUE_METRICS = ("edgejoule_queue_length", "edgejoule_steps_claimed", "edgejoule_steps_leased")
_LOOK_SHARE = 0.02  # of the time may be spent on looking at flights


@dataclass
class _Flight:
    """A step that is to be carried out, from ready to its outcome.

    Attributes:
        wanted_by: (run, step id) of every step that this key stands for.
        claim: id of the message that stands for it; None while it is still to be sent.
        holder: who was last seen to carry it out.
        attempts: how many were recorded before, of earlier runs and conductors too.
        missing_since: when neither claim nor lease was first seen to be there.
        again: somebody was at it and did not end it, so that it comes before those that wait already.
        forgiven: Redis lost claims and leases since it was sent, so that their absence says nothing of its worker.
    """

    step: Step
    ready: Ready
    queue: str
    wanted_by: set[tuple[str, str]] = field(default_factory=set)
    claim: str | None = None
    holder: str | None = None
    attempts: int = 0
    missing_since: float | None = None
    again: bool = False
    forgiven: bool = False

    @property
    def sent(self) -> bool:
        return self.claim is not None or self.holder is not None


@dataclass
class _ActiveRun:
    """A run that goes on.

    Attributes:
        repaired: blobs that were damaged and have been made again for it.
    """

    frontier: Frontier
    devices: dict[str, str]
    repaired: set[str] = field(default_factory=set)


class _NotLeading(Exception):
    """Another conductor acts."""


class Conductor:
    """See the module.

    Args:
        stopping: set from outside to end :meth:`serve`.
        metrics: where it tells how far everything is.
        annotations: whom it tells where runs and cells begin and end.
    """

    def __init__(
        self,
        store: Store,
        coordination: Coordination,
        sender: Sender,
        kinds: Kinds,
        stopping: threading.Event,
        metrics: Metrics | None = None,
        annotations: Annotations | None = None,
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._timing = coordination.timing
        self._sender = sender
        self._kinds = kinds
        self._stopping = stopping
        self._metrics = metrics or Metrics("conductor")
        self._annotations = annotations
        self._cells = Cells(self._metrics, store, annotations)
        self._name = f"{socket.gethostname()}#{uuid4().hex[:8]}"
        self._leads = False
        self._led_at = 0.0
        self._begin_counters()
        self._forget()

    def serve(self, alive: Path | None = None) -> None:
        """Act whenever no other conductor does, until told to stop."""
        while not self._stopping.is_set():
            if alive is not None:
                touch(alive)
            try:
                self._lead()
                self._turn()
            except _NotLeading:
                if self._leads:
                    _log.warning("another conductor acts now; standing by")
                self._forget()
                self._stopping.wait(self._timing.leader_s / 5)
            except (StoreError, redis.RedisError, OperationalError) as error:
                _log.error("%s; beginning anew in %g s", error, _PAUSE_S)
                self._forget()
                self._stopping.wait(_PAUSE_S)
        if self._leads:
            with suppress(redis.RedisError):
                self._coordination.stop_leading(self._name)

    def _begin_counters(self) -> None:
        for kind in sorted(self._kinds.modules):
            self._metrics.begin("edgejoule_step_failures_total", kind=kind)
        for queue in QUEUES:
            self._begin_queue(queue)

    def _begin_queue(self, queue: str) -> None:
        for name in ("edgejoule_messages_sent_total", "edgejoule_workers_lost_total"):
            self._metrics.begin(name, queue=queue)

    def _forget(self) -> None:
        self._leads = False
        self._runs: dict[str, _ActiveRun] = {}
        self._flights: dict[str, _Flight] = {}
        self._due: list[tuple[float, str]] = []
        self._suspicious: dict[str, int] = {}
        self._next_look = 0.0
        self._next_renewal = 0.0
        self._next_sweep = 0.0
        for name in QUEUE_METRICS:  # who acts next tells his own
            self._metrics.replace(name, {})
        for name in RUN_METRICS:
            self._metrics.hide(name)
        self._cells.forget()
        self._metrics.set("edgejoule_conductor_leads", 0)

    def _lead(self) -> None:
        """Be the one that acts, or raise; called often enough that nobody else takes over meanwhile."""
        if self._leads and time.monotonic() - self._led_at < self._timing.leader_s / 5:
            return
        asked_at = time.monotonic()
        if not self._coordination.lead(self._name):
            raise _NotLeading
        self._led_at = asked_at
        if not self._leads:
            self._leads = True
            self._metrics.set("edgejoule_conductor_leads", 1)
            if self._coordination.was_flushed():  # who is at work says so again within a beat
                self._stopping.wait(2 * self._timing.beat_s)
            self._sweep()
            _log.info("acting, with %d runs and %d steps under way", len(self._runs), len(self._flights))

    def _turn(self) -> None:
        """Handle what workers and people told, send what is due, look after what is under way."""
        wait_s = min(
            [_TURN_S, self._next_look - time.monotonic(), *(due - time.monotonic() for due, _ in self._due[:1])]
        )
        for news in self._coordination.wakes(wait_s):
            self._handle(news)
        self._send_what_is_due()
        if time.monotonic() >= self._next_look:
            began = time.monotonic()
            self._look()
            self._show()
            self._next_look = time.monotonic() + max(self._timing.look_s, (time.monotonic() - began) / _LOOK_SHARE)
        if time.monotonic() >= self._next_sweep:
            self._sweep()

    def _handle(self, news: Wake | str) -> None:
        if isinstance(news, Ended):
            if flight := self._flights.get(news.key):
                self._judge(flight)
        elif isinstance(news, Damaged):
            if flight := self._flights.get(news.key):
                self._do_again_what_made(news, flight)
        elif isinstance(news, Changed):
            self._read_run(news.run)
        else:
            _log.error("ignored what nobody of ours says: %.200r", news)

    # --- runs ---

    def _sweep(self) -> None:
        """Ask the store about everything: the runs there are, and results that came from elsewhere."""
        self._next_sweep = time.monotonic() + self._timing.sweep_s
        for flight in list(self._flights.values()):
            if flight.ready.key in self._flights and (outcome := self._found(flight.step, flight.ready)):
                self._finish(flight, outcome)
        for name in self._store.run_names():
            if name not in self._runs:
                self._read_run(name)

    def _read_run(self, name: str) -> None:
        """Take up a run as the store has it now, or let go of it."""
        self._lead()
        before = self._runs.pop(name, None)
        orphans = {key for key, flight in self._flights.items() if self._no_longer_wanted(flight, name)}
        state = state_of_run(name, self._store)
        if state.active and self._store.run_file(name, PLAN_FILE) is not None:
            try:
                plan = runs.load(name, self._store).plan
                check(plan, self._kinds)
            except EdgejouleError as error:
                self._end_run(name, "refused", str(error))
            else:
                run = _ActiveRun(Frontier(plan, self._kinds), dict(devices_of(plan)))
                if before:
                    run.repaired = before.repaired
                self._runs[name] = run
                if self._annotations and not state.cancelled:
                    self._annotations.run_goes_on(name)
                if state.cancelled:
                    orphans |= self._find_ready(name)
                    del self._runs[name]
                    self._end_run(name, "cancelled")
                else:
                    self._advance(name)
        self._cancel(key for key in orphans if key in self._flights and not self._flights[key].wanted_by)

    def _no_longer_wanted(self, flight: _Flight, run: str) -> bool:
        """Take a run's steps out of a flight; whether nobody is left."""
        flight.wanted_by = {(name, step) for name, step in flight.wanted_by if name != run}
        return not flight.wanted_by

    def _find_ready(self, name: str) -> set[str]:
        """The keys of a cancelled run that somebody may be at; nothing is sent for them."""
        frontier = self._runs[name].frontier
        for _ in frontier.advance(self._found):
            pass
        for step, ready in frontier.ready.items():
            if ready.key not in self._flights:
                self._flights[ready.key] = _Flight(frontier.plan.steps[step], ready, "")
        return {ready.key for ready in frontier.ready.values()}

    def _cancel(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            del self._flights[key]
            self._coordination.cancel(key)

    def _advance(self, name: str) -> None:
        """Find out what follows in a run, and have it sent."""
        run = self._runs[name]
        for state in run.frontier.advance(self._found):
            if isinstance(state, StepOutcome):
                if not state.cached:
                    self._add_event(name, state)
                continue
            step, ready = run.frontier.plan.steps[state], run.frontier.ready[state]
            put_outcome_files(step, run.frontier.outcomes, self._store)
            if ready.key not in self._flights:
                kind = self._kinds[step.kind]
                queue = queue_of(step, kind, run.devices.get(step.id))
                self._flights[ready.key] = _Flight(step, ready, queue, attempts=len(self._store.attempts(ready.key)))
                self._begin_queue(queue)  # a device's is known by its first step
                heapq.heappush(self._due, (time.monotonic(), ready.key))
            self._flights[ready.key].wanted_by.add((name, step.id))
        if run.frontier.done:
            self._cells.look(run.frontier.plan, run.frontier.outcomes, ())
            del self._runs[name]
            self._end_run(name, "done")

    def _found(self, step: Step, ready: Ready) -> StepOutcome | None:
        """How the step ended, by the store; a damaged result is set aside, and the step is not done."""
        self._lead()
        try:
            return found(step, ready, self._store)
        except CorruptManifestError as error:
            _log.error("%s; step %s is done again", error, step.id)
            self._store.quarantine(ready.key)
            return None

    def _end_run(self, name: str, end: End, reason: str | None = None) -> None:
        mark_ended(name, self._store, end, reason)
        if self._annotations:
            self._annotations.run_ended(name, end)
        _log.info("run %s: %s%s", name, end, f": {reason}" if reason else "")

    # --- flights ---

    def _send_what_is_due(self) -> None:
        due: list[_Flight] = []
        while self._due and self._due[0][0] <= time.monotonic():
            flight = self._flights.get(heapq.heappop(self._due)[1])
            if flight and not flight.sent:
                due.append(flight)
        if not due:
            return
        standings = self._coordination.standings([flight.ready.key for flight in due])
        to_send: dict[str, _Flight] = {}
        for flight in due:
            standing = standings[flight.ready.key]
            flight.claim, flight.holder = standing.claim, standing.holder  # from an earlier conductor's time
            if not standing.known:
                flight.claim = uuid4().hex
                to_send[flight.ready.key] = flight
        for key in self._coordination.claim({key: flight.claim or "" for key, flight in to_send.items()}):
            self._lead()
            flight = to_send[key]
            version = self._kinds[flight.step.kind].version
            message = make_message(flight.step, version, flight.ready, flight.claim or "")
            self._sender.send(message, flight.queue, first=flight.again)
            self._metrics.add("edgejoule_messages_sent_total", queue=flight.queue)

    def _judge(self, flight: _Flight, *, lost: bool = False) -> None:
        """Nobody seems to be at a step any more: it has ended, or is tried again."""
        key = flight.ready.key
        if outcome := self._found(flight.step, flight.ready):
            if not outcome.ok and outcome.outcome != "unsupported":  # which is a result
                self._metrics.add("edgejoule_step_failures_total", kind=flight.step.kind)
            return self._finish(flight, outcome)
        if not flight.sent or self._coordination.standings([key])[key].known:
            return None
        attempts = len(self._store.attempts(key))
        if lost and attempts == flight.attempts:
            self._record_loss(flight)
            if outcome := self._found(flight.step, flight.ready):
                return self._finish(flight, outcome)
            attempts += 1
            pause_s = 0.0
        else:
            pause_s = self._back_off_s(attempts) if attempts > flight.attempts else 0.0
        if attempts > flight.attempts:
            self._metrics.add("edgejoule_step_failures_total", attempts - flight.attempts, kind=flight.step.kind)
        flight.again = flight.again or flight.holder is not None
        flight.claim = flight.holder = flight.missing_since = None
        flight.forgiven = False
        flight.attempts = attempts
        heapq.heappush(self._due, (time.monotonic() + pause_s, key))
        return None

    def _back_off_s(self, attempts: int) -> float:
        steps = self._timing.back_off_s
        return steps[min(attempts, len(steps)) - 1] * random.uniform(0.5, 1.5)

    def _record_loss(self, flight: _Flight) -> None:
        worker = (flight.holder or "unknown").partition("#")[0]
        _log.warning("the worker of %s was lost (%s)", flight.step.id, worker)
        self._metrics.add("edgejoule_workers_lost_total", queue=flight.queue)
        self._store.add_attempt(
            flight.ready.key,
            Attempt(
                step=flight.step.id,
                outcome="failed",
                reason=f"its worker was lost ({worker})",
                transient=True,
                lost=True,
                at=now(),
                host=worker.partition(":")[0],
                duration_s=0.0,
            ),
        )

    def _finish(self, flight: _Flight, outcome: StepOutcome) -> None:
        """Let a step's outcome count in every run that wants it."""
        del self._flights[flight.ready.key]
        self._metrics.add("edgejoule_steps_ended_total", kind=flight.step.kind, outcome=outcome.outcome)
        for name, step in sorted(flight.wanted_by):
            if name in self._runs:
                own = replace(outcome, step=step, origin=step, cached=False)
                self._add_event(name, own)
                self._runs[name].frontier.end(own)
                self._advance(name)

    def _add_event(self, run: str, outcome: StepOutcome) -> None:
        event = "skipped" if outcome.key is None else "finished" if outcome.ok else outcome.outcome
        self._store.add_event(run, {"at": now(), "event": event, "step": outcome.step, "key": outcome.key})

    def _do_again_what_made(self, damaged: Damaged, flight: _Flight) -> None:
        """Take back the steps that made a damaged blob; a second time in one run, the step that reads it fails."""
        names = {name for name, _ in flight.wanted_by if name in self._runs}
        if any(damaged.blob in self._runs[name].repaired for name in names):
            self._store.add_attempt(
                damaged.key,
                Attempt(
                    step=flight.step.id,
                    outcome="failed",
                    reason=f"{damaged.reason} (it was made again in this run, and is damaged again)",
                    transient=False,
                    at=now(),
                    host=socket.gethostname(),
                    duration_s=0.0,
                ),
            )
            return self._judge(flight)
        for name in names:
            for outcome in makers(self._runs[name].frontier.outcomes, damaged.blob):
                _log.error("%s; step %s is done again", damaged.reason, outcome.step)
                self._store.quarantine(outcome.key or "")
            self._runs[name].repaired.add(damaged.blob)
            self._read_run(name)
        return None

    def _show(self) -> None:
        """Tell how far everything is."""
        frontiers = [run.frontier for run in self._runs.values()]
        self._metrics.set("edgejoule_runs_active", len(frontiers))
        self._metrics.set("edgejoule_steps_planned", sum(len(frontier.plan.steps) for frontier in frontiers))
        self._metrics.set("edgejoule_steps_done", sum(len(frontier.outcomes) for frontier in frontiers))
        flights = list(self._flights.values())
        queues = {*QUEUES, *(flight.queue for flight in flights if flight.queue)}
        leased = Counter(flight.queue for flight in flights if flight.holder is not None)
        claimed = Counter(flight.queue for flight in flights if flight.claim is not None and flight.holder is None)
        waiting = {queue: self._coordination.waiting_messages(queue) for queue in queues}
        for name, counts in zip(QUEUE_METRICS, (waiting, claimed, leased), strict=True):
            self._metrics.replace(name, {(queue,): counts.get(queue, 0) for queue in sorted(queues)})
        at_work: defaultdict[str, list[str]] = defaultdict(list)
        for flight in flights:
            if flight.holder is not None:
                for name, step in flight.wanted_by:
                    at_work[name].append(step)
        for name, run in self._runs.items():
            self._cells.look(run.frontier.plan, run.frontier.outcomes, at_work[name])

    # --- looking after flights ---

    def _look(self) -> None:
        """Find flights whose message or worker was lost."""
        sent = {key: flight for key, flight in self._flights.items() if flight.sent}
        flushed = self._coordination.was_flushed()
        if flushed:
            _log.warning("Redis lost what it knew; everything is looked at anew")
            self._next_sweep = 0.0
        standings = self._coordination.standings(list(sent))
        # A worker that ends a step gives its lease back and tells us, both at once: what was told is not lost.
        for news in self._coordination.wakes(0):
            self._handle(news)
        waiting: defaultdict[str, list[_Flight]] = defaultdict(list)
        for key, flight in sent.items():
            if self._flights.get(key) is not flight or not flight.sent:
                continue
            self._lead()
            self._look_at(flight, standings[key], flushed, waiting)
        if time.monotonic() >= self._next_renewal:
            self._next_renewal = time.monotonic() + self._timing.claim_s / 3
            self._coordination.renew_claims([flight.ready.key for flights in waiting.values() for flight in flights])
        for queue, flights in waiting.items():
            self._find_lost_messages(queue, flights)

    def _look_at(
        self, flight: _Flight, standing: Standing, flushed: bool, waiting: defaultdict[str, list[_Flight]]
    ) -> None:
        if standing.known:
            flight.missing_since, flight.forgiven = None, False
            flight.claim, flight.holder = standing.claim, standing.holder or flight.holder
            if standing.holder is None:
                waiting[flight.queue].append(flight)
            return
        flight.forgiven = flight.forgiven or flushed
        if flight.missing_since is None or flushed:
            flight.missing_since = time.monotonic()
        elif time.monotonic() - flight.missing_since >= 2 * self._timing.beat_s:  # its holder would have spoken
            self._judge(flight, lost=not flight.forgiven)

    def _find_lost_messages(self, queue: str, flights: list[_Flight]) -> None:
        """Send those again whose message is in no queue, and in no worker's hands: it died between the two."""
        if len(flights) <= self._coordination.waiting_messages(queue):
            self._suspicious.pop(queue, None)
            return
        self._suspicious[queue] = self._suspicious.get(queue, 0) + 1
        if self._suspicious[queue] < 2:  # one that was just being taken
            return
        there = self._coordination.message_ids(queue)
        for flight in flights:
            if flight.claim is not None and flight.claim not in there:
                self._coordination.drop_claim(flight.ready.key, flight.claim)
                self._judge(flight)
