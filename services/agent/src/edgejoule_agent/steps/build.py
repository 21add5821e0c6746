"""Step ``build``: an ONNX file becomes an engine of this hardware class."""

import contextlib
import os
import tempfile
from typing import Any, Iterator

VERSION = 2
QUEUE = "device"
EXCLUSIVE = True  # the candidates are timed
TIME_LIMIT_S = 9 * 3600.0  # the builds of TensorRT end within 7 h, and then say why; the rest are checks
OUTPUTS = ("engine", "record")
SOURCES = (
    "edgejoule_agent.benchmark",
    "edgejoule_agent.boards",
    "edgejoule_agent.build",
    "edgejoule_agent.build_tensorrt",
    "edgejoule_agent.candidates",
    "edgejoule_agent.contract",
    "edgejoule_agent.cpu",
    "edgejoule_agent.energy",
    "edgejoule_agent.engines",
    "edgejoule_agent.host",
    "edgejoule_agent.isolate",
    "edgejoule_agent.jetson",
    "edgejoule_agent.l4t",
    "edgejoule_agent.limits",
    "edgejoule_agent.macs",
    "edgejoule_agent.optional",
    "edgejoule_agent.power_mode",
    "edgejoule_agent.preprocess",
    "edgejoule_agent.rewrites",
    "edgejoule_agent.sensors",
    "edgejoule_agent.shards",
    "edgejoule_agent.simulation",
)


def run(job: Any) -> None:
    """Inputs ``onnx``, ``images-*`` (optional); parameters precision, threads, hardware, workspace_mb (for TensorRT);
    outputs engine, record.
    """
    with _temporary_files_in(job.scratch):
        _build(job)


@contextlib.contextmanager
def _temporary_files_in(folder: Any) -> Iterator[None]:
    """Have this process and its children keep them there: a deployed agent's ``/tmp`` is small, and in memory."""
    tempdir, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = tempdir
        del os.environ["TMPDIR"]
        if variable is not None:
            os.environ["TMPDIR"] = variable


def _build(job: Any) -> None:
    from edgejoule_agent import host
    from edgejoule_agent.benchmark import check_same
    from edgejoule_agent.build import build
    from edgejoule_agent.simulation import build as simulated_build
    from edgejoule_agent.simulation import device as simulated

    parameters = job.parameters
    board = simulated.board_of(parameters.get("hardware"))
    if "hardware" in parameters:
        here = host.hardware() if board is None else simulated.hardware(board)
        check_same(parameters["hardware"], here, "since the plan was made")
    given = (
        job.inputs["onnx"],
        parameters["precision"],
        parameters["threads"],
        job.inputs_named("images"),
        job.output("engine"),
        job.progress,
    )
    if board is None:
        record = build(*given, parameters.get("workspace_mb"))
    else:
        record = simulated_build.build(*given, board)
    job.write_json("record", record)
