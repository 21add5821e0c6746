"""Two input sizes of one detector, by the command as a person calls it: from weights to rows, here and on the simulated
Nano."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import bad_input

from edgejoule.folder_store import FolderStore
from edgejoule.records import BenchmarkRecord, EngineRecord, Results
from edgejoule.store import Manifest
from edgejoule_trainer.data.generate import generate

START = Path(__file__).parents[2] / "examples/nanodet_m_shapes.safetensors"
SIDES = (64, 96)
DEVICES = ("host", "simulated-nano")
PROTOCOL = {**bad_input.SPEC["protocol"], "power_window_s": 1.5, "idle_s": 1.5, "iterations": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where such a run has ended."""
    folder = tmp_path_factory.mktemp("sizes")
    generate(folder / "data", {"train": 8, "val": 4}, seed=3)
    spec: dict[str, Any] = {
        **bad_input.SPEC,
        "models": [{"detector": "nanodet_m", "weights": str(START), "input": list(SIDES)}],
        "precisions": ["fp32", "int8-ptq"],
        "devices": list(DEVICES),
        "protocol": PROTOCOL,
        "quantization": {"calibrators": ["minmax"], "threads": 1},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = [str(Path(sys.executable).with_name("edgejoule")), "run", "spec.yaml", "--out", "out", "--store", "store"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def manifests(folder: Path) -> dict[str, Manifest]:
    """Step to what the store says of it."""
    found = (Manifest.model_validate_json(file.read_bytes()) for file in (folder / "store/manifests").iterdir())
    return {manifest.step: manifest for manifest in found}


@pytest.mark.timeout(600)
def test_each_size_is_exported_quantized_built_and_measured_apart(folder: Path) -> None:
    done, store = manifests(folder), FolderStore(folder / "store")

    def output(step: str, name: str) -> bytes:
        return store.fetch(done[step].outputs[name].sha256).read_bytes()

    for side in SIDES:
        for maker in ("export", "ptq"):
            graph = onnx.load_from_string(output(f"{maker}/nanodet_m-{side}", "onnx")).graph
            assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim] == [1, 3, side, side]
        for device in DEVICES:
            cell = f"nanodet_m-{side}/fp32/{device}"
            engine = EngineRecord.model_validate_json(output(f"build/{cell}", "record"))
            assert (engine.model.input.height, engine.model.input.width) == (side, side)
            trial = BenchmarkRecord.model_validate_json(output(f"benchmark/{cell}/0", "record"))
            assert trial.simulated == (device == "simulated-nano")
    scales = [json.loads(output(f"ptq/nanodet_m-{side}", "record")) for side in SIDES]
    assert scales[0]["sets"] == scales[1]["sets"]
    graphs = [done[f"{maker}/nanodet_m-{side}"].outputs["onnx"] for maker in ("export", "ptq") for side in SIDES]
    assert len({graph.sha256 for graph in graphs}) == 4


@pytest.mark.timeout(600)
def test_each_size_has_rows_and_names_of_its_own(folder: Path) -> None:
    rows = Results.model_validate_json((folder / "out/results.json").read_bytes()).rows
    by_name = {f"{row.model}/{row.variant}/{row.device}": row for row in rows}
    cells = itertools.product(SIDES, ("fp32", "int8-ptq"), DEVICES)
    assert sorted(by_name) == sorted(f"nanodet_m-{side}/{variant}/{device}" for side, variant, device in cells)
    assert len(rows) == len(by_name)
    for name, row in by_name.items():
        refused = row.variant == "int8-ptq" and row.device == "simulated-nano"
        assert row.status == ("unsupported" if refused else "ok"), (name, row.reason)
    small, large = (by_name[f"nanodet_m-{side}/fp32/simulated-nano"] for side in SIDES)
    for less, more in ((small.latency_ms.mean, large.latency_ms.mean), (small.energy_mj, large.energy_mj)):
        assert 0 < less < more  # by the model of the board, which knows no chance
    assert small.gmacs / large.gmacs == pytest.approx((64 / 96) ** 2, rel=0.05)
    assert small.params_m == large.params_m
    page = (folder / "out/report.html").read_text()
    for side in SIDES:
        assert f"nanodet_m-{side}" in page
