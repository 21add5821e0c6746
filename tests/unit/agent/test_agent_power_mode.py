"""Power modes on generated boards, changed by a stand-in for nvpmodel that writes the status file."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from edgejoule_agent import jetson, power_mode
from edgejoule_agent.benchmark import benchmark
from edgejoule_agent.errors import HostError, UnsupportedError
from edgejoule_agent.simulation import device, trees

STAND_IN = """\
#!/bin/sh
echo "$@" >> {log}
read answer && exit 9  # nobody may answer that the board shall restart
{then}
"""
CHANGES = "printf 'pmode:%04d\\n' \"$2\" > {root}/var/lib/nvpmodel/status"


@pytest.fixture
def board(tmp_path, monkeypatch):
    """An Orin Nano in 25W on which we are root: its root, our folder, and a function that says what nvpmodel does."""
    root = trees.write("orin_nano_jp6", tmp_path / "orin").rstrip("/")
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setattr(power_mode, "PROGRAMS", str(programs))
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def nvpmodel(then=CHANGES):
        path = programs / "nvpmodel"
        path.write_text(STAND_IN.format(log=tmp_path / "log", then=then.format(root=root)))
        path.chmod(0o755)

    nvpmodel()
    return root, str(tmp_path / "state"), nvpmodel


def asked(tmp_path):
    """What nvpmodel was called with."""
    path = tmp_path / "log"
    return path.read_text().splitlines() if path.exists() else []


def on(root):
    return jetson.power_mode(root)[0]


def test_mode_is_put_on_and_back(board, tmp_path):
    root, state, _ = board
    assert on(root) == "25W"
    with power_mode.held("15W", state, root):
        assert on(root) == "15W"
        with open(os.path.join(state, power_mode.FILE)) as file:
            assert json.load(file) == {"put_back": "25W", "put_on": "15W"}
    assert on(root) == "25W"
    assert os.listdir(state) == []
    ids = {name: number for number, name in jetson.power_modes(root).names.items()}
    assert asked(tmp_path) == [f"-m {ids['15W']}", f"-m {ids['25W']}"]


def test_mode_is_put_back_when_the_measurement_fails(board):
    root, state, _ = board
    with pytest.raises(ZeroDivisionError), power_mode.held("15W", state, root):
        raise ZeroDivisionError
    assert on(root) == "25W"


def test_mode_that_is_on_already_takes_no_rights_and_changes_nothing(board, tmp_path, monkeypatch):
    root, state, _ = board
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with power_mode.held("25W", state, root):
        pass
    assert asked(tmp_path) == []
    assert not os.path.exists(state)


def test_what_a_killed_measurement_left_is_put_back_at_the_next_start(board, tmp_path):
    root, state, _ = board
    program = textwrap.dedent(
        f"""
        import os, signal
        from edgejoule_agent import power_mode
        power_mode.PROGRAMS = {power_mode.PROGRAMS!r}
        os.geteuid = lambda: 0
        with power_mode.held("15W", {state!r}, {root!r}):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert on(root) == "15W"
    power_mode.put_back(state, root)
    assert on(root) == "25W"
    assert os.listdir(state) == []
    power_mode.put_back(state, root)
    assert len(asked(tmp_path)) == 2


# what a real one does: first the clocks, last the status
HALVES = """\
echo "$2" > {root}/clocks
[ -e {root}/slow ] && rm {root}/slow && touch {root}/half && sleep {pause}
printf 'pmode:%04d\\n' "$2" > {root}/var/lib/nvpmodel/status"""
HOLDS = """
import os, sys
from edgejoule_agent import power_mode
power_mode.PROGRAMS, state, root, slow_first = sys.argv[1:]
os.geteuid = lambda: 0
slow = lambda: open(os.path.join(root, "slow"), "w").close()
if slow_first == "True":
    slow()
with power_mode.held("15W", state, root):
    slow()
"""


@pytest.mark.parametrize("while_changing", [True, False])  # else while changing back
@pytest.mark.parametrize("with_nvpmodel", [True, False])  # else nvpmodel goes on without who called it
def test_what_was_killed_in_the_middle_of_nvpmodel_is_put_back(board, while_changing, with_nvpmodel):
    root, state, nvpmodel = board
    nvpmodel(HALVES.replace("{pause}", "60" if with_nvpmodel else "1.5"))
    words = [sys.executable, "-c", HOLDS, power_mode.PROGRAMS, state, root, str(while_changing)]
    holds = subprocess.Popen(words, start_new_session=True)
    until_s = time.monotonic() + 20
    while not os.path.exists(os.path.join(root, "half")):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    (os.killpg if with_nvpmodel else os.kill)(holds.pid, signal.SIGKILL)
    assert holds.wait() == -signal.SIGKILL
    assert on(root) == ("25W" if while_changing else "15W")
    power_mode.put_back(state, root)
    ids = {name: number for number, name in jetson.power_modes(root).names.items()}
    with open(os.path.join(root, "clocks")) as file:
        assert int(file.read()) == ids["25W"]
    time.sleep(0 if with_nvpmodel else 1.6)  # by then the other one has ended, which put_back had to wait for
    assert on(root) == "25W"
    assert os.listdir(state) == []


def test_nvpmodel_that_does_not_end_is_waited_for_no_longer_than_it_takes(board, monkeypatch):
    root, state, _ = board
    power_mode._write(state, {"put_back": "25W", "put_on": "15W"})
    monkeypatch.setattr(power_mode, "PROGRAM_S", 0.3)
    with power_mode._changing(state), pytest.raises(HostError, match=r"ended within 0 s \(it is to be put back, says"):
        power_mode.put_back(state, root)
    assert os.listdir(state) == [power_mode.FILE]


def test_change_back_that_the_status_cannot_tell_counts_by_nvpmodels_exit_code(board):
    root, state, nvpmodel = board
    power_mode._write(state, {"put_back": "25W", "put_on": "15W"})
    nvpmodel("echo NVPM ERROR: no; exit 3")
    with pytest.raises(HostError, match=r"25W did not come on: nvpmodel ended with 3 and last said: NVPM ERROR: no; "):
        power_mode.put_back(state, root)
    assert os.listdir(state) == [power_mode.FILE]
    nvpmodel()
    power_mode.put_back(state, root)
    assert os.listdir(state) == []


@pytest.mark.parametrize("status", ["pmode:0000\n", "pmode:0099\n"])
def test_mode_that_the_board_does_not_have_any_more_is_said_and_dropped(board, tmp_path, caplog, status):
    root, state, _ = board
    power_mode._write(state, {"put_back": "10W", "put_on": jetson.power_modes(root).names[0]})
    with open(os.path.join(root, "var/lib/nvpmodel/status"), "w") as file:
        file.write(status)
    power_mode.put_back(state, root)
    assert f"{state}/power-mode.json: there is no power mode 10W to put back on this board any more" in caplog.text
    assert asked(tmp_path) == os.listdir(state) == []


def test_what_others_put_on_since_stays(board, tmp_path):
    root, state, _ = board
    power_mode._write(state, {"put_back": "25W", "put_on": "15W"})
    with open(os.path.join(root, "var/lib/nvpmodel/status"), "w") as file:
        file.write("pmode:0002\n")
    chosen = on(root)
    power_mode.put_back(state, root)
    assert on(root) == chosen not in ("15W", "25W")
    assert asked(tmp_path) == os.listdir(state) == []


def test_file_that_is_broken_is_said_and_goes(board, tmp_path, caplog):
    root, state, _ = board
    os.makedirs(state)
    for content in ("{", "[]", '{"put_on": "15W"}'):
        with open(os.path.join(state, power_mode.FILE), "w") as file:
            file.write(content)
        power_mode.put_back(state, root)
        assert "no power mode is put back" in caplog.text
        assert os.listdir(state) == []
    assert asked(tmp_path) == []


def test_mode_that_does_not_come_on_is_an_error_with_nvpmodels_last_words(board, monkeypatch):
    root, state, nvpmodel = board
    monkeypatch.setattr(power_mode, "SETTLE_S", 0.2)
    nvpmodel("echo NVPM WARN: reboot required")
    with pytest.raises(HostError, match=r"15W did not come on .* last said: NVPM WARN: reboot required; put it on by"):
        power_mode.held("15W", state, root).__enter__()
    assert on(root) == "25W"
    assert os.listdir(state) == []


def test_mode_that_does_not_go_back_is_remembered(board, monkeypatch):
    root, state, nvpmodel = board
    monkeypatch.setattr(power_mode, "SETTLE_S", 0.2)
    with pytest.raises(HostError, match="power mode 25W did not come on"), power_mode.held("15W", state, root):
        nvpmodel("exit 1")
    assert os.listdir(state) == [power_mode.FILE]
    nvpmodel()
    power_mode.put_back(state, root)
    assert on(root) == "25W"


def test_mode_of_a_board_that_declares_none_any_more_is_remembered(board):
    root, state, _ = board
    power_mode._write(state, {"put_back": "25W", "put_on": "15W"})
    declared = os.path.join(root, "etc/nvpmodel.conf")
    os.rename(declared, declared + ".away")
    with pytest.raises(HostError, match=r"25W cannot .*: /etc/nvpmodel\.conf: No such file.* says .*/power-mode\.json"):
        power_mode.put_back(state, root)
    assert os.listdir(state) == [power_mode.FILE]
    os.rename(declared + ".away", declared)
    with open(os.path.join(root, "var/lib/nvpmodel/status"), "w") as file:
        file.write("pmode:{:04d}\n".format({name: n for n, name in jetson.power_modes(root).names.items()}["15W"]))
    power_mode.put_back(state, root)
    assert on(root) == "25W"


def refused(name, state, root):
    with pytest.raises(UnsupportedError) as error:
        power_mode.held(name, state, root).__enter__()
    assert not os.path.exists(state)
    return str(error.value)


def test_what_cannot_be_is_refused_before_anything_changes(board, tmp_path, monkeypatch):
    root, state, _ = board
    assert "power mode 5W was asked for, and this board has 15W, 25W, " in refused("5W", state, root)
    host = trees.write("x86_host", tmp_path / "host")
    assert "this device has none (/etc/nvpmodel.conf: No such file" in refused("5W", state, host)
    monkeypatch.setattr(jetson, "probe", lambda root: {"clocks_locked": True})
    assert "jetson_clocks has locked the clocks" in refused("15W", state, root)
    monkeypatch.setattr(power_mode, "PROGRAMS", str(tmp_path))
    assert "the program nvpmodel is not here" in refused("15W", state, root)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = refused("15W", state, root)
    assert (
        "25W is on: only root may change it, and the agent is not root; make jetson-deploy POWER_MODES=1 lets one in a "
        "container, or put it on by hand (sudo nvpmodel -m 0)" in said
    )
    assert asked(tmp_path) == []


def test_a_simulated_board_keeps_its_mode(tmp_path):
    parameters = {
        "device": "simulated-nano",
        "environment": device.probe("nano")["environment"],
        "power_mode": "5W",
        "protocol": {},
    }
    with pytest.raises(UnsupportedError, match="power mode 5W was asked for, and a simulated board has but the one"):
        benchmark("engine", {}, "shard", "samples", parameters, lambda *_: None)
