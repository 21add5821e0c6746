"""The one message of the stack: a step to carry out, complete in itself, and believed only where it checks out."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from edgejoule.devices import HOST
from edgejoule.errors import StepError
from edgejoule.kinds import Kinds, StepKind
from edgejoule.plan import Step, step_key
from edgejoule.reconcile import Ready
from edgejoule.records import Record, Sha256

TASK = "edgejoule.step"
"""Name of the Celery task."""

SIZE_LIMIT_BYTES = 8 << 20
"""Some 50,000 inputs; what is larger is not even parsed."""

_Name = Annotated[str, Field(min_length=1, max_length=300)]


class Refused(Exception):
    """A message is none of ours, or damaged; the sentence says why."""


class StepMessage(Record):
    """A step with its inputs by hash.

    Attributes:
        claim: id of this message; it counts only while the step's claim in Redis says the same.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    step: _Name
    kind: _Name
    version: int
    parameters: dict[str, Any]
    inputs: dict[_Name, Sha256]
    key: Sha256
    claim: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]

    def as_step(self) -> Step:
        """The step, without where its inputs come from."""
        return Step(self.step, self.kind, self.parameters)

    def as_ready(self) -> Ready:
        return Ready(self.key, self.inputs)


def make_message(step: Step, version: int, ready: Ready, claim: str) -> StepMessage:
    """The message for a step that is ready."""
    return StepMessage(
        step=step.id,
        kind=step.kind,
        version=version,
        parameters=dict(step.parameters),
        inputs=dict(ready.inputs),
        key=ready.key,
        claim=claim,
    )


def check_message(value: object, kinds: Kinds) -> tuple[StepMessage, StepKind]:
    """The message that ``value`` is, and its step's kind.

    Raises:
        Refused: it has not the form of one, its kind is not installed here in this version, or its key is another's.
    """
    try:
        message = StepMessage.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise Refused(f"{where}: {first['msg']}") from None
    try:
        kind = kinds[message.kind]
    except StepError as error:
        raise Refused(str(error)) from None
    if kind.version != message.version:
        raise Refused(
            f"{message.kind} is installed here in version {kind.version}, and version {message.version} is asked for: "
            "run the same version of edgejoule everywhere"
        )
    if step_key(message.kind, message.version, message.parameters, message.inputs) != message.key:
        raise Refused(f"step {message.step} does not have the key {message.key}")
    return message, kind


def open_envelope(data: bytes) -> object:
    """What is in a message as it lies in Redis: for who takes it from the queue without Celery.

    Raises:
        Refused: it has not the form that Celery gives a message of ours.
    """
    if len(data) > 2 * SIZE_LIMIT_BYTES:  # base64 and the headers
        raise Refused(f"it has {len(data)} bytes, and the limit is {2 * SIZE_LIMIT_BYTES}")
    try:
        envelope = json.loads(data)
        if envelope["headers"]["task"] != TASK or envelope["content-type"] != "application/json":
            raise Refused("it is no JSON message for a step")
        if envelope["properties"]["body_encoding"] != "base64":
            raise Refused("its body is not in base64")
        _, named, _ = json.loads(base64.b64decode(envelope["body"]))
        return named["message"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Refused(f"it has not the form of a message: {error!r:.200}") from None


def queue_of(step: Step, kind: StepKind, device: str | None) -> str:
    """The queue that a step waits in.

    >>> from edgejoule.kinds import Kinds
    >>> queue_of(Step("build/m/fp32/nano", "build"), Kinds()["build"], "nano")
    'device.nano'
    >>> [queue_of(Step("predict/m", "predict"), Kinds()["predict"], device) for device in ("nano", "host")]
    ['device.nano', 'evaluate']
    """
    if kind.queue == "device":
        return f"device.{device or step.parameters.get('device', HOST)}"
    return f"device.{device}" if kind.on_boards and device not in (None, HOST) else kind.queue
