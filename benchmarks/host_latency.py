"""The latency that the host agent tells of an ONNX file, beside what the runtimes' own benchmarks tell of it.

    edgejoule model export examples/nanodet_m_shapes.safetensors --out nanodet.onnx
    python benchmarks/host_latency.py nanodet.onnx [--threads 1] [--rounds 20] [--seconds 2]

ours         step ``benchmark``, as a run carries it out: probes, a process of its own, the clock around ``infer``
OpenVINO     its ``benchmark_app``, asked for what our engine is asked for: one synchronous request, one stream, as many
             threads, not pinned, float32. Its clock is inside of the runtime, so ``execution_ms`` of our record is
             what is compared with it; what the whole call from Python takes is told beside it
ONNX Runtime a loop over ``InferenceSession.run`` in a process that knows nothing of ours. Its ``onnxruntime_perf_test``
             comes with no package; what does come with the wheel, ``onnxruntime.tools.onnxruntime_test``, is this
             loop, but without a thread count, and tells the mean with the first run in it

In every round, in random order, each runs for some seconds in a new process. A round compares the medians of the turns
in it, so drift of the machine cancels; told is the geometric mean of the ratios over the rounds, with two standard
errors, and whether it is within 2 %. The model needs our manifest; the input's values do not matter to its speed.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import openvino

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


def ours(runtime: str, model: Path, folder: Path, threads: int, iterations: int) -> dict[str, float]:
    """Median of one trial, ms: of the whole call, and of the execution by the runtime's clock where it has one."""
    record = {"hardware": host.hardware_class(runtime), "options": OPTIONS[runtime], "simulated": False}
    protocol = {**PRESETS["quick"].measuring(), "warmup_iterations": WARM_UP, "iterations": iterations}
    protocol.update(idle_s=0.1, power_window_s=0.1)  # no power is asked for here
    measured = benchmark(
        model,
        {**record, "model": read_model(model)[1]},
        folder / "images.tar",
        folder / "samples",
        {"device": "host", "trial": 0, "threads": threads, "protocol": protocol},
        lambda done, total, unit: None,
    )
    return {clock: measured[clock]["p50"] for clock in ("latency_ms", "execution_ms") if measured[clock]}


def of_onnxruntime(model: Path, folder: Path, threads: int, iterations: int) -> float:
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


THEIRS: dict[str, Callable[[Path, Path, int, int], float]] = {"onnxruntime": of_onnxruntime, "openvino": of_openvino}


def write_shard(path: Path) -> None:
    """One picture: the agent takes its inputs from the evaluation set."""
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    content = cv2.imencode(".png", picture)[1].tobytes()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
        member = tarfile.TarInfo("000000000001.png")
        member.size = len(content)
        shard.addfile(member, io.BytesIO(content))


def told(ratios: list[float]) -> str:
    """Geometric mean of ratios less one, two standard errors, and whether that is within the limit."""
    logs = np.log(ratios)
    middle, error = float(np.exp(logs.mean()) - 1), float(2 * logs.std(ddof=1) / len(logs) ** 0.5)
    if abs(middle) + error <= LIMIT:
        verdict = "within"
    else:
        verdict = "not within" if abs(middle) - error > LIMIT else "not decided: more rounds, or a quieter machine"
    return f"{middle:+7.2%} ± {error:5.2%}  {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ONNX file with our manifest, as edgejoule model export writes it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: at least 2, for an interval")
    model, threads = arguments.model.resolve(), arguments.threads
    turns: dict[tuple[str, str], list[float]] = {(who, each): [] for each in THEIRS for who in ("ours", "theirs")}
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shard(folder / "images.tar")
        first_ms = {each: ours(each, model, folder, threads, 20)["latency_ms"] for each in THEIRS}
        calls: dict[str, list[float]] = {each: [] for each in THEIRS}
        counts = {each: max(20, round(1e3 * arguments.seconds / time_ms)) for each, time_ms in first_ms.items()}
        for _ in range(arguments.rounds):
            for place in random.permutation(len(turns)):
                who, runtime = list(turns)[place]
                given: Any = (model, folder, threads, counts[runtime])
                if who == "theirs":
                    turns[who, runtime].append(THEIRS[runtime](*given))
                    continue
                clocks = ours(runtime, *given)
                turns[who, runtime].append(clocks.get("execution_ms", clocks["latency_ms"]))
                calls[runtime].append(clocks["latency_ms"])

    versions = f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__.split('-')[0]}"
    print(f"{model.name}, {threads} threads, {arguments.rounds} rounds, turns of {arguments.seconds:g} s; {versions}\n")
    print("               inferences  median ms: call     ours   theirs    ours against theirs")
    for runtime in THEIRS:
        mine, others = turns["ours", runtime], turns["theirs", runtime]
        ratios = [one / other for one, other in zip(mine, others, strict=True)]
        call, own, other = (statistics.median(each) for each in (calls[runtime], mine, others))
        print(f"{runtime:14}{counts[runtime]:11}{call:15.3f}{own:9.3f}{other:9.3f}    {told(ratios)}")
    print(f"\nwithin: {LIMIT:.0%}, the whole interval")


if __name__ == "__main__":
    main()
