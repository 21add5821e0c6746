"""What a person types behind ``make jetson-deploy`` is right, or told in a sentence, before any board is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import deploy
from context import HERE

GOOD = {"HOST": "me@board", "NAME": "nano", "GATEWAY": "https://gateway:8443", "CA": "system"}


def ask(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEJOULE_")}
    command = [sys.executable, str(HERE / "deploy.py"), "deploy"]
    environment = {**environment, **GOOD, **settings}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"HOST": ""}, "which board? make jetson-deploy HOST=user@board."),
        ({"NAME": ""}, "NAME is missing: NAME=nano"),
        ({"NAME": "My Nano"}, "NAME='My Nano' is no device's name"),
        ({"GATEWAY": ""}, "it is not known where boards find the gateway: GATEWAY=https://HOST:8443"),
        ({"GATEWAY": "http://gateway:8443"}, "GATEWAY='http://gateway:8443' is no address"),
        ({"CA": "none.crt"}, "there is no certificate none.crt: docker compose cp"),
        ({"IMAGE": "none.tar"}, "there is no file IMAGE=none.tar"),
        ({"GATEWAY_WAIT": "soon"}, "GATEWAY_WAIT='soon' is no number of seconds"),
        ({"POWER_MODES": "yes"}, "POWER_MODES='yes' is neither 1 nor 0"),
        ({"SSH_OPTIONS": "-i 'key"}, 'SSH_OPTIONS="-i \'key" cannot be split into words'),
        ({"HOST": "-oProxyCommand=x"}, "HOST='-oProxyCommand=x' is no user@board"),
    ],
)
def test_wrong_setting_is_told_in_one_sentence(tmp_path: Path, settings: dict[str, str], sentence: str) -> None:
    done = ask(tmp_path, **settings)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_gateway_is_read_from_what_the_stack_says(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_NAMES=localhost gateway.lan\nGATEWAY_PORT=9443\nS3_ROOT_PASSWORD=x\n")
    (tmp_path / ".env.operator").write_text("EDGEJOULE_STORE=s3://edgejoule\n")
    found = deploy._environment({**GOOD, "GATEWAY": ""}, tmp_path)
    assert deploy._settings(found, "deploy").gateway == "https://gateway.lan:9443"
    assert found["EDGEJOULE_STORE"] == "s3://edgejoule"
    assert "S3_ROOT_PASSWORD" not in found


@pytest.mark.parametrize(
    ("lines", "dashboard"),
    [
        ("COMPOSE_PROFILES=cpu,grafana,simulated\n", "http://127.0.0.1:3000/d/edgejoule-device?var-device=nano"),
        (
            "COMPOSE_PROFILES=grafana\nGRAFANA_PORT=3001\n",
            "http://127.0.0.1:3001/d/edgejoule-device?var-device=nano",
        ),
        ("COMPOSE_PROFILES=grafana\nDASHBOARD=https://lan/d/x\n", "https://lan/d/x"),
        ("COMPOSE_PROFILES=cpu\nGRAFANA_PORT=3001\n", ""),
        ("", ""),
    ],
)
def test_dashboard_is_the_devices_page_where_the_stack_has_grafana(tmp_path: Path, lines: str, dashboard: str) -> None:
    (tmp_path / ".env").write_text(lines)
    assert deploy._settings(deploy._environment(GOOD, tmp_path), "deploy").dashboard == dashboard


def test_address_of_the_dashboard_is_that_of_the_page_that_is_shipped() -> None:
    address = urlsplit(deploy._known_dashboard({"COMPOSE_PROFILES": "grafana"}, "nano"))
    page = json.loads((HERE.parent / "grafana" / "dashboards" / "device.json").read_text())
    assert address.path == f"/d/{page['uid']}"
    (variable,) = page["templating"]["list"]
    assert parse_qs(address.query) == {f"var-{variable['name']}": ["nano"]}
