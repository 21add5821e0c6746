"""How regularly the sampler samples while every core is busy, and what it costs an inference's latency.

    python benchmarks/sampler.py [--model FILE.onnx] [--rounds 300] [--seconds 0.5] [--root / --rail NAME ...]

One engine infers on every core: the ONNX file by ONNX Runtime, or a product of matrices on each core where no file is
given. First the sampler samples beside it for a while, without and with real-time scheduling. Then its cost: in every
round, in random order, a turn without a sampler, one with it, one with it at real-time priority; a turn's latency is
compared with that of the same round's turn without. Turns are short, since a shared machine is faster in one second
than in the next: the samplers run all the time, and who has no turn is stopped (SIGSTOP). A look for throttling is due
every two seconds, so here one falls into three times as many turns as in a run: the cost told is rather too high.

Where this host has no power rail the sampler reads the files of a pretended board, which are faster to read than a
sensor behind I2C is; the printed reading time says how fast.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from edgejoule_agent.engines.onnxruntime_engine import session
from edgejoule_agent.sampler import PERIOD_S, Sampler, Samples
from edgejoule_agent.simulation import trees

CORES = len(os.sched_getaffinity(0))
KINDS = ("no sampler", "sampler", "real time")
SETTLING_S = 0.1
KERNEL = "import numpy as np\na = np.ones((192, 192), np.float32) / 192\nwhile True:\n    a @ a"


@contextlib.contextmanager
def workload(model: Path | None) -> Iterator[Callable[[], object]]:
    """Something to time that keeps every core busy."""
    if model is not None:
        engine = session(model.read_bytes(), {}, CORES)
        shapes = {
            each.name: [size if isinstance(size, int) else 1 for size in each.shape] for each in engine.get_inputs()
        }
        inputs = {name: np.full(shape, 127, np.float32) for name, shape in shapes.items()}
        yield lambda: engine.run(None, inputs)
        return
    others = [subprocess.Popen([sys.executable, "-c", KERNEL]) for _ in range(CORES - 1)]
    matrix = np.ones((192, 192), np.float32) / 192

    def products() -> None:
        for _ in range(20):
            matrix @ matrix

    try:
        yield products
    finally:
        for other in others:
            other.kill()
            other.wait()


def cpu_s(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latencies_ms(infer: Callable[[], object], seconds: float) -> np.ndarray:
    clock, found = time.perf_counter, []
    settled, until = clock() + SETTLING_S, clock() + SETTLING_S + seconds
    while clock() < until:
        begin = clock()
        infer()
        end = clock()
        if begin > settled:
            found.append(1e3 * (end - begin))
    return np.array(found)


def cadence(realtime: bool, infer: Callable[[], object], seconds: float, rails: list[str], root: str) -> Samples:
    """What a sampler writes while ``infer`` keeps the cores busy."""
    sampler = Sampler(rails, root, realtime=realtime)
    with sampler:
        latencies_ms(infer, seconds)
    samples = sampler.samples()
    sampler.close()
    return samples


@contextlib.contextmanager
def going_on(sampler: Sampler | None) -> Iterator[None]:
    """A stopped sampler samples from here to the end."""
    if sampler is None:
        yield
        return
    os.kill(sampler.pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(sampler.pid, signal.SIGSTOP)


def cost(
    infer: Callable[[], object], rounds: int, seconds: float, rails: list[str], root: str
) -> tuple[dict[str, list[np.ndarray]], dict[str, float]]:
    """Latencies of each turn by kind, and the share of one core that each kind of sampler took in its turns."""
    random = np.random.default_rng(0)
    turns: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    with contextlib.ExitStack() as running:
        samplers: dict[str, Sampler | None] = {"no sampler": None}
        for kind in KINDS[1:]:
            sampler = Sampler(rails, root, realtime=kind == "real time")
            running.callback(sampler.close)
            samplers[kind] = running.enter_context(sampler)
            running.callback(os.kill, sampler.pid, signal.SIGCONT)  # before its end: a stopped process does not end
            os.kill(sampler.pid, signal.SIGSTOP)
        before = {kind: cpu_s(each.pid) for kind, each in samplers.items() if each is not None}
        for _ in range(rounds):
            for kind in random.permutation(KINDS):
                with going_on(samplers[kind]):
                    turns[kind].append(latencies_ms(infer, seconds))
        spent = {kind: cpu_s(each.pid) - before[kind] for kind, each in samplers.items() if each is not None}
    return turns, {kind: share / (rounds * (seconds + SETTLING_S)) for kind, share in spent.items()}


def ratio(turns: dict[str, list[np.ndarray]], kind: str, of: Callable[[np.ndarray], float]) -> str:
    """Median over rounds of a figure beside that without a sampler, and its 95 % interval, as benchmarks/exporter.py.

    A shared machine's drift has long tails: of means, the few rounds that it fell into would be most of the error.
    """
    pairs = zip(turns[kind], turns["no sampler"], strict=True)
    ratios = [of(mine) / of(other) - 1 for mine, other in pairs if len(mine) and len(other)]
    low, high = stats.quantile_test(ratios).confidence_interval(0.95)
    return f"{statistics.median(ratios):+7.2%} [{low:+.2%}, {high:+.2%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="ONNX file")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--cadence-seconds", type=float, default=60.0, help="sampled for the cadence, each way")
    parser.add_argument("--root", help="where sys lies; a pretended board unless given")
    parser.add_argument("--rail", action="append", help="rail to sample (repeatable)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, workload(arguments.model) as infer:
        root, rails = arguments.root, arguments.rail or ["POM_5V_IN"]
        if root is None:
            root = trees.write("nano_jp4", folder)
        sampled = {
            kind: cadence(kind == "real time", infer, arguments.cadence_seconds, rails, root) for kind in KINDS[1:]
        }
        turns, shares = cost(infer, arguments.rounds, arguments.seconds, rails, root)

    what = arguments.model.name if arguments.model else "products of matrices"
    print(f"{what} on {CORES} cores; {arguments.rounds} rounds, turns of {arguments.seconds:g} s\n")
    print("             latency: median      mean      p99 ms       median beside none          mean beside none   CPU")
    for kind in KINDS:
        every = np.concatenate(turns[kind])
        row = f"{kind:10}  {np.median(every):16.3f}  {every.mean():8.3f}  {np.percentile(every, 99):8.3f}"
        if kind != "no sampler":
            row += f"  {ratio(turns, kind, np.median):>25}  {ratio(turns, kind, np.mean):>25}"
            row += f"  {shares[kind]:.2%}"
        print(row)
    print(f"\nsampler, a slot each {1e3 * PERIOD_S:.0f} ms and a moment drawn in it; all in ms")
    print("            slots read   interval p50    p99    max   late p50    p99    max   reading p50    p99")
    for kind, samples in sampled.items():
        intervals, late, took = (1e3 * each for each in (np.diff(samples.times_s), samples.late_s, samples.durations_s))
        slots = round(np.ptp(samples.times_s - samples.late_s) / samples.period_s)
        row = f"{kind:10}  {min(1.0, len(intervals) / slots):10.1%}"
        for values, points in ((intervals, (50, 99, 100)), (late, (50, 99, 100)), (took, (50, 99))):
            row += "   " + "".join(f"{value:8.2f}" for value in np.percentile(values, points))
        print(row)
    print(f"real-time scheduling: {sampled['real time'].realtime}")


if __name__ == "__main__":
    main()
