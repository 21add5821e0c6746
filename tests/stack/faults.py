"""`make test-faults`: thirty faults at random moments while the stack works, and nothing is lost.

Workers, conductor, gateway and servers are killed, paused, flushed, stopped, filled up and lied to. Nobody helps: the
run completes, its accuracy is that of an undisturbed run, the step that is killed for its memory each time has failed
with that reason after three attempts, and Redis holds no claim and no lease any more.
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
import yaml
from compose import (
    ACCURACY,
    HERE,
    Failed,
    Stack,
    call,
    check,
    differing,
    generate_pictures,
    in_process,
    rows,
    say,
    stack_of_a_test,
)
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from edgejoule.errors import StoreError
from edgejoule.stack.coordination import Coordination
from edgejoule.stack.run_files import state_of_run
from edgejoule.store import Store, open_store

MATRIX = HERE / "faults.yaml"
AGAIN_S = 30.0  # a killed worker's step runs again by then
LOST_S = 240.0  # and if not by then, it was lost
PAUSES = 5  # times that a container is asked to hold still
PAUSE_S = 14.0  # longer than a lease
QUEUES = ("train", "evaluate", "analyze", "device.host")
# More than the trainer's memory in faults.compose.yml.
POISON = {
    "name": "too_large",
    "detector": "yolov5s",
    "input": 320,
    "train": {"iterations": 5, "batch": 64, "learning_rate": 0.0005},
}


class Disturber:
    """Strikes a stack, and keeps the tally.

    Attributes:
        struck: how often each fault was struck.
        again_s: how long it took until the step of a killed worker ran again, less the time in which every worker that
            could have taken it was at another step: a queue is served in its order.
        in_all_s: the same with that time.
        run: the one that is under way.
    """

    run = ""

    def __init__(self, stack: Stack, store: Store, seed: int) -> None:
        self._stack = stack
        self._store = store
        self._random = random.Random(seed)
        port, password = stack.settings["REDIS_PORT"], stack.settings["REDIS_ADMIN_PASSWORD"]
        self._redis = redis.Redis(
            port=int(port),
            username="admin",
            password=password,
            decode_responses=True,
            socket_timeout=5,
            retry=Retry(ConstantBackoff(0.5), 60),  # until it is back
            retry_on_error=[redis.ConnectionError, redis.TimeoutError],
        )
        self._hung: set[str] = set()
        self.struck: Counter[str] = Counter()
        self.again_s: list[float] = []
        self.in_all_s: list[float] = []
        kills = {
            f"SIGKILL of {service}": lambda service=service: self._kill(service)
            for service in ("trainer", "evaluator", "analyst", "conductor", "gateway", "host-agent")
        }
        self.faults: dict[str, Callable[[], bool]] = {
            **kills,
            "an evaluator paused past its lease, and woken": lambda: self._pause("evaluator"),
            "the trainer paused past its lease, and woken": lambda: self._pause("trainer"),
            "Redis killed": self._kill_redis,
            "Redis restarted": self._restart_redis,
            "Redis flushed": self._flush,
            "the S3 server stopped for 20 s": self._stop_s3,
            "an evaluator's disk full": self._fill_disk,
            "a step that hangs": self._hang,
            "a message delivered twice": self._double,
        }

    def strike(self, name: str) -> None:
        """Strike one fault; one that finds nothing to strike (no step under way) does not count."""
        if self.faults[name]():
            self.struck[name] += 1
            say(f"  {sum(self.struck.values())}: {name}")

    def moment(self) -> None:
        """A random one."""
        time.sleep(self._random.uniform(1, 6))

    def shuffled(self) -> list[str]:
        """Every fault, in random order."""
        names = list(self.faults)
        self._random.shuffle(names)
        return names

    # --- the faults ---

    def _kill(self, service: str) -> bool:
        container = self._at_work(service)
        held = self._steps_of(container)
        self._in(container, KILL_ALL)
        if held:
            self._await_again(service, held)
        return True

    def _pause(self, service: str) -> bool:
        container = self._at_work(service)
        for left in reversed(range(PAUSES)):
            try:
                docker("pause", container)
                break
            except subprocess.CalledProcessError:
                if not left:  # before, runc gave up on processes that would not hold still: "unable to freeze"
                    raise
                time.sleep(1)
        time.sleep(PAUSE_S)
        docker("unpause", container)
        return True

    def _kill_redis(self) -> bool:
        (container,) = self._containers("redis")
        self._in(container, KILL_ALL)
        return True

    def _restart_redis(self) -> bool:
        self._stack("restart", "redis")
        return True

    def _flush(self) -> bool:
        self._redis.flushall()
        return True

    def _stop_s3(self) -> bool:
        self._stack("stop", "--timeout", "1", "minio")
        time.sleep(20)
        self._stack("start", "minio")
        return True

    def _fill_disk(self) -> bool:
        container = self._at_work("evaluator")
        self._in(container, "dd if=/dev/zero of=/var/lib/edgejoule/filler bs=1M 2>/dev/null; true")
        time.sleep(10)
        self._in(self._at_work("evaluator"), "rm /var/lib/edgejoule/filler")
        return True

    def _hang(self) -> bool:
        """Stop a step's process, once for each step at most: it has three attempts."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for container in self._containers("evaluator"):
                held = self._steps_of(container)
                if held and not held.keys() & self._hung and self._in(container, STOP_STEP):
                    self._hung |= held.keys()
                    return True
            if ended(self.run, self._store):
                return False
        return False

    def _double(self) -> bool:
        """Put a waiting message into its queue once more."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if any(self._redis.eval(DOUBLE, 1, queue) for queue in QUEUES):
                return True
            if ended(self.run, self._store):
                return False
        return False

    # --- how ---

    def _containers(self, service: str) -> list[str]:
        return self._stack("ps", "--quiet", service).split()

    def _at_work(self, service: str) -> str:
        """A container of the service, if possible one that has a step."""
        deadline = time.monotonic() + 60
        while not (containers := self._containers(service)):
            if time.monotonic() > deadline:
                raise Failed(f"{service} did not come back within a minute")
            time.sleep(0.2)
        return max(containers, key=lambda container: (bool(self._steps_of(container)), self._random.random()))

    def _steps_of(self, container: str) -> dict[str, str]:
        """Key to holder of the leases of a container."""
        leases: dict[str, str] = {}
        with suppress(redis.RedisError):
            for name in self._redis.scan_iter("edgejoule:lease:*"):
                if (holder := self._redis.get(name)) and holder.startswith(container[:12]):
                    leases[name.removeprefix("edgejoule:lease:")] = holder
        return leases

    def _await_again(self, service: str, held: dict[str, str]) -> None:
        """Wait until each of these steps has another holder, or is done."""
        began, busy_s = time.monotonic(), 0.0
        for key, holder in held.items():
            while self._redis.get(f"edgejoule:lease:{key}") in (holder, None) and self._store.manifest(key) is None:
                looked = time.monotonic()
                if looked - began > LOST_S:
                    raise Failed(f"step {key[:12]} of a killed worker did not run again within {LOST_S:.0f} s")
                workers = self._containers(service)
                at_another = bool(workers) and all(self._steps_of(worker).keys() - held.keys() for worker in workers)
                time.sleep(0.2)
                busy_s += (time.monotonic() - looked) if at_another else 0.0
            self.in_all_s.append(time.monotonic() - began)
            self.again_s.append(self.in_all_s[-1] - busy_s)

    def _in(self, container: str, script: str) -> bool:
        """Run a script in a container; whether it did what it was for."""
        asked = ["docker", "exec", container, "sh", "-c", script]
        return subprocess.run(asked, capture_output=True, timeout=60).returncode == 0


DOUBLE = """
local message = redis.call('lindex', KEYS[1], -1)
return message and redis.call('lpush', KEYS[1], message)
"""
# Of process 1 only init is: it ends with its child, and Docker starts the container again, as after a crash.
KILL_ALL = """
for status in /proc/[0-9]*/stat; do
  read -r line < "$status" || continue
  set -- ${line##*) }
  process=${status#/proc/}
  [ "$2" != 1 ] || kill -KILL "${process%/stat}"
done
"""
# The brackets keep the script from finding itself.
STOP_STEP = """
for line in /proc/[0-9]*/cmdline; do
  if tr '\\0' ' ' < "$line" 2>/dev/null | grep -q ' -m edgejoule[.]worker '; then
    process=${line#/proc/}
    kill -STOP "${process%/cmdline}" && exit 0
  fi
done
exit 1
"""


def docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=60)


def disturb(
    stack: Stack, folder: Path, spec: Path, count: int, seed: int, expected: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[float]]:
    """Strike so many faults while the stack works: on the matrix, and as often as it takes on its predictions anew.

    Args:
        expected: rows of the undisturbed run; rows of other models are not compared.

    Returns:
        The last run's rows, and how long it took until each step of a killed worker ran again.
    """
    store = open_store(stack.operator["EDGEJOULE_STORE"], stack.operator)
    disturber = Disturber(stack, store, seed)
    names: list[str] = []
    found: list[dict[str, Any]] = []
    models = {row["model"] for row in expected}
    for turn in itertools.count():
        if sum(disturber.struck.values()) >= count:
            break
        # Another operating point has every shard predicted anew, and no accuracy changed.
        settings = ["--set", f"protocol.confidence={0.4 + turn / 100}"]
        told = call(stack, folder, "submit", str(spec), *settings)
        run = disturber.run = told.partition("Submitted as ")[2].partition(".")[0]
        before, began = len(store.events(run)), time.monotonic()
        say(f"  run {turn + 1}")
        while ended(run, store) is None:
            if time.monotonic() - began > 3000:
                raise Failed(f"the run did not complete: {call(stack, folder, 'status', run)}")
            disturber.moment()
            if sum(disturber.struck.values()) < count and ended(run, store) is None:
                names = names or disturber.shuffled()
                disturber.strike(names.pop())
        check(ended(run, store) == "done", f"it completed, {time.monotonic() - began:.0f} s after it was submitted")
        nothing_is_left(stack)
        everything_was_done_once(store, store.events(run)[before:])
        out = folder / f"disturbed-{turn}"
        call(stack, folder, "run", str(spec), "--on", "stack", "--out", str(out), *settings, check=False)
        found = rows(out)
        for one, other in zip([row for row in found if row["model"] in models], expected, strict=True):
            if names := differing(one, other, ACCURACY):
                values = {name: (one.get(name), other[name]) for name in (*names, "reason")}
                raise Failed(f"{other['model']}/{other['variant']} differs from the undisturbed run: {values}")
        say(f"  accuracy of {len(expected)} rows is that of the undisturbed run")
    for fault, times in sorted(disturber.struck.items()):
        say(f"    {times} x {fault}")
    again_s = disturber.again_s
    say(
        f"    {len(again_s)} steps of killed workers ran again, the last after {max(again_s, default=0):.0f} s; "
        f"with waiting for a worker that was at another step, {max(disturber.in_all_s, default=0):.0f} s"
    )
    return found, again_s


def ended(run: str, store: Store) -> str | None:
    """How a run ended; None while it goes on. The servers may be away for a moment."""
    with suppress(StoreError):
        return state_of_run(run, store).end
    return None


def nothing_is_left(stack: Stack) -> None:
    coordination = Coordination(stack.operator["EDGEJOULE_BROKER"])
    deadline = time.monotonic() + 60
    while (left := coordination.left_over()) and time.monotonic() < deadline:
        time.sleep(1)
    check(not left, "no claim and no lease is left" if not left else f"nothing is left, but {left[:3]}")


def everything_was_done_once(store: Store, events: list[dict[str, Any]]) -> None:
    """Each step that is done was told of once, and what it made is whole."""
    finished = [event for event in events if event["event"] == "finished"]
    twice = [step for step, times in Counter(event["step"] for event in finished).items() if times > 1]
    check(bool(finished) and not twice, f"{len(finished)} steps finished, each once" if not twice else f"once: {twice}")
    manifests = [store.manifest(event["key"]) for event in finished]
    blobs = {blob.sha256 for manifest in manifests if manifest for blob in manifest.outputs.values()}
    whole = all(manifests) and all(store.fetch(blob).exists() for blob in blobs)
    check(whole, f"each has its manifest, and the {len(blobs)} blobs that these name are whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with stack_of_a_test() as (stack, folder):
        generate_pictures(folder, 64, 60)
        say("build, and the same matrix in-process meanwhile")
        with in_process(MATRIX, folder):
            stack("build")
            say("  built")
        spec = folder / "faults.yaml"
        matrix = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
        for model in matrix["models"]:
            model["weights"] = str((HERE / model["weights"]).resolve())
        spec.write_text(yaml.safe_dump({**matrix, "models": [*matrix["models"], POISON]}), encoding="utf-8")
        stack.overlay(HERE / "faults.compose.yml")
        stack("up", "--detach", "--wait", "--scale", "evaluator=2")
        say(f"{options.faults} faults, seed {options.seed}")
        found, again_s = disturb(stack, folder, spec, options.faults, options.seed, rows(folder / "here"))
        check(max(again_s, default=0) <= AGAIN_S, f"each step of a killed worker ran again within {AGAIN_S:.0f} s")
        poisoned = [row for row in found if row["model"] == POISON["name"]]
        check(
            bool(poisoned) and all(row["status"] == "oom" for row in poisoned),
            f"what was killed for its memory each time is {poisoned[0]['status']}: {poisoned[0]['reason']}",
        )
        told = call(stack, folder, "logs", f"train/{POISON['name']}")
        attempts = told.count("attempt ")
        check(attempts == 3, f"and was tried {attempts} times")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"make test-faults failed: {error}")
    say("1 passed, 0 failed")
