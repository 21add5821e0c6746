"""How a run of the stack goes on, as a person sees it: from the store, and from what Redis knows of steps under way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgejoule.durations import Durations
from edgejoule.errors import CorruptManifestError, EdgejouleError
from edgejoule.executor import OnCell, RunOutcome
from edgejoule.kinds import Kinds
from edgejoule.plan import Cell, Plan, Step
from edgejoule.progress import Display, Work, clock, remaining_s
from edgejoule.reconcile import Ready, StepOutcome
from edgejoule.stack.coordination import Coordination, Progress, Standing
from edgejoule.stack.frontier import Frontier, found
from edgejoule.stack.run_files import RunState, state_of_run
from edgejoule.store import Store

LOOK_S = 0.5
_UNSEEN = 20  # steps that nobody seems to be at, of which the store is asked at each look
_NOBODY = Standing(None, None)


class Watcher:
    """Follows a plan by looking; changes nothing.

    Args:
        coordination: of the stack; None: only what is in the store can be seen.

    Attributes:
        outcomes: how steps ended.
        progress: of the steps that are being carried out, by id.
    """

    def __init__(self, plan: Plan, store: Store, coordination: Coordination | None, kinds: Kinds) -> None:
        self.plan = plan
        self.progress: dict[str, Progress] = {}
        self._store = store
        self._coordination = coordination
        self._frontier = Frontier(plan, kinds)
        self._standings: dict[str, Standing] = {}
        self._unseen: deque[str] = deque()

    @property
    def outcomes(self) -> Mapping[str, StepOutcome]:
        return self._frontier.outcomes

    @property
    def waiting(self) -> list[str]:
        """Steps whose message waits in a queue."""
        return [step for step, standing in self._standings.items() if standing.claim and not standing.holder]

    @property
    def workers(self) -> set[str]:
        """Those that carry out steps of the plan."""
        return {progress.worker for progress in self.progress.values()}

    def look(self, *, thoroughly: bool = False) -> list[StepOutcome]:
        """What ended since the last look.

        Args:
            thoroughly: ask the store of every step that is ready, not only of those that someone was seen at.
        """
        ended = self._follow_up()
        ready = dict(self._frontier.ready)
        before = self._standings
        known = self._coordination.standings([r.key for r in ready.values()]) if self._coordination else {}
        self._standings = {step: known.get(r.key, _NOBODY) for step, r in ready.items()}
        gone = {step for step, s in self._standings.items() if not s.known and before.get(step, _NOBODY).known}
        for step in gone | set(ready if thoroughly else self._next_unseen()):
            if not self._standings[step].known and (outcome := self._found(self.plan.steps[step], ready[step])):
                self._frontier.end(outcome)
                ended.append(outcome)
        ended += self._follow_up()
        self._see_progress()
        return ended

    def _next_unseen(self) -> list[str]:
        """Some of the steps that nobody seems to be at, all of them in turn."""
        if not self._unseen:
            self._unseen.extend(step for step, standing in self._standings.items() if not standing.known)
        chosen = [self._unseen.popleft() for _ in range(min(_UNSEEN, len(self._unseen)))]
        return [step for step in chosen if step in self._standings]

    def _see_progress(self) -> None:
        ready = self._frontier.ready
        held = {ready[step].key: step for step, s in self._standings.items() if s.holder and step in ready}
        said = self._coordination.progress(list(held)) if self._coordination else {}
        self.progress = {}
        for key, step in held.items():
            worker = (self._standings[step].holder or "").partition("#")[0]
            self.progress[step] = said.get(key, Progress(worker=worker))

    def work_left(self) -> list[Work]:
        """The steps that have not ended, for an estimate of the time they take."""
        return [self.work_of(step) for step in self.plan.steps.values() if step.id not in self.outcomes]

    def work_of(self, step: Step) -> Work:
        said = self.progress.get(step.id)
        fraction = said.done / said.total if said and said.total > 0 else None
        return Work(step.kind, 1, step.subject, said.elapsed_s if said else 0.0, fraction, step.amount)

    def _follow_up(self) -> list[StepOutcome]:
        return [state for state in self._frontier.advance(self._found) if isinstance(state, StepOutcome)]

    def _found(self, step: Step, ready: Ready) -> StepOutcome | None:
        try:
            return found(step, ready, self._store)
        except CorruptManifestError:  # the conductor has it done again
            return None


def follow(
    run: str,
    watcher: Watcher,
    store: Store,
    local: Mapping[str, StepOutcome],
    *,
    display: Display,
    on_cell: OnCell | None = None,
) -> RunOutcome:
    """Show a submitted run as the embedded executor would, until it has ended.

    Args:
        watcher: has looked before the run was submitted; what it saw was done before.
        local: steps whose outcomes were shown already.

    Raises:
        EdgejouleError: it was cancelled, or refused.
    """
    began = time.monotonic()
    steps = watcher.plan.steps
    outcomes = {**watcher.outcomes, **local}
    started: set[str] = set()
    open_cells = list(watcher.plan.cells)
    work = {id: watcher.work_of(step) for id, step in steps.items() if id not in outcomes}
    display.begin(work, store.durations_s(), max(1, len(watcher.workers)))
    try:
        for id in outcomes.keys() - local.keys():
            display.finish(outcomes[id])
        while True:
            state = state_of_run(run, store)
            for outcome in watcher.look(thoroughly=state.end is not None):
                outcomes[outcome.step] = replace(outcome, cached=False)
                started.discard(outcome.step)
                display.finish(outcomes[outcome.step])
            _show_progress(watcher, started, display)
            for cell in [cell for cell in open_cells if all(step in outcomes for step in cell.steps)]:
                open_cells.remove(cell)
                if on_cell:
                    on_cell(cell, {step: outcomes[step] for step in cell.steps})
            display.tick()
            if len(outcomes) == len(steps):
                break
            _stop_when_ended(run, state)
            time.sleep(LOOK_S)
    finally:
        display.end()
    return RunOutcome({id: outcomes[id] for id in steps}, time.monotonic() - began)


def _show_progress(watcher: Watcher, started: set[str], display: Display) -> None:
    for step, said in watcher.progress.items():
        if step not in started:
            started.add(step)
            display.start(step, watcher.work_of(watcher.plan.steps[step]))
        display.wait(step, said.waits)
        if said.total > 0:
            display.advance(step, said.done, said.total, f"{said.unit}, {said.worker}")


def _stop_when_ended(run: str, state: RunState) -> None:
    if state.end == "cancelled":
        raise EdgejouleError(f"run {run!r} was cancelled; edgejoule retry {run} has it go on")
    if state.end == "refused":
        raise EdgejouleError(f"the conductor refuses run {run!r}: {state.reason}")


# --- the live matrix ---------------------------------------------------------------------------------


def watch(
    run: str,
    plan: Plan,
    store: Store,
    coordination: Coordination | None,
    kinds: Kinds,
    console: Console,
) -> None:
    """Show a run until it has ended: row by row on a terminal, a line for each change elsewhere."""
    watcher = Watcher(plan, store, coordination, kinds)
    durations = Durations(store.durations_s())
    if not console.is_terminal:
        _tell(run, watcher, store, durations, console)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            over = _over(run, watcher, store, durations)
            live.update(matrix(run, watcher, durations), refresh=True)
            if over:
                return
            time.sleep(LOOK_S)


def _tell(run: str, watcher: Watcher, store: Store, durations: Durations, console: Console) -> None:
    last = ""
    while True:
        over = _over(run, watcher, store, durations)
        line = f"{run}: {_counts(watcher)}"
        if line != last:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            last = line
        if over:
            return
        time.sleep(LOOK_S)


def _over(run: str, watcher: Watcher, store: Store, durations: Durations) -> bool:
    state = state_of_run(run, store)
    for outcome in watcher.look(thoroughly=state.end is not None):
        if outcome.ok and outcome.duration_s:
            step = watcher.plan.steps[outcome.step]
            durations.learn(step.kind, step.subject, outcome.duration_s, step.amount)
    return state.end is not None or len(watcher.outcomes) == len(watcher.plan.steps)


def matrix(run: str, watcher: Watcher, durations: Durations) -> RenderableType:
    """The run as a table of rows and kinds of steps, those at work, and how long it will still take."""
    kinds = list(dict.fromkeys(watcher.plan.steps[id].kind for cell in watcher.plan.cells for id in cell.steps))
    table = Table(title=run, title_justify="left", pad_edge=False)
    table.add_column("row", no_wrap=True)
    for kind in kinds:
        table.add_column(kind, no_wrap=True, justify="center")
    waiting = set(watcher.waiting)
    for cell in watcher.plan.cells:
        table.add_row(cell.name, *(_square(cell, kind, watcher, waiting) for kind in kinds))
    at_work = Table(box=None, pad_edge=False, show_header=False)
    for step, said in sorted(watcher.progress.items()):
        share = f"{said.done:g}/{said.total:g} {said.unit}" if said.total else ""
        at_work.add_row(step, said.worker, f"waits {said.waits}" if said.waits else share, clock(said.elapsed_s))
    left = remaining_s(watcher.work_left(), durations, max(1, len(watcher.workers)))
    eta = f", {'about' if left.measured else 'at a guess'} {clock(left.seconds)} left" if left and left.seconds else ""
    return Group(table, at_work, Text(_counts(watcher) + eta))


def _square(cell: Cell, kind: str, watcher: Watcher, waiting: set[str]) -> Text:
    """The steps of one kind in one row: the worst thing that can be said of them."""
    steps = [step for step in cell.steps if watcher.plan.steps[step].kind == kind]
    ended = [watcher.outcomes[step] for step in steps if step in watcher.outcomes]
    if bad := [outcome for outcome in ended if not outcome.ok]:
        return Text(bad[0].outcome, style="yellow" if bad[0].outcome == "unsupported" else "red")
    if not steps:
        return Text("")
    if len(ended) == len(steps):
        return Text("done", style="green")
    count = f" {len(ended)}/{len(steps)}" if len(steps) > 1 else ""
    if at_work := [watcher.progress[step] for step in steps if step in watcher.progress]:
        share = f"{at_work[0].done / at_work[0].total:.0%}" if at_work[0].total > 0 and not count else "at work"
        return Text(share + count, style="cyan")
    return Text(("queued" if waiting.intersection(steps) else "·") + count, style="dim")


def _counts(watcher: Watcher) -> str:
    total, ended = len(watcher.plan.steps), len(watcher.outcomes)
    bad = sum(not outcome.ok and outcome.outcome != "unsupported" for outcome in watcher.outcomes.values())
    parts = [f"{ended}/{total} steps"]
    parts += [f"{bad} failed or held up"] if bad else []
    parts += [f"{len(watcher.waiting)} queued"] if watcher.waiting else []
    parts += [f"{len(watcher.progress)} under way by {', '.join(sorted(watcher.workers))}"] if watcher.progress else []
    return ", ".join(parts)
