"""A cell of the toy model that a device builds and measures; model, images and score lie in the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toy_model import write_model, write_shard

from edgejoule.execution import now
from edgejoule.plan import Cell, Ref, Step, step_key
from edgejoule.protocols import PRESETS
from edgejoule.store import Made, Manifest, Store


def cell_of(
    precision: str, device: str, store: Store, protocol: Mapping[str, Any], trials: int = 1
) -> tuple[Cell, list[Step]]:
    """A cell and its own steps, of the model and the images that a step ``files`` gives.

    Args:
        store: where its score is put at once, since no evaluator is needed to see how it is shown.
        protocol: what is other than in ``quick``.
    """
    name = f"toy/{precision}/{device}"
    build = Step(
        f"build/{name}",
        "build",
        {"precision": precision, "threads": 1, "device": device},
        {"onnx": Ref("files", "onnx"), "images-000": Ref("files", "images-000")},
    )
    asked = {"device": device, "threads": 1, "seed": 0, "session": "s"}
    asked["protocol"] = {**PRESETS["quick"].measuring(), **protocol}
    engine = {"engine": Ref(build.id, "engine"), "engine_record": Ref(build.id, "record")}
    inputs = {**engine, "images-000": Ref("files", "images-000")}
    measured = [
        Step(f"benchmark/{name}/{trial}", "benchmark", {**asked, "trial": trial}, inputs) for trial in range(trials)
    ]
    score = Step(f"score/{name}", "toy", {"name": f"score-{name}"})
    _commit(score, store, {"record": json.dumps({"accuracy": {"ap": 0.2, "ap50": 0.4}}).encode()})
    steps = [build, *measured, score]
    return Cell("toy", "toy", "base", precision, device, tuple(step.id for step in steps)), steps


def commit_files(step: Step, store: Store, folder: Path, depth: int = 0) -> None:
    """Have a step done whose outputs are a model and an image shard."""
    write_model(folder / "model.onnx", depth)
    write_shard(folder / "shard.tar")
    files = {"onnx": folder / "model.onnx", "images-000": folder / "shard.tar"}
    _commit(step, store, {name: path.read_bytes() for name, path in files.items()})


def _commit(step: Step, store: Store, outputs: Mapping[str, bytes]) -> None:
    """Have a step of the toy kind done, with these outputs beside its own."""
    store.commit(
        Manifest(
            key=step_key(step.kind, 1, step.parameters, {}),
            kind=step.kind,
            version=1,
            step=step.id,
            parameters=dict(step.parameters),
            inputs={},
            outputs={name: store.put(data) for name, data in {"text": b"", **outputs}.items()},
            outcome="ok",
            reason=None,
            made=Made(at=now(), host="test", duration_s=0.0, edgejoule="0"),
        )
    )
