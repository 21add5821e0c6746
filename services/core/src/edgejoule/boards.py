"""Boards: what the gateway and the agent on a board say to each other, and what the store keeps of each board.

A board is known by its device's name, as in a spec. The store holds, for each,

    devices/<name>.json    who made its token, as a hash, and whether it is revoked; written by people
    probes/<name>.json     what the board last said of itself; written by the gateway

The agent imports nothing of ours: the messages reach it as a JSON Schema file (``make schemas``).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import Field

from edgejoule.devices import Device
from edgejoule.errors import EdgejouleError
from edgejoule.execution import now
from edgejoule.records import Record, Sha256, Status
from edgejoule.store import Blob, Store

DEVICE = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
"""What a device may be called: a label of a host name, at most 40 characters."""

SECRET_BYTES = 32

DeviceName = Annotated[str, Field(pattern=f"^{DEVICE}$")]
JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
_Text = Annotated[str, Field(max_length=4000)]


# --- what they say ----------------------------------------------------------------------------------


class DeviceHello(Record):
    """A board says what it is; its first words after any silence."""

    agent: Annotated[str, Field(max_length=100)] = Field(description="version of edgejoule-agent")
    kinds: dict[str, int] = Field(description="step kind -> version of what this board can do")
    hardware: dict[str, Any] = Field(description="what an engine is bound to")
    environment: dict[str, Any] = Field(description="what a measurement is bound to")
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="where its metrics can be scraped; null where it shows none"
    )


class DeviceJob(Record):
    """A step for a board. Its inputs can be had by hash while the job lasts."""

    job: JobId
    step: str
    kind: str
    version: int
    parameters: dict[str, Any]
    inputs: dict[str, Sha256]
    exclusive: bool = Field(description="nothing else of ours may run on the host meanwhile")
    time_limit_s: float
    silence_limit_s: float = Field(description="a step that says nothing of its progress for so long hangs")
    report_every_s: float = Field(description="how often the gateway wants to hear of it")


class DeviceProgress(Record):
    """How far a job is."""

    done: float = 0.0
    total: float = 0.0
    unit: Annotated[str, Field(max_length=40)] = ""
    waits: _Text | None = Field(default=None, description="what it waits for, where it is not at work")


class DeviceVerdict(Record):
    """The answer to a progress report."""

    go_on: bool
    reason: str | None = Field(default=None, description="why not")


class DeviceResult(Record):
    """How a job ended. ``given_back``: the host's fault, not the step's; it is tried again and counts for nothing."""

    outcome: Status | Literal["given_back"]
    reason: _Text | None
    transient: bool
    duration_s: Annotated[float, Field(ge=0)]
    outputs: dict[FileName, Blob] = Field(description="file -> what was written, of a step that ended ok")
    log: Blob | None = Field(description="what the step printed")


class DeviceDelivery(Record):
    """The answer to a result: over, or which files the gateway wants (``log`` among them), and from which byte on."""

    over: bool
    said: str = Field(description="what became of it, for the board's log")
    missing: dict[str, int] = Field(default_factory=dict, description="file -> bytes that are there already")


class DeviceMessages(Record):
    """One of each, so that one schema file holds them all."""

    hello: DeviceHello
    job: DeviceJob
    progress: DeviceProgress
    verdict: DeviceVerdict
    result: DeviceResult
    delivery: DeviceDelivery


# --- what the store keeps ---------------------------------------------------------------------------


class DeviceToken(Record):
    """A board's right to be served. The token itself is nowhere: 256 random bits need no slow hash."""

    device: DeviceName
    sha256: Sha256 = Field(description="of the whole token")
    made_at: str
    revoked_at: str | None = None


class DeviceProbe(Record):
    """What a board said of itself."""

    device: DeviceName
    at: str
    hello: DeviceHello


def new_token(device: str) -> str:
    """A token for a board, to be shown once.

    >>> new_token("nano").startswith("nano."), len(new_token("nano"))
    (True, 48)
    """
    return f"{device}.{secrets.token_urlsafe(SECRET_BYTES)}"


def hash_of(token: str) -> str:
    """What the store keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def device_of(token: str) -> str | None:
    """The device that a token says it is of.

    >>> device_of("nano.x"), device_of("../nano.x"), device_of("nano")
    ('nano', None, None)
    """
    device, dot, _ = token.partition(".")
    return device if dot and re.fullmatch(DEVICE, device) else None


def register(device: str, token: str, store: Store) -> None:
    """Have the gateway serve who holds this token as ``device``; an earlier token of that device is void.

    Raises:
        EdgejouleError: no device may be called so.
    """
    if not re.fullmatch(DEVICE, device):
        raise EdgejouleError(
            f"no device can be called {device!r}: take small letters, digits and hyphens, at most 40, as in nano-2"
        )
    record = DeviceToken(device=device, sha256=hash_of(token), made_at=now())
    store.put_device("devices", device, record.model_dump_json().encode())


def have_registered(device: str, token: str, store: Store) -> None:
    """Register a device with this token, unless it is or was already: what people revoked stays so."""
    kept = token_of(device, store)
    if kept is None or kept.sha256 != hash_of(token):
        register(device, token, store)


def token_of(device: str, store: Store) -> DeviceToken | None:
    """What the store keeps of a device's token."""
    data = store.device("devices", device)
    return DeviceToken.model_validate_json(data) if data is not None else None


def revoke(device: str, store: Store) -> None:
    """Serve a device no more.

    Raises:
        EdgejouleError: there is no such device, or it is revoked already.
    """
    found = token_of(device, store) if re.fullmatch(DEVICE, device) else None
    if found is None:
        raise EdgejouleError(f"there is no device {device!r}; edgejoule devices list shows those there are")
    if found.revoked_at is not None:
        raise EdgejouleError(f"the token of device {device!r} is revoked already, since {found.revoked_at}")
    record = found.model_copy(update={"revoked_at": now()})
    store.put_device("devices", device, record.model_dump_json().encode())


def probe_of(device: str, store: Store) -> DeviceProbe | None:
    """What a device last said of itself."""
    data = store.device("probes", device)
    return DeviceProbe.model_validate_json(data) if data is not None else None


def keep_probe(device: str, hello: DeviceHello, store: Store) -> None:
    """Keep what a device says of itself, for the plans to come."""
    record = DeviceProbe(device=device, at=now(), hello=hello)
    store.put_device("probes", device, record.model_dump_json().encode())


def is_used(token: DeviceToken | None, probe: DeviceProbe | None) -> bool:
    """Whether a board has said what it is with this very token, not with one before it."""
    return token is not None and probe is not None and token.made_at <= probe.at


def as_reported(name: str, store: Store) -> Device | None:
    """The device behind the gateway that is called so, as it last said of itself; None when there is none.

    Raises:
        EdgejouleError: it is registered, but has not been heard of yet, or is revoked.
    """
    token = token_of(name, store)
    if token is None:
        return None
    if token.revoked_at is not None:
        raise EdgejouleError(f"the token of device {name!r} is revoked: edgejoule devices create {name} makes another")
    if (found := probe_of(name, store)) is None:
        raise EdgejouleError(
            f"device {name!r} is registered, but has never reached the gateway: see the log of its edgejoule-agent"
        )
    return Device(name, name, found.hello.hardware, found.hello.environment)
