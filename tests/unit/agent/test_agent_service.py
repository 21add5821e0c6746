"""The agent against a gateway that behaves oddly: it answers by a script. The real one is in the integration tests."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgejoule_agent import blobs, host, live, service
from edgejoule_agent.__main__ import main as agent_main
from edgejoule_agent.blobs import Blobs, hash_of
from edgejoule_agent.connection import Connection
from edgejoule_agent.errors import (
    EngineError,
    JobGoneError,
    MessageRefusedError,
    OutOfReachError,
    SettingsError,
    TokenRefusedError,
)
from edgejoule_agent.exporter import cells
from edgejoule_agent.host_lock import host_lock
from edgejoule_agent.simulation import trees
from edgejoule_agent.simulation.running import LoadPipe

TOKEN = "nano.secret"
JOB = "a" * 32
DATA = bytes(range(256)) * 3000
HASH = hashlib.sha256(DATA).hexdigest()


def test_progress_counts_in_words_that_the_gateway_takes():
    """A candidate's name in them may be longer, as it is of three runtimes' options."""
    place = Path(service.__file__).parent / "schemas" / "device_messages.json"
    progress = json.loads(place.read_text())["$defs"]["DeviceProgress"]["properties"]["unit"]
    assert progress["maxLength"] == service.UNIT_LIMIT
    said = []

    class Asked:
        def ask(self, place, message, timeout_s):
            said.append(message["unit"])
            return {"go_on": True}

    with service._Reports(Asked(), {"job": JOB, "report_every_s": 0.01}) as reports:
        reports.advance(1, 2, "images, " + "onnxruntime, " * 4)
        with reports.going_on():
            while not said:
                time.sleep(0.01)
    assert said[-1].startswith("images, onnxruntime, ")
    assert len(said[-1]) == service.UNIT_LIMIT


class Gateway:
    """A server on this host; ``answer(method, path, body)`` gives a status and an answer, or does something odd.

    Attributes:
        heard: (method, path, body) of every request.
    """

    def __init__(self):
        self.heard = []
        self.answer = lambda method, path, body: (204, b"")
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                owner.heard.append((self.command, self.path, body))
                assert self.headers["Authorization"] == "Bearer " + TOKEN
                answer = owner.answer(self.command, self.path, body)
                if answer is None:  # hang up
                    self.close_connection = True
                    return
                status, content = answer[0], answer[1]
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                start = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["0"])[0])
                self.send_response(206 if start else status)
                self.send_header("Content-Length", str(answer[2] if len(answer) > 2 else len(content) - start))
                self.end_headers()
                self.wfile.write(content[start:])
                if len(answer) > 2:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = handle_one

            def log_message(self, *_):
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:{}".format(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway():
    gateway = Gateway()
    yield gateway
    gateway.close()


@pytest.fixture
def connection(gateway):
    connection = Connection(gateway.url, TOKEN)
    yield connection
    connection.close()


# --- the connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "gateway", "ftp://x", "https://", "https://x/path", "http://gateway:8443", "http://10.0.0.1"]
)
def test_address_that_is_none_or_would_tell_the_token_is_refused(url):
    with pytest.raises(SettingsError):
        Connection(url, TOKEN)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "\x00"])
def test_token_that_is_none_is_refused(token):
    with pytest.raises(SettingsError, match="the token is none"):
        Connection("https://gateway", token)


def test_what_was_heard_of_the_gateway_is_marked_where_it_can_be(gateway, tmp_path):
    for heard, marked in ((tmp_path / "heard", True), (tmp_path / "none" / "heard", False)):
        connection = Connection(gateway.url, TOKEN, heard=str(heard))
        connection.ask("/v1/hello", {})
        connection.close()
        assert heard.exists() == marked


def test_authority_that_is_none_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="holds no certificates"):
        Connection("https://gateway", TOKEN, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, {"error": "no"}), TokenRefusedError),
        ((404, {"error": "no such job"}), JobGoneError),
        ((410, {"error": "no such job"}), JobGoneError),
        ((404, b"<html>Not Found</html>"), OutOfReachError),
        ((404, b"404 page not found"), OutOfReachError),
        ((410, [{"error": "no object"}]), OutOfReachError),
        ((422, {"error": "outputs: no"}), MessageRefusedError),
        ((413, b"<html>Too Large</html>"), OutOfReachError),
        ((429, {"error": "slower"}), OutOfReachError),
        ((503, b"no json"), OutOfReachError),
        ((302, b""), OutOfReachError),
        ((200, b"no json"), OutOfReachError),
        ((200, b"[1]"), OutOfReachError),
        ((200, b"\xff"), OutOfReachError),
        ((200, b"{", 500), OutOfReachError),
        (None, OutOfReachError),
    ],
)
def test_odd_answer_is_told_apart_and_the_next_request_is_served(gateway, connection, answer, error):
    gateway.answer = lambda *_: answer
    with pytest.raises(error):
        connection.ask("/v1/job", {})
    gateway.answer = lambda *_: (200, {"well": True})
    assert connection.ask("/v1/job", {}) == {"well": True}


def test_gateway_that_is_not_there_is_out_of_reach():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        connection = Connection("http://127.0.0.1:{}".format(held.getsockname()[1]), TOKEN)
        with pytest.raises(OutOfReachError, match="is out of reach"):
            connection.ask("/v1/job", {})


def test_certificate_for_another_name_leaves_the_gateway_out_of_reach(tmp_path):
    files = [str(tmp_path / name) for name in ("key", "certificate")]
    made_for = ["-subj", "/CN=gateway", "-addext", "subjectAltName=DNS:elsewhere.lan"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    with open(os.devnull, "w") as quiet:
        subprocess.check_call([*command, *made_for, "-keyout", files[0], "-out", files[1]], stderr=quiet)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])

    def greet():
        with contextlib.suppress(OSError):  # the client hangs up
            context.wrap_socket(server.accept()[0], server_side=True).close()

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        connection = Connection("https://127.0.0.1:{}".format(server.getsockname()[1]), TOKEN, files[1])
        with pytest.raises(OutOfReachError, match=r"is out of reach: .*127\.0\.0\.1"):
            connection.ask("/v1/hello", {})
        thread.join(10)


def test_requests_share_one_connection(gateway, connection):
    gateway.answer = lambda *_: (200, {})
    connection.ask("/a", {})
    first = connection._open.sock
    for _ in range(3):
        connection.ask("/a", {})
    assert connection._open.sock is first


# --- blobs --------------------------------------------------------------------------------------------


def test_blob_that_breaks_off_goes_on_there(tmp_path, gateway, connection):
    blobs = Blobs(str(tmp_path), 10**9)

    def fetch(sha256, start, take):
        connection.download("/blob", start, take)

    gateway.answer = lambda *_: (200, DATA[:300000], len(DATA))
    with pytest.raises(OutOfReachError):
        blobs.get(HASH, fetch)
    assert (tmp_path / (HASH + ".part")).stat().st_size == 300000
    gateway.answer = lambda *_: (200, DATA)
    path = blobs.get(HASH, fetch)
    assert Path(path).read_bytes() == DATA
    heard = len(gateway.heard)
    assert blobs.get(HASH, fetch) == path
    assert len(gateway.heard) == heard  # not asked for again


def test_blob_of_another_hash_is_thrown_away(tmp_path):
    blobs = Blobs(str(tmp_path), 10**9)
    with pytest.raises(OutOfReachError, match="sha256"):
        blobs.get(HASH, lambda sha256, start, take: take(b"other"))
    assert os.listdir(str(tmp_path)) == []


def test_blob_that_was_damaged_here_is_fetched_again(tmp_path):
    blobs = Blobs(str(tmp_path), 10**9)
    (tmp_path / HASH).write_bytes(b"damaged")
    assert hash_of(blobs.get(HASH, lambda sha256, start, take: take(DATA))) == HASH


def test_blob_that_the_disk_gives_no_more_is_fetched_again(tmp_path):
    blobs = Blobs(str(tmp_path), 10**9)
    (tmp_path / HASH).symlink_to("/proc/self/mem")  # opens, and fails with EIO when it is read
    path = blobs.get(HASH, lambda sha256, start, take: take(DATA))
    assert not os.path.islink(path)
    assert hash_of(path) == HASH


def test_blobs_used_longest_ago_go_first_and_needed_ones_stay(tmp_path):
    blobs = Blobs(str(tmp_path), 250)
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(str(tmp_path / name), (1000 - age, 1000 - age))
    blobs.make_room(["d"])
    assert sorted(os.listdir(str(tmp_path))) == ["a", "d"]


# --- the service --------------------------------------------------------------------------------------


class World:
    """A service in a thread, and the gateway that it serves."""

    def __init__(self, gateway, folder):
        self.gateway = gateway
        self.folder = folder
        self.stopping = threading.Event()
        self.results = []
        self.jobs = []
        gateway.answer = self.answer

    def answer(self, method, path, body):
        if path == "/v1/hello":
            return 200, {"device": "nano"}
        if path == "/v1/job":
            if self.jobs:
                return 200, self.jobs.pop()
            time.sleep(0.05)
            return 204, b""
        if path.endswith("/progress"):
            return 200, {"go_on": True}
        if path.endswith("/result"):
            self.results.append(json.loads(body.decode()))
            return 200, {"over": True, "said": "thanks"}
        return 200, DATA

    def job(self, **parameters):
        return {
            "job": JOB,
            "step": "step",
            "kind": "toy",
            "version": 3,
            "parameters": parameters,
            "inputs": {},
            "exclusive": True,
            "time_limit_s": 60.0,
            "silence_limit_s": 60.0,
            "report_every_s": 0.1,
        }

    def start(self, **more):
        connection = Connection(self.gateway.url, TOKEN)
        agent = service.Service(connection, str(self.folder), 10**9, self.stopping, {"toy": "toy_steps"}, **more)
        self.thread = threading.Thread(target=agent.serve, daemon=True)
        self.thread.start()

    def stop(self):
        self.stopping.set()
        self.thread.join(15)
        assert not self.thread.is_alive()

    def wait_for(self, true, seconds=15):
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.gateway.heard
            time.sleep(0.02)


@pytest.fixture
def world(gateway, tmp_path, monkeypatch):
    folder = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("EDGEJOULE_LOCKS", str(tmp_path))
    monkeypatch.setattr(service, "BACK_OFF_S", (0.05,))
    monkeypatch.setattr(service, "TROUBLE_S", 0.05)
    world = World(gateway, tmp_path / "state")
    yield world
    world.stop()


def test_service_says_hello_then_works_and_delivers(world):
    world.jobs.append(world.job(ticks=20))
    world.jobs[0]["inputs"] = {"data": HASH}
    world.jobs[0]["parameters"]["do"] = "crash"
    world.start()
    world.wait_for(lambda: world.results)
    (result,) = world.results
    assert (result["outcome"], result["reason"], result["outputs"]) == ("failed", "ValueError: a bug", {})
    assert result["log"]["size_bytes"] > 0
    assert world.gateway.heard[0][1] == "/v1/hello"
    assert json.loads(world.gateway.heard[0][2].decode())["kinds"] == {"toy": 3}
    assert any(path.endswith("/progress") for _, path, _ in world.gateway.heard)
    world.wait_for(lambda: not (world.folder / "job").exists())


def test_power_mode_put_on_by_hand_is_told_to_the_gateway_at_once(world, tmp_path):
    root = trees.write("nano_jp4", tmp_path / "nano")

    def told():
        bodies = [json.loads(body.decode()) for _, path, body in world.gateway.heard if path == "/v1/hello"]
        return [body["environment"]["power_mode"] for body in bodies]

    world.start(probe=lambda: host.probe(root))
    world.wait_for(lambda: len([path for _, path, _ in world.gateway.heard if path == "/v1/job"]) > 3)
    assert told() == ["MAXN"]
    (Path(root) / "var/lib/nvpmodel/status").write_text("pmode:0001")
    world.wait_for(lambda: told() == ["MAXN", "5W"])


def test_gateway_that_is_away_is_told_of_once_for_each_reason(world, caplog):
    answers = [(503, {"error": "later"})] * 3 + [(401, {"error": "no board is let in with this token"})] * 3

    def answer(method, path, body, usual=world.answer):
        return answers.pop(0) if answers else usual(method, path, body)

    world.gateway.answer = answer
    world.jobs.append(world.job())
    world.start()
    world.wait_for(lambda: world.results)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [re.findall("answers 503|refuses this board's token", line) for line in said] == [
        ["answers 503"],
        ["refuses this board's token"],
    ]


def test_job_of_a_cell_shows_its_counters_at_0_before_anything_is_measured(world, monkeypatch):
    monkeypatch.setenv(live.VARIABLE, str(world.folder))
    world.jobs.append(dict(world.job(ticks=1), step="build/nanodet_m/fp32/nano"))
    world.start()
    world.wait_for(lambda: world.results)
    found = cells.readings(str(world.folder))["edgejoule_inferences_total"]
    assert {(labels["detector"], labels["precision"], count) for labels, count in found} == {("nanodet_m", "fp32", 0)}


def test_agent_that_plays_a_board_says_so_and_the_board_ends_with_it(gateway, tmp_path):
    gateway.answer = lambda method, path, body: (200, {}) if path == "/v1/hello" else (204, b"")
    command = [sys.executable, "-m", "edgejoule_agent", "--simulate", "nano", "--gateway", gateway.url]
    agent = subprocess.Popen([*command, "--state", str(tmp_path)], env=dict(os.environ, EDGEJOULE_TOKEN=TOKEN))
    deadline = time.monotonic() + 60
    while len(gateway.heard) < 2 and agent.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    hello = json.loads(gateway.heard[0][2].decode())
    board = str(tmp_path / "board")
    LoadPipe(board).close()
    agent.terminate()
    assert agent.wait(30) == 0
    assert hello["hardware"]["simulated"] is True
    assert hello["environment"]["simulated"] is True
    assert hello["environment"]["board"] == "Jetson Nano 4 GB"
    with pytest.raises(EngineError, match="no simulated board runs"):
        LoadPipe(board)


def test_board_that_cannot_be_played_is_refused_in_a_sentence(gateway, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGEJOULE_TOKEN", TOKEN)
    arguments = ["--simulate", "tx1", "--gateway", gateway.url, "--state", str(tmp_path)]
    assert agent_main(arguments) == 1
    assert capsys.readouterr().err == "no board 'tx1' can be simulated: take one of nano, orin-nano\n"


def test_result_is_kept_until_the_gateway_takes_it_and_missing_files_are_sent(world):
    taken = []

    def answer(method, path, body, usual=world.answer):
        if path.endswith("/result") and len(world.results) < 3:
            world.results.append(json.loads(body.decode()))
            if len(world.results) == 1:
                return None  # the connection breaks
            if len(world.results) == 2:
                return 503, {"error": "later"}
            return 200, {"over": False, "said": "", "missing": {"text": 0, "record": 5}}
        if method == "PUT":
            taken.append((path, body))
            return 200, {}
        return usual(method, path, body)

    world.gateway.answer = answer
    world.jobs.append(world.job())
    world.start()
    world.wait_for(lambda: len(world.results) == 4 and not (world.folder / "job").exists())
    assert world.results[0] == world.results[3]
    assert sorted(world.results[0]["outputs"]) == ["record", "text"]
    files = dict(taken)
    assert files["/v1/jobs/{}/files/text".format(JOB)] == b""
    assert files["/v1/jobs/{}/files/record".format(JOB)] == b'{"threads":"1","waits":"PASSIVE"}'[5:]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/hello", (404, b"<html>Not Found</html>")),
        ("/v1/hello", (404, {"error": "Not Found"})),
        ("/v1/job", (410, {"error": "Gone"})),
        ("/result", (404, b"<html>Not Found</html>")),
    ],
)
def test_other_server_in_the_gateways_place_for_a_while_costs_no_result(world, path, answer):
    wrong = []

    def answer_wrongly(method, asked, body, usual=world.answer):
        if asked.endswith(path) and len(wrong) < 2:
            wrong.append(asked)
            return answer
        return usual(method, asked, body)

    world.gateway.answer = answer_wrongly
    world.jobs.append(world.job())
    world.start()
    world.wait_for(lambda: world.results)
    assert len(wrong) == 2
    assert world.results[0]["outcome"] == "ok"


def test_result_on_the_disk_is_delivered_before_anything_else(world):
    world.jobs.append(world.job())
    refuse = threading.Event()
    refuse.set()

    def answer(method, path, body, usual=world.answer):
        return (503, {"error": "later"}) if refuse.is_set() and path.endswith("/result") else usual(method, path, body)

    world.gateway.answer = answer
    world.start()
    world.wait_for(lambda: (world.folder / "job" / "result.json").exists())
    world.stop()
    world.stopping.clear()
    refuse.clear()
    del world.gateway.heard[:]
    world.start()
    world.wait_for(lambda: world.results)
    assert [path for _, path, _ in world.gateway.heard][:2] == ["/v1/hello", "/v1/jobs/{}/result".format(JOB)]


def test_job_that_the_agent_was_at_when_it_ended_is_dropped(world):
    (world.folder / "job" / "outputs").mkdir(parents=True)
    (world.folder / "job" / "job.json").write_text(json.dumps(world.job()))
    (world.folder / "job" / "outputs" / "text").write_text("half")
    world.start()
    world.wait_for(lambda: any(path == "/v1/job" for _, path, _ in world.gateway.heard))
    assert not (world.folder / "job").exists()
    assert world.results == []


def test_job_that_is_not_wanted_any_more_is_stopped(world, tmp_path):
    pids = tmp_path / "pids"

    def answer(method, path, body, usual=world.answer):
        if path.endswith("/progress") and pids.exists():
            return 200, {"go_on": False, "reason": "cancelled"}
        return usual(method, path, body)

    world.gateway.answer = answer
    world.jobs.append(world.job(do="sleep", pids=str(pids)))
    world.start()
    world.wait_for(pids.exists)
    world.wait_for(lambda: not (world.folder / "job").exists())
    assert world.results == []


def test_job_whose_input_is_gone_is_dropped(world):
    def answer(method, path, body, usual=world.answer):
        return (404, {"error": "damaged"}) if "/blobs/" in path else usual(method, path, body)

    world.gateway.answer = answer
    world.jobs.append(dict(world.job(), inputs={"data": HASH}))
    world.start()
    world.wait_for(lambda: any("/blobs/" in path for _, path, _ in world.gateway.heard))
    world.wait_for(lambda: not (world.folder / "job").exists())
    assert world.results == []


def test_step_under_way_is_given_back_when_the_agent_ends(world, tmp_path):
    pids = tmp_path / "pids"
    world.jobs.append(world.job(do="sleep", pids=str(pids)))
    world.start()
    world.wait_for(pids.exists)
    world.stop()
    assert [result["outcome"] for result in world.results] == ["given_back"]
    assert not (world.folder / "job").exists()


def test_log_that_cannot_be_read_costs_no_result(world):
    world.jobs.append(world.job(do="hurt_log"))
    world.start()
    world.wait_for(lambda: world.results)
    assert (world.results[0]["outcome"], world.results[0]["log"]) == ("ok", None)
    assert sorted(world.results[0]["outputs"]) == ["record", "text"]


@pytest.mark.parametrize(
    ("does", "outcome", "reason"),
    [
        ("full_disk", "given_back", "the disk is full"),
        ("dangling", "failed", "job/outputs/text cannot be read (Too many levels of symbolic links)"),
        ("folder", "failed", "job/outputs/text cannot be read (Is a directory)"),
    ],
)
def test_result_that_cannot_be_kept_gives_the_step_back_or_fails_it(world, does, outcome, reason):
    world.jobs.append(world.job(do=does))
    world.start()
    world.wait_for(lambda: world.results)
    assert (world.results[0]["outcome"], world.results[0]["transient"]) == (outcome, True)
    assert reason in world.results[0]["reason"]
    world.wait_for(lambda: not (world.folder / "job").exists())


def test_disk_that_takes_no_input_is_not_taken_for_the_network_and_gives_the_step_back(world):
    (world.folder / "blobs").mkdir(parents=True)
    (world.folder / "blobs" / (HASH + ".part")).symlink_to("/dev/full")
    world.jobs.append(dict(world.job(), inputs={"data": HASH}))
    world.start()
    world.wait_for(lambda: world.results)
    assert world.results[0]["outcome"] == "given_back"
    assert world.results[0]["reason"] == "[Errno 28] No space left on device"


def test_disk_that_does_not_even_take_the_job_gives_the_step_back(gateway, tmp_path):
    world = World(gateway, tmp_path)
    world.jobs.append(world.job())
    command = [sys.executable, "-m", "edgejoule_agent", "--gateway", gateway.url, "--state", str(tmp_path)]
    nothing = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (0, 0))
    agent = subprocess.Popen(command, env=dict(os.environ, EDGEJOULE_TOKEN=TOKEN), preexec_fn=nothing)
    try:
        world.wait_for(lambda: world.results, 60)
    finally:
        agent.terminate()
        agent.wait(30)
    assert (world.results[0]["outcome"], world.results[0]["reason"]) == ("given_back", "[Errno 27] File too large")


@pytest.mark.parametrize(("short_bytes", "left"), [(0, {HASH, "f" * 64}), (1 << 62, {HASH})])
def test_step_that_finds_the_disk_full_has_inputs_of_others_make_room(world, monkeypatch, short_bytes, left):
    monkeypatch.setattr(blobs, "SHORT_BYTES", short_bytes)
    folder = world.folder / "blobs"
    folder.mkdir(parents=True)
    (folder / ("f" * 64)).write_bytes(b"of an earlier job")
    world.jobs += [world.job(), dict(world.job(do="full_disk"), inputs={"data": HASH})]
    world.start()
    world.wait_for(lambda: len(world.results) == 2)
    assert [result["outcome"] for result in world.results] == ["given_back", "ok"]
    assert set(os.listdir(str(folder))) == left


@pytest.mark.parametrize(
    ("gone", "outcome", "reason"),
    [("outputs/text", "failed", "text of its result cannot be read on its board: .*/outputs/t"), ("log", "ok", "None")],
)
def test_result_whose_file_is_gone_goes_without_it_and_the_next_step_is_done(world, gone, outcome, reason):
    def answer(method, path, body, usual=world.answer):
        if path.endswith("/result") and not world.results:
            world.results.append(json.loads(body.decode()))
            (world.folder / "job" / gone).unlink()
            return 200, {"over": False, "said": "", "missing": {os.path.basename(gone): 0}}
        return usual(method, path, body)

    world.gateway.answer = answer
    world.jobs += [world.job(do="crash"), world.job()]
    world.start()
    world.wait_for(lambda: len(world.results) == 3)
    assert [result["outcome"] for result in world.results] == ["ok", outcome, "failed"]
    assert re.match(reason, str(world.results[1]["reason"]))
    assert sorted(world.results[1]["outputs"]) == (["record", "text"] if outcome == "ok" else [])
    assert (world.results[1]["log"] is None) == (gone == "log")


@pytest.mark.parametrize("files", [{"result.json": "{}"}, {"result.json": "{}", "job.json": ""}, {"result.json": "{"}])
def test_result_that_tells_not_of_which_job_it_is_is_dropped_and_the_next_step_is_done(world, files):
    (world.folder / "job").mkdir(parents=True)
    for name, content in files.items():
        (world.folder / "job" / name).write_text(content)
    world.jobs.append(world.job())
    world.start()
    world.wait_for(lambda: world.results)
    assert [result["outcome"] for result in world.results] == ["ok"]


def test_kind_that_the_agent_does_not_know_fails_with_what_to_do(world):
    world.jobs.append(dict(world.job(), kind="video"))
    world.start()
    world.wait_for(lambda: world.results)
    assert "knows no step video" in world.results[0]["reason"]


def test_measurement_waits_for_others_on_its_host_and_says_so(world):
    with host_lock(False, lambda: None):
        world.jobs.append(world.job())
        world.start()
        world.wait_for(lambda: any(b"for others on this host" in body for _, _, body in world.gateway.heard))
        assert world.results == []
    world.wait_for(lambda: world.results)
    assert world.results[0]["outcome"] == "ok"
