"""Prometheus' files: its own tool takes them, every alert is tested and has a page, every query names what there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgejoule.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "grafana" / "prometheus"
RULES = sorted(FOLDER.glob("rules/*.yml"))
TESTS = sorted(FOLDER.glob("tests/*.yml"))
PROMTOOL = shutil.which(os.environ.get("PROMTOOL") or "promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here; PROMTOOL may name it")

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


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL
    return subprocess.run([PROMTOOL, *map(str, words)], capture_output=True, text=True, timeout=100)


@needs_promtool
@pytest.mark.parametrize(
    "words",
    [("check", "config", FOLDER / "prometheus.yml"), ("check", "rules", *RULES), ("test", "rules", *TESTS)],
    ids=["config", "rules", "tests"],
)
def test_promtool_takes(words: tuple[str | Path, ...]) -> None:
    answer = promtool(*words)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@needs_promtool
def test_promtool_finds_nothing_to_lint_in_the_golden_scrapes() -> None:
    scrapes = sorted((ROOT / "tests" / "unit" / "agent" / "scrapes").glob("*.txt"))
    assert scrapes
    for scrape in scrapes:
        assert PROMTOOL
        answer = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=scrape.read_text(encoding="utf-8"), capture_output=True, text=True
        )
        assert (answer.returncode, answer.stderr) == (0, ""), scrape.name


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
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{alert}.md"
    page = (ROOT / rule["annotations"]["runbook"]).read_text(encoding="utf-8")
    assert page.startswith(f"# {alert}\n")
    assert "**What to do**" in page


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
