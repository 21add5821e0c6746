"""The store, of either kind: what is written once, what counts as done, and what a fault leaves."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import BUCKET, S3Server

from edgejoule.errors import CorruptBlobError, CorruptManifestError, StepError, StoreError
from edgejoule.folder_store import FolderStore
from edgejoule.store import Attempt, Blob, Made, Manifest, Store, open_store, settled_failure

KEY = hashlib.sha256(b"key").hexdigest()
NOBODY = 65534


class Folder:
    """Where a folder store keeps things, to look at them and to damage them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {"EDGEJOULE_STORE": str(path)}

    def open(self) -> Any:
        return open_store(self.environment["EDGEJOULE_STORE"], self.environment)

    def names(self, prefix: str) -> list[str]:
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        return [name for name in (str(file.relative_to(self.path)) for file in files) if name.startswith(prefix)]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        self.delete(name)
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove copies that would hide a damage."""


class Bucket(Folder):
    """The same of a bucket; ``path`` is the workspace."""

    def __init__(self, server: S3Server, prefix: str, path: Path) -> None:
        super().__init__(path)
        self.environment = {**server.environment(prefix=prefix), "EDGEJOULE_WORKSPACE": str(path)}
        self._prefix = f"{prefix}/"
        self._client = server.client()

    def names(self, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self._prefix + prefix)
        return [entry["Key"].removeprefix(self._prefix) for page in pages for entry in page.get("Contents", ())]

    def read(self, name: str) -> bytes:
        return self._client.get_object(Bucket=BUCKET, Key=self._prefix + name)["Body"].read()

    def write(self, name: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=self._prefix + name, Body=data)

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=self._prefix + name)

    def forget(self) -> None:
        shutil.rmtree(self.path / "cache")


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "folder":
        return Folder(tmp_path / "store")
    return Bucket(request.getfixturevalue("s3_server"), tmp_path.name, tmp_path / "workspace")


@pytest.fixture
def store(place: Folder) -> Any:
    return place.open()


def blob_name(sha256: str) -> str:
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def manifest_of(
    *blobs: Blob, key: str = KEY, step: str = "step", kind: str = "toy", duration_s: float = 1.0
) -> Manifest:
    return Manifest(
        key=key,
        kind=kind,
        version=1,
        step=step,
        parameters={"threads": 1, "name": "å"},
        inputs={},
        outputs={f"output-{number}": blob for number, blob in enumerate(blobs)},
        outcome="ok",
        reason=None,
        made=Made(at="2026-01-01T00:00:00+00:00", host="here", duration_s=duration_s, edgejoule="0"),
    )


def attempt(reason: str, *, transient: bool) -> Attempt:
    return Attempt(step="a", outcome="failed", reason=reason, transient=transient, at="", host="", duration_s=1)


# --- blobs ---


def test_blob_is_named_by_the_hash_of_its_bytes(store: Store, place: Folder) -> None:
    blob = store.put(b"hello")

    assert blob == Blob(sha256=hashlib.sha256(b"hello").hexdigest(), size_bytes=5)
    path = store.fetch(blob.sha256)
    assert path.read_bytes() == b"hello"
    assert path.stat().st_mode & 0o222 == 0
    assert place.names("blobs/") == [blob_name(blob.sha256)]
    assert place.read(blob_name(blob.sha256)) == b"hello"


def test_empty_blob_is_a_blob(store: Store, place: Folder) -> None:
    blob = store.put(b"")
    place.forget()

    assert blob.size_bytes == 0
    assert store.fetch(blob.sha256).read_bytes() == b""


def test_blob_is_kept_once_when_put_twice(store: Store, place: Folder) -> None:
    first, second = store.put(b"hello"), store.put(b"hello")

    assert first == second
    assert len(place.names("blobs/")) == 1
    assert list((place.path / "tmp").iterdir()) == []


def test_taken_file_is_gone_from_where_it_was(store: Store) -> None:
    file = store.outputs(KEY) / "weights"
    file.write_bytes(b"weights")

    assert store.fetch(store.take(file).sha256).read_bytes() == b"weights"
    assert not file.exists()


def test_take_refuses_a_link(store: Store) -> None:
    file = store.outputs(KEY) / "weights"
    file.symlink_to(os.devnull)

    with pytest.raises(StepError, match="not a plain file"):
        store.take(file)


@pytest.mark.parametrize("damage", [b"hellO", b"hell", b""])
def test_damaged_blob_is_told_by_its_hash_and_healed_by_putting_it_again(
    store: Store, place: Folder, damage: bytes
) -> None:
    blob = store.put(b"hello")
    place.write(blob_name(blob.sha256), damage)
    place.forget()

    with pytest.raises(CorruptBlobError, match=f"{blob.sha256}.* is damaged: check the"):
        store.fetch(blob.sha256)
    store.put(b"hello")
    place.forget()
    assert store.fetch(blob.sha256).read_bytes() == b"hello"


def test_missing_blob_is_told_by_its_hash(store: Store) -> None:
    with pytest.raises(CorruptBlobError, match=f"{KEY} is gone from the store"):
        store.fetch(KEY)


def test_verified_blob_is_not_read_again(store: Store, place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = store.put(b"hello")
    monkeypatch.setattr("edgejoule.sources._SETTLED_NS", -1_000_000_000)  # remember what was written just now
    store.fetch(blob.sha256)
    monkeypatch.setattr("edgejoule.sources.hash_file", lambda path: pytest.fail(f"{path} was read again"))

    assert place.open().fetch(blob.sha256).exists()


# --- manifests ---


def test_manifest_is_read_as_it_was_committed(store: Store, place: Folder) -> None:
    manifest = manifest_of(store.put(b"a"), store.put(b"b"))

    assert store.manifest(KEY) is None
    assert store.commit(manifest) == manifest
    assert place.open().manifest(KEY) == manifest
    assert place.names("manifests/") == [f"manifests/{KEY}.json"]


def test_second_commit_yields_the_first_ones_manifest(store: Store) -> None:
    first, second = manifest_of(store.put(b"a"), step="first"), manifest_of(store.put(b"b"), step="second")
    store.commit(first)

    assert store.commit(second) == first
    assert store.manifest(KEY) == first


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 2}', b"\xff"])
def test_unreadable_manifest_is_no_result(store: Store, place: Folder, damage: bytes) -> None:
    store.commit(manifest_of())
    place.write(f"manifests/{KEY}.json", damage)

    with pytest.raises(CorruptManifestError, match=f"{KEY}.json is not a manifest"):
        store.manifest(KEY)
    store.quarantine(KEY)
    store.quarantine(KEY)
    assert store.manifest(KEY) is None
    (aside,) = place.names("quarantine/")
    assert place.read(aside) == damage


@pytest.mark.parametrize("left", [None, b"", b"longer than it was"])
def test_manifest_whose_blob_is_gone_or_of_another_size_is_no_result(
    store: Store, place: Folder, left: bytes | None
) -> None:
    blob = store.put(b"a")
    store.commit(manifest_of(blob))
    place.delete(blob_name(blob.sha256))
    if left is not None:
        place.write(blob_name(blob.sha256), left)

    with pytest.raises(CorruptManifestError, match=f"'output-0' of step step is gone or cut short: blob {blob.sha256}"):
        store.manifest(KEY)
    assert store.manifest(KEY, blobs=False) == manifest_of(blob)


def test_quarantine_sets_aside_the_manifest_and_its_damaged_blobs_alone(store: Store, place: Folder) -> None:
    good, bad = store.put(b"good"), store.put(b"bad")
    store.commit(manifest_of(good, bad))
    place.write(blob_name(bad.sha256), b"BAD")
    store.quarantine(KEY)

    assert store.manifest(KEY) is None
    assert place.names("blobs/") == [blob_name(good.sha256)]
    assert sorted(name.rpartition("-")[2] for name in place.names("quarantine/")) == sorted([f"{KEY}.json", bad.sha256])
    assert list((place.path / "tmp").iterdir()) == []


def test_manifest_under_another_key_is_no_result(store: Store, place: Folder) -> None:
    store.commit(manifest_of())
    other = "0" * 64
    place.write(f"manifests/{other}.json", place.read(f"manifests/{KEY}.json"))

    with pytest.raises(CorruptManifestError, match="is the manifest of another key"):
        store.manifest(other)


def test_durations_are_medians_by_kind(store: Store) -> None:
    for number, (kind, duration_s) in enumerate([("build", 1), ("build", 9), ("build", 2), ("score", 4)]):
        key = hashlib.sha256(str(number).encode()).hexdigest()
        store.commit(manifest_of(key=key, kind=kind, duration_s=duration_s))

    assert store.durations_s() == {"build": 2, "score": 4}


# --- attempts and runs ---


def test_attempts_are_kept_in_order_until_forgotten(store: Store) -> None:
    for number in range(11):
        store.add_attempt(KEY, attempt(str(number), transient=True))

    assert [one.reason for one in store.attempts(KEY)] == [str(number) for number in range(11)]
    store.forget_attempts(KEY)
    store.forget_attempts(KEY)
    assert store.attempts(KEY) == []


@given(st.lists(st.booleans(), max_size=6))
def test_failure_is_settled_by_one_permanent_or_three_transient_attempts(transient: list[bool]) -> None:
    failure = settled_failure([attempt(str(number), transient=one) for number, one in enumerate(transient)])

    assert (failure is not None) == (False in transient or len(transient) >= 3)


def test_first_attempt_is_the_first_again_after_failures_were_forgotten(store: Store) -> None:
    for reason in ("one", "two"):
        store.add_attempt(KEY, attempt(reason, transient=True))
    store.forget_attempts(KEY)
    store.add_attempt(KEY, attempt("three", transient=True))

    assert [one.reason for one in store.attempts(KEY)] == ["three"]


def test_damaged_attempt_is_told(store: Store, place: Folder) -> None:
    store.add_attempt(KEY, attempt("one", transient=True))
    place.write(f"attempts/{KEY}/1.json", b"{")

    with pytest.raises(StoreError, match=r"1.json is damaged: delete "):
        store.attempts(KEY)


def test_log_is_read_once_it_is_kept_and_goes_with_the_attempts(store: Store, place: Folder) -> None:
    assert store.read_log(KEY, 1) is None
    store.log(KEY, 1).write_bytes(b"what was printed\n")
    store.keep_log(KEY, 1)

    assert place.open().read_log(KEY, 1) == b"what was printed\n"
    store.forget_attempts(KEY)
    assert store.read_log(KEY, 1) is None


def test_attempt_that_printed_nothing_has_no_log_to_keep(store: Store) -> None:
    store.keep_log(KEY, 1)

    assert store.read_log(KEY, 1) is None


def test_run_file_is_replaced_and_removed(store: Store, place: Folder) -> None:
    assert store.run_file("run", "spec.yaml") is None
    store.put_run_file("run", "spec.yaml", b"one")
    store.put_run_file("run", "spec.yaml", b"two")

    assert place.open().run_file("run", "spec.yaml") == b"two"
    store.remove_run_file("run", "spec.yaml")
    store.remove_run_file("run", "spec.yaml")
    assert store.run_file("run", "spec.yaml") is None


def test_runs_with_a_plan_are_named_the_latest_first(store: Store) -> None:
    assert store.run_names() == []
    store.put_run_file("b", "plan.json", b"{}")
    store.put_run_file("a", "plan.json", b"{}")
    time.sleep(1.1)  # S3 tells no less than seconds
    store.put_run_file("b", "plan.json", b"{}")
    store.put_run_file("no-plan", "spec.yaml", b"")
    store.add_event("only-events", {"event": "started"})

    assert store.run_names() == ["b", "a"]


def test_events_are_read_in_order(store: Store) -> None:
    for number in range(12):
        store.add_event("run", {"event": "started", "number": number})
    store.add_event("run-2", {"event": "another"})

    assert [event["number"] for event in store.events("run")] == list(range(12))
    assert store.events("none") == []


def test_scratch_outlives_attempts_and_outputs_do_not(store: Store, place: Folder) -> None:
    (store.scratch(KEY) / "checkpoint").touch()
    (store.outputs(KEY) / "half").touch()

    assert list(store.outputs(KEY).iterdir()) == []
    assert (store.scratch(KEY) / "checkpoint").exists()
    store.clear_scratch(KEY)
    assert not (place.path / "scratch" / KEY).exists()


def test_lease_is_held_by_one_at_a_time(store: Store, place: Folder) -> None:
    inside = 0
    most = 0

    def hold(_: int) -> None:
        nonlocal inside, most
        with store.lease(KEY, lambda: time.sleep(0.001)):
            inside += 1
            most = max(most, inside)
            time.sleep(0.002)
            inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(40)))
    assert most == 1
    assert list((place.path / "locks").iterdir()) == []


# --- several threads and processes ---


def test_threads_share_a_store(store: Store) -> None:
    def work(number: int) -> bool:
        blob = store.put(f"blob {number % 8}".encode())
        store.add_attempt(f"{number:064x}", attempt("x", transient=True))
        store.commit(manifest_of(blob, key=f"{number:064x}"))
        return store.fetch(blob.sha256).read_text() == f"blob {number % 8}"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(48)))
    assert all(store.manifest(f"{number:064x}") for number in range(48))
    assert all(len(store.attempts(f"{number:064x}")) == 1 for number in range(48))


def test_threads_that_fail_at_once_each_leave_an_attempt(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.add_attempt(KEY, attempt(str(number), transient=True)), range(16)))

    assert sorted(int(one.reason) for one in store.attempts(KEY)) == list(range(16))


WRITER = """
import os, sys
from edgejoule.store import Made, Manifest, open_store
store, name = open_store(os.environ["EDGEJOULE_STORE"], os.environ), sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
made = Made(at="", host="", duration_s=1, edgejoule="0")
for number in range(40):
    blobs = {"shared": store.put(b"shared %d" % number), "own": store.put(f"{name} {number}".encode())}
    key = f"{number:064x}"
    common = dict(key=key, kind="toy", version=1, parameters={}, inputs={}, outcome="ok", reason=None, made=made)
    winner = store.commit(Manifest(step=name, outputs=blobs, **common))
    print(winner.step, flush=True)
"""


def start_writer(place: Folder, name: str) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, name],
        env={**os.environ, **place.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return writer


def release(writer: subprocess.Popen[str]) -> None:
    assert writer.stdin
    writer.stdin.write("\n")
    writer.stdin.flush()


def test_concurrent_writers_agree_on_one_manifest_per_key(store: Store, place: Folder) -> None:
    writers = [start_writer(place, name) for name in ("one", "two", "three")]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        release(writer)
    winners = [writer.communicate(timeout=60)[0].split() for writer in writers]

    manifests = [store.manifest(f"{number:064x}") for number in range(40)]
    assert winners == [[manifest.step for manifest in manifests if manifest]] * 3
    for number, manifest in enumerate(manifests):
        assert manifest
        assert store.fetch(manifest.outputs["own"].sha256).read_text() == f"{manifest.step} {number}"
        assert store.fetch(manifest.outputs["shared"].sha256).read_text() == f"shared {number}"


def test_writer_killed_at_any_moment_leaves_no_damage(store: Store, place: Folder) -> None:
    for delay_s in (0.001, 0.02, 0.05):
        writer = start_writer(place, f"killed {delay_s}")
        assert writer.stdout
        writer.stdout.readline()
        release(writer)
        time.sleep(delay_s)
        writer.kill()
        writer.communicate()

    for name in place.names("manifests/"):
        assert store.manifest(Path(name).stem)
    place.forget()
    for name in place.names("blobs/"):
        assert store.fetch(Path(name).name)


# --- the folder alone ---


def test_blob_lies_in_the_folder_itself(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    blob = store.put(b"hello")
    first = store.fetch(blob.sha256)

    assert first == tmp_path / "store" / blob_name(blob.sha256)
    inode = first.stat().st_ino
    assert store.fetch(store.put(b"hello").sha256).stat().st_ino == inode


def test_torn_last_event_is_left_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.add_event("run", {"event": "started"})
    with open(store.path / "runs" / "run" / "events.jsonl", "a") as file:
        file.write('{"event": "sta')

    assert store.events("run") == [{"event": "started"}]


def test_leftovers_of_crashed_writers_are_swept_after_a_day(store: Store, place: Folder) -> None:
    old, new = place.path / "tmp" / "old", place.path / "tmp" / "new"
    for file in (old, new):
        file.touch()
    os.utime(old, (0, 0))
    place.open()

    assert new.exists()
    assert not old.exists()


# --- a hostile host ---


def test_store_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").touch()

    with pytest.raises(StoreError, match=r"cannot be a folder, because \S*/store is a file"):
        FolderStore(tmp_path / "store")


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[None]:
    """Not root: root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    for folder in [tmp_path, *tmp_path.parents]:  # pytest's folders are for their owner only
        if folder.stat().st_mode & 0o077 == 0:
            folder.chmod(0o711)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.mark.usefixtures("nobody")
def test_folder_without_permission_is_told(tmp_path: Path) -> None:
    euid = os.geteuid()
    locked = tmp_path / "locked"
    if euid == NOBODY:
        os.seteuid(0)
    locked.mkdir()
    locked.chmod(0o555)
    if euid == NOBODY:
        os.seteuid(NOBODY)

    with pytest.raises(StoreError, match=r"no permission for .*locked/store.*: change its owner or choose another"):
        FolderStore(locked / "store")


SMALL_DISK = """
mount -t tmpfs -o size=400k none "$1" || exit 77
exec "$2" - "$1" <<'END'
import sys
from pathlib import Path
from edgejoule.errors import StoreError
from edgejoule.folder_store import FolderStore
store = FolderStore(Path(sys.argv[1]) / "store")
kept = store.put(b"kept")
try:
    for number in range(100):
        store.put(bytes([number]) * 50_000)
except StoreError as error:
    print(error)
assert store.fetch(kept.sha256).read_bytes() == b"kept"
for path in (store.path / "blobs").rglob("*"):
    assert path.is_dir() or store.fetch(path.name)
assert not list((store.path / "tmp").iterdir())
END
"""


def test_full_disk_is_told_and_leaves_no_damage(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", SMALL_DISK, "sh", str(tmp_path), sys.executable]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no unshare on this host")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting a small disk is not allowed here")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the disk of the store")
    assert "is full: make room and run again; all that is finished is kept" in done.stdout


# --- boards -------------------------------------------------------------------------------------------


def test_devices_are_kept_and_named_and_replaced(store: Any, place: Folder) -> None:
    assert store.device_names() == []
    assert store.device("devices", "nano") is None
    for name, data in (("xavier", b"1"), ("nano", b"2"), ("nano", b"3")):
        store.put_device("devices", name, data)
    store.put_device("probes", "orin", b"4")
    assert place.open().device_names() == ["nano", "xavier"]
    assert store.device("devices", "nano") == b"3"
    assert store.device("probes", "nano") is None
    assert place.names("devices/") == ["devices/nano.json", "devices/xavier.json"]
