"""The measuring protocol: probe, one trial in a child, probe again; unequal probes void the trial."""

import contextlib
import functools
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence, Tuple

from edgejoule_agent import host, power_mode
from edgejoule_agent.engines import recorded_batch
from edgejoule_agent.errors import ConditionsChangedError, UnsupportedError
from edgejoule_agent.isolate import Progress, run
from edgejoule_agent.limits import check_memory, floor_bytes, memory_limit_bytes
from edgejoule_agent.simulation import device as simulated
from edgejoule_agent.simulation.running import root_of

STAGE_IMAGES = 32
TIME_LIMIT_S = 3600.0
COOLED_BY = ("cpu_khz", "gpu_hz", "max_frequency_khz", "clocks_locked")
"""What a cooling device changes: the kernel lowers the greatest clock (drivers/thermal/cpufreq_cooling.c)."""


def benchmark(
    engine: Any,
    engine_record: Mapping[str, Any],
    shard: Any,
    samples: Any,
    parameters: Mapping[str, Any],
    progress: Progress,
) -> Dict[str, Any]:
    """Measure one trial and return its BenchmarkRecord; every latency goes to ``samples`` (npz, ``latency_ms``).

    Args:
        parameters: those of a ``benchmark`` step: device, trial, threads, protocol (core's ``Protocol.measuring``), and
            the environment that the plan was made for, if any. With power_mode, that mode is on meanwhile, and the
            environment is without what follows it.

    Raises:
        ConditionsChangedError: the host is not what the plan probed, or changed during the trial.
        OutOfMemoryError, TimeLimitError, EngineError: see ``isolate.run``.
    """
    protocol = parameters["protocol"]
    with _device(parameters) as (probe, task, more):
        before = probe()
        if "environment" in parameters:
            planned, found = parameters["environment"], before["environment"]
            if "power_mode" in parameters:
                found = {name: value for name, value in found.items() if name in planned}
            check_same(planned, found, "since the plan was made")
        check_memory(engine)
        request = {
            "engine": str(engine),
            "engine_record": engine_record,
            "shard": str(shard),
            "samples": str(samples),
            "threads": parameters["threads"],
            "protocol": protocol,
            "stage_images": STAGE_IMAGES,
            **more,
        }
        limit_bytes = memory_limit_bytes()
        measured = run(task, request, progress, limit_bytes, TIME_LIMIT_S, floor_bytes=floor_bytes(limit_bytes))
        after = probe()
        hot = COOLED_BY if measured["throttled"] == "yes" else ()  # which the record says, so it is not void for that
        for part in ("hardware", "environment"):
            check_same(before[part], after[part], "during the trial", hot)
    return dict(
        measured,
        device=parameters["device"],
        trial=parameters["trial"],
        protocol=protocol["name"],
        protocol_values={name: value for name, value in protocol.items() if name != "name"},
        warmup_iterations=protocol["warmup_iterations"],
        iterations=protocol["iterations"],
        threads=parameters["threads"],
        batch=recorded_batch(engine_record),
        environment=before,
        simulated=bool(before["hardware"].get("simulated")),
    )


@contextlib.contextmanager
def _device(parameters: Mapping[str, Any]) -> Iterator[Tuple[Callable[[], Dict[str, Any]], str, Dict[str, Any]]]:
    """How to probe the device that the plan means, the trial that runs there, and what its request needs more."""
    board = simulated.board_of(parameters.get("environment"))
    asked = parameters.get("power_mode")
    if board is None:
        with contextlib.ExitStack() as stack:
            if asked:
                stack.enter_context(power_mode.held(asked, power_mode.state_folder()))
            yield host.probe, "edgejoule_agent.measure:trial", {}
        return
    if asked:
        raise UnsupportedError(f"power mode {asked} was asked for, and a simulated board has but the one it is in")
    with simulated.alive(board) as folder:
        probe = functools.partial(simulated.probe, board, root_of(folder))
        yield probe, "edgejoule_agent.simulation.trial:trial", {"folder": folder, "board": board}


def check_same(before: Mapping[str, Any], after: Mapping[str, Any], when: str, apart_from: Sequence[str] = ()) -> None:
    """Void the trial when two probes differ, naming what changed.

    Raises:
        ConditionsChangedError: they differ.
    """
    changed = [
        f"{key} from {before.get(key)!r} to {after.get(key)!r}"
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key) and key not in apart_from
    ]
    if changed:
        raise ConditionsChangedError(
            f"the host changed {when}: {', '.join(changed)}; what was measured is void, run it again"
        )
