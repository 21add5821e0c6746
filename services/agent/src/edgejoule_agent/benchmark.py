"""The measuring protocol: probe, one trial in a child, probe again; unequal probes void the trial."""

from typing import Any, Dict, Mapping

from edgejoule_agent import host
from edgejoule_agent.errors import ConditionsChangedError
from edgejoule_agent.isolate import Progress, run
from edgejoule_agent.limits import check_memory, memory_limit_bytes

STAGE_IMAGES = 32
IDLE_S = 5.0
TIME_LIMIT_S = 3600.0


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
        parameters: those of a ``benchmark`` step: device, trial, threads, protocol (name, warmup_iterations,
            iterations), and the environment that the plan was made for, if any.

    Raises:
        ConditionsChangedError: the host is not what the plan probed, or changed during the trial.
        OutOfMemoryError, TimeLimitError, EngineError: see ``isolate.run``.
    """
    protocol = parameters["protocol"]
    before = host.probe()
    if "environment" in parameters:
        check_same(parameters["environment"], before["environment"], "since the plan was made")
    check_memory(engine)
    request = {
        "engine": str(engine),
        "engine_record": engine_record,
        "shard": str(shard),
        "samples": str(samples),
        "threads": parameters["threads"],
        "warmup_iterations": protocol["warmup_iterations"],
        "iterations": protocol["iterations"],
        "stage_images": STAGE_IMAGES,
        "idle_s": IDLE_S,
    }
    measured = run("edgejoule_agent.measure:trial", request, progress, memory_limit_bytes(), TIME_LIMIT_S)
    after = host.probe()
    for part in ("hardware", "environment"):
        check_same(before[part], after[part], "during the trial")
    return dict(
        measured,
        device=parameters["device"],
        trial=parameters["trial"],
        protocol=protocol["name"],
        warmup_iterations=protocol["warmup_iterations"],
        iterations=protocol["iterations"],
        threads=parameters["threads"],
        environment=before,
        simulated=False,
    )


def check_same(before: Mapping[str, Any], after: Mapping[str, Any], when: str) -> None:
    """Void the trial when two probes differ, naming what changed.

    Raises:
        ConditionsChangedError: they differ.
    """
    changed = [
        f"{key} from {before.get(key)!r} to {after.get(key)!r}"
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise ConditionsChangedError(
            f"the host changed {when}: {', '.join(changed)}; what was measured is void, run it again"
        )
