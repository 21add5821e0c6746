"""The embedded executor on toy steps: real processes, real kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgejoule.errors import DataError, SpecError, StepError, StoreError
from edgejoule.executor import RunOutcome, run_plan
from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.plan import Cell, Plan, Ref, Source, Step, step_key
from edgejoule.progress import Display
from edgejoule.reconcile import Ready, StepOutcome, survey
from edgejoule.store import Made, Manifest

TOYS = Path(__file__).parent / "toys"
KINDS = Kinds(
    {
        "toy": "toy_step",
        "measure": "toy_measure",
        "limited": "toy_limited",
        "talkative": "toy_talkative",
        "broken": "toy_broken",
    }
)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Toy steps can be imported here and in workers; the host's lock is the test's own."""
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def toy(id: str, *upstream: str, kind: str = "toy", tolerant: bool = False, **parameters: Any) -> Step:
    """A toy step called ``id`` that joins the texts of others."""
    inputs = {f"from-{name}": Ref(name, "text", tolerant) for name in upstream}
    return Step(id, kind, {"name": id, **parameters}, inputs)


def plan_of(*steps: Step, cells: tuple[Cell, ...] = ()) -> Plan:
    return Plan({step.id: step for step in steps}, cells)


def cell(model: str, *steps: str) -> Cell:
    return Cell(model, "toy", "base", "fp32", "host", steps)


def run(plan: Plan, store: FolderStore, **options: Any) -> RunOutcome:
    return run_plan(plan, store, run="test", kinds=KINDS, **{"workers": 2, **options})


def text(store: FolderStore, outcome: StepOutcome) -> str:
    assert outcome.manifest is not None, outcome
    return store.fetch(outcome.manifest.outputs["text"].sha256).read_text()


def events(store: FolderStore, *kinds: str) -> list[str]:
    return [event["step"] for event in store.events("test") if event["event"] in kinds]


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_for(path: Path, seconds: float = 10) -> str:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)
    return path.read_text()


# --- what is run, and what is not --------------------------------------------------------------------


def test_run_carries_out_every_step_with_its_inputs(store: FolderStore) -> None:
    outcome = run(plan_of(toy("a"), toy("b"), toy("c", "a", "b")), store)

    assert text(store, outcome.outcomes["c"]) == "c+a+b"
    assert outcome.executed == ["a", "b", "c"]
    assert not outcome.failed


def test_run_does_nothing_when_repeated(store: FolderStore) -> None:
    plan = plan_of(toy("a"), toy("b", "a"))
    first = run(plan, store)
    second = run(plan, store)

    assert second.executed == []
    assert second.cached == ["a", "b"]
    assert {id: o.key for id, o in first.outcomes.items()} == {id: o.key for id, o in second.outcomes.items()}
    assert events(store, "started") == ["a", "b"]


def test_run_stops_where_a_change_upstream_ends_in_the_same_bytes(store: FolderStore) -> None:
    run(plan_of(toy("a", do="constant", seed=1), toy("b", "a")), store)
    again = run(plan_of(toy("a", do="constant", seed=2), toy("b", "a")), store)

    assert again.executed == ["a"]


def test_run_reports_each_cell_as_soon_as_its_steps_are_done(store: FolderStore) -> None:
    done: list[tuple[str, set[str]]] = []

    def on_cell(cell: Cell, outcomes: Mapping[str, StepOutcome]) -> None:
        done.append((cell.model, set(outcomes)))
        assert "last" not in events(store, "started")

    steps = [toy("b1"), toy("b2", "b1"), toy("a1"), toy("a2", "a1"), toy("last", "a2", "b2")]
    cells = (cell("b", "b1", "b2"), cell("a", "a1", "a2"))
    run(plan_of(*steps, cells=cells), store, workers=1, on_cell=on_cell)

    assert done == [("b", {"b1", "b2"}), ("a", {"a1", "a2"})]
    assert events(store, "started") == ["b1", "b2", "a1", "a2", "last"]


def test_run_takes_files_and_folders_from_outside(store: FolderStore, tmp_path: Path) -> None:
    file = tmp_path / "annotations.txt"
    file.write_text("outside")
    step = Step("a", "toy", {"name": "a"}, {"file": store.hashes.source(file)})

    assert text(store, run(plan_of(step), store).outcomes["a"]) == "a+outside"


def test_run_refuses_a_source_that_changed_since_the_plan(store: FolderStore, tmp_path: Path) -> None:
    file = tmp_path / "annotations.txt"
    file.write_text("after")
    step = Step("a", "toy", {"name": "a"}, {"file": Source(file, "0" * 64)})

    with pytest.raises(DataError, match=r"annotations\.txt changed"):
        run(plan_of(step), store)


def test_sixty_finished_steps_are_repeated_within_a_second(store: FolderStore) -> None:
    plan = plan_of(toy("0"), *[toy(str(number), str(number - 1)) for number in range(1, 60)])
    blob = store.put(b"text")
    made = Made(at="2026-01-01T00:00:00+00:00", host="elsewhere", duration_s=60.0, edgejoule="0.1.0")
    for step in plan.steps.values():
        inputs = dict.fromkeys(step.inputs, blob.sha256)
        manifest = Manifest(
            key=step_key("toy", 1, step.parameters, inputs),
            kind="toy",
            version=1,
            step=step.id,
            parameters=dict(step.parameters),
            inputs=inputs,
            outputs={"text": blob},
            outcome="ok",
            reason=None,
            made=made,
        )
        store.commit(manifest)

    # of CPU time: others on the host take none of it
    began = time.process_time()
    again = run(plan, FolderStore(store.path))

    assert len(again.cached) == 60
    assert time.process_time() - began < 1.0


# --- what goes wrong -----------------------------------------------------------------------------------


def test_unsupported_is_a_lasting_result_and_reaches_what_depends_on_it(store: FolderStore) -> None:
    plan = plan_of(toy("a", do="unsupported"), toy("b", "a"), toy("c", "b"), toy("other"))
    first = run(plan, store)

    assert [(o.outcome, o.reason, o.origin) for o in first.outcomes.values()] == [
        *[("unsupported", "the toy has no INT8", "a")] * 3,
        ("ok", None, "other"),
    ]
    assert not first.failed
    assert run(plan, store).executed == []


def test_tolerant_input_is_the_outcome_of_the_step_that_failed(store: FolderStore) -> None:
    plan = plan_of(toy("a", do="crash"), toy("b", "a"), toy("c", "b", tolerant=True))
    outcome = run(plan, store)

    assert json.loads(text(store, outcome.outcomes["c"]).removeprefix("c+")) == {
        "outcome": "failed",
        "reason": "ValueError: a bug in the toy",
        "step": "a",
    }
    assert run(plan, store).executed == []


def test_permanent_failure_stands_until_retried_and_the_rest_goes_on(store: FolderStore) -> None:
    plan = plan_of(toy("a", do="crash"), toy("b", "a"), toy("other"))
    first = run(plan, store)
    second = run(plan, store)
    third = run(plan, store, retry=True)

    assert [(o.step, o.outcome, o.reason) for o in first.failed] == [("a", "failed", "ValueError: a bug in the toy")]
    assert first.outcomes["other"].ok
    assert first.outcomes["b"].origin == "a"
    assert second.executed == []
    assert second.outcomes["a"].cached
    assert third.executed == ["a"]


def test_failure_names_a_log_with_the_traceback(store: FolderStore) -> None:
    outcome = run(plan_of(toy("a", do="crash")), store).outcomes["a"]

    assert outcome.log is not None
    log = outcome.log.read_text()
    assert "noise on standard error" in log
    assert 'raise ValueError("a bug in the toy")' in log


def test_transient_failure_is_tried_three_times_and_keeps_its_scratch(store: FolderStore) -> None:
    outcome = run(plan_of(toy("good", do="flaky", until=3), toy("bad", do="flaky", until=9)), store)

    assert outcome.outcomes["good"].ok
    assert outcome.outcomes["bad"].outcome == "failed"
    assert outcome.outcomes["bad"].reason == "not yet"
    assert sorted(events(store, "started")) == ["bad"] * 3 + ["good"] * 3


@pytest.mark.parametrize(
    ("deed", "outcome", "reason"),
    [
        ("killed", "oom", "the system killed the step, most likely because memory ran out"),
        ("memory", "oom", "memory ran out"),
        ("segfault", "failed", "died of SIGSEGV"),
        ("leave", "failed", "ended with exit code 0 and no result"),
        ("nothing", "failed", "without writing its output 'text'"),
        ("link", "failed", "output 'text' is not a plain file"),
    ],
)
def test_step_that_dies_ends_with_a_sentence(store: FolderStore, deed: str, outcome: str, reason: str) -> None:
    ended = run(plan_of(toy("a", do=deed)), store).outcomes["a"]

    assert ended.outcome == outcome
    assert reason in (ended.reason or "")


def test_step_is_ended_at_its_time_limit_with_all_it_started(store: FolderStore, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ended = run(plan_of(toy("a", kind="limited", do="sleep", pids=str(pids))), store).outcomes["a"]

    assert ended.reason == "ran longer than its limit of 0.5 s"
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())


def test_step_killed_for_memory_each_time_fails_after_three_attempts(store: FolderStore) -> None:
    ended = run(plan_of(toy("a", do="killed"), toy("b")), store).outcomes

    assert events(store, "started").count("a") == 3
    assert ended["a"].outcome == "oom"
    assert ended["b"].ok


def test_step_that_says_nothing_for_too_long_is_ended(store: FolderStore, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ended = run(
        plan_of(toy("a", kind="talkative", do="sleep", pids=str(pids)), toy("b", kind="talkative", ticks=40)), store
    ).outcomes

    assert ended["a"].reason == "hung: no progress for 0.5 s"
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())
    assert ended["b"].ok


@pytest.mark.parametrize("do", ["full_disk", "full_disk_of_numpy"])
def test_full_disk_ends_the_run_and_is_no_failure_of_the_step(store: FolderStore, do: str) -> None:
    with pytest.raises(StoreError, match="the disk is full"):
        run(plan_of(toy("a", do=do)), store)

    assert list((store.path / "attempts").rglob("*.json")) == []


def test_unknown_kind_is_told_before_anything_runs(store: FolderStore) -> None:
    with pytest.raises(StepError, match=r"no installed package announces the step kind 'train'; .*edgejoule-trainer"):
        run(plan_of(toy("a"), Step("b", "train")), store)

    assert store.events("test") == []


def test_broken_kind_is_told_by_name(store: FolderStore) -> None:
    with pytest.raises(StepError, match=r"'broken' is broken: .*VERSION"):
        run(plan_of(Step("b", "broken")), store)


def test_plan_that_reads_a_later_step_is_refused(store: FolderStore) -> None:
    with pytest.raises(SpecError, match="'a' reads 'b', which is no step before it"):
        run(plan_of(toy("a", "b"), toy("b")), store)


def test_missing_output_name_fails_the_reader(store: FolderStore) -> None:
    reader = Step("b", "toy", {}, {"x": Ref("a", "typo")})
    ended = run(plan_of(toy("a"), reader), store).outcomes["b"]

    assert (ended.outcome, ended.reason) == ("failed", "step 'a' made no output 'typo'")


# --- damage -----------------------------------------------------------------------------------------------


def damage(store: FolderStore, outcome: StepOutcome, data: bytes) -> None:
    assert outcome.manifest is not None
    path = store.fetch(outcome.manifest.outputs["text"].sha256)
    path.chmod(0o644)
    path.write_bytes(data)


def test_step_with_a_lost_blob_is_done_again(store: FolderStore) -> None:
    plan = plan_of(toy("a"), toy("b", "a"))
    first = run(plan, store)
    assert first.outcomes["a"].manifest
    store.fetch(first.outcomes["a"].manifest.outputs["text"].sha256).unlink()
    again = run(plan, store)

    assert again.executed == ["a"]
    assert text(store, again.outcomes["a"]) == "a"


def test_step_with_a_damaged_blob_is_done_again_when_the_blob_is_needed(store: FolderStore) -> None:
    first = run(plan_of(toy("alpha")), store)
    damage(store, first.outcomes["alpha"], b"xlpha")  # same size: only reading shows it
    again = run(plan_of(toy("alpha"), toy("b", "alpha")), store)

    assert again.executed == ["alpha", "b"]
    assert text(store, again.outcomes["b"]) == "b+alpha"
    assert len(list((store.path / "quarantine").iterdir())) == 2


def test_damaged_manifest_is_set_aside_and_its_step_done_again(store: FolderStore) -> None:
    plan = plan_of(toy("a"))
    key = run(plan, store).outcomes["a"].key
    manifest = store.path / "manifests" / f"{key}.json"
    manifest.chmod(0o644)
    manifest.write_text("{")

    assert run(plan, store).executed == ["a"]
    assert run(plan, store).executed == []


# --- several things at once --------------------------------------------------------------------------------


def spans(diary: Path) -> dict[str, tuple[float, float]]:
    lines = [line.split() for line in diary.read_text().splitlines()]
    return {name: (float(began), float(ended)) for name, began, ended in lines}


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_independent_steps_run_side_by_side_within_the_threads(store: FolderStore, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    small = [toy(name, ticks=25, diary=str(diary)) for name in ("a", "b")]
    run(plan_of(*small, toy("wide", ticks=5, threads=2, diary=str(diary))), store)
    when = spans(diary)

    assert overlap(when["a"], when["b"])
    assert not overlap(when["wide"], when["a"])
    assert not overlap(when["wide"], when["b"])


def test_measuring_is_alone_on_the_host_even_with_another_run(store: FolderStore, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    others = [{"id": f"o{n}", "kind": "toy", "parameters": entry(f"o{n}", diary, 10), "inputs": {}} for n in range(4)]
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps(others))
    other = start_run(tmp_path / "another", plan_file)
    mine = [toy("a", ticks=2, diary=str(diary)), toy("m", kind="measure", ticks=20, diary=str(diary))]
    run(plan_of(*mine, toy("b", ticks=2, diary=str(diary))), store)
    assert other.wait(30) == 0
    when = spans(diary)

    assert len(when) == 7
    assert not any(overlap(when["m"], span) for name, span in when.items() if name != "m")


def entry(name: str, diary: Path, ticks: int) -> dict[str, Any]:
    return {"name": name, "ticks": ticks, "diary": str(diary)}


def test_two_runs_on_one_store_do_each_step_once(store: FolderStore, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    steps = [{"id": f"s{n}", "kind": "toy", "parameters": entry(f"s{n}", diary, 5), "inputs": {}} for n in range(5)]
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps(steps))
    runs = [start_run(store.path, plan_file, f"run{n}") for n in range(2)]

    assert [process.wait(60) for process in runs] == [0, 0]
    assert sorted(line.split()[0] for line in diary.read_text().splitlines()) == [f"s{n}" for n in range(5)]
    for n in range(2):
        assert {event["event"] for event in store.events(f"run{n}")} <= {"started", "finished", "cached"}


def test_step_gets_the_threads_of_its_parameters(store: FolderStore) -> None:
    outcome = run(plan_of(toy("one", do="threads"), toy("two", do="threads", threads=2)), store)

    assert text(store, outcome.outcomes["one"]) == "1"
    assert text(store, outcome.outcomes["two"]) == "2"


class Recorder(Display):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.progress: list[tuple[str, float, float, str]] = []

    def advance(self, step: str, done: float, total: float, unit: str) -> None:
        self.progress.append((step, done, total, unit))


def test_progress_of_a_step_reaches_the_display(store: FolderStore) -> None:
    display = Recorder()
    run(plan_of(toy("a", ticks=20)), store, display=display)

    assert display.progress[-1] == ("a", 20.0, 20.0, "ticks")


def test_survey_tells_what_would_run_and_changes_nothing(store: FolderStore) -> None:
    run(plan_of(toy("a")), store)
    plan = plan_of(toy("a"), toy("b", "a"), toy("c", "b"))
    found = survey(plan, store, KINDS)

    assert isinstance(found["a"], StepOutcome)
    assert isinstance(found["b"], Ready)
    assert found["c"] is None
    assert events(store, "started") == ["a"]


# --- interruption -------------------------------------------------------------------------------------------


def start_run(store: Path, plan: Path, run: str = "test") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(TOYS / "run_toy_plan.py"), str(store), run, str(plan)])


@pytest.fixture
def sleeper(store: FolderStore, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A run whose step, and the step's own child, would sleep for minutes."""
    pids = tmp_path / "pids"
    plan = tmp_path / "plan.json"
    parameters = {"do": "sleep", "pids": str(pids)}
    plan.write_text(json.dumps([{"id": "a", "kind": "toy", "parameters": parameters, "inputs": {}}]))
    process = start_run(store.path, plan)
    wait_for(pids)
    yield process, [int(pid) for pid in pids.read_text().split()]
    process.kill()


def test_interrupt_lets_steps_unwind_and_leaves_no_process(
    sleeper: tuple[subprocess.Popen[bytes], list[int]], store: FolderStore, tmp_path: Path
) -> None:
    process, pids = sleeper
    process.send_signal(signal.SIGINT)

    assert process.wait(10) != 0
    assert not any(is_alive(pid) for pid in pids)
    assert (tmp_path / "pids.unwound").exists()
    assert list((store.path / "attempts").rglob("*.json")) == []


def test_killed_run_takes_its_steps_and_what_they_started_with_it(
    sleeper: tuple[subprocess.Popen[bytes], list[int]],
) -> None:
    process, pids = sleeper
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "the step outlived the run"
        time.sleep(0.02)


def test_run_killed_at_random_moments_ends_with_the_same_outputs_and_does_nothing_twice(
    store: FolderStore, tmp_path: Path
) -> None:
    steps: list[dict[str, Any]] = []
    for number in range(10):
        inputs = {f"from-{up}": f"s{up}" for up in (number - 3, number - 4) if up >= 0}
        parameters = {"name": f"s{number}", "ticks": 3}
        steps.append({"id": f"s{number}", "kind": "toy", "parameters": parameters, "inputs": inputs})
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(steps))
    undisturbed = FolderStore(tmp_path / "undisturbed")
    assert start_run(undisturbed.path, plan).wait(60) == 0

    moments = random.Random(7)
    for kill in range(3):
        done = {path.stem for path in (store.path / "manifests").iterdir()}
        process = start_run(store.path, plan, f"kill{kill}")
        time.sleep(moments.uniform(0.4, 1.2))
        process.kill()
        process.wait()
        assert done.isdisjoint(event["key"] for event in store.events(f"kill{kill}") if event["event"] == "started")
    done = {path.stem for path in (store.path / "manifests").iterdir()}
    assert start_run(store.path, plan).wait(60) == 0

    assert done.isdisjoint(event["key"] for event in store.events("test") if event["event"] == "started")
    assert outputs(store) == outputs(undisturbed)
    assert all(store.fetch(path.name) for path in (store.path / "blobs").rglob("*") if path.is_file())
    assert not running_workers(store.path)


def outputs(store: FolderStore) -> dict[str, str]:
    manifests = [store.manifest(path.stem) for path in (store.path / "manifests").iterdir()]
    return {manifest.step: manifest.outputs["text"].sha256 for manifest in manifests if manifest}


def running_workers(store: Path) -> list[int]:
    """Processes that hold a file of the store open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [os.readlink(descriptor) for descriptor in (process / "fd").iterdir()]
        except (FileNotFoundError, PermissionError):
            continue
        if int(process.name) != os.getpid() and any(path.startswith(str(store)) for path in held):
            found.append(int(process.name))
    return found
