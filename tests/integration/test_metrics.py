"""A stack of real processes is scraped: what each shows is what the table says, and what happened."""

from __future__ import annotations

import itertools
import json
import platform
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parent))
from servers import RedisServer, free_ports
from toy_cell import cell_of, commit_files
from toy_gateway import BoardStack, on_board, stop
from toy_stack import plan_of, toy

from edgejoule import __version__
from edgejoule.metrics import DURATION_S, LATENCY_S, METRICS, Exporter, of_exporter
from edgejoule.plan import Plan, Step
from edgejoule.stack.run_files import state_of_run

ROLES: tuple[Exporter, ...] = ("conductor", "worker", "gateway", "agent")
Scrape = dict[tuple[str, tuple[str, ...]], float]
"""Name of a sample and the values of its labels, in alphabetical order of the labels -> value."""


@pytest.fixture
def stack(redis_server: RedisServer, tmp_path: Path) -> Iterator[BoardStack]:
    redis_server.client().flushall()
    stack = BoardStack(tmp_path, redis_server)
    yield stack
    stack.close()


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def scrape(port: int) -> Scrape:
    families = text_string_to_metric_families(get(port))
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def check_against_table(text: str, exporter: Exporter) -> None:
    """Nothing is shown but what the table has for this process, and as it has it."""
    table = {metric.name.removesuffix("_total"): metric for metric in of_exporter(exporter)}
    for family in text_string_to_metric_families(text):
        metric = table[family.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.type, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample.name


QUICKLY = {"warmup_iterations": 5, "iterations": 50, "power_window_s": 5.0, "idle_s": 4.0, "cool_down_s": 0.0}
EVERYTHING = {exporter: {metric.name for metric in of_exporter(exporter)} for exporter in ROLES}


@pytest.mark.timeout(240)
def test_every_metric_of_the_table_is_shown_by_a_process_that_may_show_it(stack: BoardStack) -> None:
    """The other direction, while a simulated board measures a cell twice: nothing stands in the table alone."""
    ports = dict(zip(ROLES, free_ports(4), strict=True))
    shown = {role: {"EDGEJOULE_METRICS": f"127.0.0.1:{port}"} for role, port in ports.items()}
    workspace = {"EDGEJOULE_WORKSPACE": str(stack.folder)}
    stack.conductor(**shown["conductor"], **workspace)
    stack.gateway(**shown["gateway"], **workspace)
    stack.worker(**shown["worker"], **workspace)
    stack.board(**shown["agent"], EDGEJOULE_SIMULATE="orin-nano")
    files = Step("files", "toy", {"name": "files"})
    commit_files(files, stack.store, stack.folder)
    cell, own = cell_of("fp16", "nano", stack.store, {**QUICKLY, "start_wait_s": 0.0}, trials=2)
    stranger = stack.client("stranger")
    stranger.token += "x"
    assert stranger.ask("/v1/job", {})[0] == 401
    stack.submit(Plan({step.id: step for step in (files, *own, toy("a"))}, (cell,)))

    missing = {role: set(names) for role, names in EVERYTHING.items()}

    def all_seen() -> bool:
        for role, port in ports.items():
            try:
                text = get(port)
            except URLError:  # it begins
                continue
            check_against_table(text, role)
            found = [family for family in text_string_to_metric_families(text) if family.samples]
            missing[role] -= {name for family in found for name in (family.name, f"{family.name}_total")}
        return not any(missing.values())

    def over() -> bool:
        return all_seen() or state_of_run("test", stack.store).end is not None

    stack.wait_until(over, 150)
    deadline = time.monotonic() + 5  # what the cell came to is shown when it has ended
    stack.wait_until(lambda: all_seen() or time.monotonic() > deadline, 20)
    assert missing == {role: set() for role in ROLES}, stack.logs("board")

    stack.finish()
    means_ms = {}
    for manifest in filter(None, map(stack.store.manifest, stack.done_keys())):
        if manifest.kind == "benchmark":
            record = json.loads(stack.store.fetch(manifest.outputs["record"].sha256).read_bytes())
            means_ms[record["trial"]] = record["latency_ms"]["mean"]
    agent = scrape(ports["agent"])
    told_ms = [1e3 * agent[f"edgejoule_trial_{name}_latency_seconds", ("toy", "fp16")] for name in ("baseline", "mean")]
    assert told_ms == pytest.approx([means_ms[0], means_ms[1]])  # the second trial is of the same engine


def test_processes_show_what_the_table_says_and_what_happened(stack: BoardStack) -> None:
    ports = dict(zip(ROLES, free_ports(4), strict=True))
    shown = {role: {"EDGEJOULE_METRICS": f"127.0.0.1:{port}"} for role, port in ports.items()}
    stack.conductor(**shown["conductor"])
    gateway = stack.gateway(**shown["gateway"])
    stack.worker(**shown["worker"])
    board = stack.board(**shown["agent"])
    stack.submit(plan_of(toy("a"), toy("b", "a", do="crash"), toy("d", do="unsupported"), on_board("c")))
    stack.finish()
    for role, port in ports.items():
        check_against_table(get(port), role)

        assert scrape(port)["edgejoule_build_info", (platform.python_version(), __version__)] == 1, role

    conductor = scrape(ports["conductor"])
    assert conductor["edgejoule_conductor_leads", ()] == 1
    assert conductor["edgejoule_store_up", ()] == conductor["edgejoule_redis_up", ()] == 1
    assert conductor["edgejoule_redis_memory_used_bytes", ()] > 1e5
    assert conductor["edgejoule_steps_ended_total", ("on-board", "ok")] == 1
    ended = {labels: value for (name, labels), value in conductor.items() if name == "edgejoule_steps_ended_total"}
    assert ended == {("toy", outcome): 1 for outcome in ("ok", "failed", "unsupported")} | {("on-board", "ok"): 1}
    assert conductor["edgejoule_step_failures_total", ("toy",)] == 1  # unsupported is a result
    stack.wait_until(lambda: scrape(ports["conductor"]).get(("edgejoule_runs_active", ())) == 0)
    waiting = scrape(ports["conductor"])
    assert waiting["edgejoule_queue_length", ("evaluate",)] == waiting["edgejoule_steps_leased", ("evaluate",)] == 0

    worker = scrape(ports["worker"])
    assert worker["edgejoule_worker_info", ("evaluate",)] == 1
    assert worker["edgejoule_worker_busy", ("evaluate",)] == 0
    assert worker["edgejoule_step_duration_seconds_count", ("toy", "ok")] >= 1

    found = scrape(ports["gateway"])
    assert found["edgejoule_device_connected", ("nano",)] == 1
    assert found["edgejoule_device_steps_total", ("nano", "on-board", "ok")] == 1
    assert scrape(ports["agent"])["edgejoule_gateway_heard_timestamp_seconds", ()] > 1.6e9
    targets = [{"targets": [f"127.0.0.1:{ports['agent']}"], "labels": {"device": "nano"}}]
    assert json.loads(get(ports["gateway"], "/devices")) == targets

    # a device that is off stays a target, so that its absence is seen; also for a gateway that never heard of it
    stop(board)
    stop(gateway)
    stack.gateway(**shown["gateway"])
    assert json.loads(get(ports["gateway"], "/devices")) == targets
    assert scrape(ports["gateway"])["edgejoule_device_connected", ("nano",)] == 0
    assert stack.client("nano")  # a new token, and an agent that shows nothing
    assert json.loads(get(ports["gateway"], "/devices")) == []


def test_names_follow_the_conventions_and_no_label_tells_of_a_run() -> None:
    units = {
        "s": "seconds",
        "J": "joules",
        "bytes": "bytes",
        "°C": "celsius",
        "V": "volts",
        "Hz": "hertz",
        "W": "watts",
    }
    for metric in METRICS:
        assert metric.name.startswith("edgejoule_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "info") == metric.name.endswith("_info")
        if metric.unit in units:
            assert metric.name.removesuffix("_total").endswith(units[metric.unit]), metric.name
        assert not set(metric.labels) & {"run", "run_id", "step", "image", "key", "job"}
        assert metric.help.endswith(".")
        assert metric.exporters
        assert (metric.kind == "histogram") == bool(metric.buckets)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_bounds_of_histograms_are_close_enough_for_what_is_said_of_them_and_few() -> None:
    for bounds, apart, least, most in ((LATENCY_S, 2, 1e-3, 0.5), (DURATION_S, 1.7, 0.1, 86_400)):
        assert (bounds[0], bounds[-1]) == (least, most)
        assert all(low < high <= apart * low for low, high in itertools.pairwise(bounds))
        assert len(bounds) <= 32
