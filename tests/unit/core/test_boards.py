"""What the store keeps of boards, and what the agent and the gateway say to each other."""

from __future__ import annotations

import json
import re
import ssl
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import edgejoule_agent
from edgejoule import cli
from edgejoule.boards import (
    DEVICE,
    SECRET_BYTES,
    DeviceHello,
    DeviceProgress,
    DeviceResult,
    as_reported,
    device_of,
    hash_of,
    have_registered,
    keep_probe,
    new_token,
    register,
    revoke,
    token_of,
)
from edgejoule.devices import probe
from edgejoule.errors import EdgejouleError, SpecError
from edgejoule.folder_store import FolderStore
from edgejoule.options import prepare
from edgejoule.stack.frontier import devices_of
from edgejoule.stack.messages import SIZE_LIMIT_BYTES, Refused, open_envelope
from edgejoule_gateway.certificate import have_certificate

HELLO = DeviceHello(agent="0.1.0", kinds={"build": 2}, hardware={"processor": "toy"}, environment={"kernel": "4.9"})
SCHEMA = json.loads((Path(edgejoule_agent.__file__).parent / "schemas" / "device_messages.json").read_text())
JSON = st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda value: json.dumps(value).encode())


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_token_holds_256_random_bits_and_names_its_device() -> None:
    tokens = {new_token("nano") for _ in range(100)}
    assert len(tokens) == 100
    assert SECRET_BYTES * 8 == 256
    assert {device_of(token) for token in tokens} == {"nano"}
    assert all(len(token) == len("nano.") + 43 for token in tokens)  # base64 of 32 bytes, without its padding


def test_token_given_again_brings_no_revoked_device_back_but_another_does(store: FolderStore) -> None:
    have_registered("host", "host.a", store)
    made = token_of("host", store)
    have_registered("host", "host.a", store)
    assert token_of("host", store) == made
    revoke("host", store)
    have_registered("host", "host.a", store)
    assert (kept := token_of("host", store))
    assert kept.revoked_at
    have_registered("host", "host.b", store)
    assert (kept := token_of("host", store))
    assert not kept.revoked_at
    assert kept.sha256 == hash_of("host.b")


@given(st.text(max_size=60))
def test_any_text_is_hashed_and_names_a_device_or_none(text: str) -> None:
    assert re.fullmatch("[0-9a-f]{64}", hash_of(text))
    device = device_of(text)
    assert device is None or (re.fullmatch(DEVICE, device) and text.startswith(f"{device}."))


@pytest.mark.parametrize("name", ["", "Nano", "a_b", "-a", "a-", "../a", "a/b", "a.b", "x" * 41, "å", "a\n"])
def test_name_that_is_none_is_refused(store: FolderStore, name: str) -> None:
    with pytest.raises(EdgejouleError, match="no device can be called"):
        register(name, "token", store)
    with pytest.raises(EdgejouleError, match="there is no device"):
        revoke(name, store)
    assert store.device_names() == []


def test_device_is_as_it_last_said_of_itself(store: FolderStore) -> None:
    assert as_reported("nano", store) is None
    register("nano", new_token("nano"), store)
    with pytest.raises(EdgejouleError, match="has never reached the gateway"):
        as_reported("nano", store)
    keep_probe("nano", HELLO, store)
    device = as_reported("nano", store)
    assert device
    assert (device.name, device.id, device.hardware, device.environment) == (
        "nano",
        "nano",
        {"processor": "toy"},
        {"kernel": "4.9"},
    )
    revoke("nano", store)
    with pytest.raises(EdgejouleError, match="is revoked"):
        as_reported("nano", store)
    with pytest.raises(EdgejouleError, match="is revoked already"):
        revoke("nano", store)


def test_plan_for_the_stack_takes_devices_as_they_said_and_others_as_this_host_is(
    store: FolderStore, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "val.json").write_text("{}")
    (tmp_path / "spec.yaml").write_text(
        "name: small\nmodels: [{detector: nanodet_m, train: {iterations: 1}}]\nprecisions: [fp32]\nprotocol: quick\n"
        "data:\n  sources: {val: {images: images, annotations: val.json}}\n"
        "  sets: {train: {source: val, count: 1}, evaluation: {source: val}}\n"
    )

    def environment(on_stack: bool) -> object:
        made, _, _ = prepare(
            tmp_path / "spec.yaml", None, store.where, [], "1", Console(), writing=False, on_stack=on_stack
        )
        (step,) = [step for step in made.plan.steps.values() if step.id == "benchmark/nanodet_m/fp32/host/0"]
        return step.parameters["environment"]

    here = probe("host").environment
    assert environment(on_stack=True) == here
    register("host", new_token("host"), store)
    keep_probe("host", HELLO, store)
    assert environment(on_stack=True) == HELLO.environment
    assert environment(on_stack=False) == here

    register("nano", new_token("nano"), store)
    hello = {**HELLO.environment, "power_mode": "MAXN", "power_mode_id": 0, "gpu_hz": {"gpu": [1, 2]}}
    keep_probe("nano", HELLO.model_copy(update={"environment": hello}), store)
    with (tmp_path / "spec.yaml").open("a") as file:
        file.write("devices: [nano, {name: nano, power_mode: 5W}]\n")
    with pytest.raises(SpecError, match=r"no device 'nano'; .* are there for edgejoule run --on stack"):
        environment(on_stack=False)
    made, _, _ = prepare(tmp_path / "spec.yaml", None, store.where, [], "1", Console(), writing=False, on_stack=True)
    as_it_is, in_mode = (
        made.plan.steps[f"benchmark/nanodet_m/fp32/{label}/0"].parameters for label in ("nano", "nano@5W")
    )
    assert as_it_is["environment"] == hello
    assert "power_mode" not in as_it_is
    assert in_mode["environment"] == {**HELLO.environment, "power_mode": "5W"}
    assert (in_mode["power_mode"], in_mode["device"]) == ("5W", "nano")
    assert set(devices_of(made.plan).values()) == {"nano"}  # whose queue they wait in
    # an engine is the board's, whatever the mode
    builds = [step.parameters for step in made.plan.steps.values() if step.kind == "build"]
    assert len(builds) == 2
    assert builds[0] == builds[1]


@pytest.mark.parametrize(
    ("device", "said"),
    [("host", "host has no power modes"), ("simulated-nano", "simulated-nano is simulated and stays in one")],
)
def test_power_mode_of_what_has_none_is_refused_with_its_line(
    store: FolderStore, tmp_path: Path, device: str, said: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "val.json").write_text("{}")
    (tmp_path / "spec.yaml").write_text(
        "name: small\nmodels: [{detector: nanodet_m, train: {iterations: 1}}]\nprecisions: [fp32]\n"
        "data:\n  sources: {val: {images: images, annotations: val.json}}\n"
        "  sets: {train: {source: val, count: 1}, evaluation: {source: val}}\n"
        f"devices:\n  - name: {device}\n    power_mode: 5W\n"
    )
    with pytest.raises(SpecError, match=rf"spec.yaml:9: {said}"):
        prepare(tmp_path / "spec.yaml", None, store.where, [], "1", Console(), writing=False)


def valid(name: str, message: object) -> bool:
    schema = {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(message))


def test_schema_tells_what_the_agent_says_from_what_it_must_not() -> None:
    result: dict[str, Any] = {"outcome": "ok", "reason": None, "transient": False, "duration_s": 1.0, "outputs": {}}
    assert valid("DeviceHello", json.loads(HELLO.model_dump_json()))
    assert valid("DeviceProgress", json.loads(DeviceProgress().model_dump_json()))
    assert valid("DeviceResult", {**result, "log": None})
    DeviceResult.model_validate({**result, "log": None})
    assert not valid("DeviceResult", result)
    assert not valid("DeviceResult", {**result, "log": None, "outcome": "great"})


def test_agents_own_messages_fit_the_schema(tmp_path: Path) -> None:
    from edgejoule_agent.connection import Connection
    from edgejoule_agent.service import Service
    from edgejoule_agent.step_process import Report

    connection = Connection("https://localhost", "nano.x")
    agent = Service(connection, str(tmp_path), 10**9, threading.Event())
    assert valid("DeviceHello", agent._hello())
    (tmp_path / "job" / "outputs").mkdir(parents=True)
    (tmp_path / "job" / "outputs" / "text").write_text("text")
    (tmp_path / "job" / "log").write_text("log")
    for report in (Report("ok", None, False), Report("oom", "why", True)):
        agent._keep({"step": "s"}, report, 1.0)
        assert valid("DeviceResult", agent._result())
        DeviceResult.model_validate(agent._result())


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_envelope_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        open_envelope(data)


def test_envelope_that_is_too_large_is_not_even_parsed() -> None:
    with pytest.raises(Refused, match="and the limit is"):
        open_envelope(b"x" * (2 * SIZE_LIMIT_BYTES + 1))


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the command on a store; gives exit code, standard output and standard error."""
    monkeypatch.setenv("EDGEJOULE_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("EDGEJOULE_BROKER", raising=False)
    FolderStore(tmp_path / "store")

    def call(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        return ended.value.code or 0, *capfd.readouterr()

    return call


def test_devices_are_created_listed_and_revoked(call: Any, tmp_path: Path, store: FolderStore) -> None:
    assert call("devices", "list")[1].startswith("There are no devices yet")
    code, token, _ = call("devices", "create", "nano")
    assert code == 0
    kept = token_of("nano", store)
    assert kept
    assert kept.sha256 == hash_of(token.strip())
    assert call("devices", "create", "orin", "--file", str(tmp_path / "token"))[0] == 0
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    kept = token_of("orin", store)
    assert kept
    assert kept.sha256 == hash_of((tmp_path / "token").read_text().strip())
    assert call("devices", "create", "tx2", "--file", str(tmp_path / "token"))[0] == 1
    keep_probe("orin", HELLO, store)
    assert call("devices", "revoke", "nano")[0] == 0
    assert call("devices", "list")[1].splitlines() == [
        "nano: token revoked, not heard of",
        "orin: token valid, not heard of, agent 0.1.0 on toy",
    ]
    found = json.loads(call("devices", "list", "--json")[1])
    assert [(device["name"], device["token"]) for device in found] == [("nano", "revoked"), ("orin", "valid")]
    assert token.strip() not in (tmp_path / "store" / "devices" / "nano.json").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["devices", "create", "Bad Name"], "no device can be called 'Bad Name'"),
        (["devices", "revoke", "none"], "there is no device 'none'"),
        (["gateway", "serve", "--host", "0.0.0.0"], "would send tokens in the clear on 0.0.0.0"),
        (["gateway", "serve", "--host", "gateway.lan"], "would send tokens in the clear on gateway.lan"),
        (["gateway", "serve", "--certificate", "x.crt"], "give both --certificate and --key"),
        (["gateway", "serve", "--certificate", "x.crt", "--key", "x.key"], "there is no certificate x.crt"),
        (["gateway", "serve"], "EDGEJOULE_BROKER is not set"),
        (["gateway", "serve", "--name", "gw.lan"], "say where by --certificate and --key"),
        (["gateway", "certificate", "gw.lan", "--key", "/proc/x.key"], "/proc/x.key.new cannot be written"),
        (["gateway", "certificate", "a b"], "'a b' is no name or address of a host"),
        (["gateway", "certificate", "a,DNS:b"], "is no name or address of a host"),
    ],
)
def test_mistake_is_told_in_one_sentence(call: Any, tmp_path: Path, words: list[str], said: str) -> None:
    code, _, told = call(*words)
    assert code == 1
    assert said in told
    assert len(told.strip().splitlines()) == 1


def test_certificate_is_for_the_names_given_and_its_key_is_private(call: Any, tmp_path: Path) -> None:
    crt, key = tmp_path / "tls" / "a.crt", tmp_path / "tls" / "a.key"
    words = ("gateway", "certificate", "gw.lan", "192.168.1.5", "--certificate", str(crt), "--key", str(key))
    assert call(*words)[0] == 0
    assert key.stat().st_mode & 0o777 == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    (found,) = ssl.create_default_context(cafile=str(crt)).get_ca_certs()
    assert found["subjectAltName"] == (("DNS", "gw.lan"), ("IP Address", "192.168.1.5"))
    code, _, told = call(*words)
    assert code == 1
    assert "is there already" in told


def test_certificate_is_made_once_and_names_that_it_lacks_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crt, key = tmp_path / "a.crt", tmp_path / "a.key"
    have_certificate(["gw.lan", "192.168.1.5"], crt, key)
    made = crt.read_bytes()
    have_certificate(["192.168.1.5", "gw.lan"], crt, key)
    assert not caplog.messages
    kept = key.read_bytes()
    crt.unlink()  # as when it was killed between the two
    have_certificate(["gw.lan", "192.168.1.5"], crt, key)
    made = crt.read_bytes()
    assert key.read_bytes() == kept
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(crt, key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.crt", "a.key"]
    have_certificate(["gw.lan", "192.168.1.6", "other.lan"], crt, key)
    assert crt.read_bytes() == made
    (told,) = caplog.messages
    assert "is not for 192.168.1.6, other.lan" in told
