"""What only a store in a bucket has: the network, its refusals, parts of large blobs, and copies on this host."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from servers import BUCKET, S3Server, free_ports

from edgejoule import bucket as bucket_module
from edgejoule import runs
from edgejoule.bucket import Bucket
from edgejoule.doctor import store_health
from edgejoule.errors import CorruptBlobError, StoreError
from edgejoule.executor import run_plan
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan, Ref, Step
from edgejoule.runs import Run
from edgejoule.s3_store import S3Store
from edgejoule.store import Attempt, Blob, Made, Manifest, open_store

KEY = hashlib.sha256(b"key").hexdigest()
TOYS = Path(__file__).parent / "toys"
MIB = 2**20


@pytest.fixture
def environment(s3_server: S3Server, tmp_path: Path) -> dict[str, str]:
    return {**s3_server.environment(prefix=tmp_path.name), "EDGEJOULE_WORKSPACE": str(tmp_path / "workspace")}


def open_at(environment: dict[str, str], writing: bool = True, **changed: str) -> S3Store:
    settings = {**environment, **changed}
    store = open_store(settings["EDGEJOULE_STORE"], settings, writing=writing)
    assert isinstance(store, S3Store)
    return store


@pytest.fixture
def store(environment: dict[str, str]) -> S3Store:
    return open_at(environment)


@pytest.fixture
def elsewhere(environment: dict[str, str], tmp_path: Path) -> S3Store:
    """The same store, seen from another host."""
    return open_at(environment, EDGEJOULE_WORKSPACE=str(tmp_path / "another"))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    """A server to kill."""
    server = S3Server(tmp_path / "server")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "PART_BYTES", 5 * MIB)  # the least that S3 allows


ATTEMPT = Attempt(step="a", outcome="failed", reason="x", transient=True, at="", host="", duration_s=1)


def manifest_of(*blobs: Blob, key: str = KEY, kind: str = "toy", duration_s: float = 1.0) -> Manifest:
    return Manifest(
        key=key,
        kind=kind,
        version=1,
        step="step",
        parameters={},
        inputs={},
        outputs={f"output-{number}": blob for number, blob in enumerate(blobs)},
        outcome="ok",
        reason=None,
        made=Made(at="", host="", duration_s=duration_s, edgejoule="0"),
    )


def objects(server: S3Server, environment: dict[str, str]) -> dict[str, int]:
    """What the store has in the bucket: name and size."""
    prefix = environment["EDGEJOULE_STORE"].removeprefix(f"s3://{BUCKET}/") + "/"
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"].removeprefix(prefix): entry["Size"] for page in pages for entry in page.get("Contents", ())}


class Requests(Counter[str]):
    """Counts the requests that a store makes, by operation."""

    def __init__(self, store: S3Store) -> None:
        super().__init__()
        events = store._bucket._client.meta.events
        events.register("before-send.s3", lambda request, event_name, **_: self.update([event_name.split(".")[-1]]))

    def take(self) -> dict[str, int]:
        counted = dict(self)
        self.clear()
        return counted


# --- requests ---


def test_requests_of_a_step_are_those_that_the_reference_lists(store: S3Store, elsewhere: S3Store) -> None:
    requests = Requests(store)

    assert store.manifest(KEY) is None
    assert store.attempts(KEY) == []
    assert requests.take() == {"GetObject": 2}
    one, two = store.put(b"one"), store.put(b"two")
    assert requests.take() == {"PutObject": 2}
    store.log(KEY, 1).touch()
    store.keep_log(KEY, 1)
    assert requests.take() == {}
    store.commit(manifest_of(one, two))
    assert requests.take() == {"PutObject": 1}
    store.manifest(KEY, blobs=False)
    assert requests.take() == {"GetObject": 1}
    store.manifest(KEY)
    assert requests.take() == {"GetObject": 1, "HeadObject": 2}
    store.fetch(one.sha256)  # made here, so it is here
    assert requests.take() == {}
    store.put(b"one")
    assert requests.take() == {"PutObject": 1, "HeadObject": 1}
    requests = Requests(elsewhere)
    elsewhere.fetch(one.sha256)
    elsewhere.fetch(one.sha256)
    assert requests.take() == {"GetObject": 1}


def test_making_sure_that_a_known_server_can_takes_one_request(store: S3Store) -> None:
    requests = Requests(store)
    store._probe()

    assert requests.take() == {"PutObject": 1}


def test_durations_come_of_one_listing_however_many_manifests_there_are(store: S3Store) -> None:
    keys = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(1003)]

    def commit(numbered: tuple[int, str]) -> None:
        number, key = numbered
        store.commit(manifest_of(key=key, kind="even" if number % 2 == 0 else "odd", duration_s=1 + number % 2))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(commit, enumerate(keys)))
    requests = Requests(store)

    assert store.durations_s() == {"even": 1, "odd": 2}
    assert requests.take() == {"ListObjectsV2": 1, "GetObject": 200}
    assert [found.key for found in store._bucket.objects("manifests/")] == [
        f"manifests/{key}.json" for key in sorted(keys)
    ]
    assert requests.take() == {"ListObjectsV2": 2}


# --- large blobs ---


@pytest.mark.usefixtures("small_parts")
def test_large_blob_goes_in_parts_once(
    store: S3Store, elsewhere: S3Store, environment: dict[str, str], s3_server: S3Server
) -> None:
    data = os.urandom(12 * MIB + 7)
    requests = Requests(store)
    blob = store.put(data)

    assert requests.take() == {
        "HeadObject": 1,
        "CreateMultipartUpload": 1,
        "UploadPart": 3,
        "CompleteMultipartUpload": 1,
    }
    assert blob.size_bytes == len(data)
    assert elsewhere.fetch(blob.sha256).read_bytes() == data
    store.put(data)
    assert requests.take() == {"HeadObject": 1}
    name = f"blobs/sha256/{blob.sha256[:2]}/{blob.sha256}"
    prefix = environment["EDGEJOULE_STORE"].removeprefix(f"s3://{BUCKET}/")
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    s3_server.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=damaged)
    store.put(data)
    assert s3_server.client().get_object(Bucket=BUCKET, Key=f"{prefix}/{name}")["Body"].read() == data


UPLOAD = """
import os
from edgejoule import bucket
from edgejoule.store import open_store
bucket.PART_BYTES = 5 * 2**20
bucket._PARTS_AT_ONCE = 1
store = open_store(os.environ["EDGEJOULE_STORE"], os.environ)
file = store.outputs("0" * 64) / "weights"
file.write_bytes(b"7" * (60 * 2**20))
print("ready", flush=True)
store.take(file)
"""


def test_killed_upload_leaves_nothing_that_counts(
    store: S3Store, environment: dict[str, str], s3_server: S3Server
) -> None:
    client = s3_server.client()
    writer = subprocess.Popen(
        [sys.executable, "-c", UPLOAD], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    assert writer.stdout.readline() == "ready\n"
    prefix = environment["EDGEJOULE_STORE"].removeprefix(f"s3://{BUCKET}/")
    parts: list[Any] = []
    while len(parts) < 2 and writer.poll() is None:
        for upload in client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/").get("Uploads", ()):
            parts = client.list_parts(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", [])
    writer.kill()
    writer.wait()

    data = b"7" * (60 * MIB)
    sha256 = hashlib.sha256(data).hexdigest()
    assert 2 <= len(parts) < 12
    assert set(objects(s3_server, environment)) == {"probe"}
    with pytest.raises(CorruptBlobError, match="is gone"):
        store.fetch(sha256)
    assert store.put(data).sha256 == sha256


# --- refusals ---


def test_server_that_is_not_there_is_told(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgejoule.s3_store.PATIENCE_AT_START_S", 0.3)
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"

    with pytest.raises(StoreError) as told:
        open_at(environment, EDGEJOULE_S3_ENDPOINT=endpoint)
    assert str(told.value) == (
        f"the S3 server {endpoint} did not write probe within 0 s (no connection): check that it runs and can be "
        "reached, and EDGEJOULE_S3_ENDPOINT, then run the same command again"
    )


@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"EDGEJOULE_S3_ACCESS_KEY": "nobody"}, "does not know the access key: check EDGEJOULE_S3_ACCESS_KEY"),
        ({"EDGEJOULE_S3_SECRET_KEY": "wrong"}, "does not accept the secret key: check EDGEJOULE_S3_SECRET_KEY"),
        (
            {"EDGEJOULE_STORE": "s3://no-such-bucket/x"},
            "has no bucket 'no-such-bucket': create it, or check",
        ),
        (
            {"EDGEJOULE_S3_ACCESS_KEY": "stranger"},
            "does not let this access key .*: give its user the rights",
        ),
    ],
)
def test_refusal_is_told_in_a_sentence_that_names_the_server(
    environment: dict[str, str], changed: dict[str, str], sentence: str, writing: bool
) -> None:
    with pytest.raises(StoreError, match=f"^the S3 server {environment['EDGEJOULE_S3_ENDPOINT']} {sentence}") as told:
        open_at(environment, writing, **changed)
    assert environment["EDGEJOULE_S3_SECRET_KEY"] not in str(told.value)


def test_who_may_only_read_reads(store: S3Store, environment: dict[str, str], tmp_path: Path) -> None:
    reader = {**environment, "EDGEJOULE_S3_ACCESS_KEY": "reader", "EDGEJOULE_WORKSPACE": str(tmp_path / "another")}
    blob = store.put(b"hello")
    store.commit(manifest_of(blob))
    opened = open_at(reader, writing=False)

    assert opened.manifest(KEY) == manifest_of(blob)
    assert opened.fetch(blob.sha256).read_bytes() == b"hello"
    with pytest.raises(StoreError, match="does not let this access key write blobs/"):
        opened.put(b"another")
    with pytest.raises(StoreError, match="does not let this access key write probe"):
        open_at(reader)
    assert list((tmp_path / "another" / "tmp").iterdir()) == []


def test_clock_that_is_wrong_is_told(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    late = datetime.now(timezone.utc) - timedelta(hours=2)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_: late.replace(tzinfo=None))

    with pytest.raises(StoreError, match=r"has another time than this host, by minutes: set the clocks of both"):
        open_at(environment)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"EDGEJOULE_STORE": "s3://"}, "s3:// names no bucket: write s3://BUCKET or s3://BUCKET/PREFIX"),
        ({"EDGEJOULE_STORE": "s3://UPPER/x"}, "s3://UPPER/x names no bucket: write "),
        (
            {"EDGEJOULE_STORE": "http://host/x"},
            "http://host/x is no store that edgejoule knows: name a folder or s3://",
        ),
        ({"EDGEJOULE_S3_ACCESS_KEY": ""}, "needs a key, and EDGEJOULE_S3_ACCESS_KEY is not set: set it"),
        ({"EDGEJOULE_S3_SECRET_KEY": ""}, "needs a key, and EDGEJOULE_S3_SECRET_KEY is not set: set it"),
        (
            {"EDGEJOULE_S3_ENDPOINT": "minio:9000"},
            "the S3 server minio:9000 cannot be named so .*: check EDGE",
        ),
        ({"EDGEJOULE_CACHE_GB": "big"}, "EDGEJOULE_CACHE_GB is 'big', which is no size: give gigabytes, such as 20"),
        ({"EDGEJOULE_CACHE_GB": "nan"}, "EDGEJOULE_CACHE_GB is 'nan', which is no size"),
        ({"EDGEJOULE_CACHE_GB": "-1"}, "EDGEJOULE_CACHE_GB is '-1', which is no size"),
        ({"EDGEJOULE_WORKSPACE": os.devnull}, f"the workspace {os.devnull} cannot be a folder"),
    ],
)
def test_wrong_setting_is_told(environment: dict[str, str], changed: dict[str, str], sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        open_at(environment, **changed)


def test_missing_client_is_told_with_the_extra_to_install(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)

    with pytest.raises(StoreError, match=r"needs an S3 client, which is missing: pip install 'edgejoule\[stack\]'"):
        open_at(environment)


class Careless(BaseHTTPRequestHandler):
    """An S3 server that makes an object anew whatever the request says."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_server_that_ignores_the_condition_is_refused(environment: dict[str, str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with pytest.raises(StoreError, match=r"ignores If-None-Match\), so two could commit the same step: use a "):
                open_at(environment, EDGEJOULE_S3_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()


# --- faults that pass, and those that do not ---


def test_step_outlives_a_server_that_is_away_for_a_while(own_server: S3Server, tmp_path: Path) -> None:
    environment = {**own_server.environment(), "EDGEJOULE_WORKSPACE": str(tmp_path / "workspace")}
    store = open_at(environment)
    kept = store.put(b"kept")
    store.commit(manifest_of(kept))
    own_server.kill()
    back = threading.Timer(2.0, own_server.start)
    back.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            made = pool.submit(store.put, b"made while it was away")
            tried = pool.submit(store.add_attempt, KEY, ATTEMPT)
            asked = pool.submit(store.manifest, KEY)
            assert asked.result() == manifest_of(kept)
            tried.result()
            assert made.result().size_bytes == 22
    finally:
        back.join()
    assert [one.reason for one in store.attempts(KEY)] == ["x"]


def test_server_that_stays_away_is_told_once_patience_ends(store: S3Store) -> None:
    away = f"http://127.0.0.1:{free_ports(1)[0]}"
    store._bucket = Bucket(
        BUCKET, "", endpoint=away, access_key="a", secret_key="b", region="us-east-1", patience_s=1.0
    )
    began = time.monotonic()

    with pytest.raises(StoreError, match=f"{away} did not read manifests/.* within 1 s "):
        store.manifest(KEY)
    assert 1.0 <= time.monotonic() - began < 3.0
    with pytest.raises(StoreError, match="did not write blobs/"):
        store.put(b"hello")
    assert list((store.path / "tmp").iterdir()) == []


def test_answer_that_was_lost_does_not_count_a_failure_twice(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ReadTimeoutError

    put = store._bucket._client.put_object
    lost: list[str] = []

    def put_and_lose(**request: Any) -> Any:
        answer = put(**request)
        if not lost:
            lost.append(request["Key"])
            raise ReadTimeoutError(endpoint_url="x")
        return answer

    monkeypatch.setattr(store._bucket._client, "put_object", put_and_lose)
    store.add_attempt(KEY, ATTEMPT)
    assert len(lost) == 1
    assert len(store.attempts(KEY)) == 1
    lost.clear()
    assert store.commit(manifest_of()) == manifest_of()
    assert len(lost) == 1


# --- the bucket's parts ---


def test_prefixes_keep_stores_apart(store: S3Store, environment: dict[str, str]) -> None:
    store.commit(manifest_of())
    store.put_run_file("run", "plan.json", b"{}")
    other = open_at(environment, EDGEJOULE_STORE=environment["EDGEJOULE_STORE"] + "/inner/")

    assert other.where == environment["EDGEJOULE_STORE"] + "/inner"
    assert other.manifest(KEY) is None
    assert other.run_names() == []


def test_scratch_that_nobody_touched_for_a_week_is_swept(store: S3Store, environment: dict[str, str]) -> None:
    old, new, fed = (store.scratch(key * 64) for key in "012")
    (fed / "checkpoint").touch()
    for folder in (old, old.parent, fed, fed.parent):
        os.utime(folder, (0, 0))
    open_at(environment)

    assert [folder.exists() for folder in (old, new, fed)] == [False, True, True]


# --- copies on this host ---


def test_damaged_copy_is_fetched_again(store: S3Store) -> None:
    blob = store.put(b"hello")
    copy = store.fetch(blob.sha256)
    copy.chmod(0o644)
    copy.write_bytes(b"hellO")

    assert store.fetch(blob.sha256).read_bytes() == b"hello"


def test_run_on_a_bucket_goes_as_in_a_folder_and_repairs_what_was_damaged(
    store: S3Store,
    elsewhere: S3Store,
    environment: dict[str, str],
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    kinds = Kinds({"toy": "toy_step"})
    first = Step("a", "toy", {"name": "a"}, {})
    plan = Plan({"a": first, "b": Step("b", "toy", {"name": "b"}, {"from-a": Ref("a", "text", False)})}, ())

    ended = run_plan(plan, store, run="test", kinds=kinds, workers=2)
    assert {id: outcome.outcome for id, outcome in ended.outcomes.items()} == {"a": "ok", "b": "ok"}
    again = run_plan(plan, elsewhere, run="test", kinds=kinds, workers=2)
    assert again.cached == ["a", "b"]
    made = ended.outcomes["a"].manifest
    assert made
    sha256 = made.outputs["text"].sha256
    prefix = environment["EDGEJOULE_STORE"].removeprefix(f"s3://{BUCKET}/")
    size_bytes = made.outputs["text"].size_bytes
    s3_server.client().put_object(
        Bucket=BUCKET, Key=f"{prefix}/blobs/sha256/{sha256[:2]}/{sha256}", Body=b"x" * size_bytes
    )
    longer = Plan({**plan.steps, "c": Step("c", "toy", {"name": "c"}, {"from-a": Ref("a", "text", False)})}, ())
    repaired = run_plan(longer, elsewhere, run="test", kinds=kinds, workers=2)

    assert repaired.executed == ["a", "c"]
    events = [(event["event"], event["step"]) for event in store.events("test")]
    assert ("quarantined", "a") in events
    assert events[0] == ("started", "a")


def call(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from edgejoule.cli import main; main()", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_commands_take_a_bucket_for_a_store(store: S3Store, environment: dict[str, str]) -> None:
    where = environment["EDGEJOULE_STORE"]
    none = call(["status"], environment)
    runs.save(Run("nightly", {}, Plan({}, ())), store)
    one = call(["status", "--store", where], environment)
    absent = call(["status", "weekly"], environment)
    keyless = call(["status"], {**environment, "EDGEJOULE_S3_ACCESS_KEY": ""})

    assert (none.returncode, none.stdout) == (0, f"There are no runs yet in the store {where}.\n")
    assert (one.returncode, one.stdout) == (0, "nightly: \n")
    assert (absent.returncode, absent.stderr) == (
        1,
        f"there is no run 'weekly' in the store {where}; its runs are: nightly\n",
    )
    assert (keyless.returncode, keyless.stderr) == (
        1,
        f"the store {where} needs a key, and EDGEJOULE_S3_ACCESS_KEY is not set: set it\n",
    )


def test_doctor_says_how_a_bucket_is(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert store_health(environment["EDGEJOULE_STORE"])["answer"] == "can be read and written"
    monkeypatch.setenv("EDGEJOULE_S3_ACCESS_KEY", "nobody")
    assert store_health(environment["EDGEJOULE_STORE"])["answer"].startswith("cannot be used: the S3 server http://")
