"""A process that reads power rails ten times a second and writes down when and what; and the parent's side of it.

It is a process of its own (``python -m edgejoule_agent.sampler``), so that neither the interpreter's lock nor the
inference loop starves it. Time is cut into slots of one period by the monotonic clock, and in every slot the rails are
read once, at a moment drawn evenly from it: so no load can hide by keeping step with us (see ``energy``). Each record
goes to the file by one write, so whatever kills the process leaves all records before. It ends when its standard input
does, hence with its parent, however that ends.

The file: a line of JSON (rails, period_s, realtime, and each rail's resolution and accuracy, which follow its voltage
and are taken at the start), then records of float64, little-endian: the moment drawn, begin and end of the reading, s
on the monotonic clock, and each rail's power, W, NaN where the reading failed. Beside it,
``.events`` has a line of JSON for each failure of a rail, and every two seconds a look for throttling and the states
of clocks, loads, fan and memory.
"""

import argparse
import gc
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgejoule_agent.energy import Accuracy, Resolution
from edgejoule_agent.errors import SensorError
from edgejoule_agent.sensors.rails import Rail, pick_rails
from edgejoule_agent.sensors.reading import Sensor, try_read
from edgejoule_agent.sensors.state import find_states
from edgejoule_agent.sensors.throttle import Snapshot, from_json, snapshot, to_json

PERIOD_S = 0.1
LOOK_SLOTS = 20  # slots from one look for throttling to the next
PRIORITY = 1  # the lowest of SCHED_FIFO: above every ordinary process, below the kernel's own
START_TRIES = 3  # a sensor that sleeps or is busy fails once (EAGAIN)
START_PAUSE_S = 0.05
START_S = 30.0  # a board under load takes seconds to start an interpreter
STOP_S = 5.0
READY = b"ready\n"
UNITS = {"1": "share"}  # in names


class Samples(NamedTuple):
    """What a sampler wrote."""

    rails: List[str]
    period_s: float
    realtime: str  # "yes", "not asked for", or why not
    resolutions: List[Resolution]  # of each rail
    accuracies: List[Optional[Accuracy]]  # of each rail; None: no data sheet
    times_s: Any  # float64[n]; middle of each reading, monotonic
    late_s: Any  # float64[n]; from the moment drawn to the reading's begin
    durations_s: Any  # float64[n]; how long it took to read all rails
    powers_w: Any  # float64[n,rails]; NaN where the reading failed
    looks: List[Snapshot]
    states: List[Dict[str, float]]  # as many as looks; what could not be read is not in it
    failures: Dict[str, str]  # rail -> its last reason


class Sampler:
    """Samples rails from ``with`` to its end, in a process of its own.

    Args:
        rails: names, as ``find_rails`` gives them.
        realtime: ask for real-time scheduling; where that is not permitted, ``Samples.realtime`` says so.

    Raises (on entering):
        SensorError: a rail is not there or cannot be read at all, or the process does not start.
    """

    def __init__(
        self, rails: Sequence[str], root: str = "/", period_s: float = PERIOD_S, realtime: bool = False
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgejoule-sampler-")
        self._path = os.path.join(self._folder.name, "samples")
        self._command = [sys.executable, "-m", "edgejoule_agent.sampler", self._path, "--root", root]
        self._command += ["--period", repr(period_s), *(["--realtime"] if realtime else []), "--", *rails]
        self._process: Optional[Any] = None

    def __enter__(self) -> "Sampler":
        pipe = subprocess.PIPE
        process: Any = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe)
        self._process = process
        descriptor = process.stdout.fileno()
        told = os.read(descriptor, len(READY)) if select.select([descriptor], [], [], START_S)[0] else None
        if told != READY:
            said = b"" if told is None else process.stderr.read()
            self.__exit__()
            last = said.decode("utf-8", "replace").strip().split("\n")[-1]
            raise SensorError(last or f"the sampler took no sample within {START_S:.0f} s")
        return self

    def __exit__(self, *_: Any) -> None:
        """End the process; what it wrote is kept until ``close``."""
        process, self._process = self._process, None
        if process is None:
            return
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            pipe.close()

    @property
    def pid(self) -> int:
        """The process's id while it runs."""
        if self._process is None:
            raise SensorError("the sampler does not run")
        return int(self._process.pid)

    def samples(self) -> Samples:
        """What it wrote until now, while it runs or after."""
        return read_samples(self._path)

    def close(self) -> None:
        """Remove what it wrote."""
        self._folder.cleanup()


def read_samples(path: str) -> Samples:
    """The whole records of a sampler's file; one that a kill cut short is left out.

    Raises:
        SensorError: it is no such file.
    """
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline().decode("utf-8"))
            data = file.read()
        rails = header["rails"]
        size = 8 * (3 + len(rails))
        records = np.frombuffer(data[: len(data) // size * size], "<f8").reshape(-1, 3 + len(rails))
        with open(path + ".events", encoding="utf-8") as file:
            events = [json.loads(line) for line in file if line.endswith("\n")]
        resolutions = [Resolution(*each) for each in header["resolutions"]]
        accuracies = [None if each is None else Accuracy(*each) for each in header["accuracies"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SensorError(f"{path}: is no sampler's file ({error})") from error
    return Samples(
        rails=rails,
        period_s=header["period_s"],
        realtime=header["realtime"],
        resolutions=resolutions,
        accuracies=accuracies,
        times_s=records[:, 1:3].mean(axis=1),
        late_s=records[:, 1] - records[:, 0],
        durations_s=records[:, 2] - records[:, 1],
        powers_w=records[:, 3:],
        looks=[from_json(event["look"]) for event in events if "look" in event],
        states=[event["states"] for event in events if "look" in event],
        failures={event["rail"]: event["failed"] for event in events if "failed" in event},
    )


def sample(
    rails: Sequence[Rail],
    period_s: float,
    wait: Callable[[float], bool],
    record: Callable[[bytes], Any],
    event: Callable[[Dict[str, Any]], Any],
    root: str,
) -> None:
    """Read ``rails`` once per period until ``wait``, which sleeps for seconds, says that it is over."""
    form = struct.Struct(f"<{3 + len(rails)}d")
    failed: Dict[str, str] = {}
    clock, draw = time.monotonic, random.Random().random
    start, slot, next_look = clock(), 0, 0
    states = find_states(root)
    while True:
        moment = start + (slot + draw()) * period_s
        if wait(moment - clock()):
            return
        begin = clock()
        powers = [_power(rail, failed, event) for rail in rails]
        record(form.pack(moment, begin, clock(), *powers))
        if slot >= next_look:
            event({"look": to_json(snapshot(root)), "states": _states(states)})
            next_look = slot + LOOK_SLOTS
        slot = max(slot + 1, int((clock() - start) / period_s))  # slots slept through stay empty


def _power(rail: Rail, failed: Dict[str, str], event: Callable[[Dict[str, Any]], Any]) -> float:
    """Power in W, or NaN; the reason goes to the events when it is a new one."""
    try:
        return rail.read_w()
    except SensorError as error:
        if failed.get(rail.name) != str(error):
            failed[rail.name] = str(error)
            event({"rail": rail.name, "failed": str(error)})
        return float("nan")


def _states(sensors: Sequence[Sensor]) -> Dict[str, float]:
    """Each by name, quantity and unit, as in ``gpu_clock_hz``."""
    read = {f"{each.name} {each.quantity} {UNITS.get(each.unit, each.unit)}": try_read(each)[0] for each in sensors}
    return {name.replace(" ", "_").lower(): value for name, value in read.items() if value is not None}


def _first_look(rail: Rail, tries: int = START_TRIES) -> Tuple[Resolution, Optional[Accuracy]]:
    """See that a rail can be read, and what its sensor can tell apart. Raises SensorError: it fails every time."""
    try:
        rail.read_w()
        return rail.resolution(), rail.accuracy()
    except SensorError:
        if tries == 1:
            raise
    time.sleep(START_PAUSE_S)
    return _first_look(rail, tries - 1)


def be_realtime() -> str:
    """Ask for SCHED_FIFO; ``yes``, or why not."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError as error:
        needs = f"CAP_SYS_NICE or an rtprio limit of {PRIORITY}"
        return f"{error.strerror}: it takes {needs}, and a share of cpu.rt_runtime_us where the kernel has that"
    return "yes"


def main(arguments: Optional[List[str]] = None) -> int:
    """The process's side; the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m edgejoule_agent.sampler", description="Sample power rails.")
    parser.add_argument("file", help="to write the samples to")
    parser.add_argument("rails", nargs="+", help="names of rails")
    parser.add_argument("--root", default="/", help="where sys lies")
    parser.add_argument("--period", type=float, default=PERIOD_S, help="seconds from one slot to the next")
    parser.add_argument("--realtime", action="store_true", help="ask for real-time scheduling")
    options = parser.parse_args(arguments)
    try:
        rails = pick_rails(options.rails, options.root)
        first_looks = [_first_look(rail) for rail in rails]
    except SensorError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    realtime = be_realtime() if options.realtime else "not asked for"
    header = {
        "rails": options.rails,
        "period_s": options.period,
        "realtime": realtime,
        "resolutions": [resolution for resolution, _ in first_looks],
        "accuracies": [accuracy for _, accuracy in first_looks],
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    samples, events = os.open(options.file, flags, 0o600), os.open(options.file + ".events", flags, 0o600)
    os.write(samples, (json.dumps(header) + "\n").encode("utf-8"))
    told: List[int] = []

    def over(seconds: float) -> bool:
        return bool(select.select([0], [], [], max(0.0, seconds))[0])

    def record(data: bytes) -> None:
        os.write(samples, data)
        if not told:
            told.append(os.write(1, READY))

    def event(message: Dict[str, Any]) -> None:
        os.write(events, (json.dumps(message) + "\n").encode("utf-8"))

    gc.collect()
    gc.disable()  # nothing here makes cycles
    sample(rails, options.period, over, record, event, options.root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
