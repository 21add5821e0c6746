"""The latency that the host agent tells of an ONNX file, beside what the runtimes' own benchmarks tell of it.

    edgejoule model export examples/nanodet_m_shapes.safetensors --out nanodet.onnx
    python benchmarks/host_latency.py nanodet.onnx [--threads 1] [--rounds 20] [--seconds 2]

ours         step ``benchmark``, as a run carries it out: probes, a process of its own, the clock around ``infer``
OpenVINO     its ``benchmark_app``, asked for what our engine is asked for: one synchronous request, one stream, as many
             threads, not pinned, float32. Its clock is inside of the runtime, so ``execution_ms`` of our record is
             what is compared with it; what the whole call from Python takes is told beside it
ONNX Runtime its ``onnxruntime.tools.onnxruntime_test``, the tool that comes with the wheel. It takes as many threads as
             there are cores, so it is asked only where --threads says as many; it tells the mean with the first runs
             in it, so it is asked for those alone too, and they are taken off; beside it stands the mean of ours
a loop       over ``InferenceSession.run`` in a process that knows nothing of ours, for any number of threads, and for
             the median. (``onnxruntime_perf_test``, which has both, comes with no package.)

In every round, in random order, each runs for some seconds in a new process. A round compares the turns in it, medians
where the other tells one, so drift of the machine cancels; told is the median of the ratios over the rounds, which a
neighbour's burst does not move, its interval, and whether that is within 2 %. The model needs our manifest; the input's
values do not matter to its speed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime
import openvino
import scipy.stats

from edgejoule.protocols import PRESETS
from edgejoule_agent import host
from edgejoule_agent.benchmark import benchmark
from edgejoule_agent.contract import read_model
from edgejoule_agent.engines.openvino_engine import FULL_PRECISION

LIMIT = 0.02
OPTIONS: dict[str, dict[str, str]] = {"onnxruntime": {}, "openvino": dict(FULL_PRECISION)}
WARM_UP = 10

LOOP = """
import statistics, sys, time
import numpy, onnxruntime
path, threads, iterations, warm_up = sys.argv[1], *map(int, sys.argv[2:])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
random = numpy.random.default_rng(0)
feeds = {each.name: random.uniform(0, 255, each.shape).astype(numpy.float32) for each in session.get_inputs()}
times = []
for _ in range(warm_up + iterations):
    begin = time.perf_counter()
    session.run([], feeds)
    times.append(time.perf_counter() - begin)
print(1e3 * statistics.median(times[warm_up:]))
"""


def ours(runtime: str, model: Path, folder: Path, threads: int, iterations: int) -> dict[str, Any]:
    """The record of one trial."""
    record = {"hardware": host.hardware_class(runtime), "options": OPTIONS[runtime], "simulated": False}
    protocol = {**PRESETS["quick"].measuring(), "warmup_iterations": WARM_UP, "iterations": iterations}
    protocol.update(idle_s=0.1, power_window_s=0.1)  # no power is asked for here
    return benchmark(
        model,
        {**record, "model": read_model(model)[1]},
        folder / "images.tar",
        folder / "samples",
        {"device": "host", "trial": 0, "threads": threads, "protocol": protocol},
        lambda done, total, unit: None,
    )


def of_the_tool(model: Path, folder: Path, threads: int, iterations: int) -> float:
    """Mean of ``onnxruntime_test``, ms, without its first runs."""

    def total_ms(runs: int) -> float:
        words = ["-m", "onnxruntime.tools.onnxruntime_test", str(model), str(runs)]
        said = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
        found = re.search(r"avg latency: (\S+) ms", said)
        if found is None:
            raise SystemExit(f"onnxruntime_test tells no latency:\n{said}")
        return runs * float(found[1])

    return (total_ms(WARM_UP + iterations) - total_ms(WARM_UP)) / iterations


def of_a_loop(model: Path, folder: Path, threads: int, iterations: int) -> float:
    """Median of a bare loop, ms."""
    words = [str(model), *map(str, (threads, iterations, WARM_UP))]
    return float(subprocess.run([sys.executable, "-c", LOOP, *words], check=True, stdout=subprocess.PIPE).stdout)


def of_openvino(model: Path, folder: Path, threads: int, iterations: int) -> float:
    """Median that ``benchmark_app`` reports, ms, to two digits."""
    words = ["-m", str(model), "-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1", "-pin", "NO"]
    words += ["-nthreads", str(threads), "-infer_precision", "f32", "-niter", str(iterations)]
    words += ["-report_type", "no_counters", "-json_stats", "-report_folder", str(folder)]
    app = "from openvino.tools.benchmark.main import main; main()"  # as its script of that name has it
    subprocess.run([sys.executable, "-c", app, *words], check=True, stdout=subprocess.DEVNULL)
    told = json.loads((folder / "benchmark_report.json").read_text())["execution_results"]
    return float(told["latency (ms)"])


class Peer(NamedTuple):
    """Somebody else's benchmark, and which figure of ours is held against its."""

    name: str
    runtime: str
    tells_ms: Callable[[Path, Path, int, int], float]
    clock: str
    statistic: str


PEERS = (
    Peer("onnxruntime_test", "onnxruntime", of_the_tool, "latency_ms", "mean"),
    Peer("a loop over run", "onnxruntime", of_a_loop, "latency_ms", "p50"),
    Peer("benchmark_app", "openvino", of_openvino, "execution_ms", "p50"),
)


def write_shard(path: Path) -> None:
    """One picture: the agent takes its inputs from the evaluation set."""
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    content = cv2.imencode(".png", picture)[1].tobytes()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
        member = tarfile.TarInfo("000000000001.png")
        member.size = len(content)
        shard.addfile(member, io.BytesIO(content))


def told(ratios: list[float]) -> str:
    """Median of ratios less one, its 95 % interval by the sign test, and whether that is within the limit."""
    low, high = scipy.stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
    if max(abs(low - 1), abs(high - 1)) <= LIMIT:
        verdict = "within"
    else:
        outside = low > 1 + LIMIT or high < 1 - LIMIT
        verdict = "not within" if outside else "not decided: more rounds, or a quieter machine"
    return f"{statistics.median(ratios) - 1:+7.2%} [{low - 1:+.2%}, {high - 1:+.2%}]  {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ONNX file with our manifest, as edgejoule model export writes it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    arguments = parser.parse_args()
    if arguments.rounds < 6:
        parser.error("--rounds: at least 6, for an interval")
    model, threads = arguments.model.resolve(), arguments.threads
    peers = [peer for peer in PEERS if peer.tells_ms is not of_the_tool or threads == os.cpu_count()]
    trials: dict[str, list[dict[str, Any]]] = {peer.runtime: [] for peer in peers}
    theirs: dict[Peer, list[float]] = {peer: [] for peer in peers}
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shard(folder / "images.tar")
        first_ms = {each: ours(each, model, folder, threads, 20)["latency_ms"]["p50"] for each in trials}
        counts = {each: max(20, round(1e3 * arguments.seconds / time_ms)) for each, time_ms in first_ms.items()}
        for _ in range(arguments.rounds):
            turns = [*trials, *peers]
            for place in random.permutation(len(turns)):
                turn = turns[place]
                if isinstance(turn, Peer):
                    theirs[turn].append(turn.tells_ms(model, folder, threads, counts[turn.runtime]))
                else:
                    trials[turn].append(ours(turn, model, folder, threads, counts[turn]))

    versions = f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__.split('-')[0]}"
    print(f"{model.name}, {threads} threads, {arguments.rounds} rounds, turns of {arguments.seconds:g} s; {versions}\n")
    print("                   inferences  of each  median ms:  call     ours   theirs    ours against theirs")
    for peer, told_ms in theirs.items():
        mine = [trial[peer.clock][peer.statistic] for trial in trials[peer.runtime]]
        call_ms, own_ms, other_ms = (
            statistics.median(each)
            for each in ([trial["latency_ms"]["p50"] for trial in trials[peer.runtime]], mine, told_ms)
        )
        ratios = [one / other for one, other in zip(mine, told_ms, strict=True)]
        of_each = "mean" if peer.statistic == "mean" else "median"
        row = f"{peer.name:18}{counts[peer.runtime]:11}{of_each:>9}"
        print(f"{row}{call_ms:18.3f}{own_ms:9.3f}{other_ms:9.3f}    {told(ratios)}")
    print(f"\nwithin: {LIMIT:.0%}, the whole interval")


if __name__ == "__main__":
    main()
