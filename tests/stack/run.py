"""`make test-stack`: the whole stack in real containers, from the build to `down`; leaves nothing behind.

It submits a small matrix on generated pictures and asks for the very rows that this host makes in-process.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dashboards
from compose import (
    ACCURACY,
    HERE,
    ROOT,
    SPEC,
    Failed,
    Stack,
    check,
    differing,
    generate_pictures,
    in_process,
    plain_environment,
    rows,
    run_on_stack,
    say,
    stack_of_a_test,
)
from faults import disturb

FAULTS = 8
FAULTS_SEED = 1
SCRAPED_WITHIN_S = 60.0
SHOWN_AFTER_S = 20.0  # the energy of a trial that goes on

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
    same = not any(differing(one, other, ACCURACY) for one, other in zip(found, expected, strict=True))
    check(same, "accuracy is the same with 3 evaluators")


def logged_predictions(container: Mapping[str, Any]) -> int:
    told = subprocess.run(["docker", "logs", container["Id"]], capture_output=True, text=True, check=True)
    return sum(" predict/" in line and line.endswith(": ok") for line in (told.stdout + told.stderr).splitlines())


def simulated_board_has_joules(stack: Stack, folder: Path) -> None:
    """Its rows say simulated, its energies are there, and it refuses what a Nano's GPU cannot.

    It works long enough for the dashboards to show the energy per inference of a trial that goes on.
    """
    of_energy = f"protocol={{preset: quick, power_window_s: {SHOWN_AFTER_S + 10}}}"
    run_on_stack(stack, folder, "simulated", "devices=[host, simulated-nano]", of_energy)
    found = json.loads((folder / "simulated" / "results.json").read_text(encoding="utf-8"))["rows"]
    fp32, int8 = (row for row in found if row["device"] == "simulated-nano")
    check(fp32["simulated"] and int8["simulated"], "rows of the simulated board say so")
    check(
        fp32["status"] == "ok" and fp32["energy_mj"] > 0 and fp32["ap50"] is not None,
        f"{fp32['variant']} on it: {fp32['energy_mj']:.1f} mJ, AP50 {fp32['ap50']:.4f}",
    )
    check(int8["status"] == "unsupported", f"{int8['variant']} on it: {int8['status']}, {int8['reason']}")


def dashboards_show_it(walk: dashboards.Walk) -> None:
    """Every query of every panel had data, but for those that may have none: INT8 runs on the host, without joules.

    What the last cells told reaches Prometheus by the next scrape or two; all are asked again so long.
    """
    on_host = ("device=host", "precision=int8-ptq")

    def never_had_data() -> list[str]:
        return [
            each for each in walk.empty if not dashboards.may_be_empty(each, host=any(on in each for on in on_host))
        ]

    patient_until = time.monotonic() + SCRAPED_WITHIN_S
    while (wrong := never_had_data()) and time.monotonic() < patient_until:
        say(f"  {len(wrong)} without data yet, such as {wrong[0]}")
        time.sleep(5)
        walk.look()
    # Named in the failure itself: the containers' logs come between here and the end of what is printed.
    without = "the others may have none" if not wrong else "\n  no data: ".join(["", *wrong])
    had = f"{walk.asked - len(walk.empty)} of {walk.asked} queries of the dashboards had data in {walk.rounds} rounds"
    check(not wrong, f"{had}, {without}")


def redis_refused_none_of_ours(stack: Stack) -> None:
    """By its log of refusals, from which those that this test asked for are excused."""
    log = stack.redis("acl", "log", user="admin", secret=stack.settings["REDIS_ADMIN_PASSWORD"])
    lines = [line.strip() for line in log.splitlines()]
    refused = {lines[at + 1] for at, line in enumerate(lines) if line == "object"}
    check(refused <= {"evaluate", "flushall", "lpush", "AUTH"}, "Redis refused no command of a service")


def main() -> None:
    with stack_of_a_test() as (stack, folder):
        carry_out(stack, folder)


def carry_out(stack: Stack, folder: Path) -> None:
    without_environment_it_stops_with_a_sentence()
    generate_pictures(folder, 64, 30)
    say("build, and the same matrix in-process meanwhile")
    with in_process(SPEC, folder):
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
        names = differing(one, other)
        check(
            not names,
            f"{one['variant']} equal in {len(other)} of {len(other)} fields that no clock decides"
            if not names
            else f"{one['variant']} differs in {names}",
        )
    say("3 evaluators")
    evaluators_share_the_work(stack, folder, expected)
    say("the simulated board")
    server = dashboards.Prometheus(f"http://127.0.0.1:{stack.settings['PROMETHEUS_PORT']}")
    with dashboards.Walk(server, minutes=10.0, every_s=2.0) as walk:
        simulated_board_has_joules(stack, folder)
    dashboards_show_it(walk)
    redis_refused_none_of_ours(stack)
    say(f"{FAULTS} faults while it works; make test-faults strikes more, on a larger matrix")
    stack.overlay(HERE / "faults.compose.yml")
    stack("up", "--detach", "--wait", "--scale", "evaluator=2")
    disturb(stack, folder, SPEC, FAULTS, FAULTS_SEED, expected)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"make test-stack failed: {error}")
    say("1 passed, 0 failed")
