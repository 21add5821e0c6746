"""The Helm chart renders what Kubernetes takes, gives each service what it needs, and refuses wrong values."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer.main
import yaml
from servers import RedisServer

from edgejoule.cli import make_app
from edgejoule.stack.accounts import HOST, RIGHTS, access_key, secret_name
from edgejoule_gateway.commands import PORT

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "edgejoule"
HELM = shutil.which(os.environ.get("HELM", "helm"))
# kubeVersion in Chart.yaml, and the newest whose schemas kubernetes-validate has
KUBERNETES = ("1.29", "1.37")
VALUES = {"default": None, **{f.name.removesuffix("-values.yaml"): f for f in sorted(CHART.glob("ci/*-values.yaml"))}}
RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
}
WORKERS = {"trainer", "evaluator", "analyst"}
STACK = WORKERS | {"conductor", "gateway"}  # they have an account of the store's and of the queues'
SERVICES = STACK | {"host-agent"}
METRICS = 9464

Object = dict[str, Any]

needs_helm = pytest.mark.skipif(
    HELM is None, reason="there is no helm: install it, or say where it is: HELM=/path/helm"
)
for_all_values = pytest.mark.parametrize("name", VALUES)


def helm(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, command, *arguments], capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def rendered(name: str = "default", *settings: str, chart: Path = CHART) -> list[Object]:
    """The objects of a release called ``test`` in the namespace ``vision``."""
    values = ["--values", str(VALUES[name])] if VALUES[name] else []
    given = [word for setting in settings for word in ("--set", setting)]
    answer = helm("template", "test", str(chart), "--namespace", "vision", *values, *given)
    assert answer.returncode == 0, answer.stderr
    return [found for found in yaml.safe_load_all(answer.stdout) if found]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def component(one: Object) -> str:
    return str(one["metadata"]["labels"]["app.kubernetes.io/component"])


def pods(objects: list[Object]) -> dict[str, Object]:
    """Component to pod template."""
    found = {}
    for one in objects:
        spec = one["spec"].get("jobTargetRef", one["spec"]) if "spec" in one else {}
        if "template" in spec:
            found[component(one)] = spec["template"]
    return found


def container_of(pod: Object) -> Object:
    (container,) = pod["spec"]["containers"]
    return dict(container)


def variables(pod: Object) -> dict[str, Object]:
    return {variable["name"]: variable for variable in container_of(pod)["env"]}


def secret_keys(pod: Object) -> set[tuple[str, str]]:
    refs = [v["valueFrom"]["secretKeyRef"] for v in variables(pod).values() if "valueFrom" in v]
    return {(ref["name"], ref["key"]) for ref in refs}


def own_secret(service: str) -> str:
    """The variable that holds a service's secret; the host agent's is its token at the gateway, not an account."""
    return secret_name(service) if service in RIGHTS else "HOST_AGENT_SECRET"


def service_of(objects: list[Object], name: str) -> Object:
    (service,) = [one for one in of_kind(objects, "Service") if component(one) == name]
    return service


def value_at(tree: Any, path: str) -> Any:
    return functools.reduce(lambda found, name: found[name], path.split("."), tree)


# --- what Kubernetes and KEDA take --------------------------------------------------------------------


@needs_helm
@for_all_values
def test_chart_lints_strictly(name: str) -> None:
    values = ["--values", str(VALUES[name])] if VALUES[name] else []
    answer = helm("lint", "--strict", str(CHART), *values)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@needs_helm
@pytest.mark.parametrize("version", KUBERNETES)
@for_all_values
def test_every_object_is_valid_for_kubernetes(name: str, version: str) -> None:
    for one in rendered(name):
        if not one["apiVersion"].startswith(("keda.sh/", "monitoring.coreos.com/")):
            kubernetes_validate.validate(one, version, strict=True)


def test_oldest_kubernetes_is_the_charts() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"
    assert KUBERNETES[1] == kubernetes_validate.latest_version().rpartition(".")[0]


def closed(properties: Object, **more: Any) -> Object:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


# After scaledjob_types.go and triggerauthentication_types.go of KEDA; numbers in metadata are strings there
KEDA = {
    "ScaledJob": closed(
        {
            "jobTargetRef": {"type": "object"},  # a Job's spec, which Kubernetes' own schema is asked about
            "pollingInterval": {"type": "integer"},
            "successfulJobsHistoryLimit": {"type": "integer"},
            "failedJobsHistoryLimit": {"type": "integer"},
            "minReplicaCount": {"type": "integer"},
            "maxReplicaCount": {"type": "integer"},
            "envSourceContainerName": {"type": "string"},
            "rollout": closed(
                {"strategy": {"enum": ["immediate", "gradual"]}, "propagationPolicy": {"type": "string"}}
            ),
            "scalingStrategy": closed(
                {
                    "strategy": {"enum": ["default", "custom", "accurate", "eager"]},
                    "pendingPodConditions": {"type": "array"},
                    "multipleScalersCalculation": {"type": "string"},
                }
            ),
            "triggers": {
                "type": "array",
                "minItems": 1,
                "items": closed(
                    {
                        "type": {"type": "string"},
                        "name": {"type": "string"},
                        "useCachedMetrics": {"type": "boolean"},
                        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                        "authenticationRef": closed({"name": {"type": "string"}, "kind": {"type": "string"}}),
                        "metricType": {"type": "string"},
                    },
                    required=["type", "metadata"],
                ),
            },
        },
        required=["jobTargetRef", "triggers"],
    ),
    "TriggerAuthentication": closed(
        {
            "secretTargetRef": {
                "type": "array",
                "items": closed(
                    {"parameter": {"type": "string"}, "name": {"type": "string"}, "key": {"type": "string"}},
                    required=["parameter", "name", "key"],
                ),
            }
        }
    ),
}
# redis_scaler.go: what a trigger of type redis may say
REDIS_TRIGGER = {"address", "username", "listName", "listLength", "activationListLength", "databaseIndex", "enableTLS"}


@needs_helm
@pytest.mark.parametrize("name", ["keda", "external"])
def test_kedas_objects_are_valid(name: str) -> None:
    (job,) = of_kind(rendered(name), "ScaledJob")
    (authentication,) = of_kind(rendered(name), "TriggerAuthentication")
    for one in (job, authentication):
        assert one["apiVersion"] == "keda.sh/v1alpha1"
        assert one.keys() == {"apiVersion", "kind", "metadata", "spec"}
        jsonschema.validate(one["spec"], KEDA[one["kind"]])
    (trigger,) = job["spec"]["triggers"]
    assert trigger["type"] == "redis"
    assert trigger["metadata"].keys() <= REDIS_TRIGGER
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    for version in KUBERNETES:
        as_job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "made-by-keda"},
            "spec": job["spec"]["jobTargetRef"],
        }
        kubernetes_validate.validate(as_job, version, strict=True)


# --- autoscaling ends no running work -----------------------------------------------------------------


@needs_helm
def test_autoscaler_never_chooses_a_worker_to_end() -> None:
    objects = rendered("keda")
    assert not of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
    assert not [one for one in of_kind(objects, "Deployment") if component(one) == "evaluator"]
    (scaled,) = of_kind(objects, "ScaledJob")
    job = scaled["spec"]["jobTargetRef"]
    assert "activeDeadlineSeconds" not in job
    assert "activeDeadlineSeconds" not in job["template"]["spec"]
    assert scaled["spec"]["rollout"]["strategy"] == "gradual"
    assert (job["parallelism"], job["completions"]) == (1, 1)
    annotations = job["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


@needs_helm
def test_scaled_workers_take_from_the_queue_that_is_counted_and_end_when_idle() -> None:
    (scaled,) = of_kind(rendered("keda"), "ScaledJob")
    (trigger,) = scaled["spec"]["triggers"]
    queue = trigger["metadata"]["listName"]
    arguments = container_of(pods([scaled])["evaluator"])["args"]
    assert arguments == ["worker", queue, "--idle-exit", "60"]
    assert scaled["spec"]["scalingStrategy"]["strategy"] == "accurate"  # what is under way is not in the queue


# KEDA's redis_scaler.go asks so
LENGTH = """
local listType = redis.call('type', KEYS[1]).ok
return redis.call(({list = 'llen', none = 'llen'})[listType], KEYS[1])
"""


@needs_helm
def test_kedas_account_may_ask_for_the_length_and_nothing_else(redis_server: RedisServer, tmp_path: Path) -> None:
    import redis

    (scaled,) = of_kind(rendered("keda"), "ScaledJob")
    metadata = scaled["spec"]["triggers"][0]["metadata"]
    rules = users_of_start_script(tmp_path)[metadata["username"]]
    admin = redis_server.client()
    admin.flushall()
    admin.execute_command("ACL", "SETUSER", metadata["username"], "reset", *rules)
    try:
        admin.rpush(metadata["listName"], "a", "b", "c")
        admin.set("edgejoule:conductor", "one")
        with redis.Redis(port=redis_server.port, username=metadata["username"], password="its-secret") as keda:
            assert keda.eval(LENGTH, 1, metadata["listName"]) == 3
            for forbidden in (
                ("LPOP", metadata["listName"]),
                ("LRANGE", metadata["listName"], 0, -1),
                ("GET", "edgejoule:conductor"),
                ("LLEN", "train"),
                ("EVAL", "return redis.call('lpop', KEYS[1])", 1, metadata["listName"]),
                ("KEYS", "*"),
                ("FLUSHALL",),
            ):
                with pytest.raises(redis.ResponseError, match=r"NOPERM|permission|can't run this command"):
                    keda.execute_command(*forbidden)
        assert admin.llen(metadata["listName"]) == 3
    finally:
        admin.execute_command("ACL", "DELUSER", metadata["username"])


def users_of_start_script(folder: Path) -> dict[str, list[str]]:
    """User to rules, as docker/redis/start.sh writes them when it has every secret."""
    script = (ROOT / "docker/redis/start.sh").read_text(encoding="utf-8")
    assert "folder=/run/redis\n" in script
    (folder / "start.sh").write_text(script.replace("folder=/run/redis\n", f"folder='{folder}'\n"))
    (folder / "redis-server").write_text("#!/bin/sh\n")
    (folder / "redis-server").chmod(0o755)
    names = ["REDIS_ADMIN_PASSWORD", "KEDA_SECRET", *(secret_name(service) for service in RIGHTS)]
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **dict.fromkeys(names, "its-secret")}
    subprocess.run(["sh", str(folder / "start.sh")], env=environment, check=True, timeout=20)
    lines = (folder / "users.acl").read_text().splitlines()
    return {line.split()[1]: line.split()[2:] for line in lines}


# --- what each service is given -----------------------------------------------------------------------


@functools.cache
def compose() -> Object:
    """Compose's services that run our code."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    return {
        name: service
        for name, service in services.items()
        if any(variable.startswith("EDGEJOULE_") for variable in service.get("environment", {}))
    }


def documented_settings() -> set[str]:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    return set(re.findall(r"\bEDGEJOULE_[A-Z0-9_]*[A-Z0-9]\b", page))


def test_compose_gives_services_documented_settings_only() -> None:
    assert compose().keys() >= SERVICES | {"init"}
    for name, service in compose().items():
        given = {variable for variable in service["environment"] if variable.startswith("EDGEJOULE_")}
        assert given <= documented_settings(), name


@needs_helm
@for_all_values
def test_chart_gives_services_documented_settings_only(name: str) -> None:
    for service, pod in pods(rendered(name)).items():
        given = {variable for variable in variables(pod) if variable.startswith("EDGEJOULE_")}
        assert given <= documented_settings(), service


@needs_helm
def test_chart_runs_what_compose_runs_with_the_same_settings() -> None:
    charts = pods(rendered())
    assert charts.keys() == SERVICES | {"init", "redis", "s3"}
    for name in SERVICES | {"init"}:
        service, pod = compose()[name], charts[name]
        # A Secret holds the certificate, so that there is none to make for names.
        # Compose knows where its Grafana is; the chart brings none, and no board that is not there.
        expected = service["environment"].keys() - {own_secret(name), "EDGEJOULE_GATEWAY_NAMES"}
        expected -= {"EDGEJOULE_GRAFANA", "EDGEJOULE_GRAFANA_TOKEN", "SIMULATED_NANO_SECRET"}
        assert variables(pod).keys() - {own_secret(name)} == expected - {own_secret(name)}, name
        container = container_of(pod)
        entry_point = container.get("command", []) + container.get("args", [])
        assert entry_point == service.get("entrypoint", []) + service.get("command", []), name
        for variable in (
            *("EDGEJOULE_S3_ACCESS_KEY", "EDGEJOULE_WORKSPACE", "EDGEJOULE_LOCKS", "EDGEJOULE_STORE"),
            *("EDGEJOULE_GATEWAY_HOST", "EDGEJOULE_AGENT_STATE", "EDGEJOULE_METRICS"),
        ):
            if name != "init" and variable in service["environment"]:
                assert variables(pod)[variable]["value"] == service["environment"][variable]
    for name in ("redis", "minio"):
        ours = set(variables(charts["s3" if name == "minio" else name])) - {"REDIS_MAXMEMORY"}
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
        assert ours == set(services[name]["environment"])


@needs_helm
def test_brokers_address_names_the_account_and_takes_its_password_from_the_secret() -> None:
    for name in STACK:
        given = variables(pods(rendered())[name])
        address = f"redis://{name}:$({secret_name(name)})@test-edgejoule-redis:6379/0"
        assert given["EDGEJOULE_BROKER"]["value"] == address
        assert list(given).index(secret_name(name)) < list(given).index("EDGEJOULE_BROKER")  # else it is not replaced
        assert given["EDGEJOULE_S3_ACCESS_KEY"]["value"] == access_key(name)
    assert service_of(rendered(), "redis")["metadata"]["name"] == "test-edgejoule-redis"


@needs_helm
def test_host_agent_is_told_the_gateways_address_and_its_token_as_compose_tells_it() -> None:
    given = variables(pods(rendered())["host-agent"])
    service = service_of(rendered(), "gateway")
    ((name, port),) = [(service["metadata"]["name"], port["port"]) for port in service["spec"]["ports"]]
    assert given["EDGEJOULE_GATEWAY"]["value"] == f"https://{name}:{port}"
    assert given["EDGEJOULE_TOKEN"]["value"] == f"{HOST}.$(HOST_AGENT_SECRET)"
    assert compose()["host-agent"]["environment"]["EDGEJOULE_TOKEN"] == f"{HOST}.${{HOST_AGENT_SECRET}}"
    assert list(given).index("HOST_AGENT_SECRET") < list(given).index("EDGEJOULE_TOKEN")  # else it is not replaced


@needs_helm
def test_no_service_of_the_cluster_sets_a_setting_of_ours() -> None:
    """Kubernetes sets EDGEJOULE_GATEWAY_PORT, to a URL, for a Service `edgejoule-gateway`, unless it is told not to."""
    for pod in pods(rendered("keda")).values():
        assert pod["spec"]["enableServiceLinks"] is False


@needs_helm
def test_each_pod_is_given_its_own_secrets_and_no_others() -> None:
    given = {name: {key for _, key in secret_keys(pod)} for name, pod in pods(rendered("keda")).items()}
    services = {secret_name(service) for service in RIGHTS}
    assert given == {
        **{name: {own_secret(name)} for name in SERVICES},
        "conductor": {own_secret("conductor"), "GRAFANA_TOKEN"},
        "redis": {"REDIS_ADMIN_PASSWORD", "KEDA_SECRET", *services},
        "s3": {"S3_ROOT_USER", "S3_ROOT_PASSWORD"},
        "init": {"S3_ROOT_USER", "S3_ROOT_PASSWORD", "HOST_AGENT_SECRET", *services},
    }
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    for key in set().union(*given.values()) - {"KEDA_SECRET"}:
        assert f"\n{key}=" in example  # so that .env becomes the Secret as it is


@needs_helm
@pytest.mark.parametrize("name", ["default", "keda", "external"])
def test_gateway_alone_has_the_key_of_its_certificate(name: str) -> None:
    secrets = {
        service: [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        for service, pod in pods(rendered(name)).items()
    }
    assert {service for service, found in secrets.items() if found} == {"gateway", "host-agent"}
    (gateways,), (agents,) = secrets["gateway"], secrets["host-agent"]
    assert (
        gateways["secretName"] == agents["secretName"] == ("our-gateway" if name == "external" else "edgejoule-gateway")
    )
    assert [item["key"] for item in gateways["items"]] == ["tls.crt", "tls.key"]
    assert [item["key"] for item in agents["items"]] == ["tls.crt"]
    assert gateways["defaultMode"] == 0o440
    for service, variable, item in (
        ("gateway", "EDGEJOULE_GATEWAY_CERTIFICATE", "tls.crt"),
        ("gateway", "EDGEJOULE_GATEWAY_KEY", "tls.key"),
        ("host-agent", "EDGEJOULE_GATEWAY_CA", "tls.crt"),
    ):
        pod = pods(rendered(name))[service]
        (volume,) = [volume for volume in pod["spec"]["volumes"] if "secret" in volume]
        (mount,) = [mount for mount in container_of(pod)["volumeMounts"] if mount["name"] == volume["name"]]
        (path,) = [one["path"] for one in volume["secret"]["items"] if one["key"] == item]
        assert variables(pod)[variable]["value"] == f"{mount['mountPath']}/{path}"


@needs_helm
def test_host_agents_token_is_in_the_secret_also_where_no_init_job_makes_accounts() -> None:
    objects = rendered("minimal", "gateway.enabled=true", "hostAgent.enabled=true")
    assert pods(objects).keys() == SERVICES
    assert secret_keys(pods(objects)["host-agent"]) == {("edgejoule", "HOST_AGENT_SECRET")}
    assert secret_keys(pods(objects)["gateway"]) == {
        ("edgejoule-s3", "GATEWAY_ACCESS_KEY"),
        ("edgejoule-s3", "GATEWAY_SECRET_KEY"),
        ("edgejoule-redis", "GATEWAY_BROKER"),
    }


@needs_helm
@for_all_values
def test_chart_holds_no_secret(name: str) -> None:
    assert not of_kind(rendered(name), "Secret")
    for pod in pods(rendered(name)).values():
        for variable, how in variables(pod).items():
            secret = re.search(r"SECRET|PASSWORD|ROOT_USER", variable)
            assert not secret or "valueFrom" in how, variable
            assert variable != "EDGEJOULE_TOKEN" or how["value"] == "host.$(HOST_AGENT_SECRET)"


@needs_helm
def test_external_servers_are_used_with_secrets_of_their_own() -> None:
    objects = rendered("minimal")
    assert pods(objects).keys() == SERVICES - {"gateway", "host-agent"}
    trainer = variables(pods(objects)["trainer"])
    assert trainer["EDGEJOULE_S3_ENDPOINT"]["value"] == "https://s3.example.org"
    assert trainer["EDGEJOULE_S3_REGION"]["value"] == "eu-west-1"
    assert secret_keys(pods(objects)["trainer"]) == {
        ("edgejoule-s3", "TRAINER_ACCESS_KEY"),
        ("edgejoule-s3", "TRAINER_SECRET_KEY"),
        ("edgejoule-redis", "TRAINER_BROKER"),
    }
    external = rendered("external")
    assert variables(pods(external)["init"])["EDGEJOULE_S3_ENDPOINT"]["value"] == "https://s3.example.org:9443"
    assert variables(pods(external)["analyst"])["EDGEJOULE_STORE"]["value"] == "s3://vision/edgejoule/one"
    assert (
        container_of(pods(external)["analyst"])["image"] == "registry.example.org/vision/edgejoule/analyst:0.1.0-rc.1"
    )
    (trigger,) = of_kind(external, "ScaledJob")[0]["spec"]["triggers"]
    assert trigger["metadata"]["address"] == "redis.example.org:6380"
    assert trigger["metadata"]["enableTLS"] == "true"


@needs_helm
def test_how_to_names_the_images_that_run_and_the_gateway_as_the_host_agent_calls_it() -> None:
    page = (ROOT / "docs/how-to/cluster.md").read_text(encoding="utf-8")
    (names,) = re.findall(r"for name in (.+); do", page)
    images = {container_of(pod)["image"] for pod in pods(rendered()).values()}
    assert images == {f"edgejoule/{name}:0.1.0" for name in names.split()}
    answer = helm("template", "edgejoule", str(CHART), "--show-only", "templates/host-agent.yaml")
    given = variables(yaml.safe_load(answer.stdout)["spec"]["template"])
    (called,) = re.findall(r"edgejoule gateway certificate (\S+)", page)
    assert given["EDGEJOULE_GATEWAY"]["value"] == f"https://{called}:{PORT}"


# --- what they cannot do ------------------------------------------------------------------------------


@needs_helm
@for_all_values
def test_every_pod_is_restricted(name: str) -> None:
    objects = rendered(name)
    accounts = {one["metadata"]["name"]: one for one in of_kind(objects, "ServiceAccount")}
    assert accounts.keys() == {pod["spec"]["serviceAccountName"] for pod in pods(objects).values()}
    assert len(accounts) == len(pods(objects))
    assert not [one for one in accounts.values() if one["automountServiceAccountToken"] is not False]
    assert not of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
    for service, pod in pods(objects).items():
        spec, container = pod["spec"], container_of(pod)
        assert spec["automountServiceAccountToken"] is False
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, service
        assert "memory" in container["resources"]["limits"], service
        for volume in spec["volumes"]:
            (kind,) = volume.keys() - {"name"}
            assert kind in RESTRICTED_VOLUMES | {"hostPath"}
            assert kind != "emptyDir" or "sizeLimit" in volume["emptyDir"], (service, volume["name"])
        claims = {"workspace", "data"}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in spec["volumes"]} | claims


@needs_helm
def test_minimal_values_need_no_folder_of_the_host() -> None:
    for pod in pods(rendered("minimal")).values():
        assert not [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume]


@needs_helm
@for_all_values
def test_services_are_probed_by_a_command_that_there_is(name: str) -> None:
    known: Any = typer.main.get_command(make_app(lambda command: True))
    assert "alive" in known.commands
    for service in STACK & pods(rendered(name)).keys():
        container = container_of(pods(rendered(name))[service])
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["exec"]["command"] == ["edgejoule", "alive"]
        command, words = known, list(container["args"])
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= flags


@needs_helm
def test_boards_are_sent_to_the_gateway_when_it_serves() -> None:
    pod = pods(rendered())["gateway"]
    container = container_of(pod)
    assert container["ports"][0] == {"name": "https", "containerPort": PORT}
    assert "EDGEJOULE_GATEWAY_PORT" not in variables(pod)
    asked = container["readinessProbe"]["httpGet"]
    assert (asked["scheme"], asked["port"]) == ("HTTPS", "https")
    app = (ROOT / "services/gateway/src/edgejoule_gateway/app.py").read_text(encoding="utf-8")
    assert re.findall(r'Route\("(\S+)", self\._health,', app) == [asked["path"]]
    spec = service_of(rendered(), "gateway")["spec"]
    assert spec["type"] == "ClusterIP"
    assert [(port["port"], port["targetPort"]) for port in spec["ports"]] == [(PORT, "https")]
    assert selects({"matchLabels": spec["selector"]}, pod["metadata"]["labels"])


@needs_helm
def test_host_agent_is_ready_when_the_gateway_served_it_lately_and_its_step_outlives_the_gateway(
    tmp_path: Path,
) -> None:
    container = container_of(pods(rendered())["host-agent"])
    asked = container["readinessProbe"]["exec"]["command"]
    assert asked[-1] == compose()["host-agent"]["healthcheck"]["test"][-1].replace("$$", "$")
    # Compose's health checks end nothing. A liveness probe would end the agent and its step when the gateway is away.
    assert not container.keys() & {"livenessProbe", "startupProbe"}

    def ready() -> bool:
        environment = {"PATH": os.environ["PATH"], "EDGEJOULE_AGENT_STATE": str(tmp_path)}
        return subprocess.run(asked, env=environment, capture_output=True, timeout=20, check=False).returncode == 0

    assert not ready()
    (tmp_path / "heard").touch()
    assert ready()
    os.utime(tmp_path / "heard", (time.time() - 200, time.time() - 200))
    assert not ready()


def selects(selector: Object, labels: Object) -> bool:
    """Whether a label selector chooses a pod."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def reaches(objects: list[Object], source: str, target: str, port: int) -> bool:
    """Whether network policies let one pod of ours connect to another."""
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}

    def allowed(here: str, there: str, direction: str, peers: str) -> bool:
        policies = [
            policy["spec"]
            for policy in of_kind(objects, "NetworkPolicy")
            if selects(policy["spec"]["podSelector"], labels[here]) and direction in policy["spec"]["policyTypes"]
        ]
        return not policies or any(
            any(selects(p["podSelector"], labels[there]) for p in rule[peers] if p.keys() == {"podSelector"})
            and {"protocol": "TCP", "port": port} in rule["ports"]
            for policy in policies
            for rule in policy.get(direction.lower(), [])
        )

    return allowed(source, target, "Egress", "to") and allowed(target, source, "Ingress", "from")


@needs_helm
@pytest.mark.parametrize("name", ["default", "keda"])
def test_network_lets_each_reach_what_its_settings_name_and_nothing_else(name: str) -> None:
    objects = rendered(name)
    open_ports = {"redis": 6379, "s3": 9000, "gateway": PORT}
    names = {"redis": "EDGEJOULE_BROKER", "s3": "EDGEJOULE_S3_ENDPOINT", "gateway": "EDGEJOULE_GATEWAY"}
    for source, pod in pods(objects).items():
        needed = {server for server, variable in names.items() if variable in variables(pod)}
        for target in pods(objects):
            asked = (6379, PORT, 9000, 9001, METRICS, 22)
            ports = {port for port in asked if reaches(objects, source, target, port)}
            assert ports == ({open_ports[target]} if target in needed else set()), f"{source} -> {target}"


@needs_helm
@pytest.mark.parametrize("name", ["default", "keda", "external"])
def test_network_is_closed_by_default_to_every_pod(name: str) -> None:
    objects = rendered(name)
    (default,) = [p for p in of_kind(objects, "NetworkPolicy") if p["spec"].keys() == {"podSelector", "policyTypes"}]
    assert set(default["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    for pod in pods(objects).values():
        assert selects(default["spec"]["podSelector"], pod["metadata"]["labels"])


@needs_helm
def test_outside_is_reached_at_the_given_addresses_only() -> None:
    rules = [rule for p in of_kind(rendered("external"), "NetworkPolicy") for rule in p["spec"].get("egress", [])]
    outside = {
        (str(ipaddress.ip_network(peer["ipBlock"]["cidr"])), port["port"])
        for rule in rules
        for peer in rule["to"]
        for port in rule["ports"]
        if "ipBlock" in peer
    }
    assert outside == {("203.0.113.0/24", 9443), ("198.51.100.7/32", 6380), ("2001:db8::/64", 6380)}
    others = [peer for rule in rules for peer in rule["to"] if "ipBlock" not in peer]
    gateway = value_at(pods(rendered("external"))["gateway"], "metadata.labels")
    ours = [peer for peer in others if peer.keys() == {"podSelector"}]
    assert [selects(peer["podSelector"], gateway) for peer in ours] == [True]  # from the host agent
    names = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    assert [peer for peer in others if peer != names] == ours


def let_in_to_gateway(objects: list[Object]) -> list[Object]:
    """The peers from which network policies let somebody connect to the gateway."""
    gateway = value_at(pods(objects)["gateway"], "metadata.labels")
    rules = [
        rule
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], gateway) and component(policy) != "metrics"
        for rule in policy["spec"].get("ingress", [])
    ]
    assert all(rule["ports"] == [{"protocol": "TCP", "port": PORT}] for rule in rules)
    assert all(rule["from"] for rule in rules)  # none would be everybody
    return [peer for rule in rules for peer in rule["from"]]


@needs_helm
def test_gateway_lets_in_the_host_agent_and_from_outside_the_given_addresses_only() -> None:
    host_agent = value_at(pods(rendered())["host-agent"], "metadata.labels")
    (ours,) = let_in_to_gateway(rendered())
    assert selects(ours["podSelector"], host_agent)
    assert let_in_to_gateway(rendered("keda")) == [ours, {"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert let_in_to_gateway(rendered("external")) == [ours, {"ipBlock": {"cidr": "10.0.0.0/16"}}]
    boards_only = ("hostAgent.enabled=false", "gateway.service.cidrs={192.0.2.7/32}")
    assert let_in_to_gateway(rendered("default", *boards_only)) == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]
    assert let_in_to_gateway(rendered("default", "hostAgent.enabled=false")) == []


@needs_helm
def test_gateways_service_is_opened_as_the_values_say() -> None:
    balanced = service_of(rendered("keda"), "gateway")
    assert balanced["spec"]["type"] == "LoadBalancer"
    assert balanced["spec"]["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
    assert balanced["spec"]["externalTrafficPolicy"] == "Local"  # else boards would come with addresses of nodes
    assert balanced["metadata"]["annotations"] == {"service.beta.kubernetes.io/aws-load-balancer-type": "external"}
    by_port = service_of(rendered("external"), "gateway")
    assert by_port["spec"].keys() == {"type", "selector", "ports"}
    assert by_port["spec"]["type"] == "NodePort"
    assert "annotations" not in by_port["metadata"]


@needs_helm
def test_gateway_keeps_on_one_disk_what_boards_send() -> None:
    for name, persistent in (("keda", True), ("external", False)):
        objects = rendered(name)
        (gateway,) = [one for one in of_kind(objects, "Deployment") if component(one) == "gateway"]
        assert (gateway["spec"]["replicas"], gateway["spec"]["strategy"]) == (1, {"type": "Recreate"})
        volumes = gateway["spec"]["template"]["spec"]["volumes"]
        (workspace,) = [volume for volume in volumes if volume["name"] == "workspace"]
        claims = of_kind(objects, "PersistentVolumeClaim")
        assert [claim["metadata"]["name"] for claim in claims] == ["test-edgejoule-gateway"] * persistent
        if persistent:
            assert workspace["persistentVolumeClaim"] == {"claimName": "test-edgejoule-gateway"}
            assert claims[0]["spec"]["storageClassName"] == "fast"
        else:
            assert workspace["emptyDir"] == {"sizeLimit": "40Gi"}


@needs_helm
def test_host_agent_without_gateway_is_refused_in_a_sentence() -> None:
    answer = helm("template", "test", str(CHART), "--set", "gateway.enabled=false")
    assert answer.returncode != 0
    assert (
        "hostAgent.enabled needs gateway.enabled, since the host agent takes its steps from the gateway"
        in answer.stderr
    )
    assert pods(rendered("default", "hostAgent.enabled=false", "gateway.enabled=false")).keys() >= WORKERS


@needs_helm
def test_keda_alone_reaches_redis_from_outside_and_only_when_it_is_used() -> None:
    def strangers(name: str) -> list[Object]:
        policies = of_kind(rendered(name), "NetworkPolicy")
        peers = [peer for p in policies for rule in p["spec"].get("ingress", []) for peer in rule["from"]]
        return [peer for peer in peers if "namespaceSelector" in peer]

    assert strangers("default") == []
    assert [peer for peer in strangers("keda") if "podSelector" in peer] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}},
            "podSelector": {"matchLabels": {"app": "keda-operator"}},
        }
    ]


# --- metrics ------------------------------------------------------------------------------------------


@needs_helm
@for_all_values
def test_services_show_metrics_at_one_port_or_none_does(name: str) -> None:
    for service, pod in pods(rendered(name)).items():
        ports = [port for port in container_of(pod).get("ports", []) if port["name"] == "metrics"]
        shown = variables(pod).get("EDGEJOULE_METRICS", {}).get("value")
        shows = service in SERVICES and name != "minimal"
        assert ports == [{"name": "metrics", "containerPort": METRICS}] * shows, service
        assert shown == (f"0.0.0.0:{METRICS}" if shows else None), service


@needs_helm
def test_prometheus_alone_reaches_metrics_and_from_its_namespace_only() -> None:
    def let_in(objects: list[Object]) -> dict[str, list[Object]]:
        rules = [
            (policy["spec"]["podSelector"], rule["from"])
            for policy in of_kind(objects, "NetworkPolicy")
            for rule in policy["spec"].get("ingress", [])
            if {"protocol": "TCP", "port": METRICS} in rule["ports"]
        ]
        return {
            service: [peer for selector, peers in rules if selects(selector, labels) for peer in peers]
            for service, labels in ((name, pod["metadata"]["labels"]) for name, pod in pods(objects).items())
        }

    assert not any(let_in(rendered()).values())
    assert not any(let_in(rendered("default", "metrics.enabled=false", "metrics.namespace=monitoring")).values())
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    found = let_in(rendered("keda"))
    assert {service for service, peers in found.items() if peers == [monitoring]} == SERVICES
    assert {service for service, peers in found.items() if not peers} == {"init", "redis", "s3"}


@needs_helm
def test_metrics_are_not_where_the_gateway_is_open_to_boards() -> None:
    objects = rendered("keda")
    assert [port["port"] for port in service_of(objects, "gateway")["spec"]["ports"]] == [PORT]
    spec = service_of(objects, "gateway-metrics")["spec"]
    assert spec["type"] == "ClusterIP"
    assert [(port["port"], port["targetPort"]) for port in spec["ports"]] == [(METRICS, "metrics")]
    assert selects({"matchLabels": spec["selector"]}, pods(objects)["gateway"]["metadata"]["labels"])
    assert not [one for one in of_kind(rendered("minimal"), "Service") if component(one) == "gateway-metrics"]


RELABELING = closed(
    {name: {"type": "string"} for name in ("targetLabel", "regex", "replacement", "action", "separator")}
    | {"sourceLabels": {"type": "array", "items": {"type": "string"}}}
)
SECONDS = {"type": "string", "pattern": "^[0-9]+s$"}
# After podmonitor_types.go, scrapeconfig_types.go, prometheusrule_types.go of the operator; no more than is used here
MONITORING = {
    "PodMonitor": closed(
        {
            "selector": closed({"matchLabels": {"type": "object"}, "matchExpressions": {"type": "array"}}),
            "podMetricsEndpoints": {
                "type": "array",
                "items": closed(
                    {
                        "port": {"type": "string"},
                        "interval": SECONDS,
                        "scrapeTimeout": SECONDS,
                        "relabelings": {"type": "array", "items": RELABELING},
                    }
                ),
            },
        },
        required=["selector", "podMetricsEndpoints"],
    ),
    "ScrapeConfig": closed(
        {
            "httpSDConfigs": {
                "type": "array",
                "items": closed({"url": {"type": "string"}, "refreshInterval": SECONDS}, required=["url"]),
            },
            "scrapeInterval": SECONDS,
            "scrapeTimeout": SECONDS,
            "relabelings": {"type": "array", "items": RELABELING},
        }
    ),
    "PrometheusRule": closed(
        {
            "groups": {
                "type": "array",
                "items": closed(
                    {
                        "name": {"type": "string"},
                        "interval": SECONDS,
                        "rules": {
                            "type": "array",
                            "items": closed(
                                {name: {"type": "string"} for name in ("alert", "record", "expr", "for")}
                                | {name: {"type": "object"} for name in ("labels", "annotations")},
                                required=["expr"],
                            ),
                        },
                    },
                    required=["name", "rules"],
                ),
            }
        },
        required=["groups"],
    ),
}


@needs_helm
def test_operators_objects_say_what_prometheus_is_told_in_compose() -> None:
    assert not of_kind(rendered(), *MONITORING)
    objects = rendered("keda")
    for one in of_kind(objects, *MONITORING):
        jsonschema.validate(one["spec"], MONITORING[one["kind"]])
        assert one["apiVersion"] == f"monitoring.coreos.com/{'v1alpha1' if one['kind'] == 'ScrapeConfig' else 'v1'}"
        assert one["metadata"]["labels"]["release"] == "prometheus"
    config = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    (monitor,), (devices,) = of_kind(objects, "PodMonitor"), of_kind(objects, "ScrapeConfig")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    told = (config["global"]["scrape_interval"], config["global"]["scrape_timeout"])
    assert told == (endpoint["interval"], endpoint["scrapeTimeout"])
    assert told == (devices["spec"]["scrapeInterval"], devices["spec"]["scrapeTimeout"])

    def job_of(service: str) -> str | None:
        label = None
        for rule in endpoint["relabelings"]:
            assert rule["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
            if match := re.fullmatch(rule["regex"], service):
                assert rule["targetLabel"] == "job"
                label = rule["replacement"].replace("$1", match[1])
        return label

    chosen = {name: pod for name, pod in pods(objects).items() if selects(monitor["spec"]["selector"], labels_of(pod))}
    assert {name: job_of(name) for name in chosen} == {
        **dict.fromkeys(WORKERS, "worker"),
        "conductor": "conductor",
        "gateway": "gateway",
    }
    assert devices["spec"]["relabelings"] == [{"targetLabel": "job", "replacement": "device"}]
    assert {"conductor", "gateway", "worker", "device"} == jobs.keys() - {"prometheus"}
    (found,) = devices["spec"]["httpSDConfigs"]
    service = service_of(objects, "gateway-metrics")["metadata"]["name"]
    assert found["url"] == f"http://{service}.vision.svc:{METRICS}/devices"
    assert jobs["device"]["http_sd_configs"][0]["url"] == f"http://gateway:{METRICS}/devices"


@needs_helm
def test_operator_is_given_the_very_rules_that_are_tested_as_often_as_compose_has_them() -> None:
    files = sorted((ROOT / "grafana/prometheus/rules").glob("*.yml"))
    objects = of_kind(rendered("keda"), "PrometheusRule")
    config = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert len(files) == len(objects) > 1
    for file, one in zip(files, objects, strict=True):
        groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        every = {"interval": config["global"]["evaluation_interval"]}
        assert one["spec"]["groups"] == [{**group, **every} for group in groups], file.name
        names = [group["name"] for group in groups]
        assert len(set(names)) == len(names)  # which Kubernetes insists on
        assert component(one) == file.stem
    without = rendered("keda", "metrics.operator.rules=false")
    assert not of_kind(without, "PrometheusRule")
    assert of_kind(without, "PodMonitor")


@needs_helm
def test_conductor_tells_a_grafana_where_one_is_named_and_reaches_it_there_alone() -> None:
    objects = rendered("keda")
    given = variables(pods(objects)["conductor"])
    assert given["EDGEJOULE_GRAFANA"]["value"] == "http://grafana.monitoring:80"
    assert given["EDGEJOULE_GRAFANA_TOKEN"]["valueFrom"]["secretKeyRef"] == {
        "name": "edgejoule",
        "key": "GRAFANA_TOKEN",
    }
    assert given.keys() >= compose()["conductor"]["environment"].keys()
    others = [variables(pod) for name, pod in pods(objects).items() if name != "conductor"]
    assert not [variable for pod in others for variable in pod if "GRAFANA" in variable]
    (policy,) = [one for one in of_kind(objects, "NetworkPolicy") if component(one) == "grafana"]
    chosen = [name for name, pod in pods(objects).items() if selects(policy["spec"]["podSelector"], labels_of(pod))]
    assert chosen == ["conductor"]
    assert policy["spec"]["egress"] == [
        {
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"protocol": "TCP", "port": 3000}],
        }
    ]
    assert not [one for one in of_kind(rendered(), "NetworkPolicy") if component(one) == "grafana"]


def labels_of(pod: Object) -> Object:
    return dict(pod["metadata"]["labels"])


# --- disruption and exclusivity -----------------------------------------------------------------------


@needs_helm
@for_all_values
def test_budgets_choose_the_pods_of_one_service(name: str) -> None:
    objects = rendered(name)
    for budget in of_kind(objects, "PodDisruptionBudget"):
        labels = {service: pod["metadata"]["labels"] for service, pod in pods(objects).items()}
        chosen = [service for service in labels if selects(budget["spec"]["selector"], labels[service])]
        assert chosen == [component(budget)]
    expected = set() if name == "minimal" else WORKERS | {"conductor"}  # the others are one pod, which may be moved
    assert {component(budget) for budget in of_kind(objects, "PodDisruptionBudget")} == expected


@needs_helm
def test_budget_of_jobs_counts_what_is_available() -> None:
    """Of pods that no Deployment or StatefulSet owns, Kubernetes takes a whole minAvailable only."""
    (budget,) = [one for one in of_kind(rendered("keda"), "PodDisruptionBudget") if component(one) == "evaluator"]
    assert budget["spec"].keys() == {"selector", "minAvailable"}


@needs_helm
def test_host_agent_shares_a_node_only_with_workers_that_share_its_lock() -> None:
    workers = WORKERS | {"host-agent"}

    apart = pods(rendered())
    (term,) = value_at(
        apart["host-agent"]["spec"], "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    )
    assert term["topologyKey"] == "kubernetes.io/hostname"
    kept_away = {name for name, pod in apart.items() if selects(term["labelSelector"], pod["metadata"]["labels"])}
    assert kept_away == workers - {"host-agent"}

    together = pods(rendered("keda"))
    assert "affinity" not in together["host-agent"]["spec"]
    for name in workers:
        pod = together[name]
        (lock,) = [m["name"] for m in container_of(pod)["volumeMounts"] if m["mountPath"] == "/var/lock/edgejoule"]
        (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == lock]
        assert volume["hostPath"] == {"path": "/var/lib/edgejoule-locks", "type": "Directory"}
        assert variables(pod)["EDGEJOULE_LOCKS"]["value"] == "/var/lock/edgejoule"


@needs_helm
def test_trainer_gets_its_gpus_and_keeps_its_checkpoints() -> None:
    (trainer,) = of_kind(rendered("keda"), "StatefulSet")[-1:]
    assert component(trainer) == "trainer"
    container = container_of(trainer["spec"]["template"])
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}
    assert container["image"] == "edgejoule/trainer-gpu:0.1.0"
    (claim,) = trainer["spec"]["volumeClaimTemplates"]
    assert (claim["metadata"]["name"], claim["spec"]["storageClassName"]) == ("workspace", "fast")


@needs_helm
def test_init_job_runs_anew_at_each_upgrade() -> None:
    answer = helm("template", "test", str(CHART), "--is-upgrade", "--show-only", "templates/init.yaml")
    assert yaml.safe_load(answer.stdout)["metadata"]["name"] == "test-edgejoule-init-1"
    assert ".Release.Revision" in (CHART / "templates/init.yaml").read_text(encoding="utf-8")


@needs_helm
@pytest.mark.parametrize("release", ["edgejoule", "r" * 53])
def test_names_are_short_enough_whatever_the_release_is_called(release: str) -> None:
    answer = helm("template", release, str(CHART), "--values", str(VALUES["keda"]))
    objects = [found for found in yaml.safe_load_all(answer.stdout) if found]
    names = [one["metadata"]["name"] for one in objects]
    assert max(map(len, names)) <= 57  # a StatefulSet's pods and a ScaledJob's Jobs have names with 6 letters more
    kinds = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(kinds)) == len(kinds)


def with_notes(folder: Path, name: str, *settings: str) -> tuple[str, list[Object]]:
    """What a user is told, and the objects."""
    chart = folder / "edgejoule"
    shutil.copytree(CHART, chart)
    (chart / "templates/NOTES.txt").rename(chart / "notes")
    (chart / "templates/notes.yaml").write_text('kind: Notes\ntext: {{ tpl (.Files.Get "notes") . | toJson }}\n')
    objects = rendered(name, *settings, chart=chart)
    (notes,) = of_kind(objects, "Notes")
    return notes["text"], [one for one in objects if one is not notes]


@needs_helm
@for_all_values
def test_notes_name_objects_that_there_are(name: str, tmp_path: Path) -> None:
    text, objects = with_notes(tmp_path, name)
    there = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in objects}
    named = set(re.findall(r"\b(?:service|job)/[a-z0-9-]+", text))
    assert named <= there
    assert ("create secret generic" in text) == (name != "minimal")
    assert ("scaledjob" in text) == (name in ("keda", "external"))
    assert "devices create host" not in text  # the init job does it


@needs_helm
@for_all_values
def test_notes_tell_how_the_gateways_certificate_is_made(name: str, tmp_path: Path) -> None:
    text, objects = with_notes(tmp_path, name)
    names = re.findall(r"edgejoule gateway certificate (\S+)", text)
    assert names == [one["metadata"]["name"] for one in of_kind(objects, "Service") if component(one) == "gateway"]
    secrets = {
        v["secret"]["secretName"] for pod in pods(objects).values() for v in pod["spec"]["volumes"] if "secret" in v
    }
    assert set(re.findall(r"create secret tls (\S+)", text)) == secrets


@needs_helm
def test_notes_tell_how_the_host_agent_is_registered_where_no_init_job_does_it(tmp_path: Path) -> None:
    text, _ = with_notes(tmp_path, "minimal", "gateway.enabled=true", "hostAgent.enabled=true")
    assert "edgejoule devices create host --file" in text
    assert "HOST_AGENT_SECRET" in text


# --- values -------------------------------------------------------------------------------------------


def schema() -> Object:
    return dict(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))


def default_values() -> Object:
    return dict(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))


FREE = {
    "annotations",
    "labels",
    "podAnnotations",
    "nodeSelector",
    "requests",
    "limits",
}  # what the names in there are, others say


def mappings(tree: Object, path: str = "") -> Iterator[str]:
    yield path
    for name, value in tree.items():
        if isinstance(value, dict) and name not in FREE:
            yield from mappings(value, f"{path}.{name}" if path else name)


def test_schema_takes_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    jsonschema.Draft7Validator(schema()).validate(default_values())


@pytest.mark.parametrize("path", list(mappings(default_values())))
def test_schema_refuses_unknown_names_everywhere(path: str) -> None:
    values = default_values()
    (value_at(values, path) if path else values)["typo"] = "x"
    (error,) = jsonschema.Draft7Validator(schema()).iter_errors(values)
    assert "'typo' was unexpected" in error.message


def test_schema_tells_of_every_value() -> None:
    values = default_values()
    for path in mappings(values):
        tree = value_at(values, path) if path else values
        for name in list(tree):
            if name in {"requests", "limits"}:
                continue
            value = tree.pop(name)
            assert not jsonschema.Draft7Validator(schema()).is_valid(values), f"{path}.{name} may be missing"
            tree[name] = value


@needs_helm
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("trainer.replicaCount=2",), "replicaCount"),
        (("trainer.replicas=-1",), "replicas"),
        (("trainer.replicas=null",), "replicas"),
        (("evaluator.keda.max=0",), "max"),
        (("evaluator.keda.enabled=maybe",), "enabled"),
        (("image.pullPolicy=Sometimes",), "pullPolicy"),
        (("image.registry=registry.example.org/",), "registry"),
        (("trainer.image=no-tag",), "image"),
        (("store.bucket=Not_A_Bucket",), "bucket"),
        (("store.prefix=/a",), "prefix"),
        (("existingSecret=",), "existingSecret"),
        (("redis.maxMemory=lots",), "maxMemory"),
        (("trainer.workspace=50",), "workspace"),
        (("hostLock.path=relative",), "path"),
        (("trainer.resources.limits.memory=much",), "memory"),
        (("gateway.tlsSecret=",), "tlsSecret"),
        (("metrics.namespace=Not_A_Name",), "namespace"),
        (("grafana.url=grafana:3000",), "url"),
        (("grafana.url=http://grafana",), "namespace"),
        (("gateway.replicas=2",), "replicas"),
        (("gateway.service.type=ExternalName",), "type"),
        (("gateway.service.type=NodePort",), "cidrs"),
        (("gateway.service.type=LoadBalancer",), "cidrs"),
        (("gateway.service.type=LoadBalancer", "gateway.service.cidrs={boards}"), "cidrs"),
        (("gateway.service.loadBalancerSourceRanges={10.0.0.0/8}",), "loadBalancerSourceRanges"),
        (("s3.enabled=false",), "endpoint"),
        (
            ("s3.enabled=false", "s3.external.endpoint=http://s3:9000", "s3.external.cidrs={10.0.0.0/8}"),
            "existingSecret",
        ),
        (("s3.enabled=false", "s3.external.endpoint=http://s3:9000", "s3.external.existingSecret=a"), "cidrs"),
        (("s3.enabled=false", "s3.external.makeAccounts=true", "s3.external.region=eu-west-1"), "region"),
        (("redis.enabled=false", "redis.external.cidrs={10.0.0.0/8}"), "existingSecret"),
        (("redis.enabled=false", "redis.external.existingSecret=a"), "cidrs"),
        (
            (
                *("redis.enabled=false", "redis.external.existingSecret=a", "redis.external.cidrs={10.0.0.0/8}"),
                "evaluator.keda.enabled=true",
            ),
            "host",
        ),
    ],
)
def test_wrong_values_are_refused(settings: tuple[str, ...], said: str) -> None:
    given = [word for setting in settings for word in ("--set", setting)]
    answer = helm("template", "test", str(CHART), *given)
    assert answer.returncode != 0
    assert "schema" in answer.stderr
    assert said in answer.stderr
