"""How much memory a child may take, and whether there is enough to start."""

import os
from typing import Any

from edgejoule_agent import host
from edgejoule_agent.errors import OutOfMemoryError

SHARE = 0.9  # of what is free; the rest keeps the host alive
RUNTIME_BYTES = 150 * 10**6  # an interpreter with a runtime loaded takes 100-130 MB
COPIES = 4  # of an engine file while it is loaded: the bytes, the parsed graph, weights, weights laid out anew


def memory_limit_bytes(root: str = "/") -> int:
    """What a child may hold before it is ended."""
    available = host.memory_available_bytes(root)
    if available is None:
        raise OutOfMemoryError("the kernel does not tell MemAvailable in proc/meminfo, so no memory limit can be set")
    return int(SHARE * available)


def floor_bytes(limit_bytes: int) -> int:
    """What must stay available on a host whose child may hold ``limit_bytes``: what the GPU of a board takes of the
    memory is in no process's resident memory.
    """
    return int(limit_bytes * (1 - SHARE) / SHARE)


def estimate_bytes(engine: Any) -> int:
    """About what a process takes that loads this file into ONNX Runtime; nobody measured others."""
    return RUNTIME_BYTES + COPIES * os.path.getsize(str(engine))


def check_memory(engine: Any, root: str = "/") -> None:
    """Refuse to load an engine that will not fit.

    Raises:
        OutOfMemoryError: its estimate is over the limit.
    """
    estimate = estimate_bytes(engine)
    limit = memory_limit_bytes(root)
    if estimate > limit:
        raise OutOfMemoryError(
            f"{engine}: loading takes about {estimate / 1e6:.0f} MB, but {limit / 1e6:.0f} MB may be used; free memory"
        )
