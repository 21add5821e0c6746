"""Prometheus' files: its own tool takes them, every alert is tested and has a page, every query names what there is."""

from __future__ import annotations

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

from edgejoule.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "grafana" / "prometheus"
RULES = sorted(FOLDER.glob("rules/*.yml"))
TESTS = sorted(FOLDER.glob("tests/*.yml"))
Tool = Callable[..., subprocess.CompletedProcess[str]]

NAME = re.compile(r"\b(?:edgejoule_\w+|[a-z_]+:[a-z_]+:\w+)\b")
SUFFIXES = re.compile(r"_(?:bucket|sum|count)$")


def rules() -> Iterator[dict[str, Any]]:
    for file in RULES:
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def known(name: str) -> bool:
    """Whether a query's name is a metric of the table, a series of a histogram, or recorded."""
    histograms = {metric.name for metric in METRICS if metric.kind == "histogram"}
    others = {metric.name for metric in METRICS} - histograms
    return name in others | RECORDED or (bool(SUFFIXES.search(name)) and SUFFIXES.sub("", name) in histograms)


@pytest.mark.parametrize(
    "words",
    [("check", "config", FOLDER / "prometheus.yml"), ("check", "rules", *RULES), ("test", "rules", *TESTS)],
    ids=["config", "rules", "tests"],
)
def test_promtool_takes(promtool: Tool, words: tuple[str | Path, ...]) -> None:
    answer = promtool(*words)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_amtool_takes_the_settings_and_an_inhibited_alert_is_one_that_there_is(amtool: Tool) -> None:
    settings = FOLDER / "alertmanager.yml"
    answer = amtool("check-config", settings)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    told = amtool("config", "routes", "test", f"--config.file={settings}", "alertname=DeviceHot", "severity=warning")
    assert told.stdout == "example\n"
    rules = yaml.safe_load(settings.read_text(encoding="utf-8"))["inhibit_rules"]
    matchers = [each for rule in rules for each in (*rule["source_matchers"], *rule["target_matchers"])]
    assert {matcher.partition(" = ")[2] for matcher in matchers} <= set(ALERTS)


def test_promtool_finds_nothing_to_lint_in_the_golden_scrapes(promtool: Tool) -> None:
    scrapes = sorted((ROOT / "tests" / "unit" / "agent" / "scrapes").glob("*.txt"))
    assert scrapes
    for scrape in scrapes:
        answer = promtool("check", "metrics", input=scrape.read_text(encoding="utf-8"))
        assert (answer.returncode, answer.stderr) == (0, ""), scrape.name


@pytest.mark.parametrize(
    ("name", "project", "ci", "how"),
    [
        ("promtool", "Prometheus", "true", "1 error"),
        ("promtool", "Prometheus", "false", "1 skipped"),
        ("promtool", "Prometheus", "", "1 skipped"),
        ("amtool", "Alertmanager", "true", "1 error"),
    ],
)
def test_tests_of_rules_are_skipped_without_a_tool_and_fail_in_ci(name: str, project: str, ci: str, how: str) -> None:
    test = {
        "promtool": "test_promtool_finds_nothing_to_lint_in_the_golden_scrapes",
        "amtool": "test_amtool_takes_the_settings_and_an_inhibited_alert_is_one_that_there_is",
    }[name]
    environment = {**os.environ, name.upper(): f"/nowhere/{name}", "CI": ci or "false"}
    if not ci:
        del environment["CI"]
    place = f"tests/contract/test_prometheus.py::{test}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", place]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert how in answer.stdout
    assert f"there is no {name}: install {project}, or say where the tool is" in answer.stdout
    assert (answer.returncode == 0) == (ci != "true")


def asked_by_tests(kind: str) -> Iterator[dict[str, Any]]:
    """What promtool's tests ask, ``alert_rule_test`` or ``promql_expr_test``."""
    for file in TESTS:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            yield from test.get(kind, ())


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    fired: set[str] = set()
    quiet: set[str] = set()
    for asked in asked_by_tests("alert_rule_test"):
        (fired if asked["exp_alerts"] else quiet).add(asked["alertname"])
    assert fired == quiet == set(ALERTS)


def test_every_recorded_series_is_seen_with_a_value() -> None:
    seen = {asked["expr"] for asked in asked_by_tests("promql_expr_test") if asked["exp_samples"]}
    assert RECORDED - seen == set()


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_alert_says_how_bad_it_is_and_has_a_page(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook", "runbook_url"}
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{alert}.md"
    page = (ROOT / rule["annotations"]["runbook"]).read_text(encoding="utf-8")
    assert page.startswith(f"# {alert}\n")
    assert "**What to do**" in page
    base, _, uid = rule["annotations"]["runbook_url"].partition("/d/")
    assert base == "{{ $externalLabels.grafana_url }}"
    page_of_grafana = json.loads((ROOT / "grafana" / "runbooks" / f"{alert}.json").read_text(encoding="utf-8"))
    assert page_of_grafana["uid"] == uid


def test_links_to_runbooks_begin_with_grafanas_address_and_no_alert_is_labelled_with_it() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    assert config["global"]["external_labels"].keys() == {"grafana_url"}
    (drop,) = config["alerting"]["alert_relabel_configs"]
    assert drop == {"action": "labeldrop", "regex": "grafana_url"}
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert config["global"]["external_labels"]["grafana_url"][2:-1] in services["prometheus"]["environment"]


def test_every_page_is_of_an_alert_and_listed() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    assert pages == set(ALERTS) == set(re.findall(r"\((\w+)\.md\)", index))


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: str(rule.get("alert") or rule["record"]))
def test_rule_names_only_metrics_that_there_are(rule: dict[str, Any]) -> None:
    names = NAME.findall(rule["expr"])
    assert [name for name in names if not known(name)] == []


def test_power_is_of_the_boards_total_and_parts_are_never_added_up() -> None:
    for rule in rules():
        if "edgejoule_rail_energy" in rule["expr"]:
            assert rule["expr"].count("by (device, rail)") == rule["expr"].count("edgejoule_rail_energy")
        if rule.get("record", "").startswith("device:power"):
            assert "edgejoule_rail" not in rule["expr"]
