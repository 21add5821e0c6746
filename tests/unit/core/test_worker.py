"""Step kinds, the worker's protocol, and locks between processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from edgejoule.errors import StepError
from edgejoule.kinds import GROUP, PACKAGES, Kinds
from edgejoule.locks import file_lock, host_lock
from edgejoule.worker import Report, Request, Stopped, run_worker

TOYS = Path(__file__).parent / "toys"
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "scipy", "cv2", "pycocotools", "hotcoco", "matplotlib"}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))


# --- kinds ---


def test_kind_is_what_its_module_says() -> None:
    kind = Kinds({"measure": "toy_measure"})["measure"]

    assert (kind.name, kind.version, kind.queue, kind.exclusive) == ("measure", 1, "device", True)
    assert kind.outputs == ("text",)
    assert kind.time_limit_s == 6 * 3600


def test_missing_module_is_told_with_its_package() -> None:
    with pytest.raises(StepError, match=r"'score' cannot be loaded: .*no_such_module.*install edgejoule-evaluator"):
        Kinds({"score": "no_such_module"})["score"]


def test_packages_are_named_for_every_announced_kind() -> None:
    assert {point.name for point in entry_points(group=GROUP)} <= PACKAGES.keys()


@pytest.mark.parametrize("kind", sorted({point.name for point in entry_points(group=GROUP)}))
def test_reading_a_kind_imports_nothing_heavy(kind: str) -> None:
    code = "import sys; from edgejoule.kinds import Kinds; Kinds()[sys.argv[1]]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, kind], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(done.stdout.split())


# --- the worker ---


def work(tmp_path: Path, module: str = "toy_step", **parameters: object) -> Report:
    outputs, scratch = tmp_path / "outputs", tmp_path / "scratch"
    for folder in (outputs, scratch):
        folder.mkdir(exist_ok=True)
    return run_worker(
        Request(module, dict(parameters), {}, str(outputs), str(scratch)),
        log=tmp_path / "log",
        time_limit_s=60,
        silence_limit_s=60,
        on_progress=lambda done, total, unit: None,
        stopping=lambda: False,
    )


def test_worker_reports_ok_and_keeps_noise_in_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert work(tmp_path, name="a") == Report("ok")
    assert (tmp_path / "outputs" / "text").read_text() == "a"
    assert "noise \x1b[2J on standard output\nnoise on standard error\n" in (tmp_path / "log").read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("deed", "report"),
    [
        ("unsupported", Report("unsupported", "the toy has no INT8")),
        ("crash", Report("failed", "ValueError: a bug in the toy")),
        ("flaky", Report("failed", "not yet", transient=True)),
    ],
)
def test_worker_reports_what_was_raised(tmp_path: Path, deed: str, report: Report) -> None:
    assert work(tmp_path, do=deed, until=9) == report


def test_worker_reports_a_module_that_cannot_be_imported(tmp_path: Path) -> None:
    assert work(tmp_path, module="toy_none").reason == "ModuleNotFoundError: No module named 'toy_none'"


def test_worker_is_stopped_when_asked(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(Stopped):
        run_worker(
            Request("toy_step", {"do": "sleep", "pids": str(pids)}, {}, str(tmp_path), str(tmp_path)),
            log=tmp_path / "log",
            time_limit_s=60,
            silence_limit_s=60,
            on_progress=lambda done, total, unit: None,
            stopping=pids.exists,
        )
    assert Path(f"{pids}.unwound").exists()


def test_worker_does_not_import_from_the_folder_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no PYTHONSAFEPATH")
    (tmp_path / "ctypes.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "onlyhere.py").touch()
    monkeypatch.chdir(tmp_path)

    assert work(tmp_path, module="onlyhere").reason == "ModuleNotFoundError: No module named 'onlyhere'"


def test_worker_started_by_hand_says_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgejoule.worker", "2"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )

    assert done.returncode != 0
    assert done.stderr.strip() == "edgejoule.worker is started by edgejoule, with one line of JSON on standard input"


def test_worker_dies_when_its_lifeline_ends_even_when_it_does_not_listen(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    request = Request("toy_step", {"do": "sleep", "pids": str(pids)}, {}, str(tmp_path), str(tmp_path))
    worker = subprocess.Popen(
        [sys.executable, "-m", "edgejoule.worker", "2"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert worker.stdin
    worker.stdin.write(json.dumps(request.__dict__).encode() + b"\n")
    worker.stdin.flush()
    while not pids.exists():
        time.sleep(0.01)
    worker.stdin.close()

    assert worker.wait(5) == -9


# --- locks ---


def test_lock_file_is_gone_after_the_last_holder(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


def test_measurement_waits_for_others_and_newcomers_wait_behind_it(tmp_path: Path) -> None:
    order: list[str] = []
    holding, waiting = threading.Event(), threading.Event()

    def quick_pause() -> None:
        waiting.set()
        time.sleep(0.005)

    def hold(name: str, exclusive: bool) -> None:
        with host_lock(exclusive=exclusive, pause=quick_pause, folder=tmp_path):
            order.append(name)

    with host_lock(exclusive=False, folder=tmp_path):
        with host_lock(exclusive=False, folder=tmp_path):
            holding.set()
        measurement = threading.Thread(target=hold, args=("measurement", True))
        measurement.start()
        assert waiting.wait(5)
        newcomer = threading.Thread(target=hold, args=("newcomer", False))
        newcomer.start()
        time.sleep(0.05)
        assert order == []
    measurement.join(5)
    newcomer.join(5)

    assert order == ["measurement", "newcomer"]


def test_host_lock_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEJOULE_LOCKS", str(tmp_path))
    with host_lock(exclusive=True):
        assert (tmp_path / "edgejoule-host.lock").exists()
