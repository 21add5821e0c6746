"""A run that is killed again and again ends as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import bad_input

KILLS = 10
START = Path(__file__).parents[2] / "examples/nanodet_m_shapes.safetensors"
ACCURACY = ("status", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100", "operating_point", "fidelity")
ANOTHER_RUNTIME = 0.05  # a build takes the faster runtime, so two builds may differ in it, and AP in its last digits


def start(folder: Path, store: str) -> subprocess.Popen:
    command = [str(Path(sys.executable).with_name("edgejoule")), "run", "spec.yaml", "--out", "out", "--store", store]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(folder: Path, store: str) -> tuple[list, float]:
    """The rows, after running to the end, and the seconds that took."""
    began = time.monotonic()
    process = start(folder, store)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()
    rows = json.loads((folder / "out/results.json").read_text())["rows"]
    return rows, time.monotonic() - began


def events(folder: Path, store: str) -> list:
    lines = (folder / store / "runs/small/events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.mark.timeout(600)
def test_run_killed_ten_times_ends_as_one_left_alone(tmp_path):
    bad_input.make_template(tmp_path)
    spec = {**bad_input.SPEC, "precisions": ["fp32", "int8-ptq"]}
    training = {"iterations": 6, "batch": 2, "learning_rate": 1e-5, "threads": 1}
    spec["models"] = [{"detector": "nanodet_m", "weights": str(START), "input": 160, "train": training}]
    spec["data"] = {**spec["data"], "sets": {**spec["data"]["sets"], "train": {"source": "train"}}}
    spec["quantization"] = {"calibrators": ["minmax", "mse"], "threads": 1}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    undisturbed, duration_s = finish(tmp_path, "undisturbed")

    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for _ in range(KILLS):
        process = start(tmp_path, "killed")
        time.sleep(moments.uniform(0.0, duration_s * 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    rows, _ = finish(tmp_path, "killed")

    for row, wanted in zip(rows, undisturbed, strict=True):
        for made in ("weights", "onnx", "data", "calibration"):
            assert row["hashes"][made] == wanted["hashes"][made], f"seed {seed}"
        if row["runtime"] == wanted["runtime"] and row["ran_as"] == wanted["ran_as"]:
            assert [row[key] for key in ACCURACY] == [wanted[key] for key in ACCURACY], f"seed {seed}"
        else:
            assert row["ap"] == pytest.approx(wanted["ap"], abs=ANOTHER_RUNTIME), f"seed {seed}"
    finished = Counter(event["key"] for event in events(tmp_path, "killed") if event["event"] == "finished")
    assert finished
    assert set(finished.values()) == {1}, f"a finished step was carried out again, seed {seed}"
    assert not [event for event in events(tmp_path, "killed") if event["event"] == "quarantined"]
    before = len(events(tmp_path, "killed"))
    finish(tmp_path, "killed")
    assert {event["event"] for event in events(tmp_path, "killed")[before:]} <= {"cached"}
