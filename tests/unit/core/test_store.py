"""The store: what is written once, what counts as done, and what a fault leaves."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgejoule.errors import CorruptBlobError, CorruptManifestError, StepError, StoreError
from edgejoule.folder_store import FolderStore
from edgejoule.store import Attempt, Blob, Made, Manifest, settled_failure

KEY = hashlib.sha256(b"key").hexdigest()
NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


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


def test_blob_is_named_by_the_hash_of_its_bytes(store: FolderStore) -> None:
    blob = store.put(b"hello")

    assert blob == Blob(sha256=hashlib.sha256(b"hello").hexdigest(), size_bytes=5)
    path = store.fetch(blob.sha256)
    assert path.read_bytes() == b"hello"
    assert path == store.path / "blobs" / "sha256" / blob.sha256[:2] / blob.sha256
    assert path.stat().st_mode & 0o222 == 0


def test_blob_is_kept_once_when_put_twice(store: FolderStore) -> None:
    first = store.fetch(store.put(b"hello").sha256).stat().st_ino

    assert store.fetch(store.put(b"hello").sha256).stat().st_ino == first
    assert list((store.path / "tmp").iterdir()) == []


def test_taken_file_is_gone_from_where_it_was(store: FolderStore) -> None:
    file = store.outputs(KEY) / "weights"
    file.write_bytes(b"weights")

    assert store.fetch(store.take(file).sha256).read_bytes() == b"weights"
    assert not file.exists()


def test_take_refuses_a_link(store: FolderStore) -> None:
    file = store.outputs(KEY) / "weights"
    file.symlink_to(os.devnull)

    with pytest.raises(StepError, match="not a plain file"):
        store.take(file)


@pytest.mark.parametrize("damage", [b"hellO", b"hell", b""])
def test_damaged_blob_is_told_by_its_hash_and_healed_by_putting_it_again(store: FolderStore, damage: bytes) -> None:
    blob = store.put(b"hello")
    path = store.fetch(blob.sha256)
    path.chmod(0o644)
    path.write_bytes(damage)

    with pytest.raises(CorruptBlobError, match=f"{blob.sha256}.* is damaged: check the disk"):
        store.fetch(blob.sha256)
    store.put(b"hello")
    assert store.fetch(blob.sha256).read_bytes() == b"hello"


def test_missing_blob_is_told_by_its_hash(store: FolderStore) -> None:
    with pytest.raises(CorruptBlobError, match=f"{KEY} is gone from the store"):
        store.fetch(KEY)


def test_verified_blob_is_not_read_again(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = store.put(b"hello")
    monkeypatch.setattr("edgejoule.sources._SETTLED_NS", -1_000_000_000)  # remember what was written just now
    store.fetch(blob.sha256)
    monkeypatch.setattr("edgejoule.sources.hash_file", lambda path: pytest.fail(f"{path} was read again"))

    assert FolderStore(store.path).fetch(blob.sha256).exists()


# --- manifests ---


def test_manifest_is_read_as_it_was_committed(store: FolderStore) -> None:
    manifest = manifest_of(store.put(b"a"), store.put(b"b"))

    assert store.manifest(KEY) is None
    assert store.commit(manifest) == manifest
    assert FolderStore(store.path).manifest(KEY) == manifest


def test_second_commit_yields_the_first_ones_manifest(store: FolderStore) -> None:
    first, second = manifest_of(store.put(b"a"), step="first"), manifest_of(store.put(b"b"), step="second")
    store.commit(first)

    assert store.commit(second) == first
    assert store.manifest(KEY) == first


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 2}'])
def test_unreadable_manifest_is_no_result(store: FolderStore, damage: str) -> None:
    store.commit(manifest_of())
    path = store.path / "manifests" / f"{KEY}.json"
    path.chmod(0o644)
    path.write_text(damage)

    with pytest.raises(CorruptManifestError, match=f"{KEY}.json is not a manifest"):
        store.manifest(KEY)
    store.quarantine(KEY)
    assert store.manifest(KEY) is None
    assert len(list((store.path / "quarantine").iterdir())) == 1


def test_manifest_whose_blob_is_gone_is_no_result(store: FolderStore) -> None:
    blob = store.put(b"a")
    store.commit(manifest_of(blob))
    store.fetch(blob.sha256).unlink()

    with pytest.raises(CorruptManifestError, match=f"'output-0' of step step is gone or cut short: blob {blob.sha256}"):
        store.manifest(KEY)


def test_manifest_under_another_key_is_no_result(store: FolderStore) -> None:
    store.commit(manifest_of())
    other = "0" * 64
    (store.path / "manifests" / f"{KEY}.json").rename(store.path / "manifests" / f"{other}.json")

    with pytest.raises(CorruptManifestError, match="is the manifest of another key"):
        store.manifest(other)


def test_durations_are_medians_by_kind(store: FolderStore) -> None:
    for number, (kind, duration_s) in enumerate([("build", 1), ("build", 9), ("build", 2), ("score", 4)]):
        key = hashlib.sha256(str(number).encode()).hexdigest()
        store.commit(manifest_of(key=key, kind=kind, duration_s=duration_s))

    assert store.durations_s() == {"build": 2, "score": 4}


# --- attempts and runs ---


def test_attempts_are_kept_in_order_until_forgotten(store: FolderStore) -> None:
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


def test_events_are_read_in_order_and_a_torn_last_one_is_left_out(store: FolderStore) -> None:
    store.add_event("run", {"event": "started", "step": "a"})
    store.add_event("run", {"event": "finished", "step": "a"})
    with open(store.path / "runs" / "run" / "events.jsonl", "a") as file:
        file.write('{"event": "sta')

    assert [event["event"] for event in store.events("run")] == ["started", "finished"]
    assert store.events("none") == []


def test_scratch_outlives_attempts_and_outputs_do_not(store: FolderStore) -> None:
    (store.scratch(KEY) / "checkpoint").touch()
    (store.outputs(KEY) / "half").touch()

    assert list(store.outputs(KEY).iterdir()) == []
    assert (store.scratch(KEY) / "checkpoint").exists()
    store.clear_scratch(KEY)
    assert not (store.path / "scratch" / KEY).exists()


def test_lease_is_held_by_one_at_a_time(store: FolderStore) -> None:
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
    assert list((store.path / "locks").iterdir()) == []


# --- several processes ---

WRITER = """
import sys
from pathlib import Path
from edgejoule.folder_store import FolderStore
from edgejoule.store import Made, Manifest
store, name = FolderStore(Path(sys.argv[1])), sys.argv[2]
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


def test_concurrent_writers_agree_on_one_manifest_per_key(store: FolderStore) -> None:
    command = [sys.executable, "-c", WRITER, str(store.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, name], **pipes) for name in ("one", "two", "three")]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    winners = [writer.communicate(timeout=60)[0].split() for writer in writers]

    manifests = [store.manifest(f"{number:064x}") for number in range(40)]
    assert winners == [[manifest.step for manifest in manifests if manifest]] * 3
    for number, manifest in enumerate(manifests):
        assert manifest
        assert store.fetch(manifest.outputs["own"].sha256).read_text() == f"{manifest.step} {number}"
        assert store.fetch(manifest.outputs["shared"].sha256).read_text() == f"shared {number}"


def test_writer_killed_at_any_moment_leaves_no_damage(store: FolderStore) -> None:
    for delay_s in (0.001, 0.02, 0.05):
        command = [sys.executable, "-c", WRITER, str(store.path), f"killed {delay_s}"]
        writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert writer.stdin
        assert writer.stdout
        writer.stdout.readline()
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        time.sleep(delay_s)
        writer.kill()
        writer.communicate()

    for path in (store.path / "manifests").iterdir():
        assert store.manifest(path.stem)
    for path in (store.path / "blobs").rglob("*"):
        assert path.is_dir() or store.fetch(path.name)


def test_leftovers_of_crashed_writers_are_swept_after_a_day(store: FolderStore) -> None:
    old, new = store.path / "tmp" / "old", store.path / "tmp" / "new"
    for file in (old, new):
        file.touch()
    os.utime(old, (0, 0))
    FolderStore(store.path)

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
