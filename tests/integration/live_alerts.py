"""Alerts from end to end: a simulated board gets hot, loses a rail and is killed, and a real Prometheus must say so.

    make live-alerts

Needs ``prometheus`` (PROMETHEUS may name it), and about eight minutes. Rules, scrape interval and durations are those
of ``grafana/prometheus``, unchanged. Each alert must fire within its ``for`` and the time that reading, scraping and
two evaluations may take, counted from when the machine's own state says that it is true; must resolve as soon; and no
other alert may fire meanwhile. Where there is an Alertmanager (ALERTMANAGER may name it), it must tell the example
receiver of each, and that it is over.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from prometheus_server import ROOT, prometheus
from queries import Prometheus
from servers import RedisServer, free_ports
from toy_gateway import BoardStack, stop

from edgejoule_agent.exporter.board import LOOK_PASSES, POWER_S, STATES_S, VERDICT_S
from edgejoule_agent.sensors.thermal import find_zones
from edgejoule_agent.simulation.running import LoadPipe, read_status, root_of

DEVICE = "orin"
LOOSE_S, OFF_S = (20.0, 140.0), (190.0, 235.0)  # since the board began
WORK_UNTIL_S = 150.0
KILLED_S = 265.0  # and started again after DEAD_S
DEAD_S = 50.0
CLEAR_S = 5.0  # that DeviceHot's margin is
SCRAPE_S = EVALUATE_S = 5.0  # prometheus.yml
STEP_S = 1.0  # in which Prometheus is asked when an alert fired
START_S = 5.0  # that an agent takes to show metrics


class Expected(NamedTuple):
    """An alert, from when to when it is true, and what is allowed beside its ``for``, in seconds."""

    alert: str
    labels: str
    begin_s: float
    end_s: float
    late_s: float
    over_s: float


def durations_s() -> dict[str, float]:
    """The ``for`` of every alert."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    rules = yaml.safe_load((ROOT / "grafana/prometheus/rules/alerts.yml").read_text(encoding="utf-8"))
    found = {}
    for group in rules["groups"]:
        for rule in group["rules"]:
            number, unit = re.fullmatch(r"(\d+)([smh])", rule.get("for", "0s")).groups()  # type: ignore[union-attr]
            found[rule["alert"]] = int(number) * units[unit]
    return found


class Truth:
    """What the machine itself says, looked at many times a second: when it was too hot, and when it was slowed down."""

    def __init__(self, board: Path) -> None:
        self._board = str(board)
        zones = find_zones(root_of(self._board))
        trips = [trip.temp_c for zone in zones for trip in zone.trips if trip.throttles]
        self._trip_c = min(trips)
        self.hot: list[float] = []
        self.slowed: list[float] = []

    def look(self) -> None:
        status, now = read_status(self._board), time.time()
        if status["temps_c"][0] > self._trip_c - CLEAR_S:
            self.hot.append(now)
        if status["cooling"] > 0:
            self.slowed.append(now)


def keep_on(until: float, *do: Callable[[], None]) -> None:
    """Do these five times a second until that time of day."""
    while time.time() < until:
        for one in do:
            one()
        time.sleep(0.2)


def fired(server: Prometheus, begin: float) -> dict[str, tuple[float, float, str]]:
    """Each alert that fired since then: first and last second, and its labels."""
    found: dict[str, tuple[float, float, str]] = {}
    for one in server.range('ALERTS{alertstate="firing"}', begin, time.time(), STEP_S):
        moments = [float(at) for at, _ in one["values"]]
        name = one["metric"]["alertname"]
        first, last, labels = found.get(name, (moments[0], moments[-1], ""))
        labels = f"{labels} {one['metric']}".strip()
        found[name] = (min(first, moments[0]), max(last, moments[-1]), labels)
    return found


def judge(expected: list[Expected], seen: dict[str, tuple[float, float, str]]) -> list[str]:
    """What is wrong, in words."""
    wrong = [f"{name} fired: {seen[name][2]}" for name in sorted(set(seen) - {each.alert for each in expected})]
    for each in expected:
        holds_s = durations_s()[each.alert]
        if each.alert not in seen:
            wrong.append(f"{each.alert} did not fire")
            continue
        first, last, labels = seen[each.alert]
        after_s, over_s = first - each.begin_s, last - each.end_s
        limit_s, end_limit_s = holds_s + each.late_s + STEP_S, each.over_s + STEP_S
        print(
            f"  {each.alert}: true for {each.end_s - each.begin_s:.0f} s; fired {after_s:.1f} s after that began "
            f"(for: {holds_s:.0f} s; at most {limit_s:.1f}), over {over_s:.1f} s after it (at most {end_limit_s:.1f})"
        )
        if not holds_s <= after_s <= limit_s:
            wrong.append(f"{each.alert} fired {after_s:.1f} s after it was true, not within {holds_s} to {limit_s} s")
        if over_s > end_limit_s:
            wrong.append(f"{each.alert} was over {over_s:.1f} s after it was true, not within {end_limit_s} s")
        if each.labels not in labels:
            wrong.append(f"{each.alert} does not say {each.labels}: {labels}")
    return wrong


@contextmanager
def alertmanager(folder: Path, port: int, receiver_port: int) -> Iterator[Path | None]:
    """The project's Alertmanager and example receiver; gives the file of what that prints, None where none is here."""
    program = shutil.which(os.environ.get("ALERTMANAGER") or "alertmanager") or shutil.which("prometheus-alertmanager")
    if program is None:
        print("there is no alertmanager here, so nobody is told: ALERTMANAGER may name one")
        yield None
        return
    config = (ROOT / "grafana/prometheus/alertmanager.yml").read_text(encoding="utf-8")
    assert "//alert-receiver:9095/" in config
    (folder / "alertmanager.yml").write_text(config.replace("alert-receiver:9095", f"127.0.0.1:{receiver_port}"))
    receiver = [sys.executable, str(ROOT / "docker/alert-receiver/receiver.py"), f"127.0.0.1:{receiver_port}"]
    manager = [program, f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'alertmanager'}"]
    manager += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with open(folder / "told", "wb") as told, open(folder / "alertmanager.log", "wb") as log:
        running = [subprocess.Popen(receiver, stdout=told), subprocess.Popen(manager, stdout=log, stderr=log)]
    try:
        time.sleep(3)
        if running[1].poll() is not None:
            sys.exit(f"the alertmanager does not start: {(folder / 'alertmanager.log').read_text()[-500:]}")
        yield folder / "told"
    finally:
        for process in running:
            process.kill()
            process.wait()


def not_told(told: Path, expected: list[Expected]) -> list[str]:
    """Wait for word of each alert, and that it is over; gives what does not come."""
    wanted = {f"{status} {each.alert}" for each in expected for status in ("firing", "resolved")}
    deadline = time.monotonic() + 120  # group_interval, and the wait for what went wrong last
    while wanted and time.monotonic() < deadline:
        lines = told.read_text().splitlines()
        wanted -= {f"{line.split()[0]} {line.split()[2].rstrip(':')}" for line in lines}
        time.sleep(1)
    print(told.read_text(), end="")
    return [f"nobody was told: {words}" for words in sorted(wanted)]


def run(stack: BoardStack, server: Prometheus, environment: dict[str, str]) -> tuple[float, list[Expected]]:
    """Have everything go wrong in turn; when it began, and what must have fired."""
    faults = "loose:sink@{:g}-{:g} off:VDD_IN@{:g}-{:g}".format(*LOOSE_S, *OFF_S)
    agent = stack.board(DEVICE, **environment, EDGEJOULE_SIMULATE_FAULTS=faults)
    board = stack.state_of(DEVICE) / "board"
    stack.wait_until(lambda: (board / "status.json").exists())
    began = time.time()
    stack.wait_until(lambda: server.instant(f'edgejoule_device_info{{device="{DEVICE}"}}', time.time()))
    truth, pipe = Truth(board), LoadPipe(str(board))

    def work() -> None:
        now = time.monotonic()
        pipe.busy(now, now + 0.5)

    keep_on(began + WORK_UNTIL_S, truth.look, work)
    pipe.close()
    keep_on(began + KILLED_S, truth.look)
    stop(agent)
    killed = time.time()
    time.sleep(DEAD_S)
    stack.board(DEVICE, **environment)
    again = time.time()
    time.sleep(START_S + 3 * SCRAPE_S + 2 * EVALUATE_S)
    seen_s = SCRAPE_S + EVALUATE_S
    off = [began + moment for moment in OFF_S]
    hot_s, look_s = STATES_S + seen_s + EVALUATE_S, LOOK_PASSES * STATES_S + seen_s  # hot: by a recorded margin
    return began, [
        Expected("DeviceHot", f"'device': '{DEVICE}'", truth.hot[0], truth.hot[-1], hot_s, hot_s),
        Expected(
            "DeviceThrottling",
            f"'device': '{DEVICE}'",
            *(truth.slowed[0], truth.slowed[-1]),
            *(look_s, VERDICT_S + look_s),
        ),
        Expected("SensorLost", "'sensor': 'VDD_IN'", off[0], off[1], POWER_S + seen_s, POWER_S + seen_s),
        Expected("ExporterDown", f"'device': '{DEVICE}'", killed, again, seen_s, START_S + seen_s),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="edgejoule-alerts-") as name:
        folder = Path(name)
        roles = ("conductor", "worker", "gateway", DEVICE, "alertmanager", "receiver")
        ports = dict(zip(roles, free_ports(len(roles)), strict=True))
        shown = {role: {"EDGEJOULE_METRICS": f"127.0.0.1:{port}"} for role, port in ports.items()}
        redis = RedisServer(folder / "redis")
        redis.start()
        stack = BoardStack(folder, redis)
        try:
            with (
                alertmanager(folder, ports["alertmanager"], ports["receiver"]) as told,
                prometheus(folder, ports) as (server, _),
            ):
                stack.conductor(**shown["conductor"])
                stack.gateway(**shown["gateway"])
                stack.worker(**shown["worker"])
                stack.wait_until(lambda: len(server.instant("up == 1", time.time())) >= 3)
                began, expected = run(stack, server, {**shown[DEVICE], "EDGEJOULE_SIMULATE": "orin-nano"})
                wrong = judge(expected, fired(server, began))
                wrong += not_told(told, expected) if told else []
        finally:
            stack.close()
            redis.kill()
    if wrong:
        sys.exit("wrong:\n" + "\n".join(wrong))
    print("each alert fired and resolved within its time, and no other fired")


if __name__ == "__main__":
    main()
