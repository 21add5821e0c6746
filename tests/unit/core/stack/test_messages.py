"""A message is believed only where it checks out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgejoule.kinds import Kinds
from edgejoule.plan import Ref, Step, step_key
from edgejoule.reconcile import Ready
from edgejoule.stack.coordination import Timing
from edgejoule.stack.messages import Refused, check_message, make_message, queue_of
from edgejoule.store import ATTEMPTS, LOSSES, Attempt, settled_failure

KINDS = Kinds({"toy": "toy_step", "measure": "toy_measure"})
STEP = Step("a", "toy", {"name": "a"}, {"x": Ref("b", "text")})
READY = Ready(step_key("toy", 1, {"name": "a"}, {"x": "0" * 64}), {"x": "0" * 64})


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "toys"))


def test_message_survives_json_and_gives_the_step_back() -> None:
    sent = json.loads(json.dumps(make_message(STEP, 1, READY, "c" * 32).model_dump()))
    message, kind = check_message(sent, KINDS)

    assert kind.module == "toy_step"
    assert message.as_ready() == READY
    assert (message.as_step().id, message.as_step().parameters) == ("a", {"name": "a"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": {"x": "/etc/passwd"}}, "inputs.x: String should match pattern"),
        ({"inputs": {"x": "A" * 64}}, "inputs.x: String should match pattern"),
        ({"inputs": {"x": "1" * 64}}, "does not have the key"),
        ({"key": "0" * 63 + "\n"}, "key: String should match pattern"),
        ({"key": "0" * 64}, "does not have the key"),
        ({"parameters": {"name": "b"}}, "does not have the key"),
        ({"parameters": []}, "parameters: Input should be a valid dictionary"),
        ({"kind": "os.system"}, "no installed package announces the step kind 'os.system'"),
        ({"version": 2}, "toy is installed here in version 1, and version 2 is asked for"),
        ({"version": "1"}, "version: Input should be a valid integer"),
        ({"step": ""}, "step: String should have at least 1 character"),
        ({"step": "x" * 301}, "step: String should have at most 300 characters"),
        ({"claim": "*"}, "claim: String should match pattern"),
        ({"module": "os"}, "module: Extra inputs are not permitted"),
    ],
)
def test_message_that_does_not_check_out_is_refused(change: dict[str, Any], reason: str) -> None:
    good = make_message(STEP, 1, READY, "c" * 32).model_dump()
    with pytest.raises(Refused) as refused:
        check_message({**good, **change}, KINDS)
    assert reason in str(refused.value)


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, {"step": {"$gt": ""}}])
def test_value_that_is_no_message_is_refused(value: object) -> None:
    with pytest.raises(Refused):
        check_message(value, KINDS)


def test_device_steps_wait_in_the_queue_of_their_device() -> None:
    build = Step("build/m/fp32/nano", "measure", {"device": "nano-serial-7"})

    assert queue_of(build, KINDS["measure"], "nano") == "device.nano"
    assert queue_of(STEP, KINDS["toy"], "nano") == "evaluate"


def attempts(*lost: bool) -> list[Attempt]:
    common = {"step": "a", "outcome": "failed", "transient": True, "at": "", "host": "", "duration_s": 0.0}
    return [Attempt.model_validate({**common, "reason": str(n), "lost": one}) for n, one in enumerate(lost)]


def test_lost_workers_have_an_allowance_of_their_own() -> None:
    assert settled_failure(attempts(*[True] * (LOSSES - 1), *[False] * (ATTEMPTS - 1))) is None
    assert settled_failure(attempts(*[True] * LOSSES)) is not None
    assert settled_failure(attempts(True, *[False] * ATTEMPTS)) is not None


def test_default_times_have_a_lost_workers_step_run_again_within_30_s() -> None:
    times = Timing()
    assert times.lease_s + 2 * times.look_s + 2 * times.beat_s < 25
