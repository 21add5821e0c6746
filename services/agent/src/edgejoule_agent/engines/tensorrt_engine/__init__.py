"""TensorRT on NVIDIA's GPUs: what differs between releases, building, inspecting and running engines.

``releases`` is the one table of what differs; ``builder`` works in a child process; ``inspector`` and ``graph`` are
pure; ``runner`` runs an engine with the few functions of ``cuda``.
"""

from typing import Any, Mapping


def open_engine(content: bytes, options: Mapping[str, str], threads: int) -> Any:
    """An engine from an engine file's bytes; see ``runner.open_engine``."""
    from edgejoule_agent.engines.tensorrt_engine import runner

    return runner.open_engine(content, options, threads)
