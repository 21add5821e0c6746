"""Two hundred devices in one Prometheus: do scrapes, rules and the dashboards' queries stay within their intervals?

    make bench-devices [ARGS="[--devices 200] [--cells 4] [--minutes 5]"]

One process answers for all devices, with the exporter's golden scrapes under other names: counters grow and gauges move
as on a board that measures one cell and has measured ``--cells`` before. A conductor, a gateway and a worker that know
of all these devices are played too. A real Prometheus (PROMETHEUS may name it) scrapes all of it by the project's own
configuration and rules. Then it is asked for the time of every scrape and rule group, and every query of every
dashboard is timed over half an hour, one after the other; those of Overview must all together take less than its 5 s of
refresh.
"""

from __future__ import annotations

import argparse
import http.server
import json
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from prometheus_server import Running, prometheus
from queries import Prometheus, filled, pages, panels
from servers import free_ports

from edgejoule_agent import live, metrics
from edgejoule_agent.exporter import cells, exposition

ROOT = Path(__file__).resolve().parents[1]
SCRAPES = sorted((ROOT / "tests" / "unit" / "agent" / "scrapes").glob("*.txt"))
INTERVAL_S = 5.0  # of scrapes, rules and Overview's refresh
LOOK_S = 1800.0  # that the dashboards show
PRECISIONS = ("fp32", "fp16", "int8-ptq", "int8-qat")
RATE_HZ = 80.0  # of the inferences that go on


class Line(NamedTuple):
    """A sample: its name with labels, its first value, and what it grows by per second or moves by (as a share)."""

    head: str
    value: float
    grows: float
    moves: float


def lines_of(text: str, power_w: float) -> list[Line]:
    """A scrape's samples: energy and its time grow, as do the inferences of the first cell; gauges of sensors move."""
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        head, _, value = line.rpartition(" ")
        name = head.partition("{")[0]
        grows, moves = 0.0, 0.0
        if name.endswith("_observed_seconds_total"):
            grows = 1.0
        elif name.endswith("_energy_joules_total"):
            grows = power_w
        elif name != "edgejoule_cell_info" and 'detector="model-0",precision="fp32",stage="measure"' in head:
            grows = RATE_HZ * _share_below(head)
        elif name.endswith(("_celsius", "_hertz", "_load_ratio", "_available_bytes", "_volts")) and "trip" not in name:
            moves = 0.02
        found.append(Line(head, float(value), grows, moves))
    return found


def _share_below(head: str) -> float:
    """Share of the inferences under a bucket's bound, of a latency of 20 ms ± 4; for the sum, seconds of each."""
    if (bound := re.search(r'le="([^"]+)"', head)) is None:
        return 0.02 if head.partition("{")[0].endswith("_sum") else 1.0
    return 0.5 * (1 + math.erf((float(bound[1]) - 0.02) / 0.004 / math.sqrt(2)))


def cells_text(folder: Path, number: int) -> str:
    """What an exporter shows of so many cells that were measured, the first of them now."""
    os.environ[live.VARIABLE] = str(folder)
    (folder / "job").mkdir(parents=True)
    for each in range(number):
        job = {"step": f"benchmark/model-{each // len(PRECISIONS)}/{PRECISIONS[each % len(PRECISIONS)]}/toy/0"}
        job |= {"kind": "benchmark", "inputs": {"engine": str(each)}, "parameters": {"threads": 1}}
        (folder / "job" / "job.json").write_text(json.dumps(job))
        spread = {"mean": 20.0, "p50": 20.0, "p90": 25.0, "p99": 29.0}
        record = {"latency_ms": spread, "energy_mj": 100.0 + each, "idle_power_w": 4.0, "throttled": "no"}
        for _ in range(2):  # the second has a baseline
            live.begin("measure")(np.random.default_rng(each).normal(20, 4, 1000))
            live.keep(record)
    del os.environ[live.VARIABLE]
    return exposition.render(metrics.load(), cells.readings(str(folder)))


class Devices:
    """All that is scraped: each path's text at a moment."""

    def __init__(self, number: int, cells_each: int, folder: Path) -> None:
        shown = cells_text(folder, cells_each)
        self.names = [f"device-{each:03d}" for each in range(number)]
        self._lines: dict[str, list[Line]] = {}
        for each, name in enumerate(self.names):
            text = SCRAPES[each % len(SCRAPES)].read_text(encoding="utf-8")
            own = {line.partition("{")[0].partition(" ")[0] for line in shown.splitlines() if line[0] != "#"}
            board = "\n".join(line for line in text.splitlines() if re.split(r"[{ ]", line)[0] not in own)
            text = f"{board}\n{shown}".replace('simulated="false"', 'simulated="true"')
            text += 'edgejoule_cell_info{detector="model-0",precision="fp32",stage="measure"} 1\n'
            self._lines[name] = lines_of(text, 4.0 + each % 20)
        self._began = time.monotonic()
        self.series = sum(len(lines) for lines in self._lines.values())
        pairs = [(f"model-{each // 4}", PRECISIONS[each % 4]) for each in range(cells_each)]
        self.pages: Mapping[str, Callable[[], str]] = {
            "conductor": lambda: "\n".join(conductor(self.names, pairs)),
            "gateway": lambda: "\n".join(gateway(self.names)),
            "worker": lambda: 'edgejoule_worker_info{queue="evaluate"} 1\nedgejoule_worker_busy{queue="evaluate"} 0',
        }

    def text(self, name: str) -> str:
        """A device's scrape now. Nothing is drawn at random, so two runs are alike."""
        age_s = time.monotonic() - self._began
        wave = math.sin(age_s / 30 + int(name[-3:]))
        return "".join(
            f"{line.head} {line.value * (1 + line.moves * wave) + line.grows * age_s!r}\n" for line in self._lines[name]
        )

    def targets(self, port: int) -> str:
        """These devices as the gateway tells Prometheus of them."""
        return json.dumps(
            [
                {"targets": [f"127.0.0.1:{port}"], "labels": {"device": name, "__metrics_path__": f"/{name}"}}
                for name in self.names
            ]
        )


def conductor(names: list[str], pairs: list[tuple[str, str]]) -> Iterator[str]:
    """What a conductor shows whose runs have all these cells, half of them done."""
    plain = {"conductor_leads": 1, "runs_active": 1, "store_up": 1, "redis_up": 1, "store_answer_seconds": 0.01}
    plain |= {"steps_planned": 3 * len(names) * len(pairs), "steps_done": len(names) * len(pairs)}
    yield from (f"edgejoule_{name} {value}" for name, value in plain.items())
    for name in names:
        yield f'edgejoule_queue_length{{queue="device.{name}"}} 0'
        for number, (detector, precision) in enumerate(pairs):
            cell = f'device="{name}",detector="{detector}",precision="{precision}"'
            yield f'edgejoule_cell_state{{{cell},state="{"ok" if number % 2 else "waiting"}"}} 1'
            if number % 2:
                simulated = f'{cell},simulated="true"'
                yield f"edgejoule_cell_ap_ratio{{{simulated}}} 0.3"
                yield f"edgejoule_cell_ap50_ratio{{{simulated}}} 0.5"
                yield f"edgejoule_cell_latency_seconds{{{simulated}}} 0.02"
                yield f"edgejoule_cell_energy_joules{{{simulated}}} 0.1"
                yield f"edgejoule_cell_on_front{{{simulated}}} 1"


def gateway(names: list[str]) -> Iterator[str]:
    for name in names:
        yield f'edgejoule_device_connected{{device="{name}"}} 1'
        yield f'edgejoule_device_busy{{device="{name}"}} 1'


def serve(devices: Devices, ports: Mapping[str, int]) -> None:
    """Answer at these ports until the process ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            role = next(role for role, port in ports.items() if port == self.server.server_address[1])
            kind = "text/plain; version=0.0.4"
            if self.path == "/devices":
                kind, text = "application/json", devices.targets(ports["device"])
            else:
                text = devices.text(self.path[1:]) if role == "device" else devices.pages[role]() + "\n"
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            """Scrapes are not logged."""

    for port in ports.values():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()


def one(server: Prometheus, expr: str) -> float:
    """The value of a query that has one."""
    found = server.instant(expr, time.time())
    return float(found[0]["value"][1]) if found else math.nan


def scrapes_and_rules(running: Running, number: int) -> list[str]:
    """Print what scrapes and rules took; gives what was too slow."""
    server, wrong = running.server, []
    there = one(server, 'count(up{job="device"} == 1)')
    took = [one(server, f'quantile({q}, scrape_duration_seconds{{job="device"}})') for q in (0.5, 0.99, 1)]
    made = one(server, 'min(count_over_time(up{job="device"}[1m]))')
    print(f"{there:.0f} devices answer; {one(server, 'prometheus_tsdb_head_series'):.0f} series")
    print("a scrape: median {:.0f} ms, p99 {:.0f} ms, longest {:.0f} ms".format(*(1e3 * each for each in took)), end="")
    print(f"; at least {made:.0f} of {60 / INTERVAL_S:.0f} a minute of each device")
    if there != number or made < 60 / INTERVAL_S - 1 or not took[2] < INTERVAL_S:
        wrong.append("scrapes do not keep up")
    missed = one(server, "sum(prometheus_rule_group_iterations_missed_total)")
    for found in server.instant("max_over_time(prometheus_rule_group_last_duration_seconds[2m])", time.time()):
        group = found["metric"]["rule_group"].rpartition("/")[2].replace(";", " ")
        took_s = float(found["value"][1])
        print(f"rules of {group}: {1e3 * took_s:.0f} ms at most")
        if not took_s < INTERVAL_S:
            wrong.append(f"the rules of {group} take {took_s} s")
    print(f"{missed:.0f} evaluations missed")
    if missed != 0:
        wrong.append(f"{missed} evaluations were missed")
    ticks = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{running.pid}/status").read_text())
    assert resident
    print(f"Prometheus: {cpu_s:.0f} s of processor time, {int(resident[1]) / 1e6:.2f} GB of memory")
    return wrong


def time_queries(server: Prometheus) -> list[str]:
    """Print what the queries of every dashboard took; gives what was too slow."""
    wrong = []
    for name, page in pages().items():
        chosen: dict[str, str] = {}
        for variable in page["templating"].get("list", ()):
            values = server.values(filled(variable["query"], chosen))
            chosen[variable["name"]] = variable["allValue"] if variable.get("includeAll") else values[0]
        took = []
        for panel in panels(page):
            for target in panel["targets"]:
                expr, now = filled(target["expr"], chosen, "20s"), time.time()
                begin = time.perf_counter()
                if target.get("instant"):
                    server.instant(expr, now)
                else:
                    server.range(expr, now - LOOK_S, now, INTERVAL_S)
                took.append((time.perf_counter() - begin, panel["title"]))
        whole_s, (longest_s, title) = sum(each for each, _ in took), max(took)
        print(f"{page['title']}: {len(took)} queries in {whole_s:.2f} s; the longest, {title!r}, {longest_s:.2f} s")
        if name == "overview" and not whole_s < INTERVAL_S:
            wrong.append(f"Overview's queries take {whole_s} s")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--cells", type=int, default=4, help="that each device has measured")
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgejoule-many-") as name:
        folder = Path(name)
        devices = Devices(arguments.devices, arguments.cells, folder / "state")
        roles = ("conductor", "gateway", "worker", "device")
        ports = dict(zip(roles, free_ports(len(roles)), strict=True))
        serve(devices, ports)
        with prometheus(folder, ports) as running:
            print(
                f"{arguments.devices} devices, {devices.series} series of theirs; {arguments.minutes:g} minutes",
                flush=True,
            )
            time.sleep(60 * arguments.minutes)
            wrong = scrapes_and_rules(running, arguments.devices) + time_queries(running.server)
    if wrong:
        sys.exit("too slow:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
