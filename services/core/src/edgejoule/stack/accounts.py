"""The S3 accounts of the stack: one for each service, with the rights it needs, made by the init job.

    python -m edgejoule.stack.accounts

It makes the bucket of EDGEJOULE_STORE, and in it acts by the root key, which no other service has. Called again, it
changes nothing, or what has changed. Two ways lead there: MinIO's own admin API, and the IAM API that AWS invented
and others (SeaweedFS) offer; MinIO has no IAM API. Whichever it was, every account is then tried: a server that does
not hold its accounts to their rights is refused. Last, the host's own agent is registered with the gateway.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from edgejoule.boards import have_registered
from edgejoule.errors import EdgejouleError, StoreError
from edgejoule.store import open_store

HOST = "host"
"""What the device is called that the stack runs on; its agent holds HOST_AGENT_SECRET in its token."""
AGENTS = {HOST: "HOST_AGENT_SECRET", "simulated-nano": "SIMULATED_NANO_SECRET"}
"""Devices whose agents are part of the stack: the setting that holds the secret of the token of each."""
REGION = "us-east-1"

_POLICY = "edgejoule"  # name of the one policy of each user
_UPLOADS_DAYS = 7  # what a killed process left of an upload goes after so long
_SETTLED_S = 20.0  # by then every server does what it was told
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rights:
    """What an account may do to the objects whose keys begin so."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    delete: tuple[str, ...] = ()
    list: tuple[str, ...] = ()


_WORKER = Rights(
    read=("blobs/", "manifests/", "attempts/"),
    write=("probe", "blobs/", "manifests/", "attempts/"),
)
RIGHTS: Mapping[str, Rights] = {
    "conductor": Rights(  # decides what is done again, and how runs end; it commits nothing
        read=("blobs/", "manifests/", "attempts/", "runs/"),
        write=("probe", "blobs/", "attempts/", "runs/", "events/", "quarantine/"),
        delete=("blobs/", "manifests/"),
        list=("runs/",),
    ),
    "trainer": _WORKER,
    "evaluator": _WORKER,
    "analyst": _WORKER,
    "gateway": Rights(  # commits what boards send; it reads whose token is whose, and cannot make one
        read=("blobs/", "manifests/", "attempts/", "devices/", "probes/"),
        write=("probe", "blobs/", "manifests/", "attempts/", "probes/"),
        list=("devices/",),
    ),
    "operator": Rights(  # a person at the command line: brings data, submits, cancels, has failed steps tried again,
        # registers devices
        read=("blobs/", "manifests/", "attempts/", "runs/", "events/", "devices/", "probes/"),
        write=("probe", "blobs/", "manifests/", "attempts/", "runs/", "events/", "quarantine/", "devices/"),
        delete=("blobs/", "manifests/", "attempts/", "runs/"),
        list=("",),
    ),
}
"""Service to its rights in the store's bucket (docs/reference/store.md tells what lies where)."""


def access_key(service: str) -> str:
    """The access key of a service; letters and digits only, as some servers want it.

    >>> access_key("conductor")
    'edgejouleconductor'
    """
    return f"edgejoule{service}"


def secret_name(service: str) -> str:
    """The variable that holds a service's secret.

    >>> secret_name("conductor")
    'CONDUCTOR_SECRET'
    """
    return f"{service.upper()}_SECRET"


def policy(rights: Rights, bucket: str, prefix: str = "") -> dict[str, Any]:
    """Rights as a policy document, below a prefix of a bucket.

    >>> policy(Rights(read=("blobs/",), write=()), "edgejoule")["Statement"]
    [{'Effect': 'Allow', 'Action': ['s3:GetObject'], 'Resource': ['arn:aws:s3:::edgejoule/blobs/*']}]
    """
    below = f"{prefix}/" if prefix else ""

    def objects(begins: tuple[str, ...]) -> list[str]:
        keys = [f"{key}*" if key.endswith("/") else key for key in begins]
        return [f"arn:aws:s3:::{bucket}/{below}{key}" for key in keys]

    statements: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": actions, "Resource": objects(begins)}
        for actions, begins in (
            (["s3:GetObject"], rights.read),
            (["s3:PutObject", "s3:AbortMultipartUpload"], rights.write),
            (["s3:DeleteObject"], rights.delete),
        )
        if begins
    ]
    if rights.list:
        listing: dict[str, Any] = {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{bucket}"],
        }
        if below or "" not in rights.list:
            listing["Condition"] = {"StringLike": {"s3:prefix": [f"{below}{key}*" for key in rights.list]}}
        statements.append(listing)
    return {"Version": "2012-10-17", "Statement": statements}


# --- making them ----------------------------------------------------------------------------------


class Accounts(Protocol):
    """A server's way of having users."""

    def put(self, user: str, secret: str, document: Mapping[str, Any], *, known: bool) -> None:
        """Have a user with this access key (its name), secret key and policy, in place of an earlier one.

        Args:
            known: the server lets the user in with this secret already.
        """


class MinioAccounts:
    """Users by MinIO's admin API.

    A user with a policy, and not one of MinIO's *service accounts*: until October 2025 those could make themselves
    others without their own restrictions (CVE-2025-62506).
    """

    def __init__(self, endpoint: str, root_key: str, root_secret: str) -> None:
        from minio import MinioAdmin
        from minio.credentials.providers import StaticProvider

        url = urlsplit(endpoint)
        self._admin = MinioAdmin(
            endpoint=url.netloc,
            credentials=StaticProvider(root_key, root_secret),
            region=REGION,
            secure=url.scheme == "https",
        )

    def answers(self) -> str | None:
        """None when the server is MinIO, else what it said."""
        from minio.error import MinioAdminException

        try:
            return None if "deploymentID" in json.loads(self._admin.info()) else "it has no deploymentID"
        except (MinioAdminException, ValueError) as error:
            return str(error)

    def put(self, user: str, secret: str, document: Mapping[str, Any], *, known: bool) -> None:
        self._admin.user_add(user, secret)
        self._admin.policy_add(user, policy=dict(document))
        self._admin.policy_set(user, user=user)


class IamAccounts:
    """Users by the IAM API, at the S3 endpoint itself, with one inline policy each."""

    def __init__(self, endpoint: str, root_key: str, root_secret: str) -> None:
        self._iam = _client("iam", endpoint, root_key, root_secret)
        self._secret = ""
        self._user = ""
        self._iam.meta.events.register("before-call.iam.CreateAccessKey", self._name_keys)

    def _name_keys(self, params: dict[str, Any], **_: Any) -> None:
        """AWS draws the keys by lot; others take those that are given."""
        params["body"].update(AccessKeyId=self._user, SecretAccessKey=self._secret)

    def put(self, user: str, secret: str, document: Mapping[str, Any], *, known: bool) -> None:
        with suppress(self._iam.exceptions.EntityAlreadyExistsException):
            self._iam.create_user(UserName=user)
        self._iam.put_user_policy(UserName=user, PolicyName=_POLICY, PolicyDocument=json.dumps(document))
        if known:
            return
        for key in self._iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
            self._iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
        self._user, self._secret = user, secret
        made = self._iam.create_access_key(UserName=user)["AccessKey"]
        if (made["AccessKeyId"], made["SecretAccessKey"]) != (user, secret):
            raise StoreError(
                "the S3 server chooses the keys of its accounts itself: make them by hand, as AWS wants it"
            )


def make_accounts(
    bucket: str, prefix: str, endpoint: str, root_key: str, root_secret: str, secrets: Mapping[str, str]
) -> None:
    """Have a bucket, and in it an account for each service that there is a secret of; try each.

    Raises:
        StoreError: the server does not answer, refuses, or does not hold an account to its rights.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from minio.error import MinioAdminException

    try:
        s3 = _client("s3", endpoint, root_key, root_secret)
        _make_bucket(s3, bucket)
        accounts, minio_said = _accounts(endpoint, root_key, root_secret)
        if minio_said:
            _limit_uploads(s3, bucket)  # MinIO does so by itself
        for service, secret in secrets.items():
            user, rights = access_key(service), RIGHTS[service]
            own = _client("s3", endpoint, user, secret)
            accounts.put(user, secret, policy(rights, bucket, prefix), known=_lets_in(own, bucket, prefix))
            _try_out(own, service, rights, bucket, prefix)
            _log.info("%s: account %s", service, user)
    except (BotoCoreError, ClientError, ResponseParserError, MinioAdminException) as error:
        raise StoreError(f"the S3 server {endpoint} makes no accounts for the stack: {error}; {_ADVICE}") from error


_ADVICE = (
    "check the root key in .env, and that the server offers MinIO's admin API or, with accounts that can be changed, "
    "the IAM API"
)


def _accounts(endpoint: str, root_key: str, root_secret: str) -> tuple[Accounts, str | None]:
    """The way of this server, and, where it is not MinIO's, what the server said to that."""
    minio = MinioAccounts(endpoint, root_key, root_secret)
    if (said := minio.answers()) is None:
        _log.info("%s is MinIO: accounts by its admin API", endpoint)
        return minio, None
    _log.info("%s is not MinIO (%s): accounts by the IAM API", endpoint, " ".join(said.split())[:200])
    return IamAccounts(endpoint, root_key, root_secret), said


def _client(service: str, endpoint: str, key: str, secret: str) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    settings = Config(
        connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 5}, s3={"addressing_style": "path"}
    )
    return Session(key, secret, region_name=REGION).client(service, endpoint_url=endpoint, config=settings)


def _make_bucket(s3: Any, bucket: str) -> None:
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=bucket)
        _log.info("bucket %s is there", bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.create_bucket(Bucket=bucket)
        _log.info("bucket %s made", bucket)


def _limit_uploads(s3: Any, bucket: str) -> None:
    from botocore.exceptions import ClientError

    rule = {
        "ID": "uploads-cut-short",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _UPLOADS_DAYS},
    }
    try:
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    except ClientError as error:
        _log.warning("uploads that were cut short will stay, since the server takes no lifecycle rule: %s", error)


# --- trying them out ------------------------------------------------------------------------------


def _lets_in(own: Any, bucket: str, prefix: str) -> bool:
    """Whether the server knows this access key with this secret key."""
    return _code(lambda: own.get_object(Bucket=bucket, Key=_key(prefix, "manifests/none"))) in _ABSENT


_ABSENT = ("NoSuchKey", "404")
_DENIED = ("AccessDenied", "403")


def _try_out(own: Any, service: str, rights: Rights, bucket: str, prefix: str) -> None:
    """Make sure that an account can do its work, and nothing that it has no right to.

    What it is let do where it should not be able to is tried on keys that no one uses.
    """
    at = {"Bucket": bucket}

    def read(begins: str) -> str | None:
        return _code(lambda: own.get_object(**at, Key=_key(prefix, begins + "none")))

    def write(begins: str) -> str | None:
        return _code(lambda: own.put_object(**at, Key=_key(prefix, begins), Body=b"", IfNoneMatch="*"))

    deadline = time.monotonic() + _SETTLED_S
    while not _lets_in(own, bucket, prefix) or write("probe") not in (None, "PreconditionFailed", "412"):
        if time.monotonic() > deadline:
            said = read("manifests/") or write("probe")
            raise StoreError(f"the account of {service} was made, but the S3 server refuses it ({said}): see its log")
        time.sleep(0.2)
    tried = {
        f"read {begins}*": read(begins)
        for begins in ("blobs/", "manifests/", "attempts/", "runs/", "events/", "quarantine/", "devices/", "probes/")
        if begins not in rights.read
    }
    tried |= {
        f"write {begins}*": write(begins + "none")
        for begins in ("manifests/", "runs/", "events/", "quarantine/", "devices/", "probes/", "other/")
        if begins not in rights.write
    }
    if "" not in rights.list:
        tried["list the bucket"] = _code(lambda: own.list_objects_v2(**at, MaxKeys=1))
    tried["make a bucket"] = _code(lambda: own.create_bucket(Bucket=f"{bucket}-none"))
    if allowed := [what for what, code in tried.items() if code not in _DENIED]:
        raise StoreError(
            f"the S3 server lets the account of {service} {allowed[0]}, which its policy does not allow "
            f"({tried[allowed[0]] or 'it did'}): use a server that holds accounts to their policies"
        )


def _key(prefix: str, key: str) -> str:
    return f"{prefix}/{key}" if prefix else key


def _code(request: Callable[[], Any]) -> str | None:
    """The code of the server's refusal; None when it did as asked."""
    from botocore.exceptions import ClientError

    try:
        request()
    except ClientError as error:
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    return None


def main() -> None:
    """Carry it out as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        bucket, _, prefix = _setting("EDGEJOULE_STORE").removeprefix("s3://").strip("/").partition("/")
        make_accounts(
            bucket,
            prefix,
            _setting("EDGEJOULE_S3_ENDPOINT"),
            _setting("EDGEJOULE_S3_ACCESS_KEY"),
            _setting("EDGEJOULE_S3_SECRET_KEY"),
            {service: _setting(secret_name(service)) for service in RIGHTS},
        )
        store = open_store(_setting("EDGEJOULE_STORE"), os.environ)
        for device, secret in AGENTS.items():
            if device == HOST or os.environ.get(secret):
                have_registered(device, f"{device}.{_setting(secret)}", store)
                _log.info("%s: registered with the gateway", device)
    except EdgejouleError as error:
        sys.exit(str(error))


def _setting(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise StoreError(f"{name} is not set, and without it no accounts can be made: set it")
    return value


if __name__ == "__main__":
    main()
