"""The command: what it prints where, its exit codes, and that no mistake ends in a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgejoule import cli, doctor
from edgejoule.errors import EdgejouleError, UnsupportedError
from edgejoule_agent import host
from edgejoule_agent.simulation import trees

SPEC = """\
name: small
models:
  - detector: nanodet_m
    train: {iterations: 1}
precisions: [fp32]
data:
  sources:
    val: {images: images, annotations: val.json}
  sets:
    train: {source: val, count: 1}
    evaluation: {source: val}
protocol: quick
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a spec whose files are there, but hold nothing good."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEJOULE_STORE", raising=False)
    (tmp_path / "images").mkdir()
    (tmp_path / "val.json").write_text("{}")
    (tmp_path / "plain.txt").write_text("no spec")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def call(capfd):
    """Call the command; gives exit code, standard output and standard error."""

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        return ended.value.code or 0, *capfd.readouterr()

    return call


def test_help_lists_every_command_and_loads_no_other_package():
    code = (
        "import sys; from edgejoule import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', [m for m in sys.modules if m.startswith(('edgejoule_', 'torch', 'numpy', 'edgejoule.spec'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in ("run", "plan", "status", "doctor", *cli.COMMANDS))
    assert "LOADED []" in done.stdout


def test_version_is_told(call):
    assert call("--version") == (0, f"edgejoule {cli.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument"),
        (["run", "spec.yaml", "--otu", "x"], "No such option"),
        (["plan", "a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_exits_with_2(call, words, said):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.yaml"], "absent.yaml: there is no such file\n"),
        (["images"], "images: is a folder; name the spec file in it\n"),
        (["plain.txt"], "plain.txt: a spec is a mapping (name:, models:, ...), not 'no spec'\n"),
        (["spec.yaml", "--set", "threads=0"], "--set threads=0: threads: must be greater than or equal to 1, not 0\n"),
        (
            ["spec.yaml", "--set", "models.0.detector=nanodet"],
            "there is no detector 'nanodet'; did you mean 'nanodet_m'",
        ),
        (["spec.yaml", "--store", "val.json"], "the store .*val.json cannot be"),
        (["spec.yaml", "--out", "val.json/deeper"], "val.json"),
    ],
)
def test_mistake_is_one_sentence_and_exits_with_1(here, call, command, words, said):
    code, out, err = call(command, *words)
    assert (code, out) == (1, "")
    assert said in err or re.search(said, err)
    assert err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_one_sentence(here, call):
    (here / "closed").mkdir(mode=0o500)
    code, _, err = call("run", "spec.yaml", "--out", "closed/out")
    assert code == 1
    assert "ermission" in err
    assert err.count("\n") == 1


def fail_with(error):
    def fail(arguments=None, **options):
        raise error

    return lambda wanted: fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EdgejouleError("what, which, what to do"), "what, which, what to do\n"),
        (UnsupportedError("no INT8 here"), "no INT8 here\n"),
        (type("AgentError", (Exception,), {"outcome": "oom", "transient": False})("too big"), "too big\n"),
        (PermissionError(13, "Permission denied", "/some/file"), "/some/file: permission denied\n"),
        (OSError(28, "No space left on device"), "the output: no space left on device\n"),
    ],
)
def test_expected_error_is_its_sentence(call, monkeypatch, error, said):
    monkeypatch.setattr(cli, "make_app", fail_with(error))
    assert call("run") == (1, "", said)


def test_interrupt_exits_with_130(call, monkeypatch):
    monkeypatch.setattr(cli, "make_app", fail_with(KeyboardInterrupt()))
    assert call("run") == (130, "", "")


def test_fault_of_ours_leaves_a_log_and_no_traceback(call, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "make_app", fail_with(ZeroDivisionError("division by zero")))
    monkeypatch.setattr(cli.tempfile, "tempdir", str(tmp_path))
    code, out, err = call("run")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"edgejoule met a fault of its own \(ZeroDivisionError\); please report it with .*\n", err)
    (log,) = tmp_path.glob("edgejoule-crash-*.log")
    assert str(log) in err
    assert "Traceback" in log.read_text()


def test_command_of_an_absent_package_says_what_to_install(call, monkeypatch):
    monkeypatch.setattr(cli, "entry_points", lambda group: ())
    assert call("data") == (1, "", "command 'data' is not installed; pip install edgejoule-trainer\n")


def test_plan_tells_what_a_run_would_do(here, call):
    code, out, err = call("plan", "spec.yaml", "--json")
    assert (code, err.strip()) == (0, "")
    answer = json.loads(out)
    states = {step["id"]: step["state"] for step in answer["steps"]}
    assert states["import-data"] == "to do"
    assert states["build/nanodet_m/fp32/host"] == "follows"
    assert [cell["name"] for cell in answer["cells"]] == ["nanodet_m/fp32/host"]
    assert Path(answer["store"]) == here / "runs" / ".store"


def test_plan_as_a_table_counts_steps(here, call):
    code, out, _ = call("plan", "spec.yaml")
    assert code == 0
    assert "import-data" in out
    assert re.search(r"1 rows, \d+ steps: 1 to do, \d+ follows", out)


def test_status_without_store_says_so(here, call):
    code, _, err = call("status")
    assert code == 1
    assert err == "there is no store runs/.store; name it with --store or EDGEJOULE_STORE, or run a spec first\n"


def test_run_whose_rows_all_fail_still_gives_results_and_exits_with_1(here, call):
    """Real steps on bad data: the first one fails, the analysis says so in every row."""
    code, out, err = call("run", "spec.yaml", "--json")
    assert code == 1
    (row,) = json.loads(out)["rows"]
    assert (row["status"], row["protocol"], row["comparable"]) == ("failed", "quick", False)
    assert row["reason"]
    assert "Traceback" not in err
    assert (here / "runs/small/report.html").is_file()
    assert json.loads((here / "runs/small/results.json").read_text()) == json.loads(out)

    code, out, _ = call("run", "spec.yaml")
    assert code == 1
    assert "0 steps carried out" in out
    assert "Report: runs/small/report.html" in out

    code, out, _ = call("status")
    assert code == 0
    assert out.startswith("small: ")
    code, out, _ = call("status", "small", "--json")
    assert {step["id"]: step["state"] for step in json.loads(out)["steps"]}["import-data"] == "failed"
    code, _, err = call("status", "other")
    assert code == 1
    assert "there is no run 'other' in the store" in err


def test_get_copies_what_a_step_made_and_says_what_it_cannot_find(here, call):
    call("run", "spec.yaml", "--json")
    code, out, _ = call("get", "small", "analyze")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"results", "report"}

    code, out, _ = call("get", "small", "analyze", "results", "--into", "deep/copy.json")
    assert code == 0
    assert out.startswith("wrote deep/copy.json, ")
    assert (here / "deep/copy.json").read_bytes() == (here / "runs/small/results.json").read_bytes()

    code, out, _ = call("get", "small", "analyze", "report", "--into", "deep")
    assert code == 0
    assert (here / "deep/report").read_bytes() == (here / "runs/small/report.html").read_bytes()

    for words, said in (
        (("small", "analyze", "report", "--into", "plain.txt/x"), "plain.txt/x cannot be written ("),
        (("small", "analyse"), "run 'small' has no step 'analyse'; edgejoule status small lists its steps"),
        (("small", "import-data"), "step 'import-data' of run 'small' has made nothing yet"),
        (("small", "analyze", "reprot"), "step 'analyze' made no output 'reprot'; it made: "),
        (("smal", "analyze"), "there is no run 'smal' in the store"),
    ):
        code, _, err = call("get", *words)
        assert code == 1
        assert said in err


def test_store_follows_the_environment(here, call, monkeypatch):
    monkeypatch.setenv("EDGEJOULE_STORE", str(here / "elsewhere"))
    _, out, _ = call("plan", "spec.yaml", "--json")
    assert json.loads(out)["store"] == str(here / "elsewhere")


# --- doctor --------------------------------------------------------------------------------------


def test_doctor_tells_everything_as_json(here, call):
    code, out, _ = call("doctor", "--json")
    assert code == 0
    found = json.loads(out)
    assert {"python", "packages", "runtimes", "processor", "memory", "power", "device host", "steps", "store"} <= set(
        found
    )
    assert set(found["steps"]) >= {"import-data", "build", "benchmark", "predict", "score", "analyze"}


def test_doctor_makes_no_store(here, call):
    call("doctor")
    assert not (here / "runs").exists()


def test_doctor_reads_a_board(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor: 0\nmodel name: ARMv8 rev 1\nprocessor: 1\nmodel name: other\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:  4051516 kB\nMemAvailable: 100 kB\n")
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("schedutil\n")
    assert doctor.processor(tmp_path)["model"] == "ARMv8 rev 1"
    assert doctor.processor(tmp_path)["governor"] == "schedutil"
    assert doctor.memory(tmp_path)["MemTotal"] == "4051516 kB"
    assert doctor.rapl(tmp_path).startswith("no RAPL energy counter on this host")


def test_doctor_tells_what_a_jetson_is(here, call, monkeypatch):
    root = trees.write("orin_nano_jp6", here / "board")
    probe = host.probe
    monkeypatch.setattr(host, "probe", lambda: probe(root))
    _, out, _ = call("doctor")
    for line in (
        "    processor: Jetson Orin Nano 8 GB (tegra234, SM 8.7)",
        "    l4t: 36.4.3",
        "    power_mode: 25W",
        "    clocks_locked: False",
        "    fast_int8: True",
        "    learnt: by SM 8.7: TensorRT is of another root",
    ):
        assert line in out.splitlines()


def test_doctor_finds_rapl(tmp_path):
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "energy_uj").write_text("12\n")
    (zone / "name").write_text("package-0\n")
    assert doctor.rapl(tmp_path) == "RAPL is readable: package-0"
