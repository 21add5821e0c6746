"""`make jetson-deploy` and its kin over a real ssh, against played boards: each ends in the documented state."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from network import Network
from servers import RedisServer, free_ports

from edgejoule_agent import jetson

sys.path.insert(0, str(Path(__file__).parent))
from played_board import PlayedBoard
from toy_gateway import BoardStack

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "l4t" / "deploy.py"

pytestmark = [
    pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh client"),
    pytest.mark.timeout(300),
]


class Bench:
    """A gateway with a store, a played board, and the commands of a person between them."""

    def __init__(self, stack: BoardStack, folder: Path) -> None:
        self.stack = stack
        self._folder = folder
        self.board: PlayedBoard | None = None
        self._boards: list[PlayedBoard] = []

    def play(self, kind: str) -> PlayedBoard:
        """A board, to which commands go from now on."""
        self.board = PlayedBoard(self._folder / f"board{len(self._boards)}", kind)
        self._boards.append(self.board)
        return self.board

    def close(self) -> None:
        for board in self._boards:
            board.close()

    def write_settings(self, **settings: str) -> None:
        """What `make up` would write into .env where the commands are given."""
        (self._folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def start(self, command: str, port: int | None = None, **settings: str) -> subprocess.Popen[str]:
        assert self.board
        environment = {
            **os.environ,
            "EDGEJOULE_STORE": self.stack.where,
            "EDGEJOULE_BROKER": self.stack.redis.url,
            "HOST": "jetson@127.0.0.1",
            "NAME": "nano",
            "GATEWAY": f"https://localhost:{self.stack.port}",
            "CA": str(self.stack.certificate),
            "SSH_OPTIONS": self.board.ssh_options(port),
            **settings,
        }
        return subprocess.Popen(
            [sys.executable, str(DEPLOY), command],
            env=environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background job ignores
        )

    def run(self, command: str, port: int | None = None, **settings: str) -> tuple[int, str]:
        process = self.start(command, port, **settings)
        said, _ = process.communicate(timeout=100)
        return process.returncode, said

    def deploy(self) -> str:
        code, said = self.run("deploy")
        assert code == 0, said
        return said

    def devices(self) -> dict[str, str]:
        """Name to state of its token."""
        return {device["name"]: device["token"] for device in json.loads(self.ask("list", "--json"))}

    def ask(self, *words: str) -> bytes:
        """What `edgejoule devices` says."""
        command = [str(Path(sys.executable).with_name("edgejoule")), "devices", *words, "--store", self.stack.where]
        return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture
def bench(redis_server: RedisServer, tmp_path: Path) -> Iterator[Bench]:
    redis_server.client().flushall()
    stack = BoardStack(tmp_path, redis_server)
    bench = Bench(stack, tmp_path)
    try:
        stack.gateway()
        yield bench
    finally:
        bench.close()
        stack.close()


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("nano_jp4", "Jetson Nano 4 GB, L4T 32.7.1: image r32.7 on nvcr.io/nvidia/l4t-base:r32.7.1, Python 3.6"),
        (
            "orin_nano_jp6",
            "Jetson Orin Nano 8 GB, L4T 36.4.3: image r36.4 on nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime",
        ),
    ],
)
def test_board_goes_from_nothing_to_registered_to_removed(bench: Bench, kind: str, row: str) -> None:
    board = bench.play(kind)
    bench.write_settings(COMPOSE_PROFILES="cpu,grafana", GRAFANA_PORT="3001")
    said = bench.deploy()
    assert row in said
    assert said.endswith(
        "nano is registered and served. Name it in a spec: devices: [nano]\n"
        "Dashboard: http://127.0.0.1:3001/d/edgejoule-device?var-device=nano\n"
    )
    assert bench.devices() == {"nano": "valid"}
    (container,) = board.docker("containers").values()
    assert container["HostConfig"]["--runtime"] == ["nvidia"]
    token = board.folder / "docker" / "volumes" / "edgejoule-agent" / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text().strip()
    assert secret not in said
    assert secret not in (board.folder / "docker.log").read_text()
    assert not re.search(r"None|Traceback", said), said

    code, said = bench.run("status")
    assert code == 0, said
    assert "token valid, last heard of at 20" in said
    code, said = bench.run("logs")
    assert code == 0
    assert "serves this board" in said

    # run twice: nothing is made anew, and the agent is not disturbed
    before = board.docker("containers")
    said = bench.deploy()
    assert "image, token and container stand already" in said
    assert "fast INT8" not in said, "what may be measuring is not asked, which takes memory of the GPU"
    assert board.docker("containers") == before
    assert token.read_text().strip() == secret

    board.lose_image_name()
    code, said = bench.run("remove", NAME="")
    assert code == 0, said
    assert said.count("removed: the image ") == 2
    assert board.is_untouched()
    assert bench.devices() == {"nano": "revoked"}
    code, said = bench.run("remove")
    assert code == 0
    assert "nothing of ours was there" in said


# --- what goes wrong: nothing is left where nothing was ------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "release", "sentence"),
    [
        (
            "nano_jp4",
            "# R32 (release), REVISION: 6.1, GCID: 1, BOARD: t210ref",
            r"L4T 32\.6\.1 is unknown .* JetPack 4\.6\.1",
        ),
        ("orin_nano_jp6", "# R36 (release), REVISION: 9.9, GCID: 1", r"L4T 36\.9\.9 .* in no table here"),
        ("thor", None, r"L4T 38\.\d+\.\d+ \(JetPack 7\.\d\) has no image here; there are those for r32\.7, r35, "),
        ("x86_host", None, r"this is no Jetson of ours: /etc/nv_tegra_release is not there"),
    ],
)
def test_wrong_l4t_changes_nothing(bench: Bench, kind: str, release: str | None, sentence: str) -> None:
    board = bench.play(kind)
    if release:
        (board.folder / "root" / "etc" / "nv_tegra_release").write_text(release + "\n")
    code, said = bench.run("deploy")
    assert code == 1
    assert re.search(sentence, said), said
    assert "Traceback" not in said
    assert board.is_untouched()
    assert bench.devices() == {}


def test_docker_that_cannot_serve_changes_nothing(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    for faults, sentence in (
        (
            {"runtimes": ["runc"]},
            r"no runtime called nvidia \(it has runc\): sudo apt install nvidia-container-runtime",
        ),
        (
            {"no_daemon": "Got permission denied while trying to connect to the Docker daemon socket"},
            r"usermod -aG docker",
        ),
        ({"no_daemon": "Cannot connect to the Docker daemon. Is it running?"}, r"sudo systemctl start docker"),
        ({"no_daemon": "sh: 1: docker: not found"}, r"there is no Docker on the board: sudo apt install"),
    ):
        board.faults(**faults)
        code, said = bench.run("deploy")
        assert code == 1
        assert re.search(sentence, said), said
        assert board.is_untouched()
    assert bench.devices() == {}


def test_docker_that_may_set_no_limit_has_the_agent_run_without(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    board.faults(no_limits=True)
    said = bench.deploy()
    assert "may not set a real-time limit: the power's sampler goes without" in said
    (container,) = board.docker("containers").values()
    assert "--ulimit" not in container["HostConfig"]
    assert "image, token and container stand already" in bench.deploy()


def test_full_disk_leaves_the_board_as_it_was(bench: Bench) -> None:
    board = bench.play("orin_nano_jp6")
    board.free(2)
    code, said = bench.run("deploy")
    assert code == 1
    assert "/ on the board has 2.0 GB free, and 8.0 GB are asked for: make room" in said
    assert not any(words[0] == "build" for words in board.asked())
    board.free(20)
    board.faults(no_room=True)
    code, said = bench.run("deploy")
    assert code == 1
    assert "building the image failed, because the board's disk is full: make room" in said
    assert "The board is as it was." in said
    assert board.is_untouched()
    assert bench.devices() == {}


@pytest.mark.parametrize(
    ("kind", "module", "sentence"),
    [
        (
            "nano_jp4",
            None,
            r"no TensorRT for its Python in the container \(TensorRT 8\.2\.1 is there, but not its Python module "
            r"tensorrt for this interpreter\): sudo apt install nvidia-jetpack on the board, whose own is mounted\. ",
        ),
        (
            "orin_nano_jp6",
            "raise ImportError('libnvinfer.so.10: cannot open shared object file')\n",
            r"TensorRT 10\.3\.0 in the container does not answer \(by SM 8\.7: TensorRT cannot be asked "
            r"\(ImportError: libnvinfer\.so\.10: cannot open shared object file\)\): it comes with the image, "
            r"whose base must have it ",
        ),
    ],
)
def test_board_without_a_tensorrt_that_answers_is_refused(
    bench: Bench, kind: str, module: str | None, sentence: str
) -> None:
    board = bench.play(kind)
    if module is None:
        shutil.rmtree(board.tensorrt)
    else:
        (board.tensorrt / "__init__.py").write_text(module)
    code, said = bench.run("deploy")
    assert code == 1
    assert re.search(f"the agent cannot use the board's GPU: {sentence}", said), said
    assert "The board is as it was." in said
    assert "Traceback" not in said
    assert board.is_untouched()
    assert bench.devices() == {"nano": "revoked"}


def test_connection_cut_half_way_goes_on_with_the_same_command(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    network = Network(board.port)
    network.stride, network.budget = 4096, 30_000  # in the middle of the build context
    code, said = bench.run("deploy", network.port)
    assert network.cuts == 1
    assert code == 1
    assert re.search(
        r"the connection to jetson@127.0.0.1 broke off.*Not taken back on the board: the image\. The same", said
    ), said
    assert bench.devices() == {}
    assert board.is_untouched(), "half an archive must not become an image"

    # the agent runs already, with a token that then is void
    network.mend()
    process = bench.start("deploy", network.port)
    deadline = time.monotonic() + 60
    while not any(words[0] == "exec" for words in board.asked()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    network.cut()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Not taken back on the board: the container, the volume, the image. The same command goes on" in said
    assert bench.devices() == {"nano": "revoked"}
    network.mend()

    code, said = bench.run("deploy", network.port)
    assert code == 0, said
    assert "token: its last one was revoked" in said
    assert bench.devices() == {"nano": "valid"}
    assert list(board.docker("containers")) == ["edgejoule-agent"]
    network.close()


def test_token_that_cannot_be_made_void_is_said_to_be_perhaps_valid_and_not_to_be_on_the_board(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    nobody = f"https://localhost:{free_ports(1)[0]}"
    process = bench.start("deploy", GATEWAY=nobody, GATEWAY_WAIT="2")
    deadline = time.monotonic() + 60
    while not any(words[0] == "exec" for words in board.asked()):  # then the token is made, and the agent runs
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    store = Path(bench.stack.where)
    store.rename(store.with_name("away"))
    said, _ = process.communicate(timeout=60)
    store.with_name("away").rename(store)
    assert process.returncode == 1
    assert "did not serve the board within 2 s" in said
    assert said.endswith(
        "The board is as it was. The token of nano may still be valid, since this host's store did not answer: "
        "edgejoule devices revoke nano when it answers again.\n"
    )
    assert "Not taken back" not in said
    assert board.is_untouched()
    assert bench.devices() == {"nano": "valid"}


def test_interrupt_while_the_token_is_made_leaves_none_valid(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    process = bench.start("deploy")
    token = Path(bench.stack.where) / "devices" / "nano.json"
    deadline = time.monotonic() + 60
    while not token.exists():  # before the deployment asks when it was made, which takes a Python's start
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "taken back: the token of nano" in said
    assert "stopped. The board is as it was." in said
    assert board.is_untouched()
    assert bench.devices() == {"nano": "revoked"}


def test_what_docker_does_not_take_back_is_named(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    nobody = {"GATEWAY": f"https://localhost:{free_ports(1)[0]}", "GATEWAY_WAIT": "1"}
    board.faults(refused=["volume rm"])
    code, said = bench.run("deploy", **nobody)
    assert code == 1
    assert "not yet: taking back the volume failed on the board: Error response from daemon: volume rm is refused" in (
        said
    )
    assert "Not taken back on the board: the volume. The same command goes on from there" in said
    assert "as it was" not in said
    assert (board.docker("containers"), board.docker("images")) == ({}, {})
    assert board.volumes() == ["edgejoule-agent"]
    assert bench.devices() == {"nano": "revoked"}

    board.faults()
    bench.deploy()
    board.faults(refused=["start"])
    code, said = bench.run("deploy", **nobody)
    assert code == 1
    assert "Not taken back on the board: the stop of the container before. The same command goes on" in said
    ((name, container),) = board.docker("containers").items()
    assert (name, container["State"]["Running"]) == ("edgejoule-agent", False)

    board.faults()
    assert "container: it does not run" in bench.deploy()
    assert bench.devices() == {"nano": "valid"}


def test_interrupt_takes_everything_back(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    board.faults(build_s=1.0)
    process = bench.start("deploy")
    assert process.stdout
    for line in process.stdout:
        if "Step 2" in line:
            process.send_signal(signal.SIGINT)
            break
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped. The board is as it was." in said
    assert board.is_untouched()
    assert bench.devices() == {}


def test_new_settings_replace_the_container_and_a_failed_one_gives_way_to_it_again(bench: Bench) -> None:
    board = bench.play("orin_nano_jp6")
    bench.deploy()
    token = (board.folder / "docker" / "volumes" / "edgejoule-agent" / "token").read_text()
    (before,) = board.docker("containers").values()

    code, said = bench.run("deploy", GATEWAY=f"https://127.0.0.1:{bench.stack.port}")
    assert code == 0, said
    assert "container: its image or its settings are others" in said
    (now,) = board.docker("containers").values()
    assert now["Id"] != before["Id"]

    code, said = bench.run("deploy", GATEWAY=f"https://localhost:{free_ports(1)[0]}", GATEWAY_WAIT="2")
    assert code == 1, said
    assert "did not serve the board within 2 s" in said
    assert "is out of reach" in said, "the agent's log"
    assert "The board is as it was." in said
    ((name, again),) = board.docker("containers").items()
    assert (name, again["Id"]) == ("edgejoule-agent", now["Id"])
    assert again["State"]["Running"]
    assert (board.folder / "docker" / "volumes" / "edgejoule-agent" / "token").read_text() == token
    assert bench.devices() == {"nano": "valid"}

    code, said = bench.run("deploy", NAME="orin")
    assert code == 1
    assert "the board is deployed as 'nano' already: make jetson-remove first" in said


def test_second_board_does_not_take_a_name_in_use(bench: Bench) -> None:
    first = bench.play("nano_jp4")
    bench.deploy()
    token = (Path(bench.stack.where) / "devices" / "nano.json").read_bytes()
    second = bench.play("orin_nano_jp6")
    code, said = bench.run("deploy")
    assert code == 1
    assert re.search(
        r"^a device nano is registered and was last heard of at 20\S+, and this board has nothing of ours: choose "
        r"another NAME, or edgejoule devices revoke nano first, if this board is to take its place\.$",
        said,
        re.MULTILINE,
    ), said
    assert second.is_untouched()
    code, said = bench.run("remove")
    assert code == 0
    assert "the token of nano stays valid, as it is not this board's: edgejoule devices revoke nano" in said
    assert "nothing of ours was there" in said
    assert (Path(bench.stack.where) / "devices" / "nano.json").read_bytes() == token
    assert list(first.docker("containers")) == ["edgejoule-agent"]


def test_board_whose_token_was_revoked_does_not_take_its_name_back_from_its_successor(bench: Bench) -> None:
    first = bench.play("nano_jp4")
    bench.deploy()
    bench.ask("revoke", "nano")
    second = bench.play("nano_jp4")  # of the same kind, so that nothing but its token tells it apart
    bench.deploy()
    registered = Path(bench.stack.where) / "devices" / "nano.json"
    token = registered.read_bytes()
    bench.board = first
    code, said = bench.run("deploy")
    assert code == 1
    assert re.search(
        r"^a device nano was last heard of at 20\S+ by a newer token than this board's: make jetson-remove here and "
        r"choose another NAME, or edgejoule devices revoke nano first, if this board is to take its place\.$",
        said,
        re.MULTILINE,
    ), said
    assert registered.read_bytes() == token
    assert list(first.docker("containers")) == list(second.docker("containers")) == ["edgejoule-agent"]

    # without its container nothing on it tells which token it had
    first.remove_container()
    code, said = bench.run("deploy")
    assert code == 1
    assert re.search(
        r"^a device nano was last heard of at 20\S+, and only this board's container, which is gone, would tell "
        r"whether that was this board: choose another NAME, or edgejoule devices revoke nano first, if this board is "
        r"to take its place\.$",
        said,
        re.MULTILINE,
    ), said
    assert registered.read_bytes() == token
    assert (list(first.docker("containers")), first.volumes()) == ([], ["edgejoule-agent"])

    bench.ask("revoke", "nano")
    assert "token: its last one was revoked; by a new one it is let in again" in bench.deploy()


def test_image_archive_is_loaded_where_it_fits(bench: Bench, tmp_path: Path) -> None:
    board = bench.play("orin_nano_jp6")
    for made_for, fits in (("36.2.0", False), ("36.4.0", True)):
        archive = save_image(tmp_path / f"{made_for}.tar", made_for)
        code, said = bench.run("deploy", IMAGE=str(archive))
        assert (code == 0) == fits, said
        if not fits:
            assert "was made for L4T 36.2.0, and the board has 36.4.3" in said
            assert board.is_untouched()
    assert not any(words[0] == "build" for words in board.asked())
    assert "image, token and container stand already" in bench.run("deploy", IMAGE=str(archive))[1]


def save_image(path: Path, l4t: str) -> Path:
    """What the stand-in takes for an archive of ``docker save``."""
    made = subprocess.run([sys.executable, str(DEPLOY), "context", l4t], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(made)) as context, tarfile.open(path, "w") as archive:
        for entry in context:
            archive.addfile(entry, context.extractfile(entry))
        entry = tarfile.TarInfo("tag")
        entry.size = len(b"mine:1")
        archive.addfile(entry, io.BytesIO(b"mine:1"))
    return path


# --- power modes ----------------------------------------------------------------------------------------


INSTALLED = {
    *("/etc/systemd/system/edgejoule-power.socket", "/etc/systemd/system/edgejoule-power@.service"),
    *("/usr/local/lib/edgejoule_power.py", "/run/edgejoule-power", "/run/edgejoule-power/socket", "listens", "enabled"),
}


@pytest.mark.parametrize("kind", ["nano_jp4", "orin_nano_jp6"])
def test_power_modes_come_when_asked_for_and_go_when_not(bench: Bench, kind: str) -> None:
    board = bench.play(kind)
    code, said = bench.run("deploy", POWER_MODES="1")
    assert code == 0, said
    assert "  helper: what puts power modes on for the agent is not there" in said
    assert "    power modes: put on as asked, by the board's root" in said
    assert board.helper().keys() == INSTALLED
    installed = board.helper()["/usr/local/lib/edgejoule_power.py"]
    assert installed == (ROOT / "l4t" / "edgejoule_power.py").read_text()
    declared = jetson.power_modes(str(board.folder / "root")).names
    assert sorted(board.ask_helper(b"modes\n")["modes"]) == sorted(declared)
    assert "power modes: put on for the agent, edgejoule-power.socket listens\n" in bench.run("status")[1]

    before = board.docker("containers"), board.helper(), board.rights()
    code, said = bench.run("deploy", POWER_MODES="1")
    assert code == 0, said
    assert "image, token, helper and container stand already" in said
    assert (board.docker("containers"), board.helper(), board.rights()) == before

    said = bench.deploy()
    assert re.search(
        r"(?s)container: its image or its settings are others\n.*  helper: it goes, as POWER_MODES=1 is not ", said
    )
    assert board.helper() == {}
    assert "power modes: left as they are (POWER_MODES=1 was not asked for)" in bench.run("status")[1]
    rights = board.rights()
    assert "stand already" in bench.deploy()
    assert bench.run("remove")[0] == 0
    assert board.rights() == rights, "root is not asked for where nothing is its"


def test_board_that_is_removed_has_its_helper_removed(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    bench.run("deploy", POWER_MODES="1")
    (board.folder / "systemd-enabled").rename(board.folder / "away")
    assert "edgejoule-power.socket is there and does not listen: make jetson-deploy" in bench.run("status")[1]
    (board.folder / "away").rename(board.folder / "systemd-enabled")
    board.faults(sudo="asks")
    code, said = bench.run("remove")
    assert code == 1
    assert re.search(
        r"sudo says 'sudo: a password is required': .* or do it there by hand \(sudo systemctl disable", said
    ), said
    assert said.endswith("; nothing was changed.\n")
    assert bench.devices() == {"nano": "valid"}
    assert board.helper().keys() == INSTALLED
    board.faults()
    kept = board.folder / "docker" / "volumes" / "edgejoule-agent" / "power-mode.json"
    kept.write_text('{"put_back": "MAXN", "put_on": "5W"}')
    before = len(board.asked())
    code, said = bench.run("remove")
    assert code == 0, said
    assert 'a power mode was not put back ({"put_back": "MAXN", "put_on": "5W"}): sudo nvpmodel -q there tells' in said
    assert "  removed: the helper for power modes\n" in said
    assert board.is_untouched()
    commands = [words[0] for words in board.asked()[before:]]
    assert commands.index("stop") < commands.index("rm"), "the agent has time to put the mode back"


def test_sudo_that_asks_for_a_password_changes_nothing(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    board.faults(sudo="asks")
    code, said = bench.run("deploy", POWER_MODES="1")
    assert code == 1
    assert re.search(
        r"^POWER_MODES=1 has root install, and on the board sudo says 'sudo: a password is required': let "
        r"jetson@127\.0\.0\.1 use it without a password as long as this takes \(.*\), or leave POWER_MODES out; "
        r"nothing was changed\.$",
        said,
        re.MULTILINE,
    ), said
    assert board.is_untouched()
    assert bench.devices() == {}
    bench.deploy()
    board.faults()
    assert bench.run("deploy", POWER_MODES="1")[0] == 0
    board.faults(sudo="asks")
    before = board.docker("containers"), board.helper()
    code, said = bench.run("deploy")
    assert code == 1
    assert "what POWER_MODES=1 left goes by root's hand alone, and on the board sudo says" in said
    assert "or keep it by POWER_MODES=1; nothing was changed." in said
    assert bench.run("deploy", POWER_MODES="1")[0] == 0, "nothing of root's is to do"
    assert (board.docker("containers"), board.helper()) == before


def test_deployment_that_fails_takes_the_helper_away_or_puts_the_one_before_back(bench: Bench) -> None:
    board = bench.play("nano_jp4")
    nobody = {"GATEWAY": f"https://localhost:{free_ports(1)[0]}", "GATEWAY_WAIT": "1"}
    board.faults(deaf=True)
    code, said = bench.run("deploy", POWER_MODES="1")
    assert code == 1
    assert re.search(
        r"the agent cannot put power modes on: the board's root does not answer at .*socket \(No such file", said
    )
    assert "taken back: the helper for power modes" in said
    assert "The board is as it was." in said
    assert board.is_untouched()

    board.faults()
    assert bench.run("deploy", POWER_MODES="1")[0] == 0
    program = board.folder / "root" / "usr" / "local" / "lib" / "edgejoule_power.py"
    older = program.read_text().replace("LONGEST = 32", "LONGEST = 31")
    program.write_text(older)
    assert "edgejoule-power.socket listens, of another version than this one's" in bench.run("status")[1]
    before = {name: text for name, text in board.helper().items() if name != "listens"}
    for settings in ({"POWER_MODES": "1"}, {}):
        code, said = bench.run("deploy", **settings, **nobody)
        assert code == 1
        assert "The board is as it was." in said, said
        now = board.helper()
        assert "listens" in now
        assert {name: text for name, text in now.items() if name != "listens"} == before
        assert board.ask_helper(b"modes\n")["modes"] == [0, 1]
    assert bench.run("deploy", POWER_MODES="1")[0] == 0
    assert program.read_text() == (ROOT / "l4t" / "edgejoule_power.py").read_text()


def test_board_out_of_reach_is_one_sentence(bench: Bench) -> None:
    bench.play("nano_jp4")
    code, said = bench.run("status", free_ports(1)[0])
    assert code == 1
    assert re.search(r"^jetson@127.0.0.1 cannot be reached by ssh: .*refused", said, re.MULTILINE), said
    code, said = bench.run("deploy", HOST="-oProxyCommand=false")
    assert code == 1
    assert "is no user@board" in said
