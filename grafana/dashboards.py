"""The dashboards, made by this program: ``python grafana/dashboards.py`` writes them, ``--check`` compares.

Overview, Device, Pipeline, Compare. Energy and power are of a board's total rail, or of a host's CPU packages, which is
said; a value that is not known is a gap or a dash, never 0.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import runbooks
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    SOURCE,
    STATES,
    YELLOW,
    bars,
    choice,
    figure,
    graph,
    heat,
    levels,
    named,
    named_also_when_away,
    named_with_source,
    none_as,
    none_as_0,
    now_there,
    rows,
    scatter,
    states,
)

from edgejoule.generated import bring_up_to_date
from edgejoule.metrics import LATENCY_S

FOLDER = Path("grafana/dashboards")
TITLES = {"overview": "Overview", "device": "Device", "pipeline": "Pipeline", "compare": "Compare"}

VERDICTS = {"0": ("no", BLUE), "1": ("unknown", GREY), "2": ("throttled", RED)}
VERDICT = (
    'max by (device) (2 * edgejoule_throttle_verdict{{verdict="yes"{0}}} '
    'or on (device) edgejoule_throttle_verdict{{verdict="unknown"{0}}})'
)
ACTS = "edgejoule_conductor_leads"
THERE = {"0": ("away", RED), "1": ("there", BLUE)}
WELL = {"0": ("down", RED), "1": ("up", BLUE)}
POWER_OF_ONE = 'Mean between two scrapes, 5 s apart; of what "Energy is of" says.'
POWER_IS = (
    "Mean between two scrapes, 5 s apart. Of the board's total rail, or the rails that add up to it, or of a host's "
    "CPU packages, which its name says; Device tells what that leaves out."
)
BY_HISTOGRAM = (
    f"Of the last minute's inferences, by histogram: between two of its bounds. Above {1e3 * LATENCY_S[-1]:g} ms, the "
    "highest, a gap."
)
CELL_TEXTS = {state: (state, colour) for state, colour in STATES.items()}


def page(name: str, about: str) -> dashboard.Dashboard:
    """An empty page with links to the others."""
    board = dashboard.Dashboard(TITLES[name]).uid(f"edgejoule-{name}").description(about).tags(["edgejoule"])
    board.readonly().timezone("browser").refresh("5s").time("now-30m", "now")
    board.tooltip(models.DashboardCursorSync.CROSSHAIR)
    link = dashboard.DashboardLink("Edgejoule").type(models.DashboardLinkType.DASHBOARDS).tags(["edgejoule"])
    return board.link(link.keep_time(True).include_vars(True))


def cells_as_annotations(selector: str) -> dashboard.AnnotationQuery:
    """A region for each stage of each cell that is measured, from metrics alone."""
    found = dashboard.AnnotationQuery().name("cells").datasource(SOURCE).enable(True).icon_color(SKY)
    return found.expr(f"edgejoule_cell_info{{{selector}}}")


def runs_as_annotations() -> dashboard.AnnotationQuery:
    """A region for as long as any run goes on, from metrics alone."""
    found = dashboard.AnnotationQuery().name("runs that go on").datasource(SOURCE).enable(True).icon_color(GREY)
    return found.expr("max(edgejoule_runs_active) > 0")


def told_annotations(name: str, *tags: str) -> dashboard.AnnotationQuery:
    """What the conductor tells Grafana, where it has a token for it (edgejoule.stack.annotations)."""
    target = dashboard.AnnotationTarget().limit(100).match_any(False).tags(["edgejoule", *tags]).type("tags")
    found = dashboard.AnnotationQuery().name(name).enable(True).icon_color(ORANGE).target(target)
    return found.datasource(models.DataSourceRef(type_val="grafana", uid="-- Grafana --"))


def cells_by_name(metric: str, condition: str = "") -> str:
    """A metric of cells, each with one label: which it is, and whether its device is simulated.

    Args:
        condition: to select cells by, as ``and on (device, detector, precision) ...``.
    """
    words = '"cell", " ", "detector", "precision", "device"'
    selected = (f'{metric}{{simulated="{each}"}} {condition}'.strip() for each in ("false", "true"))
    real, simulated = (f"label_join({each}, {words})" for each in selected)
    return f'max by (cell) ({real} or label_replace({simulated}, "cell", "$1 (simulated)", "cell", "(.+)"))'


def overview() -> dashboard.Dashboard:
    board = page("overview", "The run under way: cells, progress, the best so far, and who is at work.")
    board.annotation(runs_as_annotations())
    board.annotation(told_annotations("runs", "run"))
    wrong = 'state!~"waiting|running|ok"'
    board.with_panel(
        figure("Cells done", "none", "", none_as_0('count(edgejoule_cell_state{state="ok"})', ACTS), span=3)
    )
    board.with_panel(
        figure("Cells running", "none", "", none_as_0('count(edgejoule_cell_state{state="running"})', ACTS), span=3)
    )
    board.with_panel(
        figure(
            "Cells without result",
            "none",
            "",
            none_as_0(f"count(edgejoule_cell_state{{{wrong}}})", ACTS),
            "Unsupported, failed, out of memory, throttled or unreachable: each row says why.",
            span=4,
            runbooks=("StepFailingRepeatedly",),
            report=True,
            steps={None: BLUE, 1: ORANGE},
        )
    )
    done = "max(edgejoule_steps_done) / (max(edgejoule_steps_planned) > 0)"
    board.with_panel(
        figure(
            "Steps done",
            "percentunit",
            "",
            none_as("-1", done, ACTS),
            "Of the runs that go on.",
            span=3,
            decimals=0,
            texts={"-1": ("no run", GREY)},
            spark=False,
        )
    )
    board.with_panel(
        figure(
            "Alerts",
            "none",
            "",
            'count(ALERTS{alertstate="firing"}) or vector(0)',
            span=3,
            steps={None: BLUE, 1: RED},
        )
    )
    board.with_panel(
        figure(
            "Devices there",
            "none",
            "",
            none_as_0("sum(max by (device) (edgejoule_device_connected))", 'up{job="gateway"}'),
            span=3,
            runbooks=("ExporterDown",),
            spark=False,
        )
    )
    board.with_panel(
        figure(
            "Best AP so far",
            "percentunit",
            "{{cell}}",
            f"topk(1, {cells_by_name('edgejoule_cell_ap_ratio')}) and on () max({ACTS} == 1)",
            "The most accurate cell that is done, of this conductor's runs; by how much, the report tests.",
            span=5,
            decimals=1,
            spark=False,
            report=True,
        )
    )
    states_of_cells = named_also_when_away("edgejoule_cell_state")
    matrix = f'max by (cell, precision, state) (label_join({states_of_cells}, "cell", " on ", "detector", "shown"))'
    board.with_panel(
        rows(
            "Cells",
            ("", matrix),
            about="The latest run of each. A yellow or red cell's row says why.",
            span=14,
            report=True,
            height=12,
            rows_high=common_models.TableCellHeight.LG,
            matrix=("cell", "precision", "state"),
            texts=CELL_TEXTS,
        )
    )
    on_front = "on (device, detector, precision) (edgejoule_cell_on_front == 1)"
    board.with_panel(
        scatter(
            "AP against latency, as cells finish",
            ("latency", cells_by_name("edgejoule_cell_latency_seconds")),
            ("every cell that is done", cells_by_name("edgejoule_cell_ap_ratio")),
            ("s", "percentunit"),
            "Up and to the left is better. On the front: no other cell of that device is as accurate and as fast, and "
            "better in one. The report tests whether differences are more than chance.",
            ("on its device's Pareto front", cells_by_name("edgejoule_cell_ap_ratio", f"and {on_front}")),
            up="AP",
            span=10,
            height=12,
            report=True,
        )
    )
    board.with_panel(
        rows(
            "What cells came to, the most accurate first",
            *(
                ("", f"max by (detector, precision, device, simulated) (edgejoule_cell_{name})")
                for name in ("ap_ratio", "ap50_ratio", "latency_seconds", "energy_joules")
            ),
            about="Of this conductor's runs. Latency and energy are of one inference: -bN takes N images. Exact rows "
            "with intervals stand in the report.",
            span=14,
            report=True,
            names={"Value #A": "AP", "Value #B": "AP50", "Value #C": "latency", "Value #D": "energy per inference"},
            units={"AP": "percentunit", "AP50": "percentunit", "latency": "s", "energy per inference": "joule"},
            widths={"precision": 100, "simulated": 90, "AP": 80, "AP50": 80, "energy per inference": 170},
            best="AP",
            rows_high=common_models.TableCellHeight.MD,
        )
    )
    board.with_panel(
        rows(
            "Alerts that fire",
            (
                "",
                'ALERTS{alertstate="firing"}',
            ),
            about="An alert's name leads to its runbook: what it means, and what to do.",
            span=10,
            hidden=("__name__", "alertstate", "job", "instance"),
            to_runbooks="alertname",
            absent="none",
        )
    )
    board.with_panel(
        figure(
            "Power of the devices",
            "watt",
            "{{shown}}",
            now_there(named_with_source("device:power_watts:irate20s"), "device:power_watts:irate20s"),
            POWER_IS,
            span=12,
            runbooks=("SensorLost", "DeviceUnderVoltage"),
            height=7,
            decimals=2,
        )
    )
    board.with_panel(
        graph(
            "Steps",
            "none",
            ("done", "max(edgejoule_steps_done)"),
            ("planned", "max(edgejoule_steps_planned)"),
            span=12,
            height=7,
            least=0,
            dashed="planned",
            runbooks=("NoConductor", "StepFailingRepeatedly"),
        )
    )
    return board


def energy_per_inference(here: str) -> str:
    """Of the last 20 s where one cell was measured all the while, else unknown.

    A window that reaches back before the measurement, or over the rest between two trials of a cell, would divide idle
    energy by few inferences.

    Args:
        here: what selects the device.
    """
    measured = f'edgejoule_cell_info{{{here},stage=~"measure|power"}}'
    cell = "device, detector, precision"
    all_the_while = " and ".join(f"on ({cell}) {measured} offset {ago_s}s" for ago_s in (5, 10, 15, 20))
    energy, observed, inferences = (
        f"sum by (device) (rate(edgejoule_{name}_total{{{here}}}[20s]))"
        for name in ("board_energy_joules", "board_energy_observed_seconds", "inferences")
    )
    return f"{energy} / ({observed} > 0) / ({inferences} > 0) and on (device) ({measured} and {all_the_while})"


def energy_of_last_trial(here: str) -> str:
    """What the record of the device's last trial says, with the label ``of``; nothing where that has no energy.

    Args:
        here: what selects the device.
    """
    last = f"topk by (device) (1, edgejoule_trial_ended_timestamp_seconds{{{here}}})"
    energy = f"edgejoule_trial_energy_joules{{{here}}} and on (device, detector, precision) {last}"
    return f'label_join(label_replace({energy}, "of", "last trial:", "", ""), "of", " ", "of", "detector", "precision")'


def energy_is_of(here: str) -> str:
    """The source of a device's energy with the label ``of``, for people.

    Args:
        here: what selects the device.
    """
    source = "edgejoule_power_source_info"
    return (
        f'label_join({source}{{{here},rails!=""}}, "of", ", ", "rails", "source") '
        f'or label_replace({source}{{{here},source="rapl"}}, "of", "the CPU packages, rapl", "", "") '
        f'or label_replace({source}{{{here},source="none"}}, "of", "nothing that is read", "", "")'
    )


def device() -> dashboard.Dashboard:
    board = page("device", "One device: power, heat, clocks, load, throttling, and the latency of what it measures.")
    board.with_variable(choice("device", "Device", "label_values(edgejoule_device_info, device)"))
    board.annotation(cells_as_annotations('device="$device"'))
    board.annotation(told_annotations("boundaries of cells", "cell", "device:$device"))
    board.annotation(runs_as_annotations())
    board.annotation(told_annotations("runs", "run"))
    here = 'device="$device"'
    info = f'label_join(edgejoule_device_info{{{here}}}, "name", ", JetPack ", "board", "jetpack")'
    board.with_panel(
        figure("Board", "none", "{{name}}", info, span=10, names=True, spark=False, about="What it says that it is.")
    )
    simulated = f'edgejoule_device_info{{{here},simulated="true"}} or on (device) 0 * edgejoule_device_info{{{here}}}'
    texts = {"0": ("a real device", BLUE), "1": ("SIMULATED", PINK)}
    away = {"absent": "away", "runbooks": ("ExporterDown",)}
    board.with_panel(figure("Is it there?", "none", "", simulated, span=5, texts=texts, spark=False, **away))
    cell = f'label_join(edgejoule_cell_info{{{here}}}, "cell", " ", "detector", "precision")'
    nothing = f'label_replace(edgejoule_device_info{{{here}}}, "cell", "nothing", "", "")'
    measures = f"{cell} or on (device) {nothing}"
    board.with_panel(
        figure(
            "Measures",
            "none",
            "{{cell}}",
            measures,
            "The cell whose inferences are counted now.",
            span=5,
            names=True,
            spark=False,
            absent="away",
            runbooks=("MeasurementStalled",),
        )
    )
    board.with_panel(
        figure(
            "Throttled?",
            "none",
            "",
            VERDICT.format(f",{here}"),
            "On the last half minute. Unknown is not no.",
            span=4,
            texts=VERDICTS,
            spark=False,
            runbooks=("DeviceThrottling",),
        )
    )
    energy_now = f'label_replace({energy_per_inference(here)}, "of", "now", "", "")'
    board.with_panel(
        figure(
            "Energy per inference",
            "joule",
            "{{of}}",
            f"{energy_now} or on (device) {energy_of_last_trial(here)}",
            "Idle power included. Now: of the last 20 s, where a cell has been measured for so long; else by the "
            "record of the device's last trial, if that has an energy.",
            span=7,
            height=5,
            decimals=1,
            spark=False,
            runbooks=("SensorLost",),
        )
    )
    power = f"device:power_watts:irate20s{{{here}}}"
    looked_after = {"runbooks": ("SensorLost", "DeviceUnderVoltage")}
    look = {"span": 5, "height": 5, "decimals": 2, "spark": False, **looked_after}
    board.with_panel(figure("Power", "watt", "", power, POWER_OF_ONE, **look))
    board.with_panel(
        figure(
            "Energy is of",
            "none",
            "{{of}}",
            energy_is_of(here),
            "The rails that are read and added. What they leave out stands at the end of this page.",
            span=7,
            height=5,
            names=True,
            spark=False,
            runbooks=("SensorLost",),
        )
    )
    margin = f"min(device_zone:temperature_margin_celsius:min{{{here}}})"
    board.with_panel(
        figure(
            "Below throttling",
            "celsius",
            "",
            margin,
            "How far the hottest zone is below the board's own trip point.",
            span=5,
            height=5,
            decimals=1,
            spark=False,
            steps={None: RED, 5: ORANGE, 15: BLUE},
            runbooks=("DeviceHot",),
        )
    )
    board.with_panel(
        graph(
            "Power of the total",
            "watt",
            ("total", power),
            ("idle", f"edgejoule_trial_idle_power_watts{{{here}}}"),
            about=f"{POWER_OF_ONE} Idle as measured before the last trial. A gap: it could not be read.",
            least=0,
            dashed="idle",
            **looked_after,
        )
    )
    board.with_panel(
        graph(
            "Energy per inference",
            "joule",
            ("now", energy_now),
            ("last trial", energy_of_last_trial(here)),
            about="Idle power included. Now: of the last 20 s, where a cell has been measured for so long. The last "
            "trial's is its record's.",
            least=0,
            dashed="last trial",
            runbooks=("SensorLost",),
        )
    )
    percentiles = [
        (name, f"max(device_cell:latency_seconds:{name}_rate1m{{{here}}})") for name in ("p50", "p90", "p99")
    ]
    board.with_panel(
        graph(
            "Latency",
            "s",
            *percentiles,
            about=f"{BY_HISTOGRAM} Exact percentiles are in the records.",
            least=0,
            runbooks=("LatencyRegression", "MeasurementStalled"),
        )
    )
    buckets = f'increase(edgejoule_inference_latency_seconds_bucket{{{here},stage="measure"}}[$__rate_interval])'
    board.with_panel(heat("Latency, each inference", f"sum by (le) ({buckets})", height=8))
    zones = {
        ".*": GREY,
        ".*[cC][pP][uU].*": BLUE,
        ".*[gG][pP][uU].*": ORANGE,
        "soc0.*|AO.*": GREEN,
        "soc1.*|PLL.*": YELLOW,
        "soc2.*|PMIC.*": SKY,
    }
    trips = f'min by (kind) (edgejoule_trip_temperature_celsius{{{here},kind=~"passive|hot|critical"}})'
    board.with_panel(
        graph(
            "Temperature, and the board's own trip points",
            "celsius",
            ("{{zone}}", f"edgejoule_temperature_celsius{{{here}}}"),
            ("{{kind}} trip", trips),
            colours={**zones, "critical trip": RED, "passive trip|hot trip": PINK},
            dashed=".* trip",
            many=True,
            span=24,
            height=9,
            runbooks=("DeviceHot",),
        )
    )
    clocks = {"gpu.*": ORANGE, "cpu.*": BLUE, "emc": GREEN}
    board.with_panel(
        graph(
            "Clocks",
            "hertz",
            ("{{clock}}", f'edgejoule_clock_hertz{{{here},clock!~"cpu.*"}}'),
            ("cpu", f'max(edgejoule_clock_hertz{{{here},clock=~"cpu.*"}})'),
            colours=clocks,
            least=0,
            about="Of GPU, memory and the fastest CPU core.",
            runbooks=("DeviceThrottling",),
        )
    )
    board.with_panel(
        graph(
            "GPU load",
            "percentunit",
            ("{{gpu}}", f"edgejoule_gpu_load_ratio{{{here}}}"),
            colours=clocks,
            top=1,
            least=0,
        )
    )
    used = f"edgejoule_memory_total_bytes{{{here}}} - edgejoule_memory_available_bytes{{{here}}}"
    board.with_panel(
        graph(
            "Memory",
            "bytes",
            ("used", used),
            ("there is", f"edgejoule_memory_total_bytes{{{here}}}"),
            colours={"used": BLUE, "there is": GREY},
            dashed="there is",
            least=0,
        )
    )
    rails = {".*GPU.*": ORANGE, ".*CPU(?!.*GPU).*": BLUE, ".*SOC(?!.*GPU).*": GREEN, "VIN.*|VDDQ.*": GREY}
    board.with_panel(
        graph(
            "Power of parts",
            "watt",
            ("{{rail}}", f"device_rail:power_watts:irate20s{{{here}}}"),
            about="Rails beside the total, mean between two scrapes. They may overlap, so they are never added up.",
            colours=rails,
            least=0,
        )
    )
    board.with_panel(
        graph(
            "Fan",
            "percentunit",
            ("{{fan}} drive", f"edgejoule_fan_duty_ratio{{{here}}}"),
            colours={".*": BLUE},
            top=1,
            least=0,
            runbooks=("DeviceHot",),
        )
    )
    throttles = VERDICT.format(f",{here}")
    board.with_panel(
        states("Throttling", "verdict", throttles, VERDICTS, span=12, height=8, runbooks=("DeviceThrottling",))
    )
    board.with_panel(
        rows(
            "Sensors without a value",
            ("", f"edgejoule_sensor_up{{{here}}} == 0"),
            about="Missing, wrong or stuck; the agent's log says why. Some sleep with their part of the chip.",
            span=12,
            height=6,
            hidden=("__name__", "device", "instance", "job"),
            runbooks=("SensorLost",),
        )
    )
    board.with_panel(
        rows(
            "What the energy is of",
            ("", f"max by (rails, source, leaves_out) (edgejoule_power_source_info{{{here}}})"),
            span=12,
            height=6,
            names={"leaves_out": "leaves out"},
            order=("source", "rails", "leaves_out"),
            widths={"source": 90, "rails": 260},
        )
    )
    return board


def by_queue(metric: str) -> str:
    """A metric of queues with the label ``shown``: the name of a queue of workers, and what is shown of a device."""
    workers, devices = (f'max by (queue) ({metric}{{queue{of}"device[.].+"}})' for of in ("!~", "=~"))
    devices = f'label_replace({devices}, "device", "$1", "queue", "device[.](.+)")'
    return f'label_replace({workers}, "shown", "$1", "queue", "(.+)") or {named_also_when_away(devices)}'


def pipeline() -> dashboard.Dashboard:
    board = page("pipeline", "Queues, workers, step durations, retries, store and Redis.")
    board.annotation(runs_as_annotations())
    board.annotation(told_annotations("runs", "run"))
    for title, up, alert in (
        ("Conductor acts", "edgejoule_conductor_leads", "NoConductor"),
        ("Store", "edgejoule_store_up", "StoreOrRedisDown"),
        ("Redis", "edgejoule_redis_up", "StoreOrRedisDown"),
    ):
        look = {"texts": WELL, "runbooks": (alert,)}
        board.with_panel(figure(title, "none", "", f"max({up})", span=4, spark=False, **look))
    board.with_panel(
        figure(
            "Failed attempts, last hour",
            "none",
            "",
            none_as_0("sum(increase(edgejoule_step_failures_total[1h]))", ACTS),
            "Unsupported is a result and not counted.",
            span=4,
            runbooks=("StepFailingRepeatedly",),
            decimals=0,
            steps={None: BLUE, 1: ORANGE},
        )
    )
    board.with_panel(
        figure(
            "Workers lost, last hour",
            "none",
            "",
            none_as_0("sum(increase(edgejoule_workers_lost_total[1h]))", ACTS),
            span=4,
            runbooks=("NoWorkerForQueue",),
            decimals=0,
            steps={None: BLUE, 1: ORANGE},
        )
    )
    board.with_panel(figure("Runs", "none", "", none_as_0("max(edgejoule_runs_active)", ACTS), span=4))
    waits = {"runbooks": ("QueueBacklogWithIdleWorkers", "NoWorkerForQueue")}
    board.with_panel(levels("Messages that wait", "{{shown}}", by_queue("queue:length:max"), **waits))
    board.with_panel(
        levels("Steps at work", "{{shown}}", by_queue("edgejoule_steps_leased"), runbooks=("NoWorkerForQueue",))
    )
    board.with_panel(
        bars(
            "Workers",
            "none",
            "{{queue}}",
            "queue:workers:count",
            "As many as are scraped now.",
            span=6,
            height=6,
            runbooks=("NoWorkerForQueue",),
        )
    )
    idle = {"runbooks": ("QueueBacklogWithIdleWorkers",)}
    board.with_panel(bars("Idle workers", "none", "{{queue}}", "queue:workers_idle:count", span=6, height=6, **idle))
    board.with_panel(
        states(
            "Devices",
            "{{shown}}",
            named_also_when_away("max by (device) (edgejoule_device_connected)"),
            THERE,
            "Whether the gateway heard of them within a minute.",
            span=12,
            height=6,
            runbooks=("ExporterDown",),
        )
    )
    took = "edgejoule_step_duration_seconds"
    mean = " / ".join(f'sum by (kind) ({took}_{part}{{outcome="ok"}})' for part in ("sum", "count"))
    tenth = f'sum by (kind, le) ({took}_bucket{{outcome="ok"}})'
    board.with_panel(
        bars(
            "A step takes",
            "s",
            "{{kind}}",
            f"sort_desc({mean})",
            "In the mean, of all that these processes carried out well: exact.",
        )
    )
    board.with_panel(
        bars(
            "Nine of ten steps take at most",
            "s",
            "{{kind}}",
            f"sort_desc(histogram_quantile(0.9, {tenth}))",
            "Of the same, by histogram: between two of its bounds, which are at most 1.7 times apart.",
        )
    )
    board.with_panel(
        bars(
            "Steps ended",
            "none",
            "{{kind}} {{outcome}}",
            "sum by (kind, outcome) (edgejoule_steps_ended_total)",
            "Since the conductor started.",
            runbooks=("StepFailingRepeatedly",),
        )
    )
    board.with_panel(
        bars(
            "Attempts",
            "none",
            "{{kind}} {{outcome}}",
            "sum by (kind, outcome) (edgejoule_step_duration_seconds_count)",
            "Those too that were tried again; since each process started.",
            span=12,
            runbooks=("StepFailingRepeatedly",),
        )
    )
    board.with_panel(
        graph(
            "Answer times",
            "s",
            ("store", "max(edgejoule_store_answer_seconds)"),
            ("Redis", "max(edgejoule_redis_answer_seconds)"),
            colours={"store": BLUE, "Redis": ORANGE},
            least=0,
            runbooks=("StoreOrRedisDown",),
        )
    )
    board.with_panel(
        graph(
            "Memory of Redis",
            "bytes",
            ("used", "max(edgejoule_redis_memory_used_bytes)"),
            ("limit", "max(edgejoule_redis_memory_limit_bytes) > 0"),
            colours={"used": BLUE, "limit": GREY},
            dashed="limit",
            least=0,
            runbooks=("RedisMemoryFull",),
        )
    )
    free = "min by (job, device, instance, volume) (edgejoule_disk_free_bytes / edgejoule_disk_size_bytes)"
    board.with_panel(
        bars(
            "Disk that is free",
            "percentunit",
            "{{job}} {{shown}} {{instance}}",
            named_also_when_away(free),
            span=12,
            top=1,
            steps={None: RED, 0.1: ORANGE, 0.25: BLUE},
            runbooks=("DiskFilling",),
        )
    )
    board.with_panel(
        rows(
            "Versions",
            ("", "count by (job, version, python) (edgejoule_build_info)"),
            about="How many processes run which. A device's is of its agent.",
            span=12,
            value=True,
            names={"Value": "processes"},
            order=("job", "version", "python", "Value"),
        )
    )
    return board


def compare() -> dashboard.Dashboard:
    board = page("compare", "Device against device, precision against precision: each cell's last trial.")
    board.annotation(runs_as_annotations())
    board.annotation(told_annotations("runs", "run"))
    board.with_variable(choice("detector", "Detector", "label_values(edgejoule_trial_latency_seconds, detector)"))
    devices = 'label_values(edgejoule_trial_latency_seconds{detector="$detector"}, device)'
    board.with_variable(choice("device", "Device", devices, several=True))
    measured = 'edgejoule_trial_latency_seconds{detector="$detector",device=~"$device"}'
    board.with_variable(choice("precision", "Precision", f"label_values({measured}, precision)", several=True))
    cell = 'detector="$detector",precision=~"$precision",device=~"$device"'
    legend = "{{precision}} on {{shown}}"
    median = f'edgejoule_trial_latency_seconds{{{cell},quantile="0.5"}}'
    board.with_panel(
        bars(
            "Median latency",
            "s",
            legend,
            f"sort({named(median)})",
            "Exact, from the records.",
            height=10,
            runbooks=("LatencyRegression",),
            report=True,
        )
    )
    board.with_panel(
        bars(
            "Energy per inference",
            "joule",
            legend,
            f"sort({named(f'edgejoule_trial_energy_joules{{{cell}}}')})",
            "From the records: of a board's total rail, of a host's CPU packages or of its GPU's board, which are not "
            "alike; the row says of which (power_of). A cell that is missing has no energy; its row says why.",
            height=10,
            report=True,
        )
    )
    worst = f'edgejoule_trial_latency_seconds{{{cell},quantile="0.99"}} / ignoring (quantile) {median}'
    board.with_panel(
        bars(
            "How even it is: p99 over p50",
            "none",
            legend,
            f"sort({named(worst)})",
            "1 is perfectly even.",
            height=8,
            runbooks=("DeviceThrottling",),
            steps={None: BLUE, 2: ORANGE},
        )
    )
    board.with_panel(
        bars(
            "Inferences per joule",
            "none",
            legend,
            f"sort_desc({named(f'1 / edgejoule_trial_energy_joules{{{cell}}}')})",
            height=8,
        )
    )
    board.with_panel(
        scatter(
            "Energy against latency",
            ("latency", f"max by (precision, shown) ({named(median)})"),
            ("energy", f"max by (precision, shown) ({named(f'edgejoule_trial_energy_joules{{{cell}}}')})"),
            ("s", "joule"),
            "Down and to the left is better.",
            report=True,
        )
    )
    board.with_panel(
        scatter(
            "AP50 against energy",
            ("energy", f"max by (precision, shown) ({named(f'edgejoule_cell_energy_joules{{{cell}}}')})"),
            ("AP50", f"max by (precision, shown) ({named(f'edgejoule_cell_ap50_ratio{{{cell}}}')})"),
            ("joule", "percentunit"),
            "Up and to the left is better.",
            report=True,
        )
    )
    before = f"edgejoule_trial_mean_latency_seconds{{{cell}}} / edgejoule_trial_baseline_latency_seconds{{{cell}}}"
    board.with_panel(
        bars(
            "Latency over that of the same engine before",
            "percentunit",
            legend,
            f"sort_desc({named(before)})",
            "Mean latency of a cell's trial, by the mean of earlier trials there of the very same engine. Where a cell "
            "is missing, its engine was measured once.",
            span=24,
            height=6,
            steps={None: BLUE, 1.15: ORANGE},
            runbooks=("LatencyRegression",),
        )
    )
    power = 'device:power_watts:irate20s{device=~"$device"}'
    shown = now_there(named_with_source(power), power)
    board.with_panel(figure("Power", "watt", "{{shown}}", shown, POWER_IS, span=24, height=5, decimals=2))
    board.with_panel(
        graph(
            "Median latency by histogram, live: $device",
            "s",
            (legend, named(f"device_cell:latency_seconds:p50_rate1m{{{cell}}}")),
            about=f"{BY_HISTOGRAM} The exact medians stand above. A graph for each device, since colours tell "
            "precisions apart and nothing else.",
            least=0,
            span=24,
            repeat="device",
            runbooks=("LatencyRegression",),
        )
    )
    return board


def files() -> Iterator[tuple[Path, str]]:
    """Every dashboard, relative to the repository, with its JSON; and the pages that they lead to."""
    makers = {"overview": overview, "device": device, "pipeline": pipeline, "compare": compare}
    boards = ((FOLDER / f"{name}.json", make()) for name, make in makers.items())
    for path, board in itertools.chain(boards, runbooks.pages()):
        text = json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False)
        yield path, text + "\n"


if __name__ == "__main__":
    sys.exit(bring_up_to_date(files(), sys.argv[1:]))
