"""The compose file, .env.example, the Dockerfiles and the S3 accounts tell one story. `make test-stack` runs it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import free_ports

from edgejoule.devices import known
from edgejoule.stack.accounts import AGENTS, HOST, RIGHTS, access_key, secret_name

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
EXAMPLE = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
DOCKERFILES = sorted([*ROOT.glob("services/*/Dockerfile"), *ROOT.glob("docker/*/Dockerfile")])
ACCOUNT_OF = {"trainer-gpu": "trainer"}
AGENT_SERVICES = ("host-agent", "simulated-nano")
NO_ACCOUNT = ("redis", "minio", "init", *AGENT_SERVICES, "prometheus", "grafana", "alertmanager", "alert-receiver")
WITH_ACCOUNT = [name for name in SERVICES if name not in NO_ACCOUNT]


def variables(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE))


def write_environment(folder: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docker" / "environment.py", folder], check=True)


def test_every_variable_is_in_the_example_with_the_default_of_the_compose_file() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", COMPOSE))
    assert used == set(EXAMPLE) - {"COMPOSE_PROFILES"}
    for name, default in re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", COMPOSE):
        assert EXAMPLE[name] == default, name


def test_a_missing_secret_stops_compose_with_a_sentence() -> None:
    needed = dict(re.findall(r"\$\{([A-Z0-9_]+):\?([^}]*)\}", COMPOSE))
    assert needed.keys() == {name for name, value in EXAMPLE.items() if not value} | {"S3_ROOT_USER"}
    assert set(needed.values()) == {'run "make up", which writes .env with random secrets'}


def test_images_are_pinned_alike_in_dockerfiles_and_settings() -> None:
    for file in DOCKERFILES:
        for name, default in re.findall(r"^ARG (\w+_IMAGE)=(.+)$", file.read_text(encoding="utf-8"), re.MULTILINE):
            assert EXAMPLE[name] == default, f"{name} in {file}"
            assert re.search(r":\S*\d", default), f"{default} names no version"


@pytest.mark.parametrize("name", WITH_ACCOUNT)
def test_service_uses_its_own_account_and_no_other(name: str) -> None:
    service, account = SERVICES[name], ACCOUNT_OF.get(name, name)
    settings = service["environment"]
    assert settings["EDGEJOULE_S3_ACCESS_KEY"] == access_key(account)
    assert account in RIGHTS
    secrets = set(re.findall(r"\$\{(\w*(?:SECRET|PASSWORD))\b", str(settings)))
    assert secrets == {secret_name(account)}
    assert settings["EDGEJOULE_BROKER"].startswith(f"redis://{account}:")


@pytest.mark.parametrize(("name", "device"), [("host-agent", HOST), ("simulated-nano", "simulated-nano")])
def test_agent_holds_its_token_and_sees_the_gateway_and_who_asks_for_its_metrics(name: str, device: str) -> None:
    agent, gateway = SERVICES[name], SERVICES["gateway"]
    assert re.findall(r"\$\{(\w*(?:SECRET|PASSWORD))\b", str(agent)) == [AGENTS[device]]
    assert agent["environment"]["EDGEJOULE_TOKEN"].startswith(f"{device}.${{{AGENTS[device]}")
    assert AGENTS[device] in SERVICES["init"]["environment"]
    (network,) = agent["networks"]
    neighbours = {other for other, service in SERVICES.items() if network in service["networks"]}
    assert neighbours == {"gateway", "host-agent", "simulated-nano", "prometheus"}
    key = Path(gateway["environment"]["EDGEJOULE_GATEWAY_KEY"])
    shared = {volume.partition(":")[0] for volume in agent["volumes"] if isinstance(volume, str)}
    (place,) = [volume for volume in gateway["volumes"] if volume.partition(":")[2] == str(key.parent)]
    assert place.partition(":")[0] not in shared
    assert "certificate:/etc/edgejoule:ro" in agent["volumes"]
    assert "locks:/var/lock/edgejoule" in agent["volumes"]


def test_simulated_board_plays_what_a_spec_calls_so() -> None:
    settings = SERVICES["simulated-nano"]["environment"]
    assert settings["EDGEJOULE_SIMULATE"] == "nano"
    assert "simulated-nano" in known()
    assert SERVICES["simulated-nano"]["profiles"] == ["simulated"]


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_confined_and_looked_after(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["restart"] == ("on-failure:5" if name == "init" else "unless-stopped")
    assert name == "init" or service["healthcheck"]["test"]
    address = "${GATEWAY_ADDRESS:-127.0.0.1}:" if name == "gateway" else "127.0.0.1:"
    assert all(port.startswith(address) for port in service.get("ports", ()))
    assert not service.keys() & {"privileged", "cap_add", "container_name", "network_mode", "pid"}


def test_prometheus_finds_every_service_that_shows_metrics_and_no_port_of_the_host_leads_to_them() -> None:
    config = yaml.safe_load((ROOT / "grafana" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    asked = [sd for job in config["scrape_configs"] for sd in job.get("dns_sd_configs", ())]
    found = {name: sd["port"] for sd in asked for name in sd["names"]}
    shown = {
        name: int(service["environment"]["EDGEJOULE_METRICS"].rpartition(":")[2])
        for name, service in SERVICES.items()
        if "EDGEJOULE_METRICS" in service.get("environment", {})
    }
    (devices,) = [sd["url"] for job in config["scrape_configs"] for sd in job.get("http_sd_configs", ())]
    assert devices == f"http://gateway:{shown['gateway']}/devices"
    for agent in AGENT_SERVICES:
        assert shown.pop(agent) == 9464  # a device, which the gateway tells of
    assert found == shown
    assert not [port for service in SERVICES.values() for port in service.get("ports", ()) if port.endswith(":9464")]
    networks = set(SERVICES["prometheus"]["networks"])
    assert all(set(SERVICES[name]["networks"]) & networks for name in (*shown, "host-agent"))


def test_alerts_go_from_prometheus_to_who_is_told_in_one_profile() -> None:
    files = ROOT / "grafana" / "prometheus"
    config = yaml.safe_load((files / "prometheus.yml").read_text(encoding="utf-8"))
    (found,) = [sd for each in config["alerting"]["alertmanagers"] for sd in each["dns_sd_configs"]]
    assert found["names"] == ["alertmanager"]
    manager, receiver = SERVICES["alertmanager"], SERVICES["alert-receiver"]
    assert manager["profiles"] == receiver["profiles"] == ["alerts"]
    assert [port.rpartition(":")[2] for port in manager["ports"]] == [str(found["port"])]
    told = yaml.safe_load((files / "alertmanager.yml").read_text(encoding="utf-8"))
    urls = [hook["url"] for each in told["receivers"] for hook in each["webhook_configs"]]
    dockerfile = (ROOT / "docker/alert-receiver/Dockerfile").read_text(encoding="utf-8")
    (port,) = re.findall(r'CMD \["0\.0\.0\.0:(\d+)"\]', dockerfile)
    assert urls == [f"http://alert-receiver:{port}/"]
    for one, other in (("prometheus", manager), ("alertmanager", receiver)):
        assert set(SERVICES[one]["networks"]) & set(other["networks"])


def test_example_of_a_receiver_prints_a_line_for_each_alert() -> None:
    (port,) = free_ports(1)
    command = [sys.executable, str(ROOT / "docker/alert-receiver/receiver.py"), f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        try:
            deadline = time.monotonic() + 20
            while not listens(port):
                assert time.monotonic() < deadline
            alert = {"labels": {"alertname": "NoConductor", "severity": "critical"}, "annotations": {"summary": "none"}}
            sent = {"version": "4", "alerts": [{**alert, "status": status} for status in ("firing", "resolved")]}
            assert post(port, json.dumps(sent).encode()) == 200
            assert post(port, b'{"alerts": 3}') == post(port, b"{") == 400
            assert receiver.stdout.readline() == "firing   critical NoConductor: none (no runbook)\n"
            assert receiver.stdout.readline() == "resolved critical NoConductor: none (no runbook)\n"
        finally:
            receiver.kill()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def post(port: int, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/", body)
    return connection.getresponse().status


def test_who_looks_at_grafana_without_a_password_is_on_this_host_and_changes_nothing() -> None:
    settings = SERVICES["grafana"]["environment"]
    assert (settings["GF_AUTH_ANONYMOUS_ENABLED"], settings["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert [port.partition(":")[0] for port in SERVICES["grafana"]["ports"]] == ["127.0.0.1"]
    assert settings["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    provisioned = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    assert [source["editable"] for source in provisioned["datasources"]] == [False]


def test_every_account_has_a_redis_user() -> None:
    users = set(re.findall(r"user (\w+) on", (ROOT / "docker" / "redis" / "start.sh").read_text(encoding="utf-8")))
    assert set(RIGHTS) <= users


def test_dockerfiles_need_no_front_end_from_a_registry_and_run_as_nobody() -> None:
    for file in DOCKERFILES:
        text = file.read_text(encoding="utf-8")
        assert "syntax=" not in text, file
        assert "\nUSER 10001:10001\n" in text, file


def test_environment_is_written_once_with_secrets_of_its_own_and_private(tmp_path: Path) -> None:
    write_environment(tmp_path)
    first = variables(tmp_path / ".env")
    secrets = [first[name] for name, value in EXAMPLE.items() if not value]
    assert len(set(secrets)) == len(secrets)
    assert all(re.fullmatch("[0-9a-f]{40}", secret) for secret in secrets)
    for name in (".env", ".env.operator"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    write_environment(tmp_path)
    assert variables(tmp_path / ".env") == first


def test_environment_keeps_what_is_there_and_gets_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nREDIS_PORT=7000\nTRAINER_SECRET=\nOPERATOR_SECRET=abc\n")
    write_environment(tmp_path)
    found = variables(tmp_path / ".env")
    assert found["REDIS_PORT"] == "7000"
    assert len(found["TRAINER_SECRET"]) == 40
    assert found.keys() >= EXAMPLE.keys()
    operator = variables(tmp_path / ".env.operator")
    assert operator["EDGEJOULE_BROKER"] == "redis://operator:abc@127.0.0.1:7000/0"
    told = {
        value for name, value in found.items() if name.endswith(("SECRET", "PASSWORD")) and name != "OPERATOR_SECRET"
    }
    assert not any(secret in (tmp_path / ".env.operator").read_text() for secret in told)
