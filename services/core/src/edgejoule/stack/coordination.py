"""What conductor and workers agree on in Redis. All of it may be lost at any moment, and costs only time.

    claim:<step key>      id of the message that stands for the step, while it waits in a queue
    lease:<step key>      who carries the step out; ends by itself when its holder no longer renews it
    cancel:<step key>     the step is not wanted any more; its holder stops it
    progress:<step key>   how far it is, for people
    wake                  list of what the conductor should look at
    conductor             the one conductor that acts
    seen:<device>         when a board was last heard of, for people
    scrape:<device>       where its metrics are shown, HOST:PORT
    flushed-if-absent     set by the conductor; gone when Redis lost everything

The keys begin with ``edgejoule:``. Claim and lease change hands by small scripts, each of which is one step to Redis.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis
from pydantic import TypeAdapter, ValidationError

from edgejoule.records import Record, Sha256

_PREFIX = "edgejoule:"
_BATCH = 1000  # keys that are asked for at once, so that Redis answers others in between
_WAKE_BATCH = 200

# KEYS claim, lease; ARGV id of the message, holder, ms
_TAKE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then return 1 end
return 0
"""

# KEYS claim, lease, cancel; ARGV ms
_CANCEL = """
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('SET', KEYS[3], '1', 'PX', ARGV[1]) end
"""

# KEYS lease, cancel; ARGV holder, ms. A lease that is gone is set anew: Redis lost it, or its holder slept.
_RENEW = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 'cancelled' end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 'lost' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'held'
"""

# KEYS lease, progress, cancel, wake; ARGV holder, what to tell the conductor
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('RPUSH', KEYS[4], ARGV[2])
return 1
"""

# KEYS key; ARGV value, ms
_KEEP = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS key; ARGV value
_DROP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True)
class Timing:
    """How long things last, seconds. Tests take shorter ones.

    Attributes:
        claim_s: a waiting step's claim; renewed by the conductor, so it is long only in a conductor's absence.
        lease_s: how long a worker may be silent before its step is another's.
        beat_s: a worker renews its lease so often.
        look_s: the conductor looks at what is under way so often.
        sweep_s: the conductor asks the store about everything so often.
        leader_s: how long a conductor may be silent before another one acts.
        progress_s: how long the last word of a step's progress stays.
        trouble_s: a worker whose store or disk fails lets others try for so long.
        back_off_s: pauses before a failed step is tried again, drawn from half to one and a half times.
    """

    claim_s: float = 300.0
    lease_s: float = 10.0
    beat_s: float = 2.0
    look_s: float = 2.0
    sweep_s: float = 600.0
    leader_s: float = 10.0
    progress_s: float = 60.0
    trouble_s: float = 5.0
    back_off_s: tuple[float, ...] = (2.0, 8.0)


class Ended(Record):
    """A worker is no longer at a step, however that came."""

    key: Sha256


class Damaged(Record):
    """A step could not start, because the blob of an input is damaged."""

    key: Sha256
    blob: Sha256
    reason: str


class Changed(Record):
    """A run was submitted, cancelled or is to be tried again."""

    run: str


Wake = Ended | Damaged | Changed
_WAKE: TypeAdapter[Wake] = TypeAdapter(Wake)


class Progress(Record):
    """How far a step is, as its worker last said."""

    worker: str
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    waits: str | None = None
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Standing:
    """What Redis knows of a step: the id of its message while it waits, its holder while it is carried out."""

    claim: str | None
    holder: str | None

    @property
    def known(self) -> bool:
        return self.claim is not None or self.holder is not None


class Coordination:
    """The agreed keys of one Redis server. Every method raises redis.RedisError when it does not answer."""

    def __init__(self, url: str, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self._redis: Any = redis.Redis.from_url(  # its types tell synchronous answers from awaited ones by chance
            url, decode_responses=True, socket_timeout=10, socket_connect_timeout=5, health_check_interval=30
        )
        self._redis_bytes: Any = redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=5)
        self._take = self._redis.register_script(_TAKE)
        self._cancel = self._redis.register_script(_CANCEL)
        self._renew = self._redis.register_script(_RENEW)
        self._release = self._redis.register_script(_RELEASE)
        self._keep = self._redis.register_script(_KEEP)
        self._drop = self._redis.register_script(_DROP)

    def ping(self) -> None:
        self._redis.ping()

    def close(self) -> None:
        self._redis.close()
        self._redis_bytes.close()

    # --- the conductor's side ---

    def claim(self, claims: Mapping[str, str]) -> list[str]:
        """Claim steps (key to id of the message to come) before they are sent; the keys that were free."""
        pipe = self._redis.pipeline(transaction=False)
        for key, message in claims.items():
            pipe.set(_claim(key), message, nx=True, px=_ms(self.timing.claim_s))
            pipe.delete(_cancel(key))
        answers = pipe.execute()[::2]
        return [key for key, was_free in zip(claims, answers, strict=True) if was_free]

    def renew_claims(self, keys: Sequence[str]) -> None:
        """Let waiting steps wait on."""
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.pexpire(_claim(key), _ms(self.timing.claim_s))
        pipe.execute()

    def drop_claim(self, key: str, message: str) -> None:
        """Let the message of this id stand for nothing any more."""
        self._drop(keys=[_claim(key)], args=[message])

    def cancel(self, key: str) -> None:
        """Have nobody start the step, and have its holder stop it."""
        self._cancel(keys=[_claim(key), _lease(key), _cancel(key)], args=[_ms(3 * self.timing.lease_s)])

    def standings(self, keys: Sequence[str]) -> dict[str, Standing]:
        """What Redis knows of these steps."""
        found: dict[str, Standing] = {}
        for batch in _batches(keys):
            values = self._redis.mget([name(key) for key in batch for name in (_claim, _lease)])
            found.update(
                (key, Standing(claim, holder))
                for key, claim, holder in zip(batch, values[::2], values[1::2], strict=True)
            )
        return found

    def waiting_messages(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return int(self._redis.llen(queue))

    def message_ids(self, queue: str) -> set[str]:
        """The ids of the messages in a queue. Reads them all: only for when one seems lost."""
        return {
            json.loads(message)["headers"]["id"]
            for start in range(0, self.waiting_messages(queue) + _BATCH, _BATCH)
            for message in self._redis.lrange(queue, start, start + _BATCH - 1)
        }

    def wakes(self, timeout_s: float) -> list[Wake | str]:
        """What there is to look at, after at most that long; what cannot be understood comes as text."""
        first = self._redis.blpop([_WAKE_LIST], timeout=max(timeout_s, 0.01)) if timeout_s > 0 else None
        more = self._redis.lpop(_WAKE_LIST, _WAKE_BATCH) or []
        return [_parse(text) for text in [*([first[1]] if first else []), *more]]

    def lead(self, conductor: str) -> bool:
        """Be the one conductor that acts, or go on being it; false while another is."""
        return bool(self._keep(keys=[_LEADER], args=[conductor, _ms(self.timing.leader_s)]))

    def stop_leading(self, conductor: str) -> None:
        """Let another conductor act at once."""
        self._drop(keys=[_LEADER], args=[conductor])

    def was_flushed(self) -> bool:
        """Whether Redis lost what it knew since this was last asked."""
        return bool(self._redis.set(_WITNESS, "1", nx=True))

    # --- the worker's side ---

    def take(self, key: str, message: str, holder: str) -> bool:
        """Turn the claim of a message into a lease; false for a message that stands for nothing any more."""
        return bool(
            self._take(keys=[_claim(key), _lease(key)], args=[message, holder, _ms(self.timing.lease_s)]),
        )

    def renew(self, key: str, holder: str) -> Literal["held", "lost", "cancelled"]:
        """Keep a lease; ``lost``: another holds it, ``cancelled``: the step is not wanted any more."""
        answer: Literal["held", "lost", "cancelled"] = self._renew(
            keys=[_lease(key), _cancel(key)], args=[holder, _ms(self.timing.lease_s)]
        )
        return answer

    def release(self, key: str, holder: str, news: Wake) -> None:
        """Give a lease back and tell the conductor, both or neither; nothing when another holds it."""
        keys = [_lease(key), _progress(key), _cancel(key), _WAKE_LIST]
        self._release(keys=keys, args=[holder, news.model_dump_json()])

    def tell_progress(self, key: str, progress: Progress) -> None:
        self._redis.set(_progress(key), progress.model_dump_json(), px=_ms(self.timing.progress_s))

    # --- the gateway's side ---

    def next_message(self, queue: str, timeout_s: float) -> bytes | None:
        """Take the oldest message out of a queue, after at most that long; None when there is none.

        Should its taker be lost, so is the message; its claim stays, and the conductor sends it anew.
        """
        if timeout_s > 0:
            found = self._redis_bytes.brpop([queue], timeout=timeout_s)
            return found[1] if found else None
        message: bytes | None = self._redis_bytes.rpop(queue)
        return message

    def tell_seen(self, device: str, at: str) -> None:
        """Say that a board was heard of."""
        self._redis.set(_seen(device), at)

    def seen(self, devices: Sequence[str]) -> dict[str, str]:
        """When these boards were last heard of, of those that were."""
        times = self._redis.mget([_seen(device) for device in devices]) if devices else []
        return {device: at for device, at in zip(devices, times, strict=True) if at}

    def tell_scrape(self, device: str, address: str | None) -> None:
        """Say where a board's metrics are shown; None: nowhere."""
        if address is None:
            self._redis.delete(_scrape(device))
        else:
            self._redis.set(_scrape(device), address)

    def scrapes(self, devices: Sequence[str]) -> dict[str, str]:
        """Where the metrics of these boards are shown, of those that show any."""
        places = self._redis.mget([_scrape(device) for device in devices]) if devices else []
        return {device: place for device, place in zip(devices, places, strict=True) if place}

    # --- anybody's ---

    def memory_bytes(self) -> dict[str, int]:
        """Memory that Redis uses (``used``), and may use (``limit``; 0: any)."""
        found = self._redis.info("memory")
        return {"used": int(found["used_memory"]), "limit": int(found.get("maxmemory", 0))}

    def wake(self, news: Wake) -> None:
        """Have the conductor look at something."""
        self._redis.rpush(_WAKE_LIST, news.model_dump_json())

    def progress(self, keys: Sequence[str]) -> dict[str, Progress]:
        """How far these steps are, of those that said so."""
        found: dict[str, Progress] = {}
        for batch in _batches(keys):
            texts = self._redis.mget([_progress(key) for key in batch])
            found.update(
                (key, Progress.model_validate_json(text)) for key, text in zip(batch, texts, strict=True) if text
            )
        return found

    def left_over(self) -> list[str]:
        """Every claim, lease and cancellation there is; for tests and for a doctor."""
        return sorted(
            name.removeprefix(_PREFIX)
            for pattern in ("claim:*", "lease:*", "cancel:*")
            for name in self._redis.scan_iter(_PREFIX + pattern, count=_BATCH)
        )


_WAKE_LIST = _PREFIX + "wake"
_LEADER = _PREFIX + "conductor"
_WITNESS = _PREFIX + "flushed-if-absent"


def _claim(key: str) -> str:
    return f"{_PREFIX}claim:{key}"


def _lease(key: str) -> str:
    return f"{_PREFIX}lease:{key}"


def _cancel(key: str) -> str:
    return f"{_PREFIX}cancel:{key}"


def _seen(device: str) -> str:
    return f"{_PREFIX}seen:{device}"


def _scrape(device: str) -> str:
    return f"{_PREFIX}scrape:{device}"


def _progress(key: str) -> str:
    return f"{_PREFIX}progress:{key}"


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def _parse(text: str) -> Wake | str:
    try:
        return _WAKE.validate_json(text)
    except ValidationError:
        return text
