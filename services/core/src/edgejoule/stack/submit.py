"""Hand a run over to the stack, and what else a person may ask of it there."""

from __future__ import annotations

from edgejoule import runs
from edgejoule.errors import EdgejouleError
from edgejoule.execution import DURABLE
from edgejoule.executor import RunOutcome, run_plan
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan, Source
from edgejoule.progress import Display
from edgejoule.runs import Run
from edgejoule.stack.coordination import Changed, Coordination
from edgejoule.stack.frontier import survey_frontier
from edgejoule.stack.run_files import mark_cancelled, mark_submitted, state_of_run
from edgejoule.store import Store


def local_part(plan: Plan) -> Plan:
    """The steps that read files of this host, and all that these read."""
    wanted = {step.id for step in plan.steps.values() if any(isinstance(s, Source) for s in step.inputs.values())}
    for step in reversed(list(plan.steps.values())):  # a step comes after those it reads
        if step.id in wanted:
            wanted.update(ref.step for ref in step.upstream())
    return Plan({id: step for id, step in plan.steps.items() if id in wanted}, ())


def do_local_part(run: Run, store: Store, *, kinds: Kinds, display: Display, retry: bool = False) -> RunOutcome:
    """Carry out here what reads files of this host, into the stack's store; what of the plan is left, workers can do.

    Args:
        retry: try steps again that failed before, those of the workers too.
    """
    ended = run_plan(local_part(run.plan), store, run=run.name, kinds=kinds, display=display, retry=retry)
    if retry:
        forget_failures(run.plan, store, kinds)
    return ended


def hand_over(run: Run, store: Store, coordination: Coordination) -> None:
    """Make a run the stack's."""
    runs.save(run, store)
    mark_submitted(run.name, store)
    coordination.wake(Changed(run=run.name))


def cancel(name: str, store: Store, coordination: Coordination) -> None:
    """Have the stack stop a run; what is finished is kept.

    Raises:
        EdgejouleError: the run is not the stack's, or has ended.
    """
    state = state_of_run(name, store)
    if not state.submitted:
        raise EdgejouleError(f"run {name!r} was not submitted to a stack that uses the store {store.where}")
    if state.end is not None:
        raise EdgejouleError(f"run {name!r} has ended already: {state.end}")
    mark_cancelled(name, store)
    coordination.wake(Changed(run=name))


def retry(name: str, store: Store, coordination: Coordination, *, kinds: Kinds) -> list[str]:
    """Have the stack try a run's failed steps again, or a cancelled run go on; the steps that had failed.

    Raises:
        EdgejouleError: a step failed that only the host which submitted the run can do.
    """
    plan = runs.load(name, store).plan
    failed = survey_frontier(plan, kinds, store).outcomes.values()
    local = local_part(plan).steps
    if lost := [outcome.step for outcome in failed if outcome.outcome not in DURABLE and outcome.step in local]:
        raise EdgejouleError(
            f"step {lost[0]!r} reads files of the host that submitted run {name!r}: submit the spec there with --retry"
        )
    forgotten = forget_failures(plan, store, kinds)
    mark_submitted(name, store)
    coordination.wake(Changed(run=name))
    return forgotten


def forget_failures(plan: Plan, store: Store, kinds: Kinds) -> list[str]:
    """Give every step a new start that failed for good; which these are."""
    failed = [
        outcome
        for outcome in survey_frontier(plan, kinds, store).outcomes.values()
        if outcome.key is not None and outcome.outcome not in DURABLE
    ]
    for outcome in failed:
        store.forget_attempts(outcome.key or "")
    return [outcome.step for outcome in failed]


def read_logs(step: str, run: str, store: Store, kinds: Kinds) -> list[tuple[str, bytes]]:
    """What each attempt at a step printed, oldest first, with a heading that says how it ended.

    Raises:
        EdgejouleError: the run has no such step, or it was never tried.
    """
    plan = runs.load(run, store).plan
    if step not in plan.steps:
        raise EdgejouleError(f"run {run!r} has no step {step!r}; edgejoule status {run} lists them")
    frontier = survey_frontier(plan, kinds, store)
    outcome = frontier.outcomes.get(step)
    key = outcome.key if outcome else frontier.ready[step].key if step in frontier.ready else None
    if key is None:
        reason = f"it could not start, because of {outcome.origin}" if outcome else "it waits for others"
        raise EdgejouleError(f"step {step!r} was not tried yet: {reason}")
    attempts = store.attempts(key)
    endings = [f"{attempt.outcome}: {attempt.reason}" for attempt in attempts]
    if outcome is None or outcome.manifest is not None:
        endings.append(outcome.outcome if outcome else "under way, or still to come")
    return [
        (f"attempt {number}: {ending}", store.read_log(key, number) or b"") for number, ending in enumerate(endings, 1)
    ]
