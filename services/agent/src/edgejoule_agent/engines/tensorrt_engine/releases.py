"""What differs between TensorRT's releases in what we touch: one table, asked by version, never by trying.

The names and argument names of ten releases stand in ``tests/fixtures/tensorrt_names.json``, taken from TensorRT's own
bindings; a test holds every row of the table against them. What that file lacks (arguments that may be left out, what
is returned, the constructors, ILogger) is in docs/reference/tensorrt.md, with the page of NVIDIA's documentation or the
source file it comes from; a test holds what is called here against that list.

Not touched, so not in the table: hardware compatibility (8.6 and later; its default, none, is what an engine bound to
one hardware class wants), DLA, calibrators, refitting, weight streaming, aux streams.
"""

import importlib
from typing import Any, List, NamedTuple, Tuple

from edgejoule_agent.errors import UnsupportedError


class Release(NamedTuple):
    """One row: how to say the same thing to releases from ``since`` up to the next row's."""

    since: Tuple[int, int]
    network: Tuple[str, ...]  # NetworkDefinitionCreationFlag names that create_network needs
    weakly_typed: bool  # flags FP16, INT8 and OBEY_PRECISION_CONSTRAINTS, ILayer.precision and set_output_type
    can_be_typed: bool  # NetworkDefinitionCreationFlag.STRONGLY_TYPED: types are the graph's
    workspace: str  # IBuilderConfig.max_workspace_size (property), or set_memory_pool_limit(WORKSPACE)
    min_timing_iterations: bool
    input_output: str  # "bindings": by index, execute_async_v2; "tensors": by name, execute_async_v3
    tells_fast_precisions: bool  # Builder.platform_has_fast_fp16 and _int8; else the SM decides
    context_memory: str  # ICudaEngine's property: bytes of one execution context


OLD, POOL = "max_workspace_size", "set_memory_pool_limit"
BINDINGS, TENSORS = "bindings", "tensors"
EXPLICIT, TYPED = ("EXPLICIT_BATCH",), ("STRONGLY_TYPED",)
MEMORY, MEMORY_V2 = "device_memory_size", "device_memory_size_v2"

# Explicit batches are the only kind from 10.0 on, and strong typing is from 11.0 on (documentation, Migrating from
# TensorRT 8.x to 10.x, and from 10.x to 11.x).
TABLE = (
    #        since    network   weak   typed  workspace  min.   i/o       fast   memory of a context
    Release((8, 2), EXPLICIT, True, False, OLD, True, BINDINGS, True, MEMORY),
    Release((8, 4), EXPLICIT, True, False, POOL, True, BINDINGS, True, MEMORY),
    Release((8, 5), EXPLICIT, True, False, POOL, True, TENSORS, True, MEMORY),
    Release((10, 0), (), True, True, POOL, False, TENSORS, True, MEMORY),
    Release((10, 3), (), True, True, POOL, False, TENSORS, True, MEMORY_V2),
    Release((11, 0), TYPED, False, True, POOL, False, TENSORS, False, MEMORY_V2),
)


def release_of(version: str) -> Release:
    """The row for a version as TensorRT tells it.

    >>> release_of("8.2.1.8").input_output, release_of("8.6.2").input_output
    ('bindings', 'tensors')

    Raises:
        UnsupportedError: older than the table.
    """
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")[:2]]
    major, minor = [*parts, 0, 0][:2]
    known: List[Release] = [row for row in TABLE if row.since <= (major, minor)]
    if not known:
        oldest = ".".join(map(str, TABLE[0].since))
        raise UnsupportedError(
            f"TensorRT {version} is older than {oldest}, the first this agent knows; on a Jetson, install JetPack 4.6.1"
        )
    return known[-1]


def load() -> Tuple[Any, Release]:
    """TensorRT's module and its row.

    Raises:
        UnsupportedError: it is not installed, or too old.
    """
    try:
        module = importlib.import_module("tensorrt")
    except ImportError as error:
        raise UnsupportedError(
            f"tensorrt cannot be imported ({error}); on a Jetson it comes with JetPack (python3-libnvinfer), and in a "
            "container from NVIDIA's image or, before JetPack 5, from the host by --runtime nvidia"
        ) from error
    return module, release_of(module.__version__)
