"""The board's root behind its socket: the real program for each connection, as systemd does it; nvpmodel is a stand-in.

Also runs under Python 3.6.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import pytest

from edgejoule_agent import jetson, power_mode
from edgejoule_agent.errors import HostError, UnsupportedError
from edgejoule_agent.simulation import trees

L4T = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3, "l4t")
ROOTS = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {l4t!r})
import edgejoule_power as helper
helper.CONF, helper.LOCK, helper.PROGRAMS = {root!r} + "/etc/nvpmodel.conf", {folder!r} + "/lock", {folder!r} + ":/bin"
helper.ASKING_S = 1.0
helper.PROGRAM_S = {program_s}
sys.exit(helper.main())
"""
NVPMODEL = """\
#!/bin/sh
echo "$@" >> {folder}/asked
read answer && exit 9  # nobody may answer that the board shall restart
{then}
"""
CHANGES = "printf 'pmode:%04d\\n' \"$2\" > {root}/var/lib/nvpmodel/status"
# what a real one does: first the clocks, last the status
HALVES = """\
echo "$2" > {folder}/clocks
[ -e {folder}/slow ] && rm {folder}/slow && touch {folder}/half && sleep PAUSE
printf 'pmode:%04d\\n' "$2" > {root}/var/lib/nvpmodel/status"""


class Helper:
    """An Orin Nano in 25W whose root listens: each connection becomes the standard input of a process of its own."""

    def __init__(self, folder, root):
        self.folder, self.root, self.program_s = folder, root, 10.0
        self.path = os.path.join(folder, "socket")
        self.started = []
        self.nvpmodel(CHANGES)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            program = ROOTS.format(l4t=L4T, root=self.root, folder=self.folder, program_s=self.program_s)
            words = [sys.executable, "-I", "-S", "-c", program]
            with open(os.path.join(self.folder, "journal"), "ab") as journal:
                # of a group of its own, which systemd ends as a whole when the process is killed
                self.started.append(
                    subprocess.Popen(words, stdin=connection, stdout=journal, stderr=journal, start_new_session=True)
                )
            connection.close()

    def nvpmodel(self, then):
        """What it does from now on."""
        path = os.path.join(self.folder, "nvpmodel")
        with open(path, "w") as file:
            file.write(NVPMODEL.format(folder=self.folder, then=then.format(folder=self.folder, root=self.root)))
        os.chmod(path, 0o755)

    def ask(self, request):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(20)
            connection.connect(self.path)
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                return json.loads(stream.read().decode())

    def file(self, name):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return []
        with open(path) as file:
            return file.read().splitlines()

    def touch(self, name):
        with open(os.path.join(self.folder, name), "w"):
            pass

    def wait_for(self, name):
        until_s = time.monotonic() + 20
        while not os.path.exists(os.path.join(self.folder, name)):
            assert time.monotonic() < until_s, self.file("journal")
            time.sleep(0.01)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for process in self.started:
            process.wait(20)


@pytest.fixture
def helper(tmp_path, monkeypatch):
    root = trees.write("orin_nano_jp6", tmp_path / "orin").rstrip("/")
    folder = tempfile.mkdtemp(prefix="ej-")  # short: a socket's path has 107 characters at most
    found = Helper(folder, root)
    monkeypatch.setenv(power_mode.SOCKET, found.path)
    monkeypatch.setattr(power_mode, "PROGRAMS", "")  # as in a container
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(folder)


def on(root):
    return jetson.power_mode(root)[0]


def ids(root):
    return {name: number for number, name in jetson.power_modes(root).names.items()}


# --- the program ----------------------------------------------------------------------------------------


def test_mode_is_put_on_and_what_nvpmodel_said_comes_back(helper):
    helper.nvpmodel("echo first; echo last words; exit 3")
    assert helper.ask(b"put on 1\n") == {"code": 3, "said": "last words"}
    helper.nvpmodel("yes x | head -c 100000")
    assert helper.ask(b"put on 0\n") == {"code": 0, "said": "x"}
    assert helper.file("asked") == ["-m 1", "-m 0"]
    assert helper.file("journal") == [
        """b'put on 1\\n': {"code": 3, "said": "last words"}""",
        """b'put on 0\\n': {"code": 0, "said": "x"}""",
    ]


@pytest.mark.parametrize(
    "request_",
    [
        *(
            b"put on 1; reboot\n",
            b"put on 1",
            b"put on -1\n",
            b"put on 1\nput on 2\n",
            b"put on \xd9\xa1\n",
            b"put on  1\n",
        ),
        *(b"put on 1 --force\n", b"put on $(id)\n", b"-q\n", b"\n", b"\0" * 31 + b"\n"),
    ],
)
def test_what_is_no_request_is_refused_and_runs_nothing(helper, request_):
    assert helper.ask(request_) == {"error": "that is no request"}
    assert helper.file("asked") == []


def test_of_a_longer_request_nothing_is_read_and_nothing_run(helper):
    for request in (b"put on 1\n" * 4, b"put on " + b"0" * 100000):
        with contextlib.suppress(ConnectionResetError):  # what is left unread may cost the answer
            helper.ask(request)
        helper.started[-1].wait(20)
        assert "that is no request" in helper.file("journal")[-1]
    assert helper.file("asked") == []


def test_mode_that_the_board_does_not_declare_is_refused(helper):
    assert helper.ask(b"put on 99\n") == {"error": f"{helper.root}/etc/nvpmodel.conf declares no mode 99"}
    os.unlink(helper.root + "/etc/nvpmodel.conf")
    assert "No such file" in helper.ask(b"put on 1\n")["error"]
    assert helper.file("asked") == []


@pytest.mark.parametrize("kind", trees.JETSONS)
def test_modes_are_those_that_the_agent_reads(helper, tmp_path, kind):
    helper.root = trees.write(kind, tmp_path / "other").rstrip("/")
    with open(helper.root + "/etc/nvpmodel.conf", "a") as file:
        file.write("< POWER_MODEL NAME=NONE >\n< POWER_MODEL ID=8 >\n< POWER_MODEL ID=x NAME=X >\n")
        file.write("#< POWER_MODEL ID=9 NAME=9 >\n")
    modes = helper.ask(b"modes\n")["modes"]
    assert sorted(modes) == sorted(jetson.power_modes(helper.root).names)
    assert len(modes) > 1


def test_who_asks_nothing_is_not_waited_for(helper):
    began = time.monotonic()
    assert helper.ask(b"") == {"error": "timed out"}
    assert time.monotonic() - began < 10


def test_nvpmodel_that_does_not_end_is_killed_and_said(helper):
    helper.program_s = 0.5
    helper.nvpmodel("exec sleep 60")
    assert helper.ask(b"put on 1\n") == {"error": "nvpmodel did not end within 0 s, and was killed"}
    helper.nvpmodel(CHANGES)
    assert helper.ask(b"put on 1\n")["code"] == 0


def test_two_at_once_run_one_after_the_other(helper):
    helper.nvpmodel("mkdir {folder}/alone || exit 7; sleep 0.5; rmdir {folder}/alone")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(helper.ask(b"put on 1\n"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answer["code"] for answer in answers] == [0, 0, 0]


def test_nothing_is_done_for_one_who_was_gone_before_its_turn(helper):
    helper.nvpmodel(HALVES.replace("PAUSE", "1"))
    helper.touch("slow")
    first = threading.Thread(target=helper.ask, args=(b"put on 1\n",))
    first.start()
    helper.wait_for("half")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gone:
        gone.connect(helper.path)
        gone.sendall(b"put on 2\n")
    first.join(20)
    helper.started[1].wait(20)
    assert helper.file("asked") == ["-m 1"]
    assert helper.file("journal")[-1] == """b'put on 2\\n': {"error": "who asked is gone"}"""


# --- the agent in its container -------------------------------------------------------------------------


def test_agent_that_is_not_root_has_its_mode_put_on_and_back(helper, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    state = str(tmp_path / "state")
    with power_mode.held("15W", state, helper.root):
        assert on(helper.root) == "15W"
        assert os.listdir(state) == [power_mode.FILE]
    assert on(helper.root) == "25W"
    assert os.listdir(state) == []
    assert helper.file("asked") == ["-m {}".format(ids(helper.root)[name]) for name in ("15W", "25W")]


def test_mode_that_takes_a_restart_is_an_error_with_nvpmodels_last_words(helper, tmp_path, monkeypatch):
    monkeypatch.setattr(power_mode, "SETTLE_S", 0.2)
    helper.nvpmodel("echo NVPM WARN: reboot required")
    with pytest.raises(HostError, match=r"15W did not come on .* last said: NVPM WARN: reboot required; put it on by"):
        power_mode.held("15W", str(tmp_path / "state"), helper.root).__enter__()
    assert on(helper.root) == "25W"


def test_socket_that_nobody_answers_is_told_before_anything_changes(helper, tmp_path, monkeypatch):
    state = str(tmp_path / "state")
    for path, reason in (
        (helper.path + "-none", "No such file or directory"),
        (helper.path + "-dead", "Connection refused"),
    ):
        if reason == "Connection refused":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
                dead.bind(path)
        monkeypatch.setenv(power_mode.SOCKET, path)
        with pytest.raises(UnsupportedError) as error:
            power_mode.held("15W", state, helper.root).__enter__()
        assert str(error.value) == (
            "power mode 15W was asked for, and 25W is on: the board's root does not answer at {} ({}); see "
            "systemctl status edgejoule-power.socket on the board, or put it on by hand (sudo nvpmodel -m {}), then "
            "measure again"
        ).format(path, reason, ids(helper.root)["15W"])
        assert not os.path.exists(state)


def test_what_root_refuses_while_it_is_put_back_is_remembered(helper, tmp_path):
    state = str(tmp_path / "state")
    with pytest.raises(
        HostError, match=r"25W cannot be put on: the board's root says: there is no nvpmodel in .* says"
    ), power_mode.held("15W", state, helper.root):
        os.unlink(os.path.join(helper.folder, "nvpmodel"))
    assert os.listdir(state) == [power_mode.FILE]
    helper.nvpmodel(CHANGES)
    power_mode.put_back(state, helper.root)
    assert on(helper.root) == "25W"


HOLDS = textwrap.dedent(
    """
    import sys
    from edgejoule_agent import power_mode
    with power_mode.held("15W", sys.argv[1], sys.argv[2]):
        pass
    """
)


@pytest.mark.parametrize("killed", ["agent", "helper"])
def test_what_was_killed_in_the_middle_of_nvpmodel_is_put_back(helper, tmp_path, killed):
    state = str(tmp_path / "state")
    helper.nvpmodel(HALVES.replace("PAUSE", "2" if killed == "agent" else "60"))
    helper.touch("slow")
    agent = subprocess.Popen([sys.executable, "-c", HOLDS, state, helper.root], stderr=subprocess.PIPE)
    helper.wait_for("half")
    assert on(helper.root) == "25W"  # though the clocks are another's
    if killed == "agent":  # while the board's nvpmodel goes on
        agent.kill()
        agent.communicate(timeout=20)
        power_mode.put_back(state, helper.root)
    else:
        os.killpg(helper.started[-1].pid, signal.SIGKILL)
        _, said = agent.communicate(timeout=20)
        assert "15W cannot be put on: the board's root broke off at" in said.decode()
    for process in helper.started:  # also the one that was asked by who is gone
        process.wait(20)
    assert helper.file("asked") == ["-m {}".format(ids(helper.root)[name]) for name in ("15W", "25W")]
    assert helper.file("clocks") == [str(ids(helper.root)["25W"])]
    assert on(helper.root) == "25W"
    assert os.listdir(state) == []
