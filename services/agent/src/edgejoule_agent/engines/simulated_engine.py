"""Engines of simulated boards: their numbers are ONNX Runtime's, on this host's CPU.

Their time is another matter: see ``edgejoule_agent.simulation.work``.
"""

from typing import Mapping

from edgejoule_agent.engines import Engine, onnxruntime_engine


def open_engine(content: bytes, options: Mapping[str, str], threads: int) -> Engine:
    """A session from an ONNX file's bytes."""
    return onnxruntime_engine.open_engine(content, options, threads)
