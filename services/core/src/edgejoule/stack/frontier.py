"""How far a plan is: which steps have ended, and which are ready. In memory, to be had from the store again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from edgejoule.errors import CorruptManifestError
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan, Source, Step
from edgejoule.reconcile import Ready, StepOutcome, recorded, resolve
from edgejoule.store import Store

Look = Callable[[Step, Ready], StepOutcome | None]


class Frontier:
    """The steps of a plan that have ended, and those that could be carried out now.

    A step is asked about once, when all it reads has ended, so that the work grows with the plan and not with its
    square.

    Attributes:
        outcomes: how steps ended, by id.
        ready: steps that could be carried out, by id.
    """

    def __init__(self, plan: Plan, kinds: Kinds) -> None:
        self.plan = plan
        self.outcomes: dict[str, StepOutcome] = {}
        self.ready: dict[str, Ready] = {}
        self._kinds = kinds
        self._readers: dict[str, list[str]] = {id: [] for id in plan.steps}
        self._missing: dict[str, int] = {}
        self._open: deque[str] = deque()
        for step in plan.steps.values():
            upstream = {ref.step for ref in step.upstream()}
            self._missing[step.id] = len(upstream)
            for other in upstream:
                self._readers[other].append(step.id)
            if not upstream:
                self._open.append(step.id)

    @property
    def done(self) -> bool:
        return len(self.outcomes) == len(self.plan.steps)

    def end(self, outcome: StepOutcome) -> None:
        """A step has ended; :meth:`advance` finds what follows."""
        self.ready.pop(outcome.step, None)
        if outcome.step in self.outcomes:
            return
        self.outcomes[outcome.step] = outcome
        for reader in self._readers[outcome.step]:
            self._missing[reader] -= 1
            if self._missing[reader] == 0:
                self._open.append(reader)

    def advance(self, look: Look) -> Iterator[StepOutcome | str]:
        """Follow up what ended: gives the outcomes that follow, and the ids of the steps that became ready.

        May be left at any moment, also by an error of ``look``, and goes on there when called again.
        """
        while self._open:
            step = self.plan.steps[self._open[0]]
            state = resolve(step, self._kinds[step.kind].version, self.outcomes)
            if isinstance(state, Ready):
                state = look(step, state) or state
            self._open.popleft()
            if isinstance(state, StepOutcome):
                self.end(state)
                yield state
            elif state is not None:
                self.ready[step.id] = state
                yield step.id


def found(step: Step, ready: Ready, store: Store) -> StepOutcome | None:
    """How a step of the stack ended, as far as anybody can know: by the store, or because no worker can do it.

    Raises:
        CorruptManifestError: the step was done, but its result is damaged.
    """
    outcome = recorded(step, ready, store)
    if outcome is None and any(isinstance(source, Source) for source in step.inputs.values()):
        reason = "it reads files of the host that submitted the run, and is not done: submit the spec again"
        return StepOutcome(step.id, "failed", reason, step.id)
    return outcome


def survey_frontier(plan: Plan, kinds: Kinds, store: Store) -> Frontier:
    """The frontier as the store has it now, changing nothing."""
    frontier = Frontier(plan, kinds)

    def look(step: Step, ready: Ready) -> StepOutcome | None:
        try:
            return found(step, ready, store)
        except CorruptManifestError:  # not done, then
            return None

    for _ in frontier.advance(look):
        pass
    return frontier


def devices_of(plan: Plan) -> Mapping[str, str]:
    """Step id to the device of its row; steps outside of rows have none."""
    return {step: cell.board for cell in plan.cells for step in cell.steps}
