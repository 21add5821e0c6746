"""How much faster two evaluators are than one: the predictions of one evaluation set, in turns.

    python benchmarks/evaluation_scaling.py               3 rounds of 1 and 2 evaluators, one engine thread each

Runs a detector in-process once, so that there is an engine; then has a stack of its own (Redis, conductor, evaluators,
a folder store in the temp folder) predict the set at another operating point each time, and counts from the first
prediction's begin to the last one's end. Measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rich.console import Console
from stack_overhead import start_redis

from edgejoule import runs
from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.options import prepare
from edgejoule.plan import Plan
from edgejoule.reconcile import StepOutcome, survey
from edgejoule.stack.coordination import Changed, Coordination
from edgejoule.stack.run_files import mark_submitted, state_of_run

COMMAND = str(Path(sys.executable).parent / "edgejoule")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SPEC = """
name: scaling
models: [{{detector: yolov5n, weights: {weights}}}]
precisions: [fp32]
devices: [host]
data:
  sources: {{val: {{images: {data}/val, annotations: {data}/annotations/val.json}}}}
  sets: {{evaluation: {{source: val}}}}
  shards: {shards}
protocol: quick
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=960)
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgejoule-scaling-") as name:
        folder = Path(name)
        data, spec = folder / "data", folder / "spec.yaml"
        weights = EXAMPLES / "yolov5n_shapes.safetensors"
        spec.write_text(SPEC.format(weights=weights, data=data, shards=options.shards), encoding="utf-8")
        os.environ["EDGEJOULE_LOCKS"] = str(folder)
        counts = ["--train", "1", "--val", str(options.pictures)]
        call("data", "generate", "--into", str(data), *counts)
        call("run", str(spec), "--out", str(folder / "run"), "--store", str(folder / "store"))
        server, url = start_redis(folder)
        try:
            compare(folder, spec, url, options.rounds)
        finally:
            server.terminate()
            server.wait(10)


def call(*words: str) -> None:
    subprocess.run([COMMAND, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compare(folder: Path, spec: Path, broker: str, rounds: int) -> None:
    ratios = []
    confidence = 0.3
    for number in range(rounds):
        took_s = {}
        for evaluators in (1, 2):
            confidence = round(confidence + 0.01, 2)
            took_s[evaluators] = predict(folder, spec, broker, confidence, evaluators)
        ratios.append(took_s[1] / took_s[2])
        print(f"round {number + 1}: {took_s[1]:.1f} s with 1, {took_s[2]:.1f} s with 2, ratio {ratios[-1]:.2f}")
    print(f"2 evaluators against 1: {statistics.median(ratios):.2f} times as fast (median of {rounds})")


def predict(folder: Path, spec: Path, broker: str, confidence: float, evaluators: int) -> float:
    """Seconds from the begin of the first prediction to the end of the last."""
    name, where = f"with-{evaluators}-{confidence}", str(folder / "store")
    settings = [f"protocol.confidence={confidence}"]
    prepared, store, _ = prepare(spec, folder, where, settings, "1", Console(quiet=True), writing=True)
    run = replace(prepared, name=name, plan=predictions(prepared.plan))
    assert isinstance(store, FolderStore)
    environment = {
        **os.environ,
        "EDGEJOULE_BROKER": broker,
        "EDGEJOULE_STORE": where,
        "EDGEJOULE_WORKSPACE": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    commands = [["conductor"], *[["worker", "evaluate"]] * evaluators]
    with open(folder / "log", "ab") as log:
        processes = [subprocess.Popen([COMMAND, *words], env=environment, stdout=log, stderr=log) for words in commands]
    try:
        time.sleep(6)  # until everybody is there
        runs.save(run, store)
        mark_submitted(name, store)
        Coordination(broker).wake(Changed(run=name))
        while not state_of_run(name, store).end:
            if any(process.poll() is not None for process in processes):
                sys.exit((folder / "log").read_text()[-3000:])
            time.sleep(0.1)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
    outcomes = [found for found in survey(run.plan, store, Kinds()).values() if isinstance(found, StepOutcome)]
    made = [found.manifest.made for found in outcomes if found.manifest and found.manifest.kind == "predict"]
    ends = [datetime.fromisoformat(each.at).timestamp() for each in made]
    begins = [end - each.duration_s for end, each in zip(ends, made, strict=True)]
    return max(ends) - min(begins)


def predictions(plan: Plan) -> Plan:
    """The part of a plan that predicts, and what it needs."""
    wanted = {step.id for step in plan.steps.values() if step.kind == "predict"}
    for step in reversed(list(plan.steps.values())):  # a step comes after those it reads
        if step.id in wanted:
            wanted.update(ref.step for ref in step.upstream())
    return Plan({id: step for id, step in plan.steps.items() if id in wanted}, ())


if __name__ == "__main__":
    main()
