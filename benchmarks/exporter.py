"""What the agent's exporter costs: a scrape, the reading of the sensors, and a trial's latency while it is shown.

    python benchmarks/exporter.py [--model FILE.onnx] [--rounds 300] [--iterations 50] [--threads 1]

Scrapes are timed over HTTP, of every board's tree, with the threads that read running and twenty cells measured
before; how much CPU time the exporter takes is told as a share of one core. A tree's files are faster to read than a
sensor behind I2C, but no scrape reads any. Then the protocol's own timed loop runs in pairs of turns, in random order:
nobody looks, or an exporter reads a board and the trial shows its latencies, as an agent does it. The model is the ONNX
file, by ONNX Runtime, or a product of matrices where none is given. Each turn is compared with the other of its pair,
and turns are short, so that drift of the machine cancels: between them the exporter is halted and let go on. A turn
shows at its begin and its end at least, so more often than a trial does. What is told is the median of the pairs, with
the interval that the binomial distribution of their order gives.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from edgejoule_agent import live
from edgejoule_agent.engines.onnxruntime_engine import session
from edgejoule_agent.measure import _timed
from edgejoule_agent.simulation import trees

CELLS = 20
SCRAPES = 50
SERVE = (
    "import sys, logging; logging.disable(50)\n"
    "from edgejoule_agent.exporter.board import Board\n"
    "from edgejoule_agent.exporter.server import serving\n"
    "with serving('127.0.0.1:0', sys.argv[1], Board(sys.argv[2])) as port:\n"
    "    print(port, flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextlib.contextmanager
def exporter(state: Path, root: str) -> Iterator[tuple[int, int]]:
    """An exporter in a process of its own, as it is in an agent's; its port and process id."""
    command = [sys.executable, "-c", SERVE, str(state), root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        yield int(child.stdout.readline()), child.pid
        child.stdin.close()


def make_state(folder: Path) -> Path:
    """An agent's state folder with a job, and cells that were measured before."""
    (folder / "job").mkdir(parents=True)
    os.environ[live.VARIABLE] = str(folder)
    for number in range(CELLS):
        job = {"step": f"benchmark/model-{number}/int8-ptq/toy/0", "kind": "benchmark"}
        (folder / "job" / "job.json").write_text(json.dumps(job))
        for stage in ("warm-up", "measure"):
            live.begin(stage)(np.linspace(5, 50, 100))
    del os.environ[live.VARIABLE]
    return folder


def cpu_s(pid: int) -> float:
    """User and system time of a process (proc(5), stat: fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def time_scrapes(state: Path, folder: Path) -> None:
    print("board            scrape: median    p99     max  CPU of one   size  share of a core between scrapes")
    for name in sorted(trees.BOARDS):
        root = trees.write(name, folder / name) + "/"
        with exporter(state, root) as (port, pid):
            time.sleep(1.0)
            begin_s, begin_cpu_s = time.monotonic(), cpu_s(pid)
            times_ms = []
            for _ in range(SCRAPES):
                start = time.perf_counter()
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    text = answer.read()
                times_ms.append(1e3 * (time.perf_counter() - start))
                time.sleep(0.02)
            scraping_cpu_s = cpu_s(pid) - begin_cpu_s
            took_s = time.monotonic() - begin_s
            time.sleep(10.0)
            share = (cpu_s(pid) - begin_cpu_s - scraping_cpu_s) / 10.0
            one_ms = 1e3 * (scraping_cpu_s - share * took_s) / SCRAPES
        median, p99, top = (float(np.percentile(times_ms, at)) for at in (50, 99, 100))
        times = f"{median:6.1f} {p99:6.1f} {top:7.1f} ms {one_ms:6.1f} ms"
        print(f"{name:15s}        {times} {len(text) / 1e3:4.0f} kB  {100 * share:6.2f} %")


class Onnx:
    """An ONNX file, as the protocol's loop wants an engine."""

    execution_ms = None

    def __init__(self, file: Path, threads: int) -> None:
        self._engine = session(file.read_bytes(), {}, threads)
        (image,) = self._engine.get_inputs()
        shape = [size if isinstance(size, int) else 1 for size in image.shape]
        self._inputs = {image.name: np.full(shape, 127, np.float32)}

    def infer(self, image: object) -> None:
        self._engine.run(None, self._inputs)


class Products:
    """Something that takes milliseconds where no model is given."""

    execution_ms = None

    def __init__(self) -> None:
        self._matrix = np.ones((192, 192), np.float32) / 192

    def infer(self, image: object) -> None:
        for _ in range(20):
            self._matrix @ self._matrix


def timed(engine: Any, iterations: int, unit: str) -> Any:
    """Latencies by the protocol's own loop, float64[iterations] in ms."""
    return _timed(engine, None, iterations, lambda *words: None, unit)[0]


def compare_latency(state: Path, root: str, arguments: argparse.Namespace) -> None:
    engine = Onnx(arguments.model, arguments.threads) if arguments.model else Products()
    ratios: dict[str, list[float]] = {"mean": [], "p50": []}
    timed(engine, 10 * arguments.iterations, "warm-up inferences")
    with exporter(state, root) as (_, pid):
        time.sleep(1.0)
        for _ in range(arguments.rounds):
            found: dict[bool, dict[str, float]] = {}
            for shown in random.sample([False, True], 2):
                os.kill(pid, signal.SIGCONT if shown else signal.SIGSTOP)
                if shown:
                    os.environ[live.VARIABLE] = str(state)
                took_ms = timed(engine, arguments.iterations, "inferences")
                os.environ.pop(live.VARIABLE, None)
                found[shown] = {"mean": float(np.mean(took_ms)), "p50": float(np.median(took_ms))}
            for name in ratios:
                ratios[name].append(found[True][name] / found[False][name] - 1)
        os.kill(pid, signal.SIGCONT)
    pairs = f"median of {arguments.rounds} pairs of {arguments.iterations} inferences"
    print(f"\nlatency while shown, against not: {pairs}")
    for name, values in ratios.items():
        low, high = stats.quantile_test(values).confidence_interval(0.95)
        print(f"  {name:4s} {100 * statistics.median(values):+6.2f} % [{100 * low:+.2f}, {100 * high:+.2f}] (95 %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        state = make_state(folder / "state")
        time_scrapes(state, folder)
        compare_latency(state, str(folder / "orin_nano_jp6") + "/", arguments)


if __name__ == "__main__":
    main()
