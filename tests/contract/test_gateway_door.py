"""Who comes to the gateway with bad intent, or with bad luck: what is refused, and that nothing of it is kept."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import pickle
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from servers import RedisServer
from toy_gateway import HELLO, BoardStack, Client, on_board, sha256

from edgejoule.boards import is_used, new_token, probe_of, register, revoke, token_of
from edgejoule.plan import Step
from edgejoule.store import Manifest

LIMITS = {"poll_s": 2.0, "head_s": 1.0, "body_s": 1.0, "output_bytes": 1 << 20, "record_bytes": 1 << 16, "requests": 4}
_NUMBERS = count()
INPUT = b"an image shard" * 1000


@pytest.fixture(scope="module")
def served(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardStack]:
    """A gateway without a conductor: what is offered to boards, the tests offer themselves."""
    stack = BoardStack(tmp_path_factory.mktemp("door"), redis_server, limits=LIMITS)
    stack.gateway()
    yield stack
    stack.close()


@pytest.fixture
def stack(served: BoardStack) -> Iterator[BoardStack]:
    served.redis.client().flushall()
    yield served
    assert served._processes[0].poll() is None, served.logs()


@pytest.fixture
def nano(stack: BoardStack) -> Client:
    """A board that no other test had to do with."""
    return stack.client(f"nano-{next(_NUMBERS)}")


def given(stack: BoardStack, client: Client, name: str, **parameters: Any) -> tuple[str, str]:
    """The job and key of a step that the client was given, which reads INPUT."""
    step = on_board(name, device=client.device, **parameters)
    message = stack.offer(step, {"from-x": stack.store.put(INPUT).sha256})
    job = client.job()
    assert job["job"] == message.claim
    return job["job"], message.key


def deliver(client: Client, job: str, outputs: dict[str, bytes], **fields: object) -> Any:
    """Announce, send what is missing, announce again; the last answer."""
    for _ in range(3):
        status, answer = client.result(job, outputs, **fields)
        assert status == 200, answer
        if answer["over"]:
            return answer
        for name, offset in answer["missing"].items():
            assert client.upload(job, name, outputs[name], offset) == 200
    raise AssertionError(answer)


def left_of(key: str, stack: BoardStack) -> list[str]:
    """What Redis still holds of a step."""
    return [name for name in stack.coordination.left_over() if name.endswith(key)]


def head_of(what: str, client: Client, length: int) -> bytes:
    """The head of a request whose body has this many bytes."""
    head = f"{what} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


def last_attempt(stack: BoardStack, key: str) -> Any:
    return stack.store.attempts(key)[-1]


# --- who is let in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer nano-0.x",
        "Bearer none.x",
        "Basic bmFubzp4",
        "Bearer ../nano.x",
        "é",
    ],
)
def test_stranger_is_refused_whatever_the_header(stack: BoardStack, nano: Client, header: str) -> None:
    for method, path in (("POST", "/v1/job"), ("POST", "/v1/hello"), ("GET", f"/v1/jobs/{'0' * 32}/blobs/{'0' * 64}")):
        headers = {"Authorization": header.encode("utf-8").decode("latin-1")}
        status, body, _ = nano.request(method, path, b"", headers)
        assert (status, json.loads(body)) == (401, {"error": "no board is let in with this token"})


def test_health_needs_no_token_and_says_nothing_more(stack: BoardStack) -> None:
    assert Client(stack, "").request("GET", "/health")[:2] == (200, b'{"well":true}')


def test_token_is_void_when_revoked_or_made_anew(stack: BoardStack) -> None:
    first = stack.client("tx2")
    register("tx2", new_token("tx2"), stack.store)
    stack.wait_until(lambda: first.ask("/v1/hello", HELLO)[0] == 401, 3)
    second = stack.client("tx2")
    revoke("tx2", stack.store)
    stack.wait_until(lambda: second.ask("/v1/hello", HELLO)[0] == 401, 3)


def test_token_is_known_to_be_used_once_a_board_has_said_hello_with_it(stack: BoardStack) -> None:
    def used() -> bool:
        return is_used(token_of("twin", stack.store), probe_of("twin", stack.store))

    assert not used()
    stack.client("twin")
    assert used()
    token = new_token("twin")
    register("twin", token, stack.store)
    assert not used()
    successor = Client(stack, token)  # which says the same of itself
    stack.wait_until(lambda: successor.ask("/v1/hello", HELLO)[0] == 200)
    assert used()


def test_store_holds_no_token(stack: BoardStack, nano: Client) -> None:
    kept = b"".join(path.read_bytes() for path in (stack.folder / "store" / "devices").iterdir())
    assert nano.token.partition(".")[2].encode() not in kept
    assert sha256(nano.token.encode()).encode() in kept


def test_plain_http_is_not_answered(stack: BoardStack) -> None:
    connection = http.client.HTTPConnection("localhost", stack.port, timeout=5)
    connection.connect()
    connection.sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert not connection.sock.recv(100).startswith(b"HTTP")


def test_board_that_did_not_say_hello_gets_no_job(stack: BoardStack) -> None:
    token = new_token("silent")
    register("silent", token, stack.store)
    client = Client(stack, token)
    stack.wait_until(lambda: client.ask("/v1/job")[0] == 409, 3)


# --- what a token reaches -----------------------------------------------------------------------------


def test_job_of_another_board_cannot_be_reached(stack: BoardStack, nano: Client) -> None:
    other = stack.client("xavier")
    job, _ = given(stack, nano, "own")
    for status, _ in (
        other.ask(f"/v1/jobs/{job}/progress", {}),
        other.result(job, {"text": b"stolen"}),
        other.request("GET", f"/v1/jobs/{job}/blobs/{sha256(INPUT)}")[:2],
        other.request("PUT", f"/v1/jobs/{job}/files/text", b"stolen")[:2],
    ):
        assert status == 404
    assert deliver(nano, job, {"text": b"own"})["said"] == "ok"


def test_step_of_another_board_is_not_given_out(stack: BoardStack, nano: Client) -> None:
    other = stack.client("xavier")
    stack.offer(on_board("for-nano", device=nano.device))
    assert other.ask("/v1/job") == (204, None)
    assert nano.job()["step"] == "for-nano"


def test_blob_is_given_out_only_as_input_of_the_job_at_hand(stack: BoardStack, nano: Client) -> None:
    other = stack.store.put(b"another's").sha256
    job, _ = given(stack, nano, "reads")
    place = f"/v1/jobs/{job}/blobs/"
    assert nano.request("GET", place + sha256(INPUT))[:2] == (200, INPUT)
    for name in (
        other,
        "0" * 64,
        "..%2F..%2Fdevices%2Fnano.json",
        "%2Fetc%2Fpasswd",
        sha256(INPUT).upper(),
        "x" * 9000,
    ):
        assert nano.request("GET", place + name)[0] == 404
    assert nano.request("GET", f"/v1/jobs/..%2F{job}/blobs/{sha256(INPUT)}")[0] == 404
    deliver(nano, job, {"text": b"done"})
    assert nano.request("GET", place + sha256(INPUT))[0] == 404


def test_blob_goes_on_where_it_broke_off(stack: BoardStack, nano: Client) -> None:
    job, _ = given(stack, nano, "ranges")
    place = f"/v1/jobs/{job}/blobs/{sha256(INPUT)}"
    assert nano.request("GET", place, headers={"Range": "bytes=5000-"})[:2] == (206, INPUT[5000:])
    assert nano.request("GET", place, headers={"Range": f"bytes={len(INPUT)}-"})[1] == b""
    assert nano.request("GET", place, headers={"Range": f"bytes={len(INPUT) + 1}-"})[0] == 416


def test_damaged_input_is_not_given_out_and_the_conductor_is_told(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "damaged")
    path = stack.folder / "store" / "blobs" / "sha256" / sha256(INPUT)[:2] / sha256(INPUT)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"x" + good[1:])
    try:
        assert nano.request("GET", f"/v1/jobs/{job}/blobs/{sha256(INPUT)}")[0] == 404
        (news,) = [news for news in stack.coordination.wakes(1.0) if getattr(news, "key", "") == key]
        assert news.blob == sha256(INPUT)
    finally:
        path.write_bytes(good)


# --- what is taken ------------------------------------------------------------------------------------


def test_result_is_committed_as_the_board_made_it(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "good")
    status, answer = nano.result(job, {"text": b"good", "noise-000": b""})
    assert (status, answer["missing"]) == (200, {"text": 0})
    assert deliver(nano, job, {"text": b"good", "noise-000": b""}) == {"over": True, "said": "ok", "missing": {}}
    manifest = stack.store.manifest(key)
    assert {name: blob.sha256 for name, blob in manifest.outputs.items()} == {
        "text": sha256(b"good"),
        "noise-000": sha256(b""),
    }
    assert (manifest.made.host, manifest.made.duration_s, manifest.step) == (nano.device, 1.5, "good")
    assert left_of(key, stack) == []
    assert nano.result(job, {"text": b"good"})[0] == 404


def test_upload_cut_short_goes_on_where_it_broke_off(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "cut")
    data = bytes(range(256)) * 2000
    nano.result(job, {"text": data})
    with nano.connect() as connection:
        connection.sendall(head_of(f"PUT /v1/jobs/{job}/files/text", nano, len(data)) + data[:300_000])
        stack.wait_until(lambda: nano.result(job, {"text": data})[1]["missing"] == {"text": 300_000}, 5)
    assert nano.upload(job, "text", data, 300_000) == 200
    assert deliver(nano, job, {"text": data})["said"] == "ok"
    assert stack.store.fetch(stack.store.manifest(key).outputs["text"].sha256).read_bytes() == data


def test_upload_is_refused_where_it_does_not_belong(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "odd")
    place = f"/v1/jobs/{job}/files/"
    assert nano.upload(job, "text", b"early") == 409
    nano.result(job, {"text": b"12345"})
    assert nano.upload(job, "text", b"123456") == 413
    assert nano.request("PUT", place + "text", b"5", {"Upload-Offset": "4"})[0] == 409
    assert nano.request("PUT", place + "text", b"5", {"Upload-Offset": "-1"})[0] == 411
    assert nano.request("PUT", place + "text", b"5", {"Upload-Offset": "9" * 30})[0] == 411
    for name in ("noise-000", "..%2Fjob.json", "job.json", "log", "%2Ftmp%2Fx"):
        assert nano.request("PUT", place + name, b"1")[0] == 404
    assert nano.result(job, {"text": b"12345"})[1]["missing"] == {"text": 0}
    assert stack.store.manifest(key) is None


@pytest.mark.parametrize(
    ("outputs", "fields", "reason"),
    [
        ({"text": b"x" * ((1 << 20) + 1)}, {}, "1048577 bytes of text, and 1048576 are the limit"),
        ({"engine": b"x"}, {}, "a file 'engine', which no step on-board makes"),
        ({f"noise-{number:03d}": b"" for number in range(65)}, {}, "65 files, and 64 are the limit"),
        ({"text": b"x"}, {"outcome": "failed", "reason": "why"}, "ended as failed, and sends outputs"),
        ({}, {"outcome": "failed"}, "ended as failed, and not why"),
        ({}, {}, "ended without writing its output 'text'"),
        ({"text": b"x"}, {"reason": "why"}, "says that it is well, and why it is not"),
    ],
)
def test_announcement_that_cannot_be_is_a_failure_of_the_step(
    stack: BoardStack, nano: Client, outputs: dict[str, bytes], fields: dict[str, Any], reason: str
) -> None:
    job, key = given(stack, nano, f"cannot be: {reason[:20]}")
    status, answer = nano.result(job, outputs, **fields)
    assert status == 200
    assert answer["over"]
    assert reason in answer["said"]
    assert reason in last_attempt(stack, key).reason
    assert stack.store.manifest(key) is None
    assert left_of(key, stack) == []


@pytest.mark.parametrize("name", ["../job.json", "/etc/passwd", "a/b", "", ".hidden", "x" * 200, "new\nline"])
def test_output_that_is_no_plain_name_is_refused(stack: BoardStack, nano: Client, name: str) -> None:
    job, _ = given(stack, nano, f"name {name[:9]!r}")
    assert nano.result(job, {name: b"x"})[0] == 422
    deliver(nano, job, {"text": b"well"})


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b'{"outcome":"ok"}', b'{"outcome":"great"}', b'{"a":' * 5000, b"[" * 100_000, b"NaN"],
)
def test_message_that_is_none_is_refused(stack: BoardStack, nano: Client, body: bytes) -> None:
    job, _ = given(stack, nano, f"none {sha256(body)[:6]}")
    assert nano.request("POST", f"/v1/jobs/{job}/result", body)[0] == 422
    deliver(nano, job, {"text": b"well"})


def test_message_that_is_too_large_is_refused(stack: BoardStack, nano: Client) -> None:
    job, _ = given(stack, nano, "large")
    assert nano.request("POST", f"/v1/jobs/{job}/result", b" " * ((1 << 20) + 1))[0] == 413


def test_bytes_with_another_hash_are_thrown_away(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "hash")
    nano.result(job, {"text": b"right"})
    assert nano.upload(job, "text", b"wrong") == 200
    status, answer = nano.result(job, {"text": b"right"})
    assert status == 200
    assert answer["over"]
    attempt = last_attempt(stack, key)
    assert f"sha256 {sha256(b'wrong')} arrived" in attempt.reason
    assert attempt.transient
    assert stack.store.manifest(key) is None
    blobs = stack.folder / "store" / "blobs" / "sha256"
    assert not (blobs / sha256(b"wrong")[:2] / sha256(b"wrong")).exists()


def test_log_is_kept_of_a_step_that_failed(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "talks")
    log = b"its last words"
    fields = {"outcome": "failed", "reason": "a bug", "log": {"sha256": sha256(log), "size_bytes": len(log)}}
    assert nano.result(job, {}, **fields)[1]["missing"] == {"log": 0}
    assert nano.upload(job, "log", log) == 200
    assert nano.result(job, {}, **fields)[1]["said"] == "failed: a bug"
    assert stack.store.read_log(key, 1) == log
    assert (last_attempt(stack, key).reason, last_attempt(stack, key).host) == ("a bug", nano.device)


def engine_record(**fields: Any) -> dict[str, Any]:
    nms = {"score_floor": 0.05, "top_k": 100, "iou": 0.5, "class_wise": True, "limit": 100}
    return {
        "precision": "fp32",
        "ran_as": "fp32",
        "hardware": {
            "machine": "aarch64",
            "processor": "toy",
            "features": [],
            "runtime": "tensorrt",
            "runtime_version": "8.2.1",
        },
        "options": {},
        "size_bytes": 6,
        "int8_share": None,
        "reformat_layers": 0,
        "candidates": [],
        "chosen_because": "it is the only one",
        "model": {
            "detector": "toy",
            "labels": [],
            "input": {"height": 8, "width": 8},
            "resize": {
                "policy": "stretch",
                "interpolation": "bilinear",
                "alignment": "half_pixel",
                "fill_rgb": [0, 0, 0],
            },
            "clip": "before_nms",
            "nms": {"origin": nms, "common": nms},
            "params_m": 1.0,
            "gmacs": 1.0,
        },
        "simulated": True,
        "absent": {"int8_share": "precision fp32 has no INT8"},
        **fields,
    }


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"no json", "its record is none"),
        (b"{}", "its record is none"),
        (engine_record(int8_share=float("nan")), "its record is none"),
        (engine_record(absent={}), "no reason in absent for int8_share"),
        (engine_record(surprise=1), "surprise"),
        (engine_record(precision="int8"), "its record says precision 'int8', and 'fp32' was asked for"),
        (engine_record(size_bytes=7), "its record says the engine has 7 bytes, and it has 6"),
    ],
)
def test_record_that_is_none_is_a_failure_that_stays(
    stack: BoardStack, nano: Client, record: bytes | dict[str, Any], reason: str
) -> None:
    data = record if isinstance(record, bytes) else json.dumps(record).encode()
    message = stack.offer(
        Step(f"build/{sha256(data)[:8]}", "build", {"device": nano.device, "precision": "fp32", "reason": reason})
    )
    answer = deliver(nano, nano.job()["job"], {"record": data, "engine": b"engine"})
    assert reason in answer["said"]
    attempt = last_attempt(stack, message.key)
    assert (attempt.outcome, attempt.transient) == ("failed", False)
    assert stack.store.manifest(message.key) is None


def test_record_that_is_right_is_committed(stack: BoardStack, nano: Client) -> None:
    message = stack.offer(Step("build/right", "build", {"device": nano.device, "precision": "fp32"}))
    record = json.dumps(engine_record()).encode()
    assert deliver(nano, nano.job()["job"], {"record": record, "engine": b"engine"})["said"] == "ok"
    assert stack.store.manifest(message.key).outputs["record"].sha256 == sha256(record)


def predict_record(**fields: Any) -> dict[str, Any]:
    nms = {"score_floor": 0.001, "top_k": 100, "iou": 0.5, "class_wise": True, "limit": 100}
    record = {"images": 1, "detections": 2, "operating": 1, "nms": {"detections": nms, "operating": nms}}
    return {**record, "threads": 1, "simulated": False, **fields}


PREDICTED = {"detections": b"an npz of boxes", "operating": b"an npz of fewer"}
LOOK = {"threads": 1, "operating": {"confidence": 0.25, "nms_iou": 0.45}}


def test_predictions_of_a_board_are_committed_as_it_made_them(stack: BoardStack, nano: Client) -> None:
    inputs = {name: stack.store.put(name.encode()).sha256 for name in ("engine", "engine_record", "images-000")}
    message = stack.offer(Step("predict/right", "predict", LOOK), inputs, nano.device)
    job = nano.job()
    assert (job["kind"], job["parameters"], job["inputs"], job["exclusive"]) == ("predict", LOOK, inputs, False)
    for name, hashed in inputs.items():
        assert nano.request("GET", f"/v1/jobs/{job['job']}/blobs/{hashed}")[:2] == (200, name.encode())
    outputs = {**PREDICTED, "record": json.dumps(predict_record()).encode()}
    assert deliver(nano, job["job"], outputs)["said"] == "ok"
    manifest = stack.store.manifest(message.key)
    assert manifest == Manifest.model_validate_json(manifest.model_dump_json())
    assert (manifest.kind, manifest.inputs, manifest.made.host) == ("predict", inputs, nano.device)
    kept = {name: stack.store.fetch(blob.sha256).read_bytes() for name, blob in manifest.outputs.items()}
    assert kept == outputs
    assert left_of(message.key, stack) == []


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({**PREDICTED, "record": {}}, "its record is none: images: "),
        ({**PREDICTED, "record": predict_record(images="many")}, "its record is none: images: "),
        ({**PREDICTED, "record": predict_record(boxes=3)}, "its record is none: boxes: "),
        ({**PREDICTED, "record": predict_record(threads=2)}, "its record says threads 2, and 1 was asked for"),
        ({"operating": b"", "record": predict_record()}, "ended without writing its output 'detections'"),
        ({**PREDICTED, "engine": b"x", "record": predict_record()}, "'engine', which no step predict makes"),
    ],
)
def test_predictions_that_are_none_are_a_failure_that_stays(
    stack: BoardStack, nano: Client, outputs: dict[str, Any], reason: str
) -> None:
    data = {name: each if isinstance(each, bytes) else json.dumps(each).encode() for name, each in outputs.items()}
    message = stack.offer(Step("predict/wrong", "predict", {**LOOK, "for": reason}), device=nano.device)
    assert reason in deliver(nano, nano.job()["job"], data)["said"]
    attempt = last_attempt(stack, message.key)
    assert (attempt.outcome, attempt.transient) == ("failed", False)
    assert stack.store.manifest(message.key) is None


# --- when a job counts --------------------------------------------------------------------------------


def test_job_is_given_again_when_its_board_never_heard_of_it(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "unheard")
    assert nano.job()["job"] == job
    assert stack.store.attempts(key) == []
    deliver(nano, job, {"text": b"heard"})


def test_job_that_its_board_lost_is_an_attempt_and_not_a_failure(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "lost")
    assert nano.ask(f"/v1/jobs/{job}/progress", {"done": 1})[1]["go_on"]
    assert nano.ask("/v1/job") == (204, None)
    assert last_attempt(stack, key).lost
    assert nano.ask(f"/v1/jobs/{job}/progress", {})[0] == 404
    assert left_of(key, stack) == []


def test_job_given_back_counts_for_nothing(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "back")
    assert nano.result(job, {}, outcome="given_back", reason="the disk is full")[1]["over"]
    assert stack.store.attempts(key) == []
    assert left_of(key, stack) == []


def test_cancelled_step_is_stopped(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "cancelled")
    stack.coordination.cancel(key)
    verdict = stack.wait_until(lambda: (v := nano.ask(f"/v1/jobs/{job}/progress", {})[1]).get("go_on") is False and v)
    assert verdict["reason"] == "the step is not wanted any more"
    assert nano.ask(f"/v1/jobs/{job}/progress", {})[0] == 404


def test_silent_board_loses_the_lease_and_its_late_result_counts(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "late")
    assert nano.ask(f"/v1/jobs/{job}/progress", {})[1]["go_on"]
    stack.wait_until(lambda: left_of(key, stack) == [], 10)
    stack.offer(on_board("late", device=nano.device), {"from-x": sha256(INPUT)})  # as the conductor does
    assert deliver(nano, job, {"text": b"late"})["said"] == "ok"
    assert stack.store.manifest(key) is not None
    assert left_of(key, stack) == []
    assert nano.ask("/v1/job") == (204, None)  # what was sent anew counts no more


def test_late_failure_of_a_step_that_nobody_waits_for_is_dropped(stack: BoardStack, nano: Client) -> None:
    job, key = given(stack, nano, "late failure")
    assert nano.ask(f"/v1/jobs/{job}/progress", {})[1]["go_on"]
    stack.wait_until(lambda: left_of(key, stack) == [], 10)
    answer = nano.result(job, {}, outcome="failed", reason="a bug")[1]
    assert answer["said"] == "failed, which nobody waits for any more"
    assert stack.store.attempts(key) == []


def test_result_of_a_step_that_is_done_is_not_needed(stack: BoardStack, nano: Client) -> None:
    first, key = given(stack, nano, "twice")
    assert nano.ask(f"/v1/jobs/{first}/progress", {})[1]["go_on"]
    inbox = stack.store.inbox() / first
    kept = {path: path.read_bytes() for path in inbox.rglob("*") if path.is_file()}
    deliver(nano, first, {"text": b"first"})
    for path, data in kept.items():  # an earlier copy of the inbox is brought back
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert nano.ask(f"/v1/jobs/{first}/progress", {})[1] == {"go_on": False, "reason": "the step is done already"}
    assert stack.store.fetch(stack.store.manifest(key).outputs["text"].sha256).read_bytes() == b"first"


def test_step_in_another_version_than_the_boards_fails_with_what_to_do(stack: BoardStack) -> None:
    old = stack.client("old")
    assert old.ask("/v1/hello", {**HELLO, "kinds": {"on-board": 0}})[0] == 200
    message = stack.offer(Step("new", "on-board", {"device": "old"}))
    assert old.ask("/v1/job") == (204, None)
    attempt = last_attempt(stack, message.key)
    assert "has on-board in version 0, and version 1 is asked for" in attempt.reason
    assert not attempt.transient


def test_hostile_messages_in_a_boards_queue_are_refused(stack: BoardStack, nano: Client) -> None:
    message = stack.offer(on_board("good after bad", device=nano.device))
    queue = f"device.{nano.device}"
    good = json.loads(stack.redis.client().rpop(queue))
    (_, named, _) = json.loads(base64.b64decode(good["body"]))

    def changed(**fields: Any) -> bytes:
        body = json.dumps([[], {"message": {**named["message"], **fields}}, {}]).encode()
        return json.dumps({**good, "body": base64.b64encode(body).decode()}).encode()

    pickled = {
        **good,
        "body": base64.b64encode(pickle.dumps(0)).decode(),
        "content-type": "application/x-python-serialize",
    }
    for data in (
        b"",
        b"garbage",
        b"[" * 100_000,
        b"{}",
        b"x" * (17 << 20),
        json.dumps(pickled).encode(),
        changed(inputs={"a": "../../etc/passwd"}),
        changed(kind="shell"),
        changed(kind="toy"),
        changed(key="0" * 64),
        changed(parameters={"device": "other"}),
        changed(claim="1" * 32),
        json.dumps(good).encode(),
    ):
        stack.redis.client().lpush(queue, data)
    status, job = nano.ask("/v1/job")
    for _ in range(10):
        if status == 200:
            break
        status, job = nano.ask("/v1/job")
    assert job["job"] == message.claim
    assert nano.ask("/v1/jobs/" + job["job"] + "/progress", {})[0] == 200


# --- who is slow --------------------------------------------------------------------------------------


def closed_after_s(connection: Any) -> float:
    began = time.monotonic()
    connection.settimeout(10)
    while connection.recv(1 << 16):
        continue
    return time.monotonic() - began


def test_connection_that_sends_no_head_is_closed_and_others_are_served(stack: BoardStack, nano: Client) -> None:
    connections = [nano.connect() for _ in range(30)]
    for connection in connections:
        connection.sendall(b"POST /v1/job HTTP/1.1\r\nX-Slow: ")
    began = time.monotonic()
    assert nano.ask("/v1/hello", HELLO)[0] == 200
    assert time.monotonic() - began < 1.0
    connections[0].sendall(b"a byte at a time")
    for connection in connections:
        with contextlib.suppress(ConnectionError):
            assert closed_after_s(connection) < 3.0
        connection.close()


def test_body_that_does_not_come_is_not_waited_for(stack: BoardStack, nano: Client) -> None:
    with nano.connect() as connection:
        head = head_of("POST /v1/hello", nano, 500)
        connection.sendall(head + b"{")
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_head_that_does_not_end_is_refused(stack: BoardStack, nano: Client) -> None:
    with nano.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * 40_000)
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_board_has_only_so_many_requests_under_way(stack: BoardStack, nano: Client) -> None:
    head = head_of("POST /v1/hello", nano, 500)
    connections = [nano.connect() for _ in range(LIMITS["requests"])]
    for connection in connections:
        connection.sendall(head)
    stack.wait_until(lambda: nano.ask("/v1/hello", HELLO)[0] == 429, 3)
    for connection in connections:
        connection.close()
    stack.wait_until(lambda: nano.ask("/v1/hello", HELLO)[0] == 200, 5)


def test_newer_request_for_a_job_ends_the_older(stack: BoardStack, nano: Client) -> None:
    with nano.connect() as older:
        head = (
            f"POST /v1/job HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {nano.token}\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        older.sendall(head.encode())
        time.sleep(0.3)
        assert nano.ask("/v1/job") == (204, None)
        older.settimeout(5)
        assert older.recv(100).startswith(b"HTTP/1.1 499")
