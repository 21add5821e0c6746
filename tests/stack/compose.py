"""A compose project of a test's own, and runs on it and beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from servers import free_ports

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = str(Path(sys.executable).parent / "edgejoule")
SPEC = HERE / "spec.yaml"
TAG = "stack-test"
ACCURACY = ("model", "variant", "status", "ap", "ap50", "ap75", "hashes")
# Measurements of time, memory or the state of the host: not the same twice.
MEASURED = {"latency_ms", "execution_ms", "fps", "stages_ms", "memory_peak_mb"}
MEASURED |= {"flags", "contended", "pareto", "throttled"}


class Failed(Exception):
    """The stack did not do what it must."""


def check(holds: bool, what: str) -> None:
    """Say what holds, or fail."""
    if not holds:
        raise Failed(f"not so: {what}")
    say(f"  {what}")


began = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - began:5.0f} s] {text}", flush=True)


class Stack:
    """A compose project of its own, with its own secrets, ports and image tag.

    Attributes:
        settings: what is in its .env.
        operator: environment of a command line that uses it.
    """

    def __init__(self, folder: Path) -> None:
        names = ("REDIS_PORT", "S3_PORT", "GATEWAY_PORT", "PROMETHEUS_PORT")
        given = dict(zip(names, map(str, free_ports(len(names))), strict=True))
        given.update(EDGEJOULE_TAG=TAG, COMPOSE_PROFILES="cpu,simulated")  # no image of Grafana is to be had everywhere
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        subprocess.run([sys.executable, str(ROOT / "docker" / "environment.py"), str(folder)], check=True)
        self.settings = variables(folder / ".env")
        self.operator = {**variables(folder / ".env.operator"), "EDGEJOULE_WORKSPACE": str(folder / "workspace")}
        self._compose = ["docker", "compose", "--env-file", str(folder / ".env"), "--project-name", f"edgejoule-{TAG}"]

    def overlay(self, file: Path) -> None:
        """From now on, have another compose file on top of the stack's."""
        self._compose += ["--file", str(ROOT / "docker-compose.yml"), "--file", str(file)]

    def __call__(self, *arguments: str, check: bool = True, timeout_s: float = 900) -> str:
        """Call docker compose; what it printed."""
        ended = subprocess.run(
            [*self._compose, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
            env=plain_environment(),
        )
        if check and ended.returncode:
            raise Failed(f"docker compose {' '.join(arguments)} ended with {ended.returncode}:\n{ended.stdout[-6000:]}")
        return ended.stdout

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """Every container that exists, as `docker inspect` tells of it."""
        ids = self("ps", "--all", "--quiet", *([service] if service else [])).split()
        told = subprocess.run(["docker", "inspect", *ids], check=True, capture_output=True, text=True).stdout
        found: list[dict[str, Any]] = json.loads(told)
        return found

    def remove(self) -> None:
        """Leave nothing of it, images included."""
        self("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "all", "--timeout", "5")
        ids = ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project=edgejoule-{TAG}"]
        check(not subprocess.run(ids, capture_output=True, text=True, check=True).stdout, "nothing is left")

    def redis(self, *command: str, user: str, secret: str) -> str:
        """What Redis answers to a command."""
        asked = ["redis-cli", "--user", user, "--pass", secret, "--no-auth-warning", *command]
        return self("exec", "--no-TTY", "redis", *asked, check=False).strip()


@contextmanager
def stack_of_a_test() -> Iterator[tuple[Stack, Path]]:
    """A stack that is not up yet, and a folder; both are gone afterwards.

    Raises:
        SystemExit: there is no Docker engine.
    """
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        sys.exit("this test needs a Docker engine with Compose v2, and none answers: start one")
    with tempfile.TemporaryDirectory(prefix="edgejoule-stack-") as name:
        stack = Stack(Path(name))
        try:
            yield stack, Path(name)
        except Failed:
            with suppress(Failed):
                say(f"what the services said:\n{stack('logs', '--no-color', '--tail', '25')[-12000:]}")
            raise
        finally:
            say("down")
            stack.remove()


def generate_pictures(folder: Path, train: int, validation: int) -> None:
    counts = ["--train", str(train), "--val", str(validation)]
    words = [COMMAND, "data", "generate", "--into", str(folder / "data"), *counts]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def differing(found: Mapping[str, Any], expected: Mapping[str, Any], fields: Iterable[str] = ()) -> list[str]:
    """Which of these fields of two rows, or of all, differ and should not.

    Which runtime is the fastest on this host a clock decides as well, and on a busy one not always alike. A row of
    another runtime is an accuracy measured with other arithmetic: equal to a hundredth.
    """
    different = [name for name in fields or expected if found.get(name) != expected[name]]
    if found.get("runtime") == expected["runtime"] or {"model", "variant", "status"} & set(different):
        return different
    say(f"  {expected['variant']}: {found['runtime']} was faster this time, not {expected['runtime']}")
    return [name for name in ("ap", "ap50", "ap75") if abs(found[name] - expected[name]) > 0.01]


def plain_environment() -> dict[str, str]:
    """Ours, without what would come before the stack's own .env."""
    named = variables(ROOT / ".env.example")
    return {name: value for name, value in os.environ.items() if name not in named}


def variables(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#"]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, without what is measured anew each time."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in found]


@contextmanager
def in_process(spec: Path, folder: Path, name: str = "here") -> Iterator[None]:
    """The run that the stack's is compared with, meanwhile, with locks of its own: it measures nothing that counts."""
    (folder / "locks").mkdir(exist_ok=True)
    environment = {**os.environ, "DATA": str(folder / "data"), "EDGEJOULE_LOCKS": str(folder / "locks")}
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            [COMMAND, "run", str(spec), "--out", str(folder / name), "--store", str(folder / "store")],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield
        if process.wait(1200):
            raise Failed(f"the run in-process failed:\n{(folder / f'{name}.log').read_text()[-3000:]}")
    finally:
        process.kill()
        process.wait()


def call(stack: Stack, folder: Path, *words: str, check: bool = True) -> str:
    """Call edgejoule as the stack's operator; what it printed."""
    environment: Mapping[str, str] = {**os.environ, **stack.operator, "DATA": str(folder / "data")}
    ended = subprocess.run(
        [COMMAND, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if check and ended.returncode:
        raise Failed(f"edgejoule {' '.join(words)} ended with {ended.returncode}:\n{ended.stdout[-3000:]}")
    return ended.stdout


def run_on_stack(stack: Stack, folder: Path, out: str, *settings: str) -> list[dict[str, Any]]:
    """Carry the matrix out on the stack; its rows."""
    given = [part for setting in settings for part in ("--set", setting)]
    call(stack, folder, "run", str(SPEC), "--on", "stack", "--out", str(folder / out), *given)
    return rows(folder / out)
