"""A simulated board that runs: a process that owns a folder and keeps the board's tree in it alive.

    FOLDER/root/          the board's /sys, /proc and /etc: the ``root`` of everything that reads a board
    FOLDER/load           a named pipe: inferences say from when to when they keep the GPU busy
    FOLDER/status.json    the machine's own state, exact energies among it

``python -m edgejoule_agent.simulation.running`` reads one line of JSON, the settings, and says ``ready``; it ends when
its standard input does. :func:`running` is the caller's half, :class:`LoadPipe` an inference's.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgejoule_agent.errors import EngineError, SettingsError
from edgejoule_agent.simulation import machine, physics, trees
from edgejoule_agent.simulation.declared import AMBIENT_C, BOARDS, Declared
from edgejoule_agent.simulation.files import Fault, Files, limits_of, parse_fault

TICK_S = 0.05
START_S = 30.0  # numpy may come from a cold disk
INTERVAL = struct.Struct("<2d")  # begin and end of an inference on the monotonic clock; far under PIPE_BUF: atomic
READ_BYTES = 4096 * INTERVAL.size


class Settings(NamedTuple):
    """How a board is simulated."""

    board: str
    ambient_c: float = AMBIENT_C
    start_c: Optional[float] = None  # warmer than it would be after long idling
    noise: float = 0.015  # standard deviation of each reading of a rail, as a share of it (assumed)
    seed: int = 0
    faults: Sequence[str] = ()


def declared(name: str) -> Declared:
    """The simulated board called so.

    Raises:
        SettingsError: there is none.
    """
    if name not in BOARDS:
        raise SettingsError(f"no board {name!r} can be simulated: take one of {', '.join(sorted(BOARDS))}")
    return BOARDS[name]


def root_of(folder: str) -> str:
    """Where the tree of the board in ``folder`` begins, with a slash behind, as in ``/``."""
    return os.path.join(folder, "root", "")


@contextlib.contextmanager
def running(settings: Settings, folder: Optional[str] = None) -> Iterator[str]:
    """A board that lives as long as the block; gives its folder.

    Args:
        folder: empty or not there; a temporary one if not given.

    Raises:
        SettingsError: there is no such board, or its process does not start.
    """
    declared(settings.board)
    with tempfile.TemporaryDirectory(prefix="edgejoule-board-") as temporary:
        place = temporary if folder is None else folder
        child: Any = subprocess.Popen(
            [sys.executable, "-m", "edgejoule_agent.simulation.running"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            words = dict(settings._asdict(), folder=place)
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(words).encode() + b"\n")
                child.stdin.flush()
            _await_ready(child, settings.board)
            yield place
        finally:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            try:
                child.wait(5.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            for pipe in (child.stdout, child.stderr):
                pipe.close()


def _await_ready(child: Any, board: str) -> None:
    if select.select([child.stdout], [], [], START_S)[0] and child.stdout.readline() == b"ready\n":
        return
    child.kill()
    said = child.stderr.read().decode("utf-8", "replace").strip().split("\n")[-1]
    raise SettingsError(f"the simulated board {board} does not start: {said or 'it says nothing'}")


class LoadPipe:
    """An inference's half: tells the board of ``folder`` what keeps its GPU busy.

    Raises:
        EngineError: no board runs there.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        try:
            self._pipe = os.open(os.path.join(folder, "load"), os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:  # ENXIO: nobody reads
            raise EngineError(f"no simulated board runs in {folder} ({error.strerror}); start it again") from error
        os.set_blocking(self._pipe, True)

    def busy(self, begin_s: float, end_s: float) -> None:
        """The GPU is busy from ``begin_s`` to ``end_s``, on the monotonic clock; told when it begins."""
        try:
            os.write(self._pipe, INTERVAL.pack(begin_s, end_s))
        except BrokenPipeError as error:
            raise EngineError(f"the simulated board in {self._folder} has ended; start it again") from error

    def close(self) -> None:
        """Tell no more."""
        os.close(self._pipe)


def busy_share(intervals: Sequence[Tuple[float, float]], begin_s: float, end_s: float) -> float:
    """Share of a stretch of time that intervals cover; where they overlap, the GPU is busy but once.

    >>> busy_share([(0.0, 1.0), (1.5, 4.0)], 0.5, 2.5)
    0.75
    >>> busy_share([(0.0, 1.0), (0.0, 1.0)], 0.0, 2.0)
    0.5
    """
    covered, reached = 0.0, begin_s
    for first, last in sorted(intervals):
        first, last = max(first, reached), min(last, end_s)
        covered += max(0.0, last - first)
        reached = max(reached, last)
    return covered / (end_s - begin_s)


# --- the process -------------------------------------------------------------------------------------


def prepare(folder: str, board: Declared) -> None:
    """Make the board's tree and pipe in ``folder``, in place of those of a board that has ended.

    Raises:
        SettingsError: the folder cannot be used.
    """
    status, pipe = (os.path.join(folder, name) for name in ("status.json", "load"))
    try:
        os.makedirs(folder, exist_ok=True)
        if os.path.exists(status):  # what an earlier board wrote last, so the rest is its own too
            shutil.rmtree(root_of(folder))
            os.unlink(pipe)
            os.unlink(status)
        if os.listdir(folder):
            raise SettingsError(f"the folder {folder} holds something else than a simulated board: name another")
        trees.write(board.tree, root_of(folder))
        os.mkfifo(pipe)
        with open(status, "w", encoding="ascii") as file:
            file.write("{}")
    except OSError as error:
        raise SettingsError(f"the folder {folder} cannot be used ({error.strerror}): name another") from error


def run(settings: Settings, folder: str, lifeline: int, ready: Any) -> None:
    """Keep the board alive until ``lifeline`` ends; ``ready`` is called once the tree is whole."""
    board = declared(settings.board)
    faults: List[Fault] = [parse_fault(words) for words in settings.faults]
    prepare(folder, board)
    root = root_of(folder)
    limits = limits_of(root)
    bare = board._replace(thermal=physics.without_sink(board.thermal))
    state = machine.at_rest(board, limits, settings.ambient_c, settings.start_c)
    files = Files(root, board, faults, settings.noise, np.random.RandomState(settings.seed))
    pipe = os.open(os.path.join(folder, "load"), os.O_RDWR | os.O_NONBLOCK)  # writing too, so that it never ends
    began = last = time.monotonic()
    files.write(state, 0.0)
    _write_status(folder, settings, state, last)
    ready()
    intervals: List[Tuple[float, float]] = []
    due = began + TICK_S
    while True:
        if select.select([lifeline], [], [], max(0.0, due - time.monotonic()))[0] and not os.read(lifeline, 64):
            break
        now = time.monotonic()
        if now < due:
            continue
        intervals += _read(pipe)
        busy = busy_share(intervals, last, now)
        loose = any(fault.kind == "loose" and fault.holds(now - began) for fault in faults)
        state = machine.advance(bare if loose else board, limits, state, busy, now - last, settings.ambient_c)
        intervals = [each for each in intervals if each[1] > now]
        files.write(state, now - began)
        _write_status(folder, settings, state, now)
        last = now
        due = max(due + TICK_S, now)  # after a stall go on from here: what was missed is in the longer step
    files.close()
    os.close(pipe)


def _read(pipe: int) -> List[Tuple[float, float]]:
    found: List[Tuple[float, float]] = []
    while True:
        try:
            chunk = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return found
        found += [(begin, end) for begin, end in INTERVAL.iter_unpack(chunk)]
        if len(chunk) < READ_BYTES:
            return found


def _write_status(folder: str, settings: Settings, state: machine.State, now: float) -> None:
    told = {"simulated": True, "board": settings.board, "faults": list(settings.faults), "time_s": now}
    status: Dict[str, Any] = dict(state._asdict(), **told)
    path = os.path.join(folder, "status.json")
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump(status, file)
    os.replace(path + ".new", path)


def read_status(folder: str) -> Mapping[str, Any]:
    """The machine's own state: the fields of ``machine.State``, and of what board with which faults it is.

    ``time_s`` is the monotonic time it is of.
    """
    with open(os.path.join(folder, "status.json"), encoding="ascii") as file:
        found: Mapping[str, Any] = json.load(file)
        return found


def main() -> None:
    """The process's side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the whole terminal; we end after who started us
    words = json.loads(_first_line())
    folder = words.pop("folder")

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    try:
        run(Settings(**words), folder, 0, ready)
    except SettingsError as error:
        sys.exit(str(error))


def _first_line() -> str:
    """Unbuffered, so that standard input's end is left to be seen."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 1)
        if not chunk:
            sys.exit("a simulated board is started by edgejoule-agent, with one line of JSON on standard input")
        line += chunk
    return line.decode()


if __name__ == "__main__":
    main()
