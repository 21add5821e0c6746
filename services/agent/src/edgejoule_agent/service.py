"""The agent as a service: one job at a time from the gateway, carried out here, its result delivered once.

    STATE/blobs/              inputs of jobs, by hash
    STATE/job/job.json        the job at hand
    STATE/job/outputs  log    what it makes and prints
    STATE/job/result.json     how it ended; from then on it waits to be delivered, for hours if need be

Without the gateway a job goes on; a result is kept until the gateway takes it or does not want it any more.
"""

import contextlib
import importlib
import json
import logging
import os
import random
import shutil
import threading
import time
from typing import Any, Callable, Dict, Iterator, Optional

from edgejoule_agent import host, live, power_mode
from edgejoule_agent.blobs import Blobs, hash_of
from edgejoule_agent.connection import POLL_TIMEOUT_S, Connection
from edgejoule_agent.errors import (
    AgentError,
    HostError,
    JobGoneError,
    MessageRefusedError,
    OutOfReachError,
    UnreadableError,
    is_full_disk,
)
from edgejoule_agent.host_lock import host_lock
from edgejoule_agent.step_process import MESSAGE_CHARACTERS, Limits, Report, Stopped, run_step

KINDS = {kind: f"edgejoule_agent.steps.{kind}" for kind in ("build", "benchmark", "predict")}
LOG_BYTES = 8 << 20  # of what a step printed, its end
BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
TROUBLE_S = 10.0  # after this host's own fault
UNIT_LIMIT = 40  # characters of what progress counts: DeviceProgress in schemas/device_messages.json
QUIET_S = 5.0  # that the last words to the gateway may take at the end

_log = logging.getLogger("edgejoule-agent")


class Service:
    """See the module.

    Args:
        state: a folder of this agent alone.
        stopping: set from outside to end :meth:`serve`.
        kinds: step kind to module.
        probe: says what this device is, as ``host.probe`` does.
        metrics_port: where this agent shows metrics, for the gateway's list of devices; None where it shows none.
    """

    def __init__(
        self,
        connection: Connection,
        state: str,
        cache_bytes: int,
        stopping: threading.Event,
        kinds: Optional[Dict[str, str]] = None,
        probe: Callable[[], Dict[str, Any]] = host.probe,
        metrics_port: Optional[int] = None,
    ) -> None:
        self._connection = connection
        self._stopping = stopping
        self._kinds = KINDS if kinds is None else kinds
        self._probe = probe
        self._metrics_port = metrics_port
        self._blobs = Blobs(os.path.join(state, "blobs"), cache_bytes)
        self._state, self._folder = state, os.path.join(state, "job")
        self._told: Optional[Dict[str, Any]] = None  # what the gateway knows of this device since it was last away
        self._failures = 0
        self._fault = ""

    def serve(self) -> None:
        """Work until told to stop."""
        self._put_back()
        if self._result() is None:
            self._drop()  # what was under way when the agent ended is lost; the gateway will hear of it
        while not self._stopping.is_set():
            try:
                self._turn()
                self._failures = 0
            except (OutOfReachError, JobGoneError) as error:  # gone before there was a job: not the gateway's words
                self._wait_for_gateway(error)
            except HostError as error:
                _log.error("%s", error)
                self._stopping.wait(TROUBLE_S)
            except OSError as error:
                _log.error("this host cannot carry on: %s", error)
                self._stopping.wait(TROUBLE_S)
        self._connection.close()

    def _put_back(self) -> None:
        """Undo what a step left that was killed while it had changed the board."""
        try:
            power_mode.put_back(self._state)
        except (HostError, OSError) as error:
            _log.error("%s", error)

    def _turn(self) -> None:
        """One thing that is to do."""
        hello = self._hello()
        if hello != self._told:  # plans are made for what it last said, and people change power modes
            self._connection.ask("/v1/hello", hello)
            told = "serves this board" if self._told is None else "was told what has changed on this board"
            _log.info("the gateway %s %s", self._connection.url, told)
            self._told = hello
        result = self._result()
        if result is not None:
            self._deliver(result)
            return
        job = self._connection.ask("/v1/job", {}, POLL_TIMEOUT_S, self._stopping)
        if job is not None and not self._stopping.is_set():
            self._carry_out(job)

    def _hello(self) -> Dict[str, Any]:
        probe = self._probe()
        versions = {kind: importlib.import_module(name).VERSION for kind, name in self._kinds.items()}
        return {
            "agent": host.installed_version("edgejoule-agent") or "unknown",
            "kinds": versions,
            "hardware": probe["hardware"],
            "environment": probe["environment"],
            "metrics_port": self._metrics_port,
        }

    def _wait_for_gateway(self, error: AgentError) -> None:
        """Wait for longer and longer; say so once, and again when it is for another reason."""
        if self._failures == 0 or str(error) != self._fault:
            _log.warning("%s; trying again until it answers", error)
        self._fault = str(error)
        pause_s = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        self._failures += 1
        self._told = None
        self._stopping.wait(pause_s * random.uniform(0.5, 1.0))

    # --- a job ---

    def _carry_out(self, job: Dict[str, Any]) -> None:
        _log.info("%s: begins", job["step"])
        began = time.monotonic()
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._folder)
            for name in ("outputs", "scratch"):
                os.makedirs(self._path(name))
            _write_json(self._path("job.json"), job)
            live.expect()
            with _Reports(self._connection, job) as reports:
                report = self._attempt(job, reports)
            self._keep(job, report, time.monotonic() - began)
        except JobGoneError as error:
            _log.warning("%s: stopped, because the gateway says: %s", job["step"], error)
            self._drop()
        except (Stopped, HostError, OSError) as error:
            reason = str(error) or "the agent ends"
            _log.error("%s: given back: %s", job["step"], reason)
            self._give_back(job, reason)
            if not isinstance(error, Stopped):
                freed = self._blobs.give_way(job["inputs"].values())
                if freed:
                    _log.warning("the disk is short: %.1f MB of inputs that can be had again are removed", freed / 1e6)
                self._stopping.wait(TROUBLE_S)
        finally:
            self._put_back()

    def _attempt(self, job: Dict[str, Any], reports: "_Reports") -> Report:
        module = self._kinds.get(job["kind"])
        if module is None:
            return Report("failed", "this agent knows no step {}: bring it up to date".format(job["kind"]), False)
        inputs = self._fetch(job, reports)

        def stopping() -> bool:
            return self._stopping.is_set() or reports.gone is not None

        def pause() -> None:
            reports.waits("for others on this host to end")
            if stopping():
                raise Stopped
            self._stopping.wait(0.1)

        request = {
            "module": module,
            "parameters": job["parameters"],
            "inputs": inputs,
            "outputs": self._path("outputs"),
            "scratch": self._path("scratch"),
        }
        limits = Limits(job["time_limit_s"], job["silence_limit_s"])
        try:
            with host_lock(job["exclusive"], pause) as lock, reports.going_on():
                return run_step(request, self._path("log"), limits, reports.advance, stopping, [lock])
        except Stopped:
            if reports.gone is not None:
                raise reports.gone from None
            raise

    def _fetch(self, job: Dict[str, Any], reports: "_Reports") -> Dict[str, str]:
        """Name to file of a job's inputs, however long the gateway is out of reach."""
        hashes = job["inputs"]
        self._blobs.make_room(hashes.values())
        paths = {}
        for name in sorted(hashes):
            while True:
                try:
                    paths[name] = self._blobs.get(hashes[name], self._fetcher(job, reports))
                    break
                except OutOfReachError as error:
                    self._wait_for_gateway(error)
                    if self._stopping.is_set():
                        raise Stopped from error
            self._failures = 0
        self._blobs.make_room(hashes.values())
        return paths

    def _fetcher(self, job: Dict[str, Any], reports: "_Reports") -> Callable[[str, int, Callable[[bytes], None]], None]:
        def fetch(sha256: str, start: int, take: Callable[[bytes], None]) -> None:
            def take_unless_stopping(chunk: bytes) -> None:
                if self._stopping.is_set():
                    raise Stopped
                take(chunk)

            path = "/v1/jobs/{}/blobs/{}".format(job["job"], sha256)
            self._connection.download(path, start, take_unless_stopping)

        return fetch

    # --- its result ---

    def _keep(self, job: Dict[str, Any], report: Report, duration_s: float) -> None:
        """Have a result outlive this process and a loss of power."""
        outputs = {}
        if report.outcome == "ok":
            try:
                for name in sorted(os.listdir(self._path("outputs"))):
                    outputs[name] = _announced(self._path("outputs", name))
            except UnreadableError as error:  # counts as an attempt, or it would be done for ever
                report, outputs = Report("failed", str(error), error.transient), {}
        log, told = self._path("log"), None
        try:
            _keep_end(log, LOG_BYTES)
            told = _announced(log) if os.path.exists(log) and os.path.getsize(log) else None
        except (UnreadableError, OSError) as error:
            _log.error("%s: delivered without its log: %s", job["step"], error)
        result = {
            "outcome": report.outcome,
            "reason": report.reason,
            "transient": report.transient,
            "duration_s": duration_s,
            "outputs": outputs,
            "log": told,
        }
        _log.info("%s: %s%s", job["step"], report.outcome, ": " + report.reason if report.reason else "")
        _write_json(self._path("result.json"), result)

    def _result(self) -> Optional[Dict[str, Any]]:
        try:
            with open(self._path("result.json"), encoding="utf-8") as file:
                found: Dict[str, Any] = json.load(file)
                return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # the gateway has the step done again when it is asked for the next
            _log.error("a result is lost: %s is damaged (%s)", self._path("result.json"), error)
            return None

    def _deliver(self, result: Dict[str, Any]) -> None:
        """Hand a result in, whatever of it the gateway lacks, and remove it when the gateway is through with it."""
        try:
            with open(self._path("job.json"), encoding="utf-8") as file:
                job = json.load(file)
        except (OSError, ValueError) as error:
            _log.error("a result is lost, since nothing tells of which job it is: %s", error)
            self._drop()
            return
        place = "/v1/jobs/" + job["job"]
        try:
            while not self._stopping.is_set():
                answer = self._connection.ask(place + "/result", result, POLL_TIMEOUT_S) or {}
                if answer.get("over"):
                    _log.info("%s: delivered; the gateway says: %s", job["step"], answer.get("said"))
                    self._drop()
                    return
                for name, start in sorted(answer.get("missing", {}).items()):
                    path = self._path("log") if name == "log" else self._path("outputs", name)
                    blob = result["log"] if name == "log" else result["outputs"][name]
                    try:
                        self._connection.upload(f"{place}/files/{name}", path, start, blob["size_bytes"])
                    except UnreadableError as error:
                        result = self._without(result, name, error)
                        _log.error("%s: %s: %s", job["step"], result["reason"] or "delivered without its log", error)
                        _write_json(self._path("result.json"), result)
                        break
        except JobGoneError as error:
            _log.warning("%s: its result is not wanted any more: %s", job["step"], error)
            self._drop()
        except MessageRefusedError as error:  # kept, it would be refused for ever, and hold up all that come after it
            reason = f"its result cannot be delivered: {error}"[:MESSAGE_CHARACTERS]
            _log.error("%s: %s", job["step"], reason)
            self._end(job, "failed", reason)
        except OSError as error:  # the connection's own are OutOfReachErrors
            reason = f"what became of it cannot be kept: {error}"
            _log.error("%s: given back: %s", job["step"], reason)
            self._give_back(job, reason)

    @staticmethod
    def _without(result: Dict[str, Any], name: str, error: UnreadableError) -> Dict[str, Any]:
        """What is left of a result when a file of it cannot be read: without a log it is one still, else it has failed.

        That counts as an attempt, since a disk that goes on so would have the step done for ever.
        """
        if name == "log":
            return dict(result, log=None)
        reason = f"{name} of its result cannot be read on its board: {error}"
        return dict(result, outcome="failed", reason=reason, transient=error.transient, outputs={})

    def _give_back(self, job: Dict[str, Any], reason: str) -> None:
        """Let the gateway have the step tried again, at once if it can be told."""
        self._end(job, "given_back", reason)

    def _end(self, job: Dict[str, Any], outcome: str, reason: str) -> None:
        """Be through with a job that has no result of its own; the gateway is told if it can be."""
        transient = outcome == "given_back"
        result = {"outcome": outcome, "reason": reason, "transient": transient, "duration_s": 0.0, "outputs": {}}
        self._drop()
        try:
            self._connection.ask("/v1/jobs/{}/result".format(job["job"]), dict(result, log=None), QUIET_S)
        except (OutOfReachError, JobGoneError) as error:
            _log.warning("%s: the gateway could not be told: %s", job["step"], error)

    def _path(self, *parts: str) -> str:
        return os.path.join(self._folder, *parts)

    def _drop(self) -> None:
        """Remove a job, its result first, so that half of it is never taken for a whole."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path("result.json"))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)


class _Reports:
    """Reports a job's progress to the gateway from a thread of its own, while the main thread leaves the connection be.

    Attributes:
        gone: what the gateway said when it did not want the job any more; None until then.
    """

    def __init__(self, connection: Connection, job: Dict[str, Any]) -> None:
        self.gone: Optional[JobGoneError] = None
        self._connection = connection
        self._place = "/v1/jobs/{}/progress".format(job["job"])
        self._every_s = float(job["report_every_s"])
        self._said: Dict[str, Any] = {"done": 0.0, "total": 0.0, "unit": "", "waits": None}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> "_Reports":
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def waits(self, reason: str) -> None:
        self._said = dict(self._said, waits=reason)
        self._start()

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """The step is at work; until this ends, the connection is the reports'."""
        self._said = dict(self._said, waits=None)
        self._start()
        yield

    def advance(self, done: float, total: float, unit: str) -> None:
        self._said = {"done": done, "total": total, "unit": unit[:UNIT_LIMIT], "waits": None}

    def _start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        reached = True
        while True:
            try:
                answer = self._connection.ask(self._place, self._said, min(30.0, 2 * self._every_s)) or {}
                if not answer.get("go_on"):
                    self.gone = JobGoneError(str(answer.get("reason")))
                    return
                reached = True
            except JobGoneError as error:
                self.gone = error
                return
            except OutOfReachError as error:
                if reached:
                    _log.warning("%s; the step goes on", error)
                reached = False
            if self._over.wait(self._every_s):
                return


def _announced(path: str) -> Dict[str, Any]:
    """A file as the gateway is told of it, safe on the disk.

    Raises:
        UnreadableError: the disk does not give it.
        OSError: the disk is full.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return {"sha256": hash_of(path), "size_bytes": os.path.getsize(path)}
    except OSError as error:
        if is_full_disk(error):
            raise
        raise UnreadableError(f"{path} cannot be read ({error.strerror or error}): see to the disk") from error


def _keep_end(path: str, limit_bytes: int) -> None:
    """Cut a log down to its end."""
    if os.path.exists(path) and os.path.getsize(path) > limit_bytes:
        with open(path, "rb") as file:
            file.seek(-limit_bytes, os.SEEK_END)
            end = file.read()
        with open(path, "wb") as file:
            file.write(end)


def _write_json(path: str, value: Any) -> None:
    """Write a file whole or not at all, also when power is lost."""
    new = path + ".new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
