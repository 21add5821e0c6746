"""Every service's S3 account does its work, and nothing besides; asked of a real server with its own credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from servers import RedisServer, S3Server

from edgejoule.errors import StoreError
from edgejoule.stack.accounts import RIGHTS, Rights, access_key, make_accounts, policy
from edgejoule.stack.coordination import Coordination
from edgejoule.stack.health import look
from edgejoule.stack.metrics import Metrics
from edgejoule.store import Made, Manifest, open_store

BUCKET = "stack"
SECRETS = {service: f"{number:040x}" for number, service in enumerate(RIGHTS)}
KEY = "0" * 64


class ServerWithUsers(S3Server):
    """An S3 server whose IAM API may make users."""

    def _command(self) -> list[str]:
        return [part for part in super()._command() if part != "-s3.iam=false"] + ["-s3.iam.readOnly=false"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerWithUsers]:
    server = ServerWithUsers(tmp_path_factory.mktemp("s3"))
    server.start()
    make(server, SECRETS)
    yield server
    server.kill()


def make(server: S3Server, secrets: Mapping[str, str]) -> None:
    make_accounts(BUCKET, "", server.endpoint, server.access_key, server.secret_key, secrets)


def client(server: S3Server, service: str, secret: str | None = None, api: str = "s3") -> Any:
    return boto3.client(
        api,
        endpoint_url=server.endpoint,
        aws_access_key_id=access_key(service),
        aws_secret_access_key=secret or SECRETS[service],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def settings(server: S3Server, service: str, folder: Path) -> dict[str, str]:
    return {
        "EDGEJOULE_S3_ENDPOINT": server.endpoint,
        "EDGEJOULE_S3_ACCESS_KEY": access_key(service),
        "EDGEJOULE_S3_SECRET_KEY": SECRETS[service],
        "EDGEJOULE_WORKSPACE": str(folder),
    }


def refusal(call: Any, **arguments: Any) -> str | None:
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response.get("Error", {}).get("Code") or error.response["ResponseMetadata"]["HTTPStatusCode"])
    return None


@pytest.mark.parametrize("service", ["trainer", "evaluator", "analyst", "gateway"])
def test_worker_carries_a_step_through_with_its_own_account(
    server: ServerWithUsers, service: str, tmp_path: Path
) -> None:
    store = open_store(f"s3://{BUCKET}", settings(server, service, tmp_path))
    key = f"{list(RIGHTS).index(service):064x}"
    assert store.manifest(key) is None
    assert store.attempts(key) == []
    file = store.outputs(key) / "record"
    file.write_bytes(service.encode() * (2 << 20))  # goes up in parts
    blob = store.take(file)
    made = Made(at="", host="", duration_s=1.0, edgejoule="")
    manifest = Manifest(
        key=key,
        kind="score",
        version=1,
        step="score",
        parameters={},
        inputs={},
        outputs={"record": blob},
        outcome="ok",
        reason=None,
        made=made,
    )
    assert store.commit(manifest) == manifest
    assert store.fetch(blob.sha256).exists()


@pytest.mark.parametrize("service", ["trainer", "evaluator", "analyst", "gateway"])
def test_worker_is_refused_what_it_does_not_need(server: ServerWithUsers, service: str) -> None:
    root, own = server.client(), client(server, service)
    root.put_object(Bucket=BUCKET, Key="runs/secret/plan.json", Body=b"{}")
    root.put_object(Bucket=BUCKET, Key=f"manifests/{KEY}.json", Body=b"{}")
    for call, arguments in (
        (own.get_object, {"Key": "runs/secret/plan.json"}),
        (own.put_object, {"Key": "runs/secret/plan.json", "Body": b""}),
        (own.put_object, {"Key": "elsewhere", "Body": b""}),
        (own.delete_object, {"Key": f"manifests/{KEY}.json"}),
        (own.copy_object, {"Key": "blobs/copy", "CopySource": f"{BUCKET}/runs/secret/plan.json"}),
        (own.list_objects_v2, {}),
        (own.delete_bucket, {}),
        (own.put_bucket_policy, {"Policy": json.dumps(policy(Rights(read=("",), write=("",)), BUCKET))}),
    ):
        assert refusal(call, Bucket=BUCKET, **arguments) == "AccessDenied", arguments
    assert refusal(own.delete_objects, Bucket=BUCKET, Delete={"Objects": [{"Key": f"manifests/{KEY}.json"}]}) is None
    assert refusal(own.get_object, Bucket=BUCKET, Key=f"manifests/{KEY}.json") is None, "it was deleted after all"


def test_no_account_makes_or_changes_accounts(server: ServerWithUsers) -> None:
    for service in RIGHTS:
        iam = client(server, service, api="iam")
        assert refusal(iam.create_user, UserName="another")
        allow_all = json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        )
        assert refusal(iam.put_user_policy, UserName=access_key(service), PolicyName="p", PolicyDocument=allow_all)


def test_gateway_reads_whose_token_it_is_and_makes_none(server: ServerWithUsers, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}", settings(server, "gateway", tmp_path))
    root = server.client()
    root.put_object(Bucket=BUCKET, Key="devices/nano.json", Body=b"{}")
    assert store.device_names() == ["nano"]
    assert store.device("devices", "nano") == b"{}"
    store.put_device("probes", "nano", b"{}")
    assert store.device("probes", "nano") == b"{}"
    with pytest.raises(StoreError):
        store.put_device("devices", "nano", b"{}")
    assert refusal(client(server, "trainer").get_object, Bucket=BUCKET, Key="devices/nano.json") == "AccessDenied"


def test_conductor_commits_no_manifest(server: ServerWithUsers) -> None:
    own = client(server, "conductor")
    assert refusal(own.put_object, Bucket=BUCKET, Key="manifests/x.json", Body=b"") == "AccessDenied"


def test_operator_submits_and_reads_a_run(server: ServerWithUsers, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}", settings(server, "operator", tmp_path))
    store.put_run_file("run", "plan.json", b"{}")
    assert "run" in store.run_names()
    store.remove_run_file("run", "plan.json")
    store.add_event("run", {"event": "started"})
    assert store.events("run") == [{"event": "started"}]
    store.forget_attempts(KEY)
    store.quarantine(KEY)
    assert open_store(f"s3://{BUCKET}", settings(server, "operator", tmp_path), writing=False).manifest(KEY) is None


def test_conductor_ends_a_run_and_sets_damage_aside(server: ServerWithUsers, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}", settings(server, "conductor", tmp_path))
    store.put(b"an outcome file")
    store.put_run_file("run", "ended.json", b"{}")
    store.add_event("run", {"event": "ended"})
    server.client().put_object(Bucket=BUCKET, Key=f"manifests/{KEY}.json", Body=b"damaged")
    store.quarantine(KEY)
    assert store.manifest(KEY) is None


def test_conductor_sees_the_store_answer(server: ServerWithUsers, tmp_path: Path) -> None:
    """With its own rights: it asked for what it may not list, and showed a store that was up as down."""
    metrics = Metrics("conductor")
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    try:
        look(metrics, open_store(f"s3://{BUCKET}", settings(server, "conductor", tmp_path)), Coordination(redis.url))
    finally:
        redis.kill()
    assert b"edgejoule_store_up 1.0" in metrics.page()[1]


def test_stranger_is_refused(server: ServerWithUsers) -> None:
    assert refusal(client(server, "trainer", secret="f" * 40).get_object, Bucket=BUCKET, Key="probe")


def test_accounts_take_new_secrets_and_drop_the_old(server: ServerWithUsers) -> None:
    new = {"analyst": "a" * 40}
    make(server, new)
    try:
        assert (
            refusal(client(server, "analyst", new["analyst"]).get_object, Bucket=BUCKET, Key="manifests/n")
            == "NoSuchKey"
        )
        assert refusal(client(server, "analyst").get_object, Bucket=BUCKET, Key="manifests/n") != "NoSuchKey"
    finally:
        make(server, SECRETS)


def test_server_that_makes_no_accounts_is_refused_in_a_sentence(s3_server: S3Server) -> None:
    with pytest.raises(StoreError, match="makes no accounts for the stack"):
        make(s3_server, SECRETS)
