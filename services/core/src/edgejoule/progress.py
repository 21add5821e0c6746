"""What a person sees of a run: one live display on a terminal, plain lines elsewhere, nothing when silent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from edgejoule.durations import Durations, Expected
from edgejoule.job import Progress as OnProgress
from edgejoule.reconcile import StepOutcome

SHOWN_AFTER_S = 2.0
"""What is over sooner shows no bar."""

TOLD_EVERY_S = 60.0
"""Where there is no terminal, the running steps have a line as often."""

_STYLES = {"ok": "green", "unsupported": "yellow"}
# A step's own pace tells how long it will take once a share of it is done, or, of a long one, some of it after a while.
_TRUSTED_FROM = 0.05
_TRUSTED_AFTER_S = 20.0


@dataclass(frozen=True)
class Work:
    """A step that is still to do, or doing.

    Attributes:
        threads: how many of the run's threads it holds; an exclusive step holds all.
        subject: what it is about, the model; steps of one kind differ by it.
        fraction: how much of it is done, 0-1; None when it has not said.
        amount: how much there is to do, against other steps of its kind (``Step.amount``).
    """

    kind: str
    threads: int
    subject: str = ""
    elapsed_s: float = 0.0
    fraction: float | None = None
    amount: float = 1.0

    @property
    def foreseen_s(self) -> float | None:
        """How long it will have taken, by its own pace; None while that tells little.

        >>> Work("train", 1, elapsed_s=40.0, fraction=0.01).foreseen_s
        4000.0
        >>> Work("train", 1, elapsed_s=4.0, fraction=0.01).foreseen_s
        """
        if not self.fraction or (self.fraction < _TRUSTED_FROM and self.elapsed_s < _TRUSTED_AFTER_S):
            return None
        return self.elapsed_s / self.fraction


def remaining_s(work: Iterable[Work], durations: Durations, threads: int) -> Expected | None:
    """How long the work will take on this many threads; None when nothing is known of a kind.

    >>> known = Durations({"build": 10.0})
    >>> remaining_s([Work("build", 1), Work("build", 1), Work("build", 1)], known, threads=2)
    Expected(seconds=15.0, measured=True)
    >>> remaining_s([Work("train", 1, elapsed_s=30.0, fraction=0.25)], known, threads=2).seconds
    90.0
    """
    thread_seconds, longest, measured = 0.0, 0.0, True
    for item in work:
        if (foreseen_s := item.foreseen_s) is not None:
            left = foreseen_s - item.elapsed_s
        elif expected := durations.expect(item.kind, item.subject, item.amount):
            left = max(0.0, expected.seconds - item.elapsed_s)
            measured = measured and expected.measured
        else:
            return None
        thread_seconds += left * item.threads
        longest = max(longest, left)
    return Expected(max(longest, thread_seconds / threads), measured)


def clock(seconds: float) -> str:
    """A duration for people.

    >>> clock(3.14), clock(75), clock(7322)
    ('3.1 s', '1:15', '2:02:02')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Display:
    """Shows nothing. What a run tells of itself, for others to show; called from one thread."""

    def begin(self, steps: Mapping[str, Work], durations_s: Mapping[str, float], threads: int) -> None:
        """A run of these steps begins; earlier steps took as long as ``durations_s`` says, per kind."""

    def start(self, step: str, work: Work) -> None:
        """A step is carried out from now on."""

    def wait(self, step: str, reason: str | None) -> None:
        """A started step waits for something; None: not any more."""

    def advance(self, step: str, done: float, total: float, unit: str) -> None:
        """A started step says how far it is."""

    def finish(self, outcome: StepOutcome) -> None:
        """A step has ended, whether it was started or not."""

    def note(self, text: str) -> None:
        """Something else to know."""

    def tick(self) -> None:
        """Time has passed."""

    def end(self) -> None:
        """The run is over."""


class Tally:
    """How far a run is: its steps to do, and those under way.

    Args:
        steps: all that is to do, by id.
        durations_s: how long earlier steps took, per kind.
        threads: that steps may use together.
    """

    def __init__(self, steps: Mapping[str, Work], durations_s: Mapping[str, float], threads: int) -> None:
        self.total = len(steps)
        self.running: dict[str, str] = {}
        """Steps under way, with what they last said."""
        self._threads = threads
        self._began = time.monotonic()
        self._since: dict[str, float] = {}
        self._pending = dict(steps)
        self._durations = Durations(durations_s)

    @property
    def done(self) -> int:
        return self.total - len(self._pending)

    def start(self, step: str, work: Work) -> None:
        self._pending[step] = work
        self._since[step] = time.monotonic()
        self.running[step] = ""

    def advance(self, step: str, done: float, total: float, unit: str) -> None:
        self._pending[step] = replace(self._pending[step], fraction=done / total if total > 0 else None)
        self.running[step] = f"{done:g}/{total:g} {unit}"

    def finish(self, outcome: StepOutcome) -> None:
        self.running.pop(outcome.step, None)
        self._since.pop(outcome.step, None)
        work = self._pending.pop(outcome.step, None)
        if work and outcome.ok and not outcome.cached:
            self._durations.learn(work.kind, work.subject, outcome.duration_s, work.amount)

    def elapsed_s(self, step: str | None = None) -> float:
        """Of a running step, or of the whole run."""
        return time.monotonic() - (self._began if step is None else self._since[step])

    def left(self) -> str:
        """How long the rest will take, in words; empty when nothing is known."""
        for step in self.running:
            work = self._pending[step] = replace(self._pending[step], elapsed_s=self.elapsed_s(step))
            if (foreseen_s := work.foreseen_s) is not None:
                self._durations.foresee(work.kind, work.subject, foreseen_s, work.amount)
        left = remaining_s(self._pending.values(), self._durations, self._threads)
        return f"{'about' if left.measured else 'at a guess'} {clock(left.seconds)} left" if left else ""


class PlainDisplay(Display):
    """For logs and pipes: a line for each step that ends, and now and then one for each that is running."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._before = 0
        self._tally = Tally({}, {}, 1)
        self._told_at = 0.0

    def begin(self, steps: Mapping[str, Work], durations_s: Mapping[str, float], threads: int) -> None:
        self._tally = Tally(steps, durations_s, threads)
        self._told_at = 0.0

    def start(self, step: str, work: Work) -> None:
        self._tally.start(step, work)

    def advance(self, step: str, done: float, total: float, unit: str) -> None:
        self._tally.advance(step, done, total, unit)

    def finish(self, outcome: StepOutcome) -> None:
        self._tally.finish(outcome)
        if outcome.cached and outcome.ok:
            self._before += 1
        elif outcome.origin == outcome.step:  # what merely follows from a failed step upstream is not told again
            self._print(_line(outcome), _STYLES.get(outcome.outcome, "red"))

    def note(self, text: str) -> None:
        self._print(text)

    def tick(self) -> None:
        if self._tally.elapsed_s() - self._told_at < TOLD_EVERY_S:
            return
        self._told_at = self._tally.elapsed_s()
        for step, amount in self._tally.running.items():
            told = f": {amount}" if amount else ""
            self._print(f"{'running':<11} {clock(self._tally.elapsed_s(step)):>8}  {step}{told}")
        left = f", {words}" if (words := self._tally.left()) else ""
        self._print(f"{'all steps':<11} {clock(self._told_at):>8}  {self._tally.done}/{self._tally.total} done{left}")

    def end(self) -> None:
        if self._before:
            self._print(f"steps done before: {self._before}")
            self._before = 0  # a run on the stack has two parts

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay(PlainDisplay):
    """A bar for the run, one for each running step, and above them a line for each finished one."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars = _bars(console)
        self._whole: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def begin(self, steps: Mapping[str, Work], durations_s: Mapping[str, float], threads: int) -> None:
        super().begin(steps, durations_s, threads)
        self._whole = self._bars.add_task("all steps", total=len(steps), unit="", clock="")

    def start(self, step: str, work: Work) -> None:
        super().start(step, work)
        self._remove(step)
        self._tasks[step] = self._bars.add_task(step, total=None, unit="", clock="")

    def wait(self, step: str, reason: str | None) -> None:
        self._bars.update(self._tasks[step], description=f"{step}: waits {reason}" if reason else step)

    def advance(self, step: str, done: float, total: float, unit: str) -> None:
        super().advance(step, done, total, unit)
        self._bars.update(self._tasks[step], completed=done, total=total or None, unit=self._tally.running[step])

    def finish(self, outcome: StepOutcome) -> None:
        self._remove(outcome.step)
        super().finish(outcome)
        self.tick()

    def tick(self) -> None:
        elapsed_s = self._tally.elapsed_s()
        if elapsed_s < SHOWN_AFTER_S or self._whole is None:
            return
        for step, task in self._tasks.items():
            self._bars.update(task, clock=clock(self._tally.elapsed_s(step)))
        left = f", {words}" if (words := self._tally.left()) else ""
        steps = f"{self._tally.done}/{self._tally.total} steps"
        self._bars.update(self._whole, completed=self._tally.done, unit=steps, clock=clock(elapsed_s) + left)
        self._bars.start()
        self._bars.refresh()

    def end(self) -> None:
        if self._whole is not None:
            for task in list(self._bars.task_ids):
                self._bars.remove_task(task)
        self._bars.stop()
        super().end()

    def _remove(self, step: str) -> None:
        if step in self._tasks:
            self._bars.remove_task(self._tasks.pop(step))


def display_on(console: Console) -> Display:
    """The display that suits a console: live on a terminal, plain lines elsewhere."""
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(console)


@contextmanager
def bar(console: Console, title: str) -> Iterator[OnProgress]:
    """A bar for one piece of work outside a run; it shows on a terminal only, after two seconds, and then vanishes."""
    began = time.monotonic()
    bars = _bars(console)
    task = bars.add_task(title, total=None, unit="", clock="")

    def on_progress(done: float, total: float, unit: str) -> None:
        elapsed_s = time.monotonic() - began
        if elapsed_s >= SHOWN_AFTER_S and console.is_terminal:
            amount = f"{done / 1e6:.0f}/{total / 1e6:.0f} MB" if unit == "B" else f"{done:g}/{total:g} {unit}"
            bars.update(task, completed=done, total=total or None, unit=amount, clock=clock(elapsed_s))
            bars.start()
            bars.refresh()

    try:
        yield on_progress
    finally:
        bars.remove_task(task)
        if bars.live.is_started:
            bars.stop()


def _bars(console: Console) -> Progress:
    """Redrawn when told to only: a clock of its own would disturb a measurement."""
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=3, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=None, table_column=Column(ratio=2)),
        TextColumn("{task.fields[unit]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[clock]}", markup=False, table_column=Column(no_wrap=True)),
        console=console,
        auto_refresh=False,
        expand=True,
        transient=True,
    )


def _line(outcome: StepOutcome) -> str:
    word = "done" if outcome.ok else outcome.outcome
    time_taken = "" if outcome.cached or not outcome.duration_s else clock(outcome.duration_s)
    reason = f": {outcome.reason}" if outcome.reason else ""
    again = " (as before; --retry tries again)" if outcome.cached and outcome.outcome != "unsupported" else ""
    log = f" (log: {outcome.log})" if outcome.log else ""
    return f"{word:<11} {time_taken:>8}  {outcome.step}{reason}{again}{log}"
