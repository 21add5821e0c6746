"""The dashboards are what their program makes, ask only for what there is, and keep to one look."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgejoule.metrics import DURATION_S, LATENCY_S, METRICS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
TEXTS = sorted((ROOT / "grafana" / "runbooks").glob("*.json"))
PAGES: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
Promtool = Callable[..., subprocess.CompletedProcess[str]]
RULES = yaml.safe_load((ROOT / "grafana" / "prometheus" / "rules" / "alerts.yml").read_text(encoding="utf-8"))
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
NAME = re.compile(r"\b(?:edgejoule_\w+|[a-z_]+:[a-z_]+:\w+)\b")
PALETTE = {"#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#8E8E8E", "#5A5A5A"}
"""Okabe and Ito's, and greys."""


def panels(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in page["panels"]:
        yield panel
        yield from panel.get("panels", ())


ALL = [(name, panel) for name, page in PAGES.items() for panel in panels(page)]
IDS = [f"{name}: {panel['title']}" for name, panel in ALL]


def queries(page: dict[str, Any]) -> Iterator[str]:
    for panel in panels(page):
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"] for variable in page["templating"].get("list", ()))
    yield from (each["expr"] for each in page["annotations"].get("list", ()) if "expr" in each)


def recorded() -> set[str]:
    rules = yaml.safe_load((ROOT / "grafana/prometheus/rules/recording.yml").read_text(encoding="utf-8"))
    return {rule["record"] for group in rules["groups"] for rule in group["rules"]}


def sdk(module: str = "") -> Any:
    """Grafana's SDK, or a module of it. Without it a test is skipped, and fails in CI where there is one for Python."""
    name = f"grafana_foundation_sdk{module}"
    if sys.version_info >= (3, 11) and os.environ.get("CI", "false") != "false":
        return importlib.import_module(name)
    return pytest.importorskip(name)


@pytest.mark.parametrize("ci", ["true", "false"])
def test_tests_of_dashboards_are_skipped_without_grafanas_sdk_and_fail_in_ci(
    ci: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)
    monkeypatch.setenv("CI", ci)
    fails = ci == "true" and sys.version_info >= (3, 11)
    with pytest.raises(ModuleNotFoundError if fails else pytest.skip.Exception):
        sdk()


def test_dashboards_are_what_their_program_makes() -> None:
    sdk()
    program = [sys.executable, str(ROOT / "grafana" / "dashboards.py"), "--check"]
    answer = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, f"{answer.stderr}run make dashboards"


@pytest.mark.parametrize("file", [*FILES, *TEXTS], ids=lambda file: str(file.stem))
def test_dashboard_survives_the_sdks_own_types(file: Path) -> None:
    models = sdk(".models.dashboard")
    plugins = sdk(".cog.plugins")
    encoder = sdk(".cog.encoder")
    plugins.register_default_plugins()
    page = json.loads(file.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(models.Dashboard.from_json(page), cls=encoder.JSONEncoder)) == page


def test_the_four_pages_are_there_each_with_a_name_that_stays() -> None:
    assert {page["uid"] for page in PAGES.values()} == {f"edgejoule-{name}" for name in PAGES}
    assert set(PAGES) == {"overview", "device", "pipeline", "compare"}
    assert not any(page["editable"] for page in PAGES.values())


@pytest.mark.parametrize("name", sorted(PAGES))
def test_queries_name_only_what_there_is(name: str) -> None:
    series = {metric.name for metric in METRICS if metric.kind != "histogram"} | recorded()
    for metric in METRICS:
        if metric.kind == "histogram":
            series |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    asked = {found for query in queries(PAGES[name]) for found in NAME.findall(query)}
    assert asked - series == set()


@pytest.mark.parametrize(("name", "panel"), ALL, ids=IDS)
def test_panel_is_labelled_with_unit_and_source(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["datasource"]["uid"] == "edgejoule-prometheus"
    assert panel["targets"]
    if panel["type"] not in ("table", "xychart", "state-timeline", "heatmap"):
        assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize(("name", "panel"), ALL, ids=IDS)
def test_colours_are_told_apart_by_the_colour_blind(name: str, panel: dict[str, Any]) -> None:
    assert set(re.findall(r"#[0-9A-Fa-f]{6}\b", json.dumps(panel))) <= PALETTE
    assert not re.search(r'"(?:dark-|light-|semi-dark-)?(?:red|green)"', json.dumps(panel.get("fieldConfig")))


@pytest.mark.parametrize(("name", "panel"), ALL, ids=IDS)
def test_power_and_energy_are_of_the_total_alone(name: str, panel: dict[str, Any]) -> None:
    text = " ".join(target["expr"] for target in panel["targets"])
    if "rail" in text.replace("edgejoule_power_source_info", "").replace("rails", ""):
        assert panel["title"] == "Power of parts"
        assert "never added up" in panel["description"]
        assert "sum" not in text


def test_panels_of_devices_say_which_is_simulated() -> None:
    """The name that they show comes from the rule that adds it; one page is of one device and says it large."""
    for name, panel in ALL:
        if name != "device":
            for target in panel["targets"]:
                if "{{device}}" in target["legendFormat"]:
                    raise AssertionError(f"{panel['title']} names devices without {{{{shown}}}}")
    assert any("SIMULATED" in json.dumps(panel) for name, panel in ALL if name == "device")


def test_lines_of_one_graph_are_never_told_apart_by_their_device() -> None:
    """Precisions have colours and devices have none: a graph with both in its legends is one of a single device."""
    for name, panel in ALL:
        if panel["type"] == "timeseries" and name == "compare":
            assert panel["repeat"] == "device", panel["title"]


def test_only_alerts_are_0_where_nobody_tells() -> None:
    with_zero = [panel["title"] for _, panel in ALL if "vector(0)" in json.dumps(panel["targets"])]
    assert with_zero == ["Alerts"]


def check(promtool: Promtool, folder: Path, series: list[dict[str, Any]], asked: list[dict[str, Any]]) -> None:
    """Have promtool ask this of series of a sample each 5 s, and of what is recorded of them."""
    rules = [str(ROOT / "grafana/prometheus/rules/recording.yml")]
    test = {"interval": "5s", "input_series": series, "promql_expr_test": asked}
    whole = {"rule_files": rules, "evaluation_interval": "5s", "tests": [test]}
    (folder / "test.yml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    answer = promtool("test", "rules", folder / "test.yml")
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("title", "teller", "told"),
    [
        ("Cells done", "edgejoule_conductor_leads", 'edgejoule_cell_state{state="ok"}'),
        ("Cells running", "edgejoule_conductor_leads", 'edgejoule_cell_state{state="running"}'),
        ("Cells without result", "edgejoule_conductor_leads", 'edgejoule_cell_state{state="failed"}'),
        ("Devices there", 'up{job="gateway"}', 'edgejoule_device_connected{device="nano"}'),
        ("Failed attempts, last hour", "edgejoule_conductor_leads", 'edgejoule_step_failures_total{kind="x"}'),
        ("Workers lost, last hour", "edgejoule_conductor_leads", 'edgejoule_workers_lost_total{queue="x"}'),
        ("Runs", "edgejoule_conductor_leads", "edgejoule_runs_active"),
    ],
)
def test_count_is_0_where_there_is_none_and_unknown_where_nobody_tells(
    promtool: Promtool, tmp_path: Path, title: str, teller: str, told: str
) -> None:
    (expr,) = [panel["targets"][0]["expr"] for _, panel in ALL if panel["title"] == title]
    counted = "0x24 1x96" if "_total" in told else "_x24 1x96"
    asked = [
        {"expr": expr, "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": 0}]},
        {"expr": f"round({expr})", "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": 1}]},
        {"expr": expr, "eval_time": "8m", "exp_samples": []},
    ]
    series = [{"series": teller, "values": "1x72 0x48"}, {"series": told, "values": counted}]
    check(promtool, tmp_path, series, asked)


def panel_of(page: str, title: str) -> dict[str, Any]:
    """The first panel called so."""
    return next(panel for name, panel in ALL if (name, panel["title"]) == (page, title))


def asked_at(expr: str, expected: dict[str, Any], labels: str = "{}") -> list[dict[str, Any]]:
    """What is asked of a device's expression: moment to value, None where there is none."""
    return [
        {
            "expr": f"round({expr.replace('$device', 'nano')}, 0.001)",
            "eval_time": moment,
            "exp_samples": [] if value is None else [{"labels": labels, "value": value}],
        }
        for moment, value in expected.items()
    ]


def test_energy_per_inference_now_is_right_from_20_s_on_and_unknown_where_nothing_is_measured(
    promtool: Promtool,
    tmp_path: Path,
) -> None:
    """Two minutes at 5 W, then two at 10 W with 100 inferences a second, 0.1 J each, and two at 5 W again."""
    _, graph = [panel for name, panel in ALL if (name, panel["title"]) == ("device", "Energy per inference")]
    expr = graph["targets"][0]["expr"]
    device, cell = '{device="nano"}', '{device="nano",detector="m",precision="fp32",stage="measure"}'
    series = {
        f"edgejoule_board_energy_joules_total{device}": "0+25x24 650+50x23 1825+25x23",
        f"edgejoule_board_energy_observed_seconds_total{device}": "0+5x72",
        f"edgejoule_inferences_total{cell}": "0x24 500+500x23 12000x24",
        f"edgejoule_cell_info{cell}": "_x24 1x24 stale",
    }
    expected = {"1m": None, "2m5s": None, "2m15s": None, "2m20s": 0.1, "2m45s": 0.1, "3m30s": 0.1, "4m30s": None}
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    check(promtool, tmp_path, inputs, asked_at(expr, expected, '{device="nano",of="now"}'))


def test_energy_per_inference_holds_no_rest_between_two_trials_of_a_cell(promtool: Promtool, tmp_path: Path) -> None:
    """Trials of 30 s at 10 W and 0.1 J each inference, with 20 s at rest, at 5 W, between."""
    _, graph = [panel for name, panel in ALL if (name, panel["title"]) == ("device", "Energy per inference")]
    device, cell = '{device="nano"}', '{device="nano",detector="m",precision="fp32",stage="power"}'
    series = {
        f"edgejoule_board_energy_joules_total{device}": "0+50x6 325+25x3 450+50x6",
        f"edgejoule_board_energy_observed_seconds_total{device}": "0+5x17",
        f"edgejoule_inferences_total{cell}": "0+500x6 3000x4 3500+500x6",
        f"edgejoule_cell_info{cell}": "1x6 stale _x3 1x6",
    }
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    expected = {"30s": 0.1, "40s": None, "50s": None, "55s": None, "1m": None, "1m5s": None, "1m15s": 0.1}
    asked = asked_at(graph["targets"][0]["expr"], expected, '{device="nano",of="now"}')
    check(promtool, tmp_path, inputs, asked)


def test_energy_of_a_default_trial_is_shown_after_it_as_the_last_trials(promtool: Promtool, tmp_path: Path) -> None:
    """A trial of 12 s of fp16, one of fp32 that has no energy, and one of fp16 again; an older cell stays as it was."""
    figure, graph = [panel for name, panel in ALL if (name, panel["title"]) == ("device", "Energy per inference")]
    cells = {of: f'{{device="nano",detector="m",precision="{of}"}}' for of in ("fp16", "fp32", "int8-ptq")}
    series = {
        'edgejoule_cell_info{device="nano",detector="m",precision="fp16",stage="measure"}': "_x2 1x1 stale _x30",
        f"edgejoule_trial_energy_joules{cells['int8-ptq']}": "0.2x60",
        f"edgejoule_trial_ended_timestamp_seconds{cells['int8-ptq']}": "1000x60",
        f"edgejoule_trial_energy_joules{cells['fp16']}": "_x6 0.5x29 0.6x25",
        f"edgejoule_trial_ended_timestamp_seconds{cells['fp16']}": "_x6 1025x29 1200x25",
        f"edgejoule_trial_ended_timestamp_seconds{cells['fp32']}": "_x18 1085x42",
    }
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    asked = []
    for of, moments in (
        ("int8-ptq", {"15s": 0.2}),
        ("fp16", {"35s": 0.5, "1m25s": 0.5, "1m35s": None, "2m45s": None, "4m": 0.6}),
    ):
        labels = f'{{device="nano",detector="m",precision="{of}",of="last trial: m {of}"}}'
        for expr in (figure["targets"][0]["expr"], graph["targets"][1]["expr"]):
            asked += asked_at(expr, moments, labels)
    check(promtool, tmp_path, inputs, asked)


def test_powers_are_those_between_two_scrapes_and_say_so() -> None:
    powers = [panel for _, panel in ALL if "power_watts:" in json.dumps(panel["targets"])]
    assert len(powers) == 5
    for panel in powers:
        assert "power_watts:irate20s" in panel["targets"][0]["expr"], panel["title"]
        assert "between two scrapes" in panel["description"], panel["title"]


@pytest.mark.parametrize("page_and_title", [("overview", "Power of the devices"), ("compare", "Power")])
def test_power_of_a_hosts_cpu_packages_says_that_it_is_of_them(
    promtool: Promtool, tmp_path: Path, page_and_title: tuple[str, str]
) -> None:
    expr = panel_of(*page_and_title)["targets"][0]["expr"].replace("$device", ".+")
    series, samples = [], []
    for device, source, power_w, shown in (("nano", "ina3221", 3, "nano"), ("host", "rapl", 40, "host, CPU packages")):
        series += [
            {"series": f'edgejoule_device_info{{device="{device}",simulated="false"}}', "values": "1x12"},
            {"series": f'edgejoule_power_source_info{{device="{device}",source="{source}"}}', "values": "1x12"},
            {"series": f'edgejoule_board_energy_joules_total{{device="{device}"}}', "values": f"0+{5 * power_w}x12"},
            {"series": f'edgejoule_board_energy_observed_seconds_total{{device="{device}"}}', "values": "0+5x12"},
        ]
        samples.append({"labels": f'{{device="{device}",shown="{shown}"}}', "value": power_w})
    check(promtool, tmp_path, series, [{"expr": expr, "eval_time": "50s", "exp_samples": samples}])


def test_power_of_a_host_is_called_that_of_the_whole_board_nowhere() -> None:
    for name, panel in ALL:
        assert "whole board" not in f"{panel['title']} {panel.get('description')}".lower(), (name, panel["title"])


def test_steps_done_tell_no_run_from_no_conductor(promtool: Promtool, tmp_path: Path) -> None:
    panel = panel_of("overview", "Steps done")
    ((no_run, shown),) = panel["fieldConfig"]["defaults"]["mappings"][0]["options"].items()
    assert shown["text"] == "no run"
    series = [
        {"series": "edgejoule_conductor_leads", "values": "1x36 stale"},
        {"series": "edgejoule_steps_done", "values": "_x12 5x12 stale"},
        {"series": "edgejoule_steps_planned", "values": "_x12 10x12 stale"},
    ]
    expected = {"30s": float(no_run), "1m30s": 0.5, "2m30s": float(no_run), "4m": None}
    check(promtool, tmp_path, series, asked_at(panel["targets"][0]["expr"], expected))


def test_device_measures_nothing_while_it_is_there_and_nothing_is_known_while_it_is_away(
    promtool: Promtool, tmp_path: Path
) -> None:
    panel = panel_of("device", "Measures")
    assert panel["fieldConfig"]["defaults"]["noValue"] == "away"
    device, cell = '{device="nano"}', '{device="nano",detector="m",precision="fp32",stage="measure"}'
    series = [
        {"series": f"edgejoule_device_info{device}", "values": "1x36 stale"},
        {"series": f"edgejoule_cell_info{cell}", "values": "_x12 1x12 stale"},
    ]
    expr, of_cell = panel["targets"][0]["expr"], cell.replace("}", ',cell="m fp32"}')
    asked = asked_at(expr, {"30s": 1, "2m30s": 1}, '{device="nano",cell="nothing"}')
    asked += [*asked_at(expr, {"1m30s": 1}, of_cell), *asked_at(expr, {"4m": None})]
    check(promtool, tmp_path, series, asked)


def test_no_alert_that_fires_is_none() -> None:
    assert panel_of("overview", "Alerts that fire")["fieldConfig"]["defaults"]["noValue"] == "none"


def test_percentiles_by_histogram_say_so_and_end_at_its_highest_bound() -> None:
    shown = [panel for _, panel in ALL if "device_cell:latency_seconds" in json.dumps(panel["targets"])]
    assert len(shown) == 2
    for panel in shown:
        assert f"Above {1e3 * LATENCY_S[-1]:g} ms, the highest, a gap" in panel["description"]
        assert "by histogram" in panel["description"]
    assert "by histogram" in shown[0]["title"]  # beside exact medians
    rules = yaml.safe_load((ROOT / "grafana/prometheus/rules/recording.yml").read_text(encoding="utf-8"))
    percentiles = [
        rule["expr"] for group in rules["groups"] for rule in group["rules"] if "device_cell:latency" in rule["record"]
    ]
    assert len(percentiles) == 3
    assert all(expr.endswith(f" < {LATENCY_S[-1]:g}") for expr in percentiles)


def test_every_page_has_the_boundaries_of_runs() -> None:
    for name, page in PAGES.items():
        assert {"runs", "runs that go on"} <= {each["name"] for each in page["annotations"]["list"]}, name


def test_best_cell_so_far_is_the_most_accurate_and_unknown_without_a_conductor(
    promtool: Promtool, tmp_path: Path
) -> None:
    expr = panel_of("overview", "Best AP so far")["targets"][0]["expr"]
    series = [{"series": "edgejoule_conductor_leads", "values": "1x12 0x12"}]
    for device, simulated, ap in (("nano", "true", 0.3), ("orin", "false", 0.2)):
        cell = f'device="{device}",detector="m",precision="fp16",simulated="{simulated}"'
        series.append({"series": f"edgejoule_cell_ap_ratio{{{cell}}}", "values": f"{ap}x24"})
    asked = asked_at(expr, {"30s": 0.3}, '{cell="m fp16 nano (simulated)"}') + asked_at(expr, {"1m30s": None})
    check(promtool, tmp_path, series, asked)


def test_steps_of_80_s_are_said_to_take_80_s_in_the_mean_and_at_most_their_bucket(
    promtool: Promtool, tmp_path: Path
) -> None:
    """Ten that went well, and as many that were unsupported at once and are left out."""
    series = []
    for outcome, took_s in (("ok", 80.0), ("unsupported", 0.2)):
        labels = f'kind="build",outcome="{outcome}"'
        counts = {f"{bound:g}": 10 * (took_s <= bound) for bound in DURATION_S} | {"+Inf": 10}
        values = {f'bucket{{{labels},le="{bound}"}}': count for bound, count in counts.items()}
        values |= {f"sum{{{labels}}}": 10 * took_s, f"count{{{labels}}}": 10}
        series += [
            {"series": f"edgejoule_step_duration_seconds_{name}", "values": f"{value}x4"}
            for name, value in values.items()
        ]
    asked = []
    for title, took_s in (("A step takes", 80), ("Nine of ten steps take at most", 60 + 0.9 * 30)):
        (expr,) = [panel["targets"][0]["expr"] for _, panel in ALL if panel["title"] == title]
        sample = {"labels": '{kind="build"}', "value": took_s}
        asked.append({"expr": expr, "eval_time": "10s", "exp_samples": [sample]})
    check(promtool, tmp_path, series, asked)


def test_latency_is_shown_over_that_of_the_same_engine_where_there_is_one(promtool: Promtool, tmp_path: Path) -> None:
    title = "Latency over that of the same engine before"
    (expr,) = [panel["targets"][0]["expr"] for _, panel in ALL if panel["title"] == title]
    for variable, value in (("detector", "m"), ("precision", ".+"), ("device", ".+")):
        expr = expr.replace(f"${variable}", value)
    shown_s = {"mean": {"fp16": 0.03, "fp32": 0.09}, "baseline": {"fp16": 0.02}}  # fp32: measured once
    series = [{"series": 'edgejoule_device_info{device="nano",simulated="true"}', "values": "1x4"}]
    for name, cells in shown_s.items():
        for precision, latency_s in cells.items():
            cell = f'{{device="nano",detector="m",precision="{precision}"}}'
            series.append({"series": f"edgejoule_trial_{name}_latency_seconds{cell}", "values": f"{latency_s}x4"})
    labels = '{device="nano",detector="m",precision="fp16",shown="nano (simulated)"}'
    check(
        promtool,
        tmp_path,
        series,
        [{"expr": expr, "eval_time": "10s", "exp_samples": [{"labels": labels, "value": 1.5}]}],
    )


def test_simulated_device_says_so_for_an_hour_after_it_is_gone(promtool: Promtool, tmp_path: Path) -> None:
    (expr,) = [panel["targets"][0]["expr"] for name, panel in ALL if (name, panel["title"]) == ("pipeline", "Devices")]
    series = [
        {"series": 'edgejoule_device_connected{device="nano"}', "values": "1x72"},
        {"series": 'edgejoule_device_info{device="nano",simulated="true"}', "values": "_x11 1x11 stale"},
    ]
    labels = '{device="nano",shown="nano%s"}'
    asked = [
        {"expr": expr, "eval_time": moment, "exp_samples": [{"labels": labels % said, "value": 1}]}
        for moment, said in (("30s", ""), ("90s", " (simulated)"), ("5m", " (simulated)"))
    ]
    check(promtool, tmp_path, series, asked)


def linked(panel: dict[str, Any]) -> set[str]:
    """The addresses of a panel's links and of its fields', the latter with an alert's name for the value."""
    links = [link["url"] for link in panel.get("links") or ()]
    for override in panel.get("fieldConfig", {}).get("overrides", ()):
        links += [link["url"] for each in override["properties"] if each["id"] == "links" for link in each["value"]]
    return {link.replace("${__value.raw}", alert) for link in links for alert in ALERTS}


def test_every_link_leads_to_a_page_of_the_same_grafana_and_every_runbook_is_linked() -> None:
    texts = [json.loads(path.read_text(encoding="utf-8")) for path in TEXTS]
    addresses = {f"/d/{page['uid']}" for page in texts}
    assert len(addresses) == len(texts) == len(ALERTS) + 1
    assert set().union(*(linked(panel) for _, panel in ALL)) == addresses
    by_panel = [linked(panel) for _, panel in ALL if panel["title"] != "Alerts that fire"]
    assert set().union(*by_panel) == addresses  # not by the table of alerts alone


def test_page_of_a_runbook_says_what_the_runbook_says_and_links_nowhere_else() -> None:
    for alert in ALERTS:
        page = json.loads((ROOT / "grafana" / "runbooks" / f"{alert}.json").read_text(encoding="utf-8"))
        (panel,) = page["panels"]
        written = (ROOT / "docs" / "runbooks" / f"{alert}.md").read_text(encoding="utf-8")
        assert f"# {panel['title']}\n\n{panel['options']['content']}" == written
        assert len(page["uid"]) <= 40  # Grafana's limit


def test_queries_that_are_merged_share_no_name() -> None:
    """Merge joins rows that are alike in every column which the queries share, the metric's own name among them."""
    merged = [panel for _, panel in ALL if any(each["id"] == "merge" for each in panel.get("transformations", ()))]
    assert merged
    for panel in merged:
        for target in panel["targets"]:
            assert re.match(r"(?:max|min|sum|avg) by \(", target["expr"]), panel["title"]


def test_grafana_loads_them_from_the_place_where_the_image_has_them() -> None:
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/edgejoule.yml").read_text(encoding="utf-8"))
    places = [each["options"]["path"] for each in provider["providers"]]
    dockerfile = (ROOT / "docker" / "grafana" / "Dockerfile").read_text(encoding="utf-8")
    assert len(set(places)) == 2
    for folder, place in zip(("dashboards", "runbooks"), places, strict=True):
        assert f"COPY grafana/{folder} {place}\n" in dockerfile
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    assert [each["uid"] for each in sources["datasources"]] == ["edgejoule-prometheus"]
