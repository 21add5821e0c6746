"""A stack of toy steps for tests: a real Redis, and conductors and workers that are processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from servers import RedisServer

from edgejoule import runs
from edgejoule.folder_store import FolderStore
from edgejoule.plan import Plan, Ref, Step
from edgejoule.stack.coordination import Changed, Coordination, Timing
from edgejoule.stack.run_files import mark_submitted, state_of_run
from edgejoule.store import Store, open_store

TOYS = Path(__file__).parents[1] / "unit" / "core" / "toys"
QUICK = Timing(
    lease_s=2.0, beat_s=0.3, look_s=0.3, leader_s=1.5, sweep_s=60.0, trouble_s=0.5, back_off_s=(0.1, 0.2), claim_s=60.0
)


def toy(id: str, *upstream: str, kind: str = "toy", **parameters: Any) -> Step:
    """A toy step called ``id`` that joins the texts of others."""
    return Step(id, kind, {"name": id, **parameters}, {f"from-{name}": Ref(name, "text") for name in upstream})


def plan_of(*steps: Step) -> Plan:
    return Plan({step.id: step for step in steps}, ())


class Stack:
    """Everything of one test lies in ``folder``; :meth:`close` leaves no process."""

    def __init__(self, folder: Path, redis: RedisServer, *, timing: Timing = QUICK, store: str | None = None) -> None:
        self.folder = folder
        self.redis = redis
        self.where = store or str(folder / "store")
        self.store: Store = open_store(self.where, os.environ) if store else FolderStore(folder / "store")
        self.coordination = Coordination(redis.url, timing)
        self.diary = folder / "diary"
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(TOYS),
            "TMPDIR": str(folder),
            "TOY_TIMING": json.dumps(asdict(timing)),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def worker(self, *queues: str, **environment: str) -> subprocess.Popen[bytes]:
        return self._start("worker", *(queues or ("evaluate",)), environment=environment)

    def conductor(self, **environment: str) -> subprocess.Popen[bytes]:
        return self._start("conductor", environment=environment)

    def _start(self, role: str, *queues: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        number = len(self._processes)
        with open(self.folder / f"{role}{number}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(TOYS / "run_toy_stack.py"), role, self.where, self.redis.url, *queues],
                env={**self._environment, **environment},
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def logs(self, role: str = "") -> str:
        """What the processes said."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob(f"{role}*.log")))

    def submit(self, plan: Plan, run: str = "test") -> None:
        runs.save(runs.Run(run, {}, plan), self.store)
        mark_submitted(run, self.store)
        self.coordination.wake(Changed(run=run))

    def wait_until(self, true: Callable[[], Any], seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := true()):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.02)
        return answer

    def finish(self, run: str = "test", seconds: float = 60) -> dict[str, str]:
        """Step to event, of a run that has ended by itself; Redis holds nothing of it any more."""
        self.wait_until(lambda: state_of_run(run, self.store).end, seconds)
        assert state_of_run(run, self.store).end == "done"
        self.wait_until(lambda: not self.coordination.left_over(), 10)
        return {event["step"]: event["event"] for event in self.store.events(run)}

    def done_keys(self) -> set[str]:
        return {path.stem for path in (self.folder / "store" / "manifests").glob("*.json")}

    def done_by_toys(self) -> list[str]:
        """The names in the diary of the toys, one for each time that one came to its end."""
        return sorted(line.split()[0] for line in self.diary.read_text().splitlines()) if self.diary.exists() else []

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self._processes:
            process.wait(10)
        self.coordination.close()
