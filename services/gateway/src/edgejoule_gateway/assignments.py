"""Which board is at which step. The gateway is the worker of each board's queue, on the board's behalf.

A message becomes a job of the board that its queue is named after, when that board asks. From then on the gateway holds
the step's lease for as long as the board is heard of. A board out of reach loses the lease, and nothing else: the
step waits in its queue for that board alone, and a result that comes late counts unless the step is done by then.

All of this is in memory, but for the inbox: a job that this gateway never heard of, since it was started anew, goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from edgejoule.boards import (
    DeviceDelivery,
    DeviceHello,
    DeviceJob,
    DeviceProgress,
    DeviceResult,
    DeviceVerdict,
    is_used,
    keep_probe,
    probe_of,
    token_of,
)
from edgejoule.errors import CorruptBlobError, StepError
from edgejoule.execution import DURABLE, conclude, now
from edgejoule.kinds import Kinds, StepKind
from edgejoule.records import Status
from edgejoule.stack.coordination import Coordination, Damaged, Ended, Progress
from edgejoule.stack.messages import Refused, StepMessage, check_message, open_envelope
from edgejoule.stack.metrics import Metrics
from edgejoule.store import Attempt, Manifest, Store
from edgejoule.worker import Report
from edgejoule_gateway.check import fault_in_announcement, fault_in_files, fault_in_record, link_into
from edgejoule_gateway.inbox import LOG, Entry, Inbox
from edgejoule_gateway.limits import Limits
from edgejoule_gateway.refusal import Refusal

_log = logging.getLogger(__name__)


class Assignment:
    """A job that a board has, and whose lease is ours.

    Attributes:
        started: the board has said a word of it, so it knows that it has it.
        against: why the board is to stop; None while it may go on.
    """

    def __init__(self, entry: Entry, kind: StepKind) -> None:
        self.entry = entry
        self.kind = kind
        self.key = entry.message.key
        self.holder = f"{entry.device}#{entry.job[:8]}"
        self.began = time.monotonic()
        self.started = False
        self.against: str | None = None
        self.progress = Progress(worker=entry.device)


class Board:
    """What this gateway knows of a board.

    Attributes:
        heard_s: when that was, in seconds since 1970; None before this gateway ever heard of it.
        waits_since: when a step was first seen to wait for it, after it was last heard of.
        requests: under way.
        poll: which of its requests for a job counts, the latest.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.lock = threading.Lock()
        self.heard_at = time.monotonic()
        self.heard_s: float | None = None
        self.waits_since: float | None = None
        self.kinds: dict[str, int] | None = None
        self.assignment: Assignment | None = None
        self.requests = 0
        self.poll = ""


class Assignments:
    """See the module. Methods may take seconds; they raise StoreError or redis.RedisError when they cannot."""

    def __init__(
        self, store: Store, coordination: Coordination, kinds: Kinds, limits: Limits, metrics: Metrics | None = None
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._kinds = kinds
        self._limits = limits
        self._metrics = metrics or Metrics("gateway")
        self._boards: dict[str, Board] = {}
        self._lock = threading.Lock()
        self.inbox = Inbox(store.inbox())

    def board(self, device: str) -> Board:
        with self._lock:
            return self._boards.setdefault(device, Board(device))

    # --- what a board asks ---

    def hello(self, board: Board, hello: DeviceHello, host: str | None = None) -> None:
        """Keep what a board says of itself, and where its metrics can be scraped: at the host that it speaks from."""
        self._coordination.tell_scrape(board.device, scrape_address(host, hello.metrics_port))
        kept = probe_of(board.device, self._store)
        if kept is None or kept.hello != hello or not is_used(token_of(board.device, self._store), kept):
            keep_probe(board.device, hello, self._store)
        board.kinds = hello.kinds
        _log.info("%s is here, with agent %s", board.device, hello.agent)

    def clear(self, board: Board) -> None:
        """A board that asks for a job has none: let go of those it had, but for one that it may not know of."""
        with board.lock:
            assignment = board.assignment
            if assignment is not None and (assignment.started or assignment.against is not None):
                self._lose(board, assignment)
            for entry in self.inbox.of(board.device):
                if board.assignment is None or board.assignment.entry.job != entry.job:
                    self._coordination.release(entry.message.key, _holder(entry), Ended(key=entry.message.key))
                    entry.remove()

    def next_job(self, board: Board, wait_s: float) -> DeviceJob | None:
        """A step for a board that has none; None when there is none after that time."""
        with board.lock:
            kinds = self._kinds_of(board)
            if board.assignment is not None:
                return self._as_job(board.assignment)  # our answer was lost
            data = self._coordination.next_message(f"device.{board.device}", wait_s)
            return self._assign(board, data, kinds) if data is not None else None

    def progress(self, board: Board, job: str, said: DeviceProgress) -> DeviceVerdict:
        """Take note of how far a job is; whether it is to go on."""
        with board.lock:
            assignment = self._assignment(board, job)
            assignment.started = True
            assignment.progress = Progress(
                worker=board.device,
                done=said.done,
                total=said.total,
                unit=said.unit,
                waits=said.waits,
                elapsed_s=time.monotonic() - assignment.began,
            )
            if assignment.against is None:
                return DeviceVerdict(go_on=True)
            _log.warning("%s stops %s: %s", board.device, assignment.entry.message.step, assignment.against)
            board.assignment = None
            assignment.entry.remove()
            return DeviceVerdict(go_on=False, reason=assignment.against)

    def blob(self, board: Board, job: str, sha256: str) -> Path:
        """A file with the bytes of an input of a job.

        Raises:
            Refusal: it is no input of a job of this board, or is damaged.
        """
        entry = self.inbox.find(job, board.device)
        if sha256 not in entry.message.inputs.values():
            raise Refusal(404, "this job has no such input")
        if board.assignment is not None and board.assignment.entry.job == job:
            board.assignment.started = True
        try:
            return self._store.fetch(sha256)
        except CorruptBlobError as error:
            with board.lock:
                _log.error("%s cannot start: %s", entry.message.step, error)
                damaged = Damaged(key=entry.message.key, blob=sha256, reason=str(error))
                self._coordination.release(entry.message.key, _holder(entry), damaged)
                self._forget(board, entry)
            raise Refusal(404, "an input of this job is damaged, and is made again first") from error

    def file(self, board: Board, job: str, name: str) -> tuple[Entry, int]:
        """Where a file of a result goes, and how many bytes it was said to have."""
        entry = self.inbox.find(job, board.device)
        return entry, entry.announced(name).size_bytes

    def deliver(self, board: Board, job: str, result: DeviceResult) -> DeviceDelivery:
        """Take a result: say which files are missing or, when all are there, check and commit it."""
        with board.lock:
            entry = self.inbox.find(job, board.device)
            message = entry.message
            if self._store.manifest(message.key) is not None:
                return self._over(board, entry, "the step is done already, so this result is not needed")
            if result.outcome == "given_back":
                return self._over(board, entry, "given back, to be tried again")
            kind = self._kinds[message.kind]
            fault = fault_in_announcement(result, kind, self._limits)
            if fault is None:
                entry.expect(result)
                if missing := entry.missing(result):
                    self._check_room(entry, result)
                    return DeviceDelivery(over=False, said="files are missing", missing=missing)
                fault = fault_in_files(entry, result)
                transient = fault is not None  # bytes may have been hurt on their way; a wrong record stays wrong
                fault = fault or fault_in_record(entry, result)
            else:
                transient = False
            report = _report(result) if fault is None else Report("failed", fault, transient)
            kind_name, outcome = message.kind, report.outcome
            self._metrics.add("edgejoule_device_steps_total", device=board.device, kind=kind_name, outcome=outcome)
            self._metrics.observe("edgejoule_step_duration_seconds", result.duration_s, kind=kind_name, outcome=outcome)
            return self._over(board, entry, self._conclude(board, entry, kind, result, report))

    # --- by themselves ---

    def heard(self, board: Board) -> None:
        """A board was heard of."""
        board.heard_at, board.heard_s = time.monotonic(), time.time()

    def show(self, devices: Sequence[str]) -> None:
        """Tell of these devices who is there and at work."""
        boards = {device: self.board(device) for device in devices}
        heard = {device: board.heard_s for device, board in boards.items() if board.heard_s is not None}
        since = time.time() - self._limits.silence_s
        connected = {(device,): float(heard.get(device, 0.0) >= since) for device in boards}
        busy = {(device,): float(board.assignment is not None) for device, board in boards.items()}
        self._metrics.replace("edgejoule_device_connected", connected)
        self._metrics.replace("edgejoule_device_busy", busy)
        self._metrics.replace("edgejoule_device_heard_timestamp_seconds", {(name,): at for name, at in heard.items()})

    def scrapes(self, devices: Sequence[str]) -> list[dict[str, Any]]:
        """These devices as Prometheus' HTTP service discovery has it, those that show metrics."""
        places = self._coordination.scrapes(devices)
        return [{"targets": [place], "labels": {"device": device}} for device, place in sorted(places.items())]

    def beat(self) -> None:
        """Renew the lease of every board that is heard of; to be called every few seconds."""
        for board in list(self._boards.values()):
            assignment = board.assignment
            if assignment is None or assignment.against is not None:
                continue
            if time.monotonic() - board.heard_at > self._limits.silence_s:
                self._let_wait(board, assignment)
                continue
            self._coordination.tell_progress(assignment.key, assignment.progress)
            answer = self._coordination.renew(assignment.key, assignment.holder)
            if answer != "held":
                assignment.against = _AGAINST[answer]

    def end_unreachable(self, devices: frozenset[str]) -> None:
        """End the steps that waited for long for boards that are silent; to be called every now and then."""
        for device in devices:
            board = self.board(device)
            if self._coordination.waiting_messages(f"device.{device}") == 0:
                board.waits_since = None
                continue
            if board.waits_since is None or board.waits_since < board.heard_at:
                board.waits_since = time.monotonic()
            if time.monotonic() - board.waits_since <= self._limits.unreachable_s:
                continue
            board.waits_since = None
            while (data := self._coordination.next_message(f"device.{device}", 0)) is not None:
                with board.lock:
                    if (message := self._opened(device, data)) is None:
                        continue
                    holder = f"gateway#{uuid4().hex[:8]}"
                    if not self._coordination.take(message.key, message.claim, holder):
                        continue
                    reason = (
                        f"the board {device} was not heard of for {self._limits.unreachable_s / 3600:g} h: see that it "
                        "is on and its edgejoule-agent runs, then edgejoule retry"
                    )
                    self._attempt(message, device, "unreachable", reason, transient=False)
                    self._coordination.release(message.key, holder, Ended(key=message.key))
                    _log.warning("%s: %s", message.step, reason)

    # --- in pieces ---

    def _let_wait(self, board: Board, assignment: Assignment) -> None:
        """Give the lease of a silent board back: its step then waits in its queue. Not while a request is served."""
        if not board.lock.acquire(blocking=False):
            return
        try:
            if board.assignment is assignment:
                step = assignment.entry.message.step
                _log.warning("%s was silent for %g s; %s waits for it", board.device, self._limits.silence_s, step)
                self._coordination.release(assignment.key, assignment.holder, Ended(key=assignment.key))
                board.assignment = None
        finally:
            board.lock.release()

    def _kinds_of(self, board: Board) -> dict[str, int]:
        if board.kinds is None:
            probe = probe_of(board.device, self._store)
            if probe is None:
                raise Refusal(409, "say hello first")
            board.kinds = probe.hello.kinds
        return board.kinds

    def _opened(self, device: str, data: bytes) -> StepMessage | None:
        try:
            message, kind = check_message(open_envelope(data), self._kinds)
            if not kind.on_boards:
                raise Refused(f"{message.kind} is no step for a device")
            return message
        except Refused as error:
            _log.error("refused a message for %s: %s", device, error)
            return None

    def _assign(self, board: Board, data: bytes, kinds: dict[str, int]) -> DeviceJob | None:
        if (message := self._opened(board.device, data)) is None:
            return None
        holder = f"{board.device}#{message.claim[:8]}"
        if not self._coordination.take(message.key, message.claim, holder):
            _log.info("dropped a message for %s: it is taken, or was sent anew", message.step)
            return None
        try:
            if self._store.manifest(message.key) is None:
                if (has := kinds.get(message.kind)) == message.version:
                    assignment = Assignment(self.inbox.open(board.device, message), self._kinds[message.kind])
                    board.assignment = assignment
                    _log.info("%s gets %s", board.device, message.step)
                    return self._as_job(assignment)
                reason = (
                    f"the board {board.device} has {message.kind} in version {has}, and version {message.version} is "
                    "asked for: run the same version of edgejoule-agent there"
                )
                self._attempt(
                    message, board.device, "unsupported" if has is None else "failed", reason, transient=False
                )
                _log.error("%s: %s", message.step, reason)
        except BaseException:
            self._coordination.release(message.key, holder, Ended(key=message.key))
            raise
        self._coordination.release(message.key, holder, Ended(key=message.key))
        return None

    def _as_job(self, assignment: Assignment) -> DeviceJob:
        message, kind = assignment.entry.message, assignment.kind
        return DeviceJob(
            job=message.claim,
            step=message.step,
            kind=message.kind,
            version=message.version,
            parameters=message.parameters,
            inputs=message.inputs,
            exclusive=kind.exclusive,
            time_limit_s=kind.time_limit_s,
            silence_limit_s=kind.silence_limit_s,
            report_every_s=self._limits.report_every_s,
        )

    def _lose(self, board: Board, assignment: Assignment) -> None:
        """A board asks for a job though it had one: it does not have it any more."""
        message = assignment.entry.message
        _log.warning("%s has lost %s", board.device, message.step)
        if assignment.against is None:
            self._attempt(
                message, board.device, "failed", f"its board {board.device} lost it, as by a restart", lost=True
            )
        self._over(board, assignment.entry, "lost")

    def _assignment(self, board: Board, job: str) -> Assignment:
        """The assignment of this job, with its lease; taken up again when this gateway knew nothing of it.

        Raises:
            Refusal: this board has no such job.
        """
        if board.assignment is not None and board.assignment.entry.job == job:
            return board.assignment
        entry = self.inbox.find(job, board.device)
        try:
            assignment = Assignment(entry, self._kinds[entry.message.kind])
        except StepError as error:
            raise Refusal(410, str(error)) from error
        assignment.against = self._regain(assignment)
        board.assignment = assignment
        _log.info("%s is still at %s", board.device, entry.message.step)
        return assignment

    def _regain(self, assignment: Assignment) -> str | None:
        """Have the lease of a job that was given out before; why not, if not."""
        key, holder = assignment.key, assignment.holder
        if self._store.manifest(key) is not None:
            return "the step is done already"
        claim = self._coordination.standings([key])[key].claim
        if claim is not None and self._coordination.take(key, claim, holder):
            return None
        answer = self._coordination.renew(key, holder)
        return None if answer == "held" else _AGAINST[answer]

    def _check_room(self, entry: Entry, result: DeviceResult) -> None:
        wanted = sum(blob.size_bytes for blob in result.outputs.values()) + (result.log.size_bytes if result.log else 0)
        if self.inbox.free_bytes() - wanted < self._limits.spare_bytes:
            _log.error("the disk has no room for the %d bytes of %s: make room", wanted, entry.message.step)
            raise Refusal(507, "the gateway's disk is full; try again later")

    def _conclude(self, board: Board, entry: Entry, kind: StepKind, result: DeviceResult, report: Report) -> str:
        """Make the store say how a job ended; what came of it."""
        message = entry.message
        if report.outcome not in DURABLE and not self._wanted(message):
            return f"{report.outcome}, which nobody waits for any more"
        number = len(self._store.attempts(message.key)) + 1
        if result.log is not None and entry.path(LOG).exists():
            self._store.log(message.key, number).write_bytes(entry.path(LOG).read_bytes())
            self._store.keep_log(message.key, number)
        outputs = self._store.outputs(message.key)
        if report.outcome == "ok":
            link_into(outputs, entry, result)
        step, ready = message.as_step(), message.as_ready()
        ended = conclude(step, ready, kind, self._store, outputs, report, result.duration_s, board.device)
        self._store.clear_scratch(message.key)
        if isinstance(ended, Manifest):
            claim = self._coordination.standings([message.key])[message.key].claim
            if claim is not None:  # it was to be done again
                self._coordination.drop_claim(message.key, claim)
        return f"{ended.outcome}: {ended.reason}" if ended.reason else ended.outcome

    def _wanted(self, message: StepMessage) -> bool:
        """Whether anybody waits for a step, so that its failure is of interest."""
        return self._coordination.standings([message.key])[message.key].known

    def _over(self, board: Board, entry: Entry, said: str) -> DeviceDelivery:
        """A job is over: let go of it and have the conductor look."""
        key, news = entry.message.key, Ended(key=entry.message.key)
        _log.info("%s: %s: %s", board.device, entry.message.step, said)
        if self._coordination.standings([key])[key].holder == _holder(entry):
            self._coordination.release(key, _holder(entry), news)
        else:
            self._coordination.wake(news)
        self._forget(board, entry)
        return DeviceDelivery(over=True, said=said)

    def _forget(self, board: Board, entry: Entry) -> None:
        if board.assignment is not None and board.assignment.entry.job == entry.job:
            board.assignment = None
        entry.remove()

    def _attempt(
        self,
        message: StepMessage,
        device: str,
        outcome: Status,
        reason: str,
        *,
        transient: bool = True,
        lost: bool = False,
    ) -> None:
        self._store.add_attempt(
            message.key,
            Attempt(
                step=message.step,
                outcome=outcome,
                reason=reason,
                transient=transient,
                lost=lost,
                at=now(),
                host=device,
                duration_s=0.0,
            ),
        )


def scrape_address(host: str | None, port: int | None) -> str | None:
    """Where metrics can be scraped; None: nowhere.

    >>> scrape_address("10.0.0.7", 9464), scrape_address("fd00::7", 9464), scrape_address("10.0.0.7", None)
    ('10.0.0.7:9464', '[fd00::7]:9464', None)
    """
    if host is None or port is None:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_AGAINST = {"lost": "another has taken the step over", "cancelled": "the step is not wanted any more"}


def _holder(entry: Entry) -> str:
    return f"{entry.device}#{entry.job[:8]}"


def _report(result: DeviceResult) -> Report:
    assert result.outcome != "given_back"
    return Report(result.outcome, result.reason, result.transient)
