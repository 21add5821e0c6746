"""What is ready follows from plan and manifests alone: no state of a run needs to survive it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgejoule.canonical import canonical_json, hash_json
from edgejoule.errors import CorruptManifestError, SpecError
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan, Source, Step, step_key
from edgejoule.store import Manifest, Store, settled_failure


@dataclass(frozen=True)
class StepOutcome:
    """How a step ended.

    Attributes:
        outcome: ``ok``, or the status that the rows depending on this step get.
        origin: the step where it went wrong, when that is one upstream; else this step.
        key: None for a step that was not run because of another.
        cached: it was so before, from an earlier run or another one.
        log: what the failed attempt printed.
    """

    step: str
    outcome: str
    reason: str | None
    origin: str
    key: str | None = None
    manifest: Manifest | None = None
    cached: bool = False
    duration_s: float = 0.0
    log: Path | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


@dataclass(frozen=True)
class Ready:
    """A step whose inputs are all known, hence its key."""

    key: str
    inputs: Mapping[str, str]


def check(plan: Plan, kinds: Kinds) -> None:
    """Make sure that the plan can be carried out at all.

    Raises:
        SpecError: a step reads one that does not come before it.
        StepError: a step's kind is not installed.
    """
    seen: set[str] = set()
    for step in plan.steps.values():
        kinds[step.kind]
        if unknown := [ref.step for ref in step.upstream() if ref.step not in seen]:
            raise SpecError(f"step {step.id!r} reads {unknown[0]!r}, which is no step before it in the plan")
        seen.add(step.id)


def resolve(step: Step, version: int, outcomes: Mapping[str, StepOutcome]) -> Ready | StepOutcome | None:
    """What follows for a step from how those upstream ended: ready, ended with them, or None while it must wait."""
    if any(ref.step not in outcomes for ref in step.upstream()):
        return None  # also when one has failed: which failure counts must not depend on which came first
    hashes: dict[str, str] = {}
    for name, source in step.inputs.items():
        if isinstance(source, Source):
            hashes[name] = source.sha256
            continue
        upstream = outcomes[source.step]
        if not upstream.ok and not source.tolerant:
            return StepOutcome(step.id, upstream.outcome, upstream.reason, upstream.origin)
        elif not upstream.ok:
            hashes[name] = hash_json(outcome_file(upstream))
        elif upstream.manifest is None or (blob := upstream.manifest.outputs.get(source.output)) is None:
            reason = f"step {source.step!r} made no output {source.output!r}"
            return StepOutcome(step.id, "failed", reason, step.id)
        else:
            hashes[name] = blob.sha256
    return Ready(step_key(step.kind, version, step.parameters, hashes), hashes)


def outcome_file(outcome: StepOutcome) -> dict[str, str | None]:
    """What a tolerant input holds in place of the output of a step that has none."""
    return {"outcome": outcome.outcome, "reason": outcome.reason, "step": outcome.origin}


def put_outcome_files(step: Step, outcomes: Mapping[str, StepOutcome], store: Store) -> None:
    """Have the store hold the outcome files among a ready step's inputs."""
    for ref in step.upstream():
        if not outcomes[ref.step].ok:
            store.put(canonical_json(outcome_file(outcomes[ref.step])).encode("utf-8"))


def recorded(step: Step, ready: Ready, store: Store) -> StepOutcome | None:
    """How the store says that the step ended; None when it is still to do.

    Raises:
        CorruptManifestError: the step was done, but its result is damaged.
    """
    if manifest := store.manifest(ready.key):
        return committed(step, manifest, cached=True)
    attempts = store.attempts(ready.key)
    if failure := settled_failure(attempts):
        log = store.log(ready.key, len(attempts))
        return StepOutcome(step.id, failure.outcome, failure.reason, step.id, ready.key, cached=True, log=log)
    return None


def committed(step: Step, manifest: Manifest, *, cached: bool) -> StepOutcome:
    """The outcome that a manifest stands for."""
    return StepOutcome(
        step=step.id,
        outcome=manifest.outcome,
        reason=manifest.reason,
        origin=step.id,
        key=manifest.key,
        manifest=manifest,
        cached=cached,
        duration_s=manifest.made.duration_s,
    )


def survey(plan: Plan, store: Store, kinds: Kinds) -> dict[str, StepOutcome | Ready | None]:
    """What a run would find, step by step, changing nothing.

    An outcome: ended before (or cannot be run, because of one that has). Ready: would be run.
    None: follows later; its key depends on the result of a step that would be run.
    """
    check(plan, kinds)
    outcomes: dict[str, StepOutcome] = {}
    found: dict[str, StepOutcome | Ready | None] = {}
    for step in plan.steps.values():
        state = resolve(step, kinds[step.kind].version, outcomes)
        if isinstance(state, Ready):
            with suppress(CorruptManifestError):  # not done, then
                state = recorded(step, state, store) or state
        if isinstance(state, StepOutcome):
            outcomes[step.id] = state
        found[step.id] = state
    return found


def makers(outcomes: Mapping[str, StepOutcome], sha256: str) -> list[StepOutcome]:
    """The outcomes that have this output: those to do again when the blob is damaged."""
    return [
        outcome
        for outcome in outcomes.values()
        if outcome.manifest and any(blob.sha256 == sha256 for blob in outcome.manifest.outputs.values())
    ]
