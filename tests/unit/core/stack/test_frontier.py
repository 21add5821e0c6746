"""What is ready, found step by step, is what a survey of the whole plan finds."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from edgejoule.errors import StoreError
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan, Ref, Step
from edgejoule.reconcile import Ready, StepOutcome
from edgejoule.stack.frontier import Frontier
from edgejoule.store import Blob, Made, Manifest

KINDS = Kinds({"toy": "toy_step"})


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "toys"))


def random_plan(seed: int, count: int = 40) -> Plan:
    chance = random.Random(seed)
    steps = {}
    for number in range(count):
        upstream = chance.sample(range(number), min(number, chance.randrange(4)))
        inputs = {f"from-{up}": Ref(str(up), "text", tolerant=chance.random() < 0.3) for up in upstream}
        steps[str(number)] = Step(str(number), "toy", {"number": number}, inputs)
    return Plan(steps, ())


def outcome_of(step: Step, ready: Ready) -> StepOutcome:
    """Every seventh step fails."""
    if int(step.id) % 7 == 3:
        return StepOutcome(step.id, "failed", "a bug", step.id, ready.key)
    made = Made(at="2026-01-01T00:00:00+00:00", host="here", duration_s=1.0, edgejoule="0")
    manifest = Manifest(
        key=ready.key,
        kind="toy",
        version=1,
        step=step.id,
        parameters=dict(step.parameters),
        inputs=dict(ready.inputs),
        outputs={"text": Blob(sha256=ready.key, size_bytes=1)},
        outcome="ok",
        reason=None,
        made=made,
    )
    return StepOutcome(step.id, "ok", None, step.id, ready.key, manifest)


@pytest.mark.parametrize("seed", range(5))
def test_order_of_endings_changes_no_outcome_and_each_step_is_asked_about_once(seed: int) -> None:
    plan = random_plan(seed)
    whole = Frontier(plan, KINDS)
    asked: Counter[str] = Counter()

    def known(step: Step, ready: Ready) -> StepOutcome:
        asked[step.id] += 1
        return outcome_of(step, ready)

    assert {o.step for o in whole.advance(known) if isinstance(o, StepOutcome)} == plan.steps.keys()
    assert set(asked.values()) == {1}
    assert whole.done

    stepwise, chance = Frontier(plan, KINDS), random.Random(seed)
    while not stepwise.done:
        list(stepwise.advance(lambda step, ready: None))
        if stepwise.ready:
            id = chance.choice(sorted(stepwise.ready))
            stepwise.end(outcome_of(plan.steps[id], stepwise.ready[id]))
    assert stepwise.outcomes == whole.outcomes


def test_goes_on_where_an_error_stopped_it() -> None:
    plan = random_plan(1)
    frontier = Frontier(plan, KINDS)
    fails = iter([True, False] * len(plan.steps))

    def look(step: Step, ready: Ready) -> StepOutcome:
        if next(fails):
            raise StoreError("the store does not answer")
        return outcome_of(step, ready)

    stops = 0
    while not frontier.done:
        try:
            list(frontier.advance(look))
        except StoreError:
            stops += 1

    whole = Frontier(plan, KINDS)
    list(whole.advance(outcome_of))
    assert stops
    assert frontier.outcomes == whole.outcomes
