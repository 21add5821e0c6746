"""The embedded executor: carries out a plan on this host, each step in a process of its own.

It reconciles: whatever the store says is done is done, whatever became ready is started, until every step
has an outcome. Killed at any moment and started again, it goes on where it was.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgejoule.errors import CorruptBlobError, CorruptManifestError, DataError
from edgejoule.execution import DURABLE, attempt, now
from edgejoule.kinds import Kinds, StepKind
from edgejoule.locks import Pause, host_lock
from edgejoule.plan import Cell, Plan, Ref, Source, Step
from edgejoule.progress import Display, Work
from edgejoule.reconcile import (
    Ready,
    StepOutcome,
    check,
    committed,
    makers,
    put_outcome_files,
    recorded,
    resolve,
)
from edgejoule.store import Manifest, Store, settled_failure
from edgejoule.worker import Stopped, threads_of

OnCell = Callable[[Cell, Mapping[str, StepOutcome]], None]

_TICK_S = 0.25
_MEASURING_TICK_S = 1.0  # the parent keeps quiet while a step measures


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: every step of the plan, by id."""

    outcomes: Mapping[str, StepOutcome]
    elapsed_s: float

    @property
    def executed(self) -> list[str]:
        """Steps that this run carried out."""
        return [step for step, outcome in self.outcomes.items() if outcome.key and not outcome.cached]

    @property
    def cached(self) -> list[str]:
        """Steps whose outcome was in the store already."""
        return [step for step, outcome in self.outcomes.items() if outcome.cached]

    @property
    def failed(self) -> list[StepOutcome]:
        """Where it went wrong; ``unsupported`` is an answer, and what merely follows is not listed."""
        return [o for o in self.outcomes.values() if o.outcome not in DURABLE and o.origin == o.step]


def run_plan(
    plan: Plan,
    store: Store,
    *,
    run: str,
    kinds: Kinds | None = None,
    workers: int | None = None,
    display: Display | None = None,
    on_cell: OnCell | None = None,
    retry: bool = False,
) -> RunOutcome:
    """Carry out a plan; what is done already is not done again.

    Args:
        run: name of the run; its events go to ``runs/<run>/events.jsonl`` in the store.
        workers: threads that steps may use together; all this process may run on when not given.
        on_cell: called as soon as all steps of a cell have an outcome.
        retry: try steps again that failed in earlier runs; else their failure stands.

    Raises:
        SpecError, StepError: the plan cannot be carried out at all.
        StoreError: the store cannot be used, or its disk is full.
        DataError: a source changed after the plan was made.
        KeyboardInterrupt: ^C; all children are gone, what is finished is kept.
    """
    kinds = kinds or Kinds()
    check(plan, kinds)
    return _Run(plan, store, run, kinds, workers or _cpus(), display or Display(), on_cell, retry).carry_out()


def _cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Damaged:
    """A step could not start, because the blob of an input turned out damaged."""

    sha256: str
    reason: str


_Message = Callable[[], None]


class _Run:
    """One run. All its state belongs to the main thread; steps report to it through ``_inbox``."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        run: str,
        kinds: Kinds,
        threads: int,
        display: Display,
        on_cell: OnCell | None,
        retry: bool,
    ) -> None:
        self._plan = plan
        self._store = store
        self._kinds = kinds
        self._threads = threads
        self._display = display
        self._on_cell = on_cell
        self._retry = retry
        self._run = run
        self._line = {step: place for place, step in enumerate(plan.steps)}
        self._open_cells = list(plan.cells)
        self._outcomes: dict[str, StepOutcome] = {}
        self._ready: dict[str, Ready] = {}
        self._running: dict[str, threading.Thread] = {}
        self._repaired: set[str] = set()
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._ticked = 0.0

    # --- the main thread ---

    def carry_out(self) -> RunOutcome:
        began = time.monotonic()
        steps = self._plan.steps
        self._settle()
        if len(self._outcomes) < len(steps):
            work = {id: self._work(step) for id, step in steps.items() if id not in self._outcomes}
            self._display.begin(work, self._store.durations_s(), self._threads)
        try:
            while len(self._outcomes) < len(steps):
                self._start_what_fits()
                self._listen()
                self._settle()
        except KeyboardInterrupt:
            self._stop()
            left = len(steps) - len(self._outcomes)
            self._display.note(f"Stopped with {left} of {len(steps)} steps to do. The same command goes on from here.")
            raise
        finally:
            self._stop()
            self._display.end()
        return RunOutcome({id: self._outcomes[id] for id in steps}, time.monotonic() - began)

    def _settle(self) -> None:
        """Give every step its outcome that has one in the store or takes over that of another."""
        for step in self._plan.steps.values():
            if step.id in self._outcomes or step.id in self._ready:
                continue
            state = resolve(step, self._kinds[step.kind].version, self._outcomes)
            if isinstance(state, Ready):
                state = self._recorded(step, state) or state
            if isinstance(state, StepOutcome):
                self._finish(state)
            elif state is not None:
                self._ready[step.id] = state

    def _recorded(self, step: Step, ready: Ready) -> StepOutcome | None:
        try:
            outcome = recorded(step, ready, self._store)
        except CorruptManifestError as error:
            self._quarantine(step.id, ready.key, str(error))
            return None
        if outcome and outcome.outcome not in DURABLE and self._retry:
            self._store.forget_attempts(ready.key)
            return None
        return outcome

    def _finish(self, outcome: StepOutcome) -> None:
        self._outcomes[outcome.step] = outcome
        self._ready.pop(outcome.step, None)
        self._log_event(_event_name(outcome), outcome.step, outcome.key)
        self._display.finish(outcome)
        for cell in [cell for cell in self._open_cells if all(step in self._outcomes for step in cell.steps)]:
            self._open_cells.remove(cell)
            if self._on_cell:
                self._on_cell(cell, {step: self._outcomes[step] for step in cell.steps})

    def _start_what_fits(self) -> None:
        """Start ready steps strictly in line; one that does not fit holds the line, so that none starves."""
        free = self._threads - sum(self._threads_of(self._plan.steps[id]) for id in self._running)
        for id in sorted(self._ready.keys() - self._running.keys(), key=self._line.__getitem__):
            step = self._plan.steps[id]
            free -= self._threads_of(step)
            if free < 0:
                return
            put_outcome_files(step, self._outcomes, self._store)
            self._display.start(id, self._work(step))
            thread = threading.Thread(target=self._supervise, args=(step, self._ready[id]), name=id)
            self._running[id] = thread
            thread.start()

    def _work(self, step: Step) -> Work:
        return Work(step.kind, self._threads_of(step), step.subject, amount=step.amount)

    def _threads_of(self, step: Step) -> int:
        """The threads that a step holds: an exclusive one all of them."""
        if self._kinds[step.kind].exclusive:
            return self._threads
        return min(threads_of(step.parameters), self._threads)

    def _listen(self) -> None:
        """Handle one thing that a step reports, and let the display know when time has passed."""
        measuring = any(self._kinds[self._plan.steps[id].kind].exclusive for id in self._running)
        tick_s = _MEASURING_TICK_S if measuring else _TICK_S
        with suppress(queue.Empty):
            self._inbox.get(timeout=tick_s)()
        if time.monotonic() - self._ticked >= tick_s:
            self._ticked = time.monotonic()
            self._display.tick()

    def _end_step(self, id: str, result: StepOutcome | _Damaged | BaseException) -> None:
        self._running.pop(id).join()
        if isinstance(result, StepOutcome):
            self._finish(result)
        elif isinstance(result, _Damaged):
            self._do_again_what_made(result)
        else:
            raise result

    def _do_again_what_made(self, damaged: _Damaged) -> None:
        """Take back the steps that made a damaged blob, and what was ready because of them."""
        if damaged.sha256 in self._repaired:
            raise CorruptBlobError(f"{damaged.reason} (it was made again in this run, and is damaged again)")
        self._repaired.add(damaged.sha256)
        for outcome in makers(self._outcomes, damaged.sha256):
            del self._outcomes[outcome.step]
            self._quarantine(outcome.step, outcome.key or "", damaged.reason)
        self._ready = {id: ready for id, ready in self._ready.items() if id in self._running}

    def _quarantine(self, step: str, key: str, reason: str) -> None:
        self._store.quarantine(key)
        self._log_event("quarantined", step, key)
        self._display.note(f"{reason}; step {step} is done again")

    def _stop(self) -> None:
        """End all children and wait for them; what they report any more does not count."""
        self._stopping.set()
        for thread in self._running.values():
            thread.join()
        self._running.clear()

    # --- a thread for each running step ---

    def _supervise(self, step: Step, ready: Ready) -> None:
        result: StepOutcome | _Damaged | BaseException
        try:
            result = self._execute(step, ready)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            result = error
        self._inbox.put(lambda: self._end_step(step.id, result))

    def _execute(self, step: Step, ready: Ready) -> StepOutcome | _Damaged:
        """Carry out a step, as often as its failures allow."""
        kind = self._kinds[step.kind]
        busy = "for others on this host to end" if kind.exclusive else "for a measurement on this host"
        with self._store.lease(ready.key, self._pause(step, "for another run that is doing it")) as lease:
            while True:
                if outcome := recorded(step, ready, self._store):  # another run was quicker
                    return outcome
                inputs: dict[str, Path] = {}
                for name, sha256 in ready.inputs.items():
                    try:
                        inputs[name] = self._local(step.inputs[name], sha256)
                    except CorruptBlobError as error:
                        return _Damaged(sha256, str(error))
                with host_lock(exclusive=kind.exclusive, pause=self._pause(step, busy)) as host:
                    self._tell(self._display.wait, step.id, None)
                    outcome = self._attempt(step, ready, kind, inputs, (lease, host))
                if outcome:
                    return outcome

    def _local(self, source: Ref | Source, sha256: str) -> Path:
        """A local file or folder with this content."""
        if isinstance(source, Ref):
            return self._store.fetch(sha256)
        if self._store.hashes.source(source.path).sha256 != sha256:
            raise DataError(f"{source.path} changed after the run began: run the same command again")
        return source.path

    def _attempt(
        self, step: Step, ready: Ready, kind: StepKind, inputs: Mapping[str, Path], locks: tuple[int, int]
    ) -> StepOutcome | None:
        """Try once. None: it failed, but trying again may help."""
        self._log_event("started", step.id, ready.key)
        result = attempt(
            step,
            ready,
            kind,
            self._store,
            inputs,
            on_progress=partial(self._tell, self._display.advance, step.id),
            stopping=self._stopping.is_set,
            inherit=locks,
        )
        if isinstance(result, Manifest):
            return committed(step, result, cached=False)
        attempts = self._store.attempts(ready.key)
        if settled_failure(attempts) is None:
            self._log_event("retried", step.id, ready.key)
            return None
        log = self._store.log(ready.key, len(attempts))
        return StepOutcome(
            step.id, result.outcome, result.reason, step.id, ready.key, duration_s=result.duration_s, log=log
        )

    def _pause(self, step: Step, reason: str) -> Pause:
        """A pause that says what the step waits for, and gives up when the run is stopped."""
        told = False

        def pause() -> None:
            nonlocal told
            if not told:
                self._tell(self._display.wait, step.id, reason)
                told = True
            if self._stopping.wait(0.1):
                raise Stopped

        return pause

    def _tell(self, show: Callable[..., None], *arguments: object) -> None:
        """Have the main thread show something."""
        self._inbox.put(partial(show, *arguments))

    def _log_event(self, event: str, step: str, key: str | None) -> None:
        self._store.add_event(self._run, {"at": now(), "event": event, "step": step, "key": key})


def _event_name(outcome: StepOutcome) -> str:
    if outcome.cached:
        return "cached"
    if outcome.key is None:
        return "skipped"
    return "finished" if outcome.ok else outcome.outcome
