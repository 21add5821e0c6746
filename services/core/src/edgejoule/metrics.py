"""Every metric that a process of ours shows to Prometheus: the one table of them.

``docs/reference/metrics.md`` and the agent's ``metrics.json`` are made from it (``python -m edgejoule.reference``), and
nothing is shown that it does not name. Names and units follow Prometheus' "Metric and label naming": base units, energy
as a counter of joules, labels with few values. No label tells of a run, a step or an image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Exporter = Literal["agent", "conductor", "worker", "gateway"]

LATENCY_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.045, 0.065, 0.1, 0.15, 0.25, 0.5)
"""Bounds of the latency histogram: 1 to 500 ms, each at most twice the one before."""

_MINUTE_S, _HOUR_S = 60.0, 3600.0
DURATION_S = (
    *(0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 15.0, 25.0, 40.0),
    *(minutes * _MINUTE_S for minutes in (1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 15.0, 25.0, 40.0)),
    *(hours * _HOUR_S for hours in (1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 16.0, 24.0)),
)
"""Bounds of how long a step takes, from a score of few images to a day of training: each at most 1.7 times the one
before, so that a quantile is known as closely."""

# labels, with the values that they can have
_CELL: Mapping[str, str] = {
    "detector": "the model, as the spec names it",
    "precision": "`fp32`, `fp16`, `int8-ptq`, `int8-qat`, ...: the variant, as in a row",
}
_STAGE = "`warm-up`, `measure`, `power`: the window of the power alone"
_QUEUE = {"queue": "`train`, `evaluate`, `analyze`, `device.NAME`"}
_KIND = {"kind": "the step kinds"}
_OUTCOME = "`ok`, `unsupported`, `failed`, `oom`, `throttled`, `unreachable`"
_DEVICE = {"device": "the registered devices"}
_DONE_CELL: Mapping[str, str] = {**_DEVICE, **_CELL, "simulated": "`true`, `false`"}


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        kind: as Prometheus has it; an ``info`` is a gauge that is always 1 and tells by its labels.
        unit: of its value, as people write it; empty for a count, a state or an info.
        labels: to the values that each can have, for people.
        exporters: the processes that show it.
        buckets: upper bounds of a histogram.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram", "info"]
    unit: str
    exporters: tuple[Exporter, ...]
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def type(self) -> str:
        """The type that an exposition says."""
        return "gauge" if self.kind == "info" else self.kind


_AGENT: tuple[Exporter, ...] = ("agent",)
_CONDUCTOR: tuple[Exporter, ...] = ("conductor",)
_GATEWAY: tuple[Exporter, ...] = ("gateway",)
_WORKER: tuple[Exporter, ...] = ("worker",)

_ALL: tuple[Exporter, ...] = ("agent", "worker", "conductor", "gateway")

METRICS: tuple[Metric, ...] = (
    # --- every process ---
    Metric(
        "edgejoule_build_info",
        "info",
        "",
        _ALL,
        "What the process runs.",
        {"version": "of edgejoule; of an agent, of edgejoule-agent", "python": "of its Python"},
    ),
    # --- a device: what it is ---
    Metric(
        "edgejoule_device_info",
        "info",
        "",
        _AGENT,
        "What the device is, and whether it is simulated: join this to every query that shows a device. Only "
        "what the conductor tells of cells that are done has that label too.",
        {
            "board": "the board, or the processor of a host",
            "soc": "`tegra210`, ...; empty on a host",
            "l4t": "release of its Linux for Tegra; empty on a host",
            "jetpack": "release of its JetPack; empty on a host",
            "agent": "version of edgejoule-agent",
            "simulated": "`true`, `false`",
        },
    ),
    Metric(
        "edgejoule_power_mode_info",
        "info",
        "",
        _AGENT,
        "The power mode that the board is in; absent where there are none.",
        {"mode": "the names that its nvpmodel.conf has"},
    ),
    Metric(
        "edgejoule_power_source_info",
        "info",
        "",
        _AGENT,
        "What the board's energy is read from, and what that leaves out.",
        {
            "source": "`ina3221`, `ina238`, `rapl`, `none`",
            "rails": "the rails that are added, with + between; empty where there is none",
            "leaves_out": "what they do not feed",
        },
    ),
    # --- its energy ---
    Metric(
        "edgejoule_board_energy_joules_total",
        "counter",
        "J",
        _AGENT,
        "Energy that the whole board took in the time that was observed: of its total rail, or of the CPU packages on "
        "a host with RAPL. Absent while it cannot be read.",
    ),
    Metric(
        "edgejoule_board_energy_observed_seconds_total",
        "counter",
        "s",
        _AGENT,
        "Time over which the board's energy was integrated. Joules per second of it are the mean power, whatever was "
        "missed.",
    ),
    Metric(
        "edgejoule_rail_energy_joules_total",
        "counter",
        "J",
        _AGENT,
        "Energy of a rail that is a part of the total. Parts may overlap: never add them up.",
        {"rail": "the labels of the board's power monitors, without the total's"},
    ),
    Metric(
        "edgejoule_rail_energy_observed_seconds_total",
        "counter",
        "s",
        _AGENT,
        "Time over which a rail's energy was integrated.",
        {"rail": "as above"},
    ),
    Metric(
        "edgejoule_rail_voltage_volts",
        "gauge",
        "V",
        _AGENT,
        "Voltage of a rail, the total's too.",
        {"rail": "the labels of the board's power monitors"},
    ),
    # --- its heat, load and clocks ---
    Metric(
        "edgejoule_temperature_celsius",
        "gauge",
        "°C",
        _AGENT,
        "Temperature of a thermal zone.",
        {"zone": "the types of the board's thermal zones"},
    ),
    Metric(
        "edgejoule_trip_temperature_celsius",
        "gauge",
        "°C",
        _AGENT,
        "The lowest temperature at which the board itself does something of this kind about a zone; of `passive` "
        "and `hot`, something that slows it down.",
        {"zone": "as above", "kind": "`active`, `passive`, `hot`, `critical`"},
    ),
    Metric(
        "edgejoule_clock_hertz",
        "gauge",
        "Hz",
        _AGENT,
        "Clock now.",
        {"clock": "`gpu`, `emc`, `cpu0`, ...; `gpu0`, ... of a host's NVIDIA GPUs"},
    ),
    Metric(
        "edgejoule_gpu_load_ratio",
        "gauge",
        "0-1",
        _AGENT,
        "Share of time that the GPU is busy.",
        {"gpu": "`gpu`; `gpu0`, ... of what NVML shows: GPUs of hosts, a Thor's"},
    ),
    Metric("edgejoule_memory_available_bytes", "gauge", "bytes", _AGENT, "Memory that programs could still have."),
    Metric("edgejoule_memory_total_bytes", "gauge", "bytes", _AGENT, "Memory that there is."),
    Metric("edgejoule_swap_free_bytes", "gauge", "bytes", _AGENT, "Swap that is free."),
    Metric(
        "edgejoule_fan_duty_ratio",
        "gauge",
        "0-1",
        _AGENT,
        "How much of its full drive a fan is given.",
        {"fan": "`fan`, `fan2`, ..."},
    ),
    Metric(
        "edgejoule_fan_speed_rpm",
        "gauge",
        "1/min",
        _AGENT,
        "Speed of a fan that has a tachometer.",
        {"fan": "`fan`, `fan2`, ..."},
    ),
    # --- whether it can be believed ---
    Metric(
        "edgejoule_throttle_verdict",
        "gauge",
        "",
        _AGENT,
        "1 for the verdict on the last half minute, 0 for the others. `unknown` is not `no`.",
        {"verdict": "`yes`, `no`, `unknown`"},
    ),
    Metric(
        "edgejoule_throttle_events_total",
        "counter",
        "",
        _AGENT,
        "Throttlings that the board's own counters saw since it started.",
        {
            "reason": "`under-voltage`, `average over-current`, `instantaneous over-current`, `core throttling`, "
            "`package throttling`"
        },
    ),
    Metric(
        "edgejoule_sensor_up",
        "gauge",
        "",
        _AGENT,
        "1 where the sensor gives a value that can be; 0 where it is missing, wrong or stuck, and its value absent.",
        {
            "sensor": "name of the rail, zone, clock, ...",
            "quantity": "`power`, `energy`, `temperature`, `clock`, `load`, `duty`, `speed`, `memory`",
        },
    ),
    Metric(
        "edgejoule_sensor_errors_total",
        "counter",
        "",
        _AGENT,
        "Readings that gave no value.",
        {"sensor": "as above", "quantity": "as above"},
    ),
    Metric(
        "edgejoule_sensors_age_seconds",
        "gauge",
        "s",
        _AGENT,
        "Since the sensors were last read. What is older than 10 s is not shown any more.",
    ),
    # --- what it does ---
    Metric(
        "edgejoule_job_running",
        "gauge",
        "",
        _AGENT,
        "1 while the device carries out a step of this kind.",
        {"kind": "`build`, `benchmark`, `predict`"},
    ),
    Metric("edgejoule_result_waiting", "gauge", "", _AGENT, "1 while a result waits to be delivered to the gateway."),
    Metric(
        "edgejoule_gateway_heard_timestamp_seconds",
        "gauge",
        "s",
        _AGENT,
        "When the gateway last answered, in seconds since 1970; absent before it ever did.",
    ),
    Metric(
        "edgejoule_cell_info",
        "info",
        "",
        _AGENT,
        "The cell that is being measured; absent between two.",
        {**_CELL, "stage": _STAGE},
    ),
    Metric(
        "edgejoule_inferences_total",
        "counter",
        "",
        _AGENT,
        "Inferences of trials, those too that are not timed; one takes a whole batch, and -bN in the model's name says "
        "of how many images.",
        {**_CELL, "stage": _STAGE},
    ),
    Metric(
        "edgejoule_inference_latency_seconds",
        "histogram",
        "s",
        _AGENT,
        "Latency of each inference of a trial, for the live view; exact percentiles stand in the records.",
        {**_CELL, "stage": "`warm-up`, `measure`"},
        LATENCY_S,
    ),
    Metric(
        "edgejoule_trial_latency_seconds",
        "gauge",
        "s",
        _AGENT,
        "Exact latency percentiles of the cell's last trial on this device, from its record.",
        {**_CELL, "quantile": "`0.5`, `0.9`, `0.99`"},
    ),
    Metric(
        "edgejoule_trial_mean_latency_seconds",
        "gauge",
        "s",
        _AGENT,
        "Mean latency of the cell's trial: of one under way, so far; else of the last, from its record.",
        _CELL,
    ),
    Metric(
        "edgejoule_trial_baseline_latency_seconds",
        "gauge",
        "s",
        _AGENT,
        "What that mean is to be compared with: the mean of all earlier trials on this device of the very same engine, "
        "by its hash, in the power mode and with the threads that were asked for, without throttled ones. Absent where "
        "there were none, and in warm-up.",
        _CELL,
    ),
    Metric(
        "edgejoule_trial_energy_joules",
        "gauge",
        "J",
        _AGENT,
        "Energy per inference, of a whole batch, of the cell's last trial, from its record; absent where that is null.",
        _CELL,
    ),
    Metric(
        "edgejoule_trial_ended_timestamp_seconds",
        "gauge",
        "s",
        _AGENT,
        "When the cell's last trial ended, seconds since 1970 by the device's clock: the latest is the device's last.",
        _CELL,
    ),
    Metric(
        "edgejoule_trial_idle_power_watts",
        "gauge",
        "W",
        _AGENT,
        "Idle power of the board before the last trial that measured one: the base line under the power.",
    ),
    # --- the conductor: how far runs are ---
    Metric(
        "edgejoule_conductor_leads",
        "gauge",
        "",
        _CONDUCTOR,
        "1 for the conductor that acts; what another tells is old.",
    ),
    Metric("edgejoule_runs_active", "gauge", "", _CONDUCTOR, "Runs that go on. Absent where no conductor can tell."),
    Metric("edgejoule_steps_planned", "gauge", "", _CONDUCTOR, "Steps of the runs that go on; absent as they."),
    Metric(
        "edgejoule_steps_done",
        "gauge",
        "",
        _CONDUCTOR,
        "Those of them that have ended, however that came; absent as they.",
    ),
    Metric("edgejoule_queue_length", "gauge", "", _CONDUCTOR, "Messages that wait in a queue.", _QUEUE),
    Metric(
        "edgejoule_steps_claimed", "gauge", "", _CONDUCTOR, "Steps that were sent and that nobody has taken.", _QUEUE
    ),
    Metric("edgejoule_steps_leased", "gauge", "", _CONDUCTOR, "Steps that somebody carries out.", _QUEUE),
    Metric("edgejoule_messages_sent_total", "counter", "", _CONDUCTOR, "Messages put into a queue.", _QUEUE),
    Metric(
        "edgejoule_steps_ended_total",
        "counter",
        "",
        _CONDUCTOR,
        "Steps that have ended.",
        {**_KIND, "outcome": _OUTCOME},
    ),
    Metric(
        "edgejoule_step_failures_total",
        "counter",
        "",
        _CONDUCTOR,
        "Attempts that failed, those too after which a step is tried again. That a device does not support a step is a "
        "result and no failure.",
        _KIND,
    ),
    Metric("edgejoule_workers_lost_total", "counter", "", _CONDUCTOR, "Workers that vanished with a step.", _QUEUE),
    Metric(
        "edgejoule_cell_state",
        "gauge",
        "",
        _CONDUCTOR,
        "1 for the state that a cell is in.",
        {**_DEVICE, **_CELL, "state": "`waiting`, `running`, `ok`, or how it went wrong"},
    ),
    Metric(
        "edgejoule_cell_ap_ratio", "gauge", "0-1", _CONDUCTOR, "Average precision of a cell that is done.", _DONE_CELL
    ),
    Metric("edgejoule_cell_ap50_ratio", "gauge", "0-1", _CONDUCTOR, "The same at an IoU of one half.", _DONE_CELL),
    Metric(
        "edgejoule_cell_latency_seconds", "gauge", "s", _CONDUCTOR, "Its mean latency, of all its trials.", _DONE_CELL
    ),
    Metric(
        "edgejoule_cell_energy_joules",
        "gauge",
        "J",
        _CONDUCTOR,
        "Its energy per inference, of a whole batch; absent where one of its trials has none.",
        _DONE_CELL,
    ),
    Metric(
        "edgejoule_cell_on_front",
        "gauge",
        "",
        _CONDUCTOR,
        "1 where no other cell of its device that is done has an AP and a mean latency as good and one of them "
        "better, as the report's `pareto`; else 0. Absent where the cell lacks one of the two.",
        _DONE_CELL,
    ),
    Metric("edgejoule_store_up", "gauge", "", _CONDUCTOR, "1 where the store answers."),
    Metric("edgejoule_store_answer_seconds", "gauge", "s", _CONDUCTOR, "How long it took to list the devices there."),
    Metric("edgejoule_redis_up", "gauge", "", _CONDUCTOR, "1 where Redis answers."),
    Metric("edgejoule_redis_answer_seconds", "gauge", "s", _CONDUCTOR, "How long it took to ask for its memory."),
    Metric("edgejoule_redis_memory_used_bytes", "gauge", "bytes", _CONDUCTOR, "Memory that Redis uses."),
    Metric("edgejoule_redis_memory_limit_bytes", "gauge", "bytes", _CONDUCTOR, "Memory that it may use; 0: any."),
    # --- workers ---
    Metric("edgejoule_worker_info", "info", "", _WORKER, "A worker of a queue: their number is its workers.", _QUEUE),
    Metric(
        "edgejoule_worker_busy",
        "gauge",
        "",
        _WORKER,
        "1 while the worker carries out a step, 0 while it could.",
        _QUEUE,
    ),
    Metric(
        "edgejoule_messages_dropped_total",
        "counter",
        "",
        _WORKER,
        "Messages that stood for nothing.",
        {"reason": "`refused`: none of ours; `taken`: another has the step, or it was sent anew"},
    ),
    Metric("edgejoule_lease_errors_total", "counter", "", _WORKER, "Leases that could not be renewed in time."),
    Metric(
        "edgejoule_step_duration_seconds",
        "histogram",
        "s",
        ("worker", "gateway"),
        "How long an attempt at a step took; on a device, by its own clock.",
        {**_KIND, "outcome": _OUTCOME},
        DURATION_S,
    ),
    # --- the gateway: devices from outside ---
    Metric(
        "edgejoule_device_connected",
        "gauge",
        "",
        _GATEWAY,
        "1 for a device that was heard of within a minute.",
        _DEVICE,
    ),
    Metric(
        "edgejoule_device_heard_timestamp_seconds",
        "gauge",
        "s",
        _GATEWAY,
        "When a device was last heard of, in seconds since 1970; absent before it ever was.",
        _DEVICE,
    ),
    Metric("edgejoule_device_busy", "gauge", "", _GATEWAY, "1 while a device has a job.", _DEVICE),
    Metric(
        "edgejoule_device_steps_total",
        "counter",
        "",
        _GATEWAY,
        "Results that a device delivered.",
        {**_DEVICE, **_KIND, "outcome": _OUTCOME},
    ),
    Metric(
        "edgejoule_gateway_refusals_total",
        "counter",
        "",
        _GATEWAY,
        "Requests that were refused.",
        {"status": "`401`: no token of ours, `503`: no store or Redis, and other HTTP codes"},
    ),
    # --- disks, of whoever has one to fill ---
    Metric(
        "edgejoule_disk_free_bytes",
        "gauge",
        "bytes",
        _ALL,
        "Space left where the process keeps its files.",
        {"volume": "`state` of an agent, `workspace` of the others"},
    ),
    Metric(
        "edgejoule_disk_size_bytes",
        "gauge",
        "bytes",
        _ALL,
        "All the space there.",
        {"volume": "as above"},
    ),
)


def of_exporter(exporter: Exporter) -> list[Metric]:
    """The metrics that a process of this kind may show."""
    return [metric for metric in METRICS if exporter in metric.exporters]


def agents_table() -> str:
    """The agent's part as JSON, since the agent imports nothing of ours."""
    table: dict[str, dict[str, Any]] = {
        metric.name: {
            "type": metric.type,
            "help": metric.help,
            "labels": list(metric.labels),
            **({"buckets": metric.buckets} if metric.buckets else {}),
        }
        for metric in of_exporter("agent")
    }
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"
