"""The live view on one machine, without containers: a small matrix, simulated boards, a real Prometheus, every panel.

    make live-view [ARGS="[--previews FOLDER] [--keep SECONDS]"]

Needs ``prometheus`` (PROMETHEUS may name it), and about nine minutes. Conductor, workers, gateway and agents are
processes of their own; a model of seven convolutions is built and measured on this host, a simulated Nano and a
simulated Orin Nano, each of whose trials lasts over a minute of the day. All the while every query of every dashboard
is asked, and must have data once; latency and energy as Prometheus saw them are compared with the records.
``--previews`` draws the dashboards while the Orin Nano's last cell is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "stack"))
sys.path.insert(0, str(Path(__file__).parent))
from dashboards import Walk, may_be_empty
from prometheus_server import prometheus
from queries import Prometheus
from servers import RedisServer, free_ports
from toy_cell import cell_of, commit_files
from toy_gateway import BoardStack
from toy_stack import toy

from edgejoule.metrics import LATENCY_S
from edgejoule.plan import Plan, Step
from edgejoule.store import Store

SIMULATED = {"nano": "nano", "orin": "orin-nano"}
DEVICES: dict[str, dict[str, str]] = {
    "host": {},
    **{device: {"EDGEJOULE_SIMULATE": board} for device, board in SIMULATED.items()},
}
PRECISIONS = ("fp32", "fp16")
DEPTH = 6
ITERATIONS = {"host": 300, "nano": 1_600, "orin": 15_000}
WINDOW_S = 75.0  # of the energy, at least
LEAST_S = 60.0  # over which energy is compared
ONCE = "Latency over that of the same engine before"


def plan_with_cells(store: Store, folder: Path) -> Plan:
    files = Step("files", "toy", {"name": "files"})
    commit_files(files, store, folder, DEPTH)
    steps, cells = [files, toy("more", ticks=50), toy("again", "more")], []
    for device in DEVICES:
        for precision in PRECISIONS:
            protocol = {"iterations": ITERATIONS[device], "power_window_s": WINDOW_S}
            cell, own = cell_of(precision, device, store, protocol)
            steps += own
            cells.append(cell)
    return Plan({step.id: step for step in steps}, tuple(cells))


def record_of(stack: BoardStack, step: str) -> Any:
    """The record of a step that is done, by its id; else None."""
    for key in stack.done_keys():
        manifest = stack.store.manifest(key)
        if manifest is not None and manifest.step == step:
            return json.loads(stack.store.fetch(manifest.outputs["record"].sha256).read_bytes())
    return None


def never_had_data(walk: Walk) -> list[str]:
    """Queries that had no data in any round and need to; each without data is printed."""
    print(f"{walk.asked} queries asked, in {walk.rounds} rounds; {len(walk.empty)} never had data")
    for line in walk.empty:
        print(f"  {line.partition(': ')[0]}")
    excused = {ONCE: "each engine is measured once"}
    return [line for line in walk.empty if not may_be_empty(line, host="device=host" in line, besides=excused)]


def compare_latency(server: Prometheus, stack: BoardStack) -> list[str]:
    """Cells whose percentiles by histogram are not within a bucket of the exact ones.

    A histogram knows nothing of what is above its last bound, so that such a percentile is compared with nothing; of
    each cell the median at least must be.
    """
    wrong = []
    for device in DEVICES:
        for precision in PRECISIONS:
            record = record_of(stack, f"benchmark/toy/{precision}/{device}/0")
            if record is None:  # which the device does not support
                continue
            exact = record["latency_ms"]
            cell = f'device="{device}",precision="{precision}",stage="measure"'
            for quantile in ("0.5", "0.9", "0.99"):
                buckets = f"sum by (le) (edgejoule_inference_latency_seconds_bucket{{{cell}}})"
                found = server.instant(f"histogram_quantile({quantile}, {buckets})", time.time())
                seen_s = float(found[0]["value"][1])
                true_s = exact["p" + quantile[2:].ljust(2, "0")] / 1e3
                name = f"{device} {precision} p{100 * float(quantile):g}"
                if true_s > LATENCY_S[-1]:
                    print(f"  {name}: {1e3 * true_s:.3f} ms, above the last bound and not compared")
                    if quantile == "0.5" or seen_s < LATENCY_S[-2]:
                        wrong.append(f"{name}: {true_s} s, above the last bound; seen {seen_s} s")
                    continue
                apart = abs(bisect_left(LATENCY_S, seen_s) - bisect_left(LATENCY_S, true_s))
                print(f"  {name}: {1e3 * true_s:.3f} ms, seen {1e3 * seen_s:.3f} ms, {apart} buckets apart")
                if apart > 1:
                    wrong.append(f"{name}: {true_s} s, seen {seen_s} s")
    return wrong


def measured_between(server: Prometheus, cell: str) -> tuple[float, float]:
    """The first and the last scrape that surely fell into a cell's window: its inferences had begun, and went on."""
    (found,) = server.instant(f'edgejoule_inferences_total{{{cell},stage="measure"}}[1h]', time.time())
    counts = [(float(at), float(count)) for at, count in found["values"]]
    inside = [at for at, count in counts if 0 < count < counts[-1][1]]
    return inside[0], inside[-1]


def compare_energy(server: Prometheus, stack: BoardStack) -> list[str]:
    """Cells whose energy by PromQL is further from the record's than that says of itself.

    A record says no times of day, so the window is taken from scrapes, and lacks what lies before the first and behind
    the last: the mean power over the rest stands for all of it.
    """
    wrong = []
    for device in SIMULATED:
        for precision in PRECISIONS:
            record = record_of(stack, f"benchmark/toy/{precision}/{device}/0")
            begin_s, end_s = measured_between(server, f'device="{device}",precision="{precision}"')
            window, at = f'{{device="{device}"}}[{int(end_s - begin_s)}s]', f"@ {end_s:.3f}"
            power = (
                f"increase(edgejoule_board_energy_joules_total{window} {at}) "
                f"/ increase(edgejoule_board_energy_observed_seconds_total{window} {at})"
            )
            ((_, power_w),) = (one["value"] for one in server.instant(power, time.time()))
            seen_j = float(power_w) * record["window_s"]
            true_j, within_j = (
                record[name] * record["window_inferences"] / 1e3 for name in ("energy_mj", "energy_uncertainty_mj")
            )
            name = f"{device} {precision}"
            print(
                f"  {name}: {true_j:.2f} J ± {within_j:.2f} in {record['window_s']:.1f} s, "
                f"seen {seen_j:.2f} J by {int(end_s - begin_s)} s of it"
            )
            if end_s - begin_s < LEAST_S or abs(seen_j - true_j) > within_j:
                wrong.append(f"energy of {name}: {true_j} J ± {within_j}, seen {seen_j} in {end_s - begin_s} s")
    return wrong


def draw_previews(server: Prometheus, stack: BoardStack, folder: Path, device: str = "orin") -> None:
    """Draw the dashboards half a minute into the measurement of a board's last cell."""
    from previews import draw  # here alone, since it needs vl-convert

    def in_the_last() -> bool:
        cell = f'{{device="{device}"'
        done = server.instant(f'edgejoule_cell_state{cell},state="ok"}}', time.time())
        return len(done) == len(PRECISIONS) - 1 and bool(
            server.instant(f'edgejoule_cell_info{cell},stage="measure"}}', time.time())
        )

    stack.wait_until(in_the_last, 1200)
    time.sleep(30)
    print(*draw(server.url, folder, 10, {"device": device}), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=float, default=0.0, help="stay so many seconds after it has ended")
    parser.add_argument("--previews", type=Path, metavar="FOLDER", help="draw the dashboards into it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgejoule-live-") as name:
        folder = Path(name)
        roles = ("conductor", "worker", "gateway", *DEVICES)
        ports = dict(zip(roles, free_ports(len(roles)), strict=True))
        shown = {role: {"EDGEJOULE_METRICS": f"127.0.0.1:{port}"} for role, port in ports.items()}
        redis = RedisServer(folder / "redis")
        redis.start()
        redis.client().config_set("maxmemory", "512mb")  # as in the stack
        stack = BoardStack(folder, redis)
        try:
            with prometheus(folder, ports) as (server, _):
                stack.conductor(**shown["conductor"])
                stack.gateway(**shown["gateway"])
                stack.worker(**shown["worker"])
                for device, settings in DEVICES.items():
                    stack.board(device, **shown[device], **settings)
                with Walk(server, minutes=20) as walk:
                    stack.submit(plan_with_cells(stack.store, folder))
                    if arguments.previews:
                        draw_previews(server, stack, arguments.previews)
                    print(stack.finish(seconds=1200), flush=True)
                    time.sleep(20)
                wrong = compare_latency(server, stack) + compare_energy(server, stack) + never_had_data(walk)
                time.sleep(arguments.keep)
                if wrong:
                    sys.exit("wrong:\n" + "\n".join(wrong))
        finally:
            stack.close()
            redis.kill()


if __name__ == "__main__":
    main()
