"""`make test-stack`: the whole stack in real containers, from the build to `down`; leaves nothing behind.

It submits a small matrix on generated pictures and asks for the very rows that this host makes in-process.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = str(Path(sys.executable).parent / "edgejoule")
TAG = "stack-test"
# All of a row that is no measurement of time, memory or the state of the host.
MEASURED = {"latency_ms", "fps", "memory_peak_mb", "stages_ms", "flags", "contended", "pareto", "throttled"}


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
        ports = dict(zip(("REDIS_PORT", "S3_PORT", "GATEWAY_PORT"), free_ports(3), strict=True))
        (folder / ".env").write_text(
            "".join(f"{name}={value}\n" for name, value in {"EDGEJOULE_TAG": TAG, **ports}.items())
        )
        subprocess.run([sys.executable, str(ROOT / "docker" / "environment.py"), str(folder)], check=True)
        self.settings = variables(folder / ".env")
        self.operator = {**variables(folder / ".env.operator"), "EDGEJOULE_WORKSPACE": str(folder / "workspace")}
        self._compose = ["docker", "compose", "--env-file", str(folder / ".env"), "--project-name", f"edgejoule-{TAG}"]

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

    def redis(self, *command: str, user: str, secret: str) -> str:
        """What Redis answers to a command."""
        asked = ["redis-cli", "--user", user, "--pass", secret, "--no-auth-warning", *command]
        return self("exec", "--no-TTY", "redis", *asked, check=False).strip()


def plain_environment() -> dict[str, str]:
    """Ours, without what would come before the stack's own .env."""
    named = variables(ROOT / ".env.example")
    return {name: value for name, value in os.environ.items() if name not in named}


def variables(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#"]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, without what is measured anew each time."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in found]


@contextmanager
def in_process(folder: Path) -> Iterator[None]:
    """The run that the stack's is compared with, meanwhile, with locks of its own: it measures nothing that counts."""
    (folder / "locks").mkdir()
    environment = {**os.environ, "DATA": str(folder / "data"), "EDGEJOULE_LOCKS": str(folder / "locks")}
    with open(folder / "here.log", "wb") as log:
        process = subprocess.Popen(
            [COMMAND, "run", str(HERE / "spec.yaml"), "--out", str(folder / "here"), "--store", str(folder / "store")],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield
        if process.wait(600):
            raise Failed(f"the run in-process failed:\n{(folder / 'here.log').read_text()[-3000:]}")
    finally:
        process.kill()
        process.wait()


def run_on_stack(stack: Stack, folder: Path, out: str, *settings: str) -> list[dict[str, Any]]:
    """Carry the matrix out on the stack; its rows."""
    call = [COMMAND, "run", str(HERE / "spec.yaml"), "--on", "stack", "--out", str(folder / out)]
    environment: Mapping[str, str] = {**os.environ, **stack.operator, "DATA": str(folder / "data")}
    ended = subprocess.run(
        [*call, *(part for setting in settings for part in ("--set", setting))],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=420,
    )
    if ended.returncode:
        raise Failed(f"edgejoule run --on stack ended with {ended.returncode}:\n{ended.stdout[-3000:]}")
    return rows(folder / out)


# --- what it must show ------------------------------------------------------------------------------


def without_environment_it_stops_with_a_sentence() -> None:
    told = subprocess.run(
        ["docker", "compose", "--env-file", "/dev/null", "up"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=plain_environment(),
    )
    check(told.returncode != 0 and 'run "make up"' in told.stderr, "docker compose up without .env says: make up")


def every_container_is_confined(stack: Stack) -> None:
    for found in stack.containers():
        host, config = found["HostConfig"], found["Config"]
        name = config["Labels"]["com.docker.compose.service"]
        published = [bind["HostIp"] for binds in (host["PortBindings"] or {}).values() for bind in binds]
        confined = (
            config["User"] == "10001:10001"
            and host["ReadonlyRootfs"]
            and host["CapDrop"] == ["ALL"]
            and not host["CapAdd"]
            and not host["Privileged"]
            and "no-new-privileges:true" in host["SecurityOpt"]
            and host["Memory"] > 0
            and host["PidsLimit"] > 0
            and set(published) <= {"127.0.0.1"}
        )
        if not confined:
            raise Failed(f"{name} is not confined: {json.dumps(host)[:2000]}")
    check(True, f"{len(stack.containers())} containers: no root, no capability, read-only, limited, 127.0.0.1 at most")


def strangers_get_nothing(stack: Stack) -> None:
    answer = stack("exec", "--no-TTY", "redis", "redis-cli", "get", "edgejoule:conductor", check=False)
    check("NOAUTH" in answer, "Redis answers nobody without a password")
    status = 0
    try:
        urllib.request.urlopen(f"{stack.operator['EDGEJOULE_S3_ENDPOINT']}/edgejoule/probe", timeout=10).close()
    except urllib.error.HTTPError as error:
        status = error.code
    check(status == 403, "the S3 server answers nobody without a key")
    answer = stack.redis("lpush", "evaluate", "{}", user="operator", secret=stack.settings["OPERATOR_SECRET"])
    check("NOPERM" in answer, "the operator sends no messages to workers")
    answer = stack.redis("flushall", user="evaluator", secret=stack.settings["EVALUATOR_SECRET"])
    check("NOPERM" in answer, "no service flushes Redis")
    certificate = stack("exec", "--no-TTY", "gateway", "cat", "/etc/edgejoule/gateway.crt")
    trusting = ssl.create_default_context(cadata=certificate)
    gateway = f"https://127.0.0.1:{stack.settings['GATEWAY_PORT']}"
    with urllib.request.urlopen(f"{gateway}/health", timeout=10, context=trusting) as answer_of_gateway:
        check(answer_of_gateway.status == 200, "the gateway says by its certificate who it is, and that it is well")
    told = "nothing"
    try:
        urllib.request.urlopen(f"{gateway}/v1/job", b"{}", timeout=10, context=trusting).close()
    except urllib.error.HTTPError as error:
        told = f"{error.code}"
    check(told == "401", "the gateway gives nobody a job without a token")
    for service in ("redis", "minio", "conductor"):
        reached = f"import socket; socket.create_connection(('{service}', 6379 if '{service}' == 'redis' else 9000), 3)"
        refused = "Traceback" in stack("exec", "--no-TTY", "host-agent", "python", "-c", reached, check=False)
        check(refused, f"the host's agent does not reach {service}")
    roots = [
        found["Config"]["Labels"]["com.docker.compose.service"]
        for found in stack.containers()
        if any(stack.settings["S3_ROOT_PASSWORD"] in variable for variable in found["Config"]["Env"])
    ]
    check(sorted(roots) == ["init", "minio"], "the S3 root key is with the server and the init job alone")


def evaluator_has_no_torch(stack: Stack) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('torch'))"
    check(stack("exec", "--no-TTY", "evaluator", "python", "-c", code).strip() == "None", "the evaluator has no torch")


def evaluators_share_the_work(stack: Stack, folder: Path, expected: list[dict[str, Any]]) -> None:
    stack("up", "--detach", "--wait", "--no-recreate", "--scale", "evaluator=3")
    before = [logged_predictions(found) for found in stack.containers("evaluator")]
    check(len(before) == 3, "3 evaluators are well")
    # Another operating point has every shard predicted anew, and no accuracy changed.
    found = run_on_stack(stack, folder, "scaled", "protocol.confidence=0.35")
    shares = [logged_predictions(each) for each in stack.containers("evaluator")]
    new = sorted(now - then for now, then in zip(sorted(shares), sorted(before), strict=True))
    say(f"  predictions by evaluator: {new}")
    check(sum(new) == 12 and new[0] > 0, "each of the 3 evaluators had its share")
    accuracy = ("variant", "ap", "ap50", "ap75", "hashes")
    same = [[row[name] for name in accuracy] for row in found] == [[row[name] for name in accuracy] for row in expected]
    check(same, "accuracy is the same with 3 evaluators")


def logged_predictions(container: Mapping[str, Any]) -> int:
    told = subprocess.run(["docker", "logs", container["Id"]], capture_output=True, text=True, check=True)
    return sum(" predict/" in line and line.endswith(": ok") for line in (told.stdout + told.stderr).splitlines())


def redis_refused_none_of_ours(stack: Stack) -> None:
    """By its log of refusals, from which those that this test asked for are excused."""
    log = stack.redis("acl", "log", user="admin", secret=stack.settings["REDIS_ADMIN_PASSWORD"])
    lines = [line.strip() for line in log.splitlines()]
    refused = {lines[at + 1] for at, line in enumerate(lines) if line == "object"}
    check(refused <= {"evaluate", "flushall", "lpush", "AUTH"}, "Redis refused no command of a service")


def main() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        sys.exit("make test-stack needs a Docker engine with Compose v2, and none answers: start one")
    with tempfile.TemporaryDirectory(prefix="edgejoule-stack-") as name:
        folder = Path(name)
        stack = Stack(folder)
        try:
            carry_out(stack, folder)
        except Failed:
            with suppress(Failed):
                say(f"what the services said:\n{stack('logs', '--no-color', '--tail', '25')[-12000:]}")
            raise
        finally:
            say("down")
            stack("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "all", "--timeout", "5")
        left = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project=edgejoule-{TAG}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        check(not left, "nothing is left")


def carry_out(stack: Stack, folder: Path) -> None:
    without_environment_it_stops_with_a_sentence()
    subprocess.run(
        [COMMAND, "data", "generate", "--into", str(folder / "data"), "--train", "64", "--val", "30"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    say("build, and the same matrix in-process meanwhile")
    with in_process(folder):
        stack("build")
        say("  built")
    expected = rows(folder / "here")
    check(
        [row["status"] for row in expected] == ["ok", "ok"],
        "in-process: " + ", ".join(f"{row['variant']} AP50 {row['ap50']:.4f}" for row in expected),
    )
    say("up --wait")
    stack("up", "--detach", "--wait")
    every_container_is_confined(stack)
    evaluator_has_no_torch(stack)
    strangers_get_nothing(stack)
    say("the matrix on the stack")
    found = run_on_stack(stack, folder, "stack")
    check(len(found) == len(expected) == 2, "2 rows")
    for one, other in zip(found, expected, strict=True):
        differing = [name for name in other if one.get(name) != other[name]]
        check(
            not differing,
            f"{one['variant']} equal in {len(other)} of {len(other)} fields that no clock decides"
            if not differing
            else f"{one['variant']} differs in {differing}",
        )
    say("3 evaluators")
    evaluators_share_the_work(stack, folder, expected)
    redis_refused_none_of_ours(stack)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"make test-stack failed: {error}")
    say("1 passed, 0 failed")
