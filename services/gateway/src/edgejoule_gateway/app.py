"""The gateway over HTTP. Every request but ``GET /health`` needs a board's token; what is refused says why in JSON.

POST /v1/hello                          a board says what it is
POST /v1/job                            a job, after at most a minute; 204 when there is none
POST /v1/jobs/JOB/progress              how far it is; answers whether to go on
GET  /v1/jobs/JOB/blobs/SHA256          an input; Range: bytes=N- for the rest of it
POST /v1/jobs/JOB/result                how it ended; answers which files are missing
PUT  /v1/jobs/JOB/files/NAME            a file of the result, from the byte on that Upload-Offset says
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import redis
from anyio import to_thread
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edgejoule.boards import DeviceHello, DeviceProgress, DeviceResult
from edgejoule.errors import EdgejouleError
from edgejoule.execution import now
from edgejoule.stack.alive import touch
from edgejoule.stack.coordination import Coordination
from edgejoule.stack.metrics import Metrics
from edgejoule_gateway.assignments import Assignments, Board
from edgejoule_gateway.limits import Limits
from edgejoule_gateway.refusal import Refusal
from edgejoule_gateway.registry import Registry

_log = logging.getLogger(__name__)

_SLICE_S = 1.0  # of a long poll: so often a board that went away is noticed
_CHUNK_BYTES = 1 << 18
_THREADS = 256
_SWEEP_EVERY_S = 3600.0
_RANGE = re.compile(r"bytes=(\d{1,18})-")

Handler = Callable[[Request, Board], Awaitable[Response]]
_Model = TypeVar("_Model", bound=BaseModel)


class Gateway:
    """The application; ``app`` is what a server serves.

    Args:
        alive: file that is touched while all is well.
        metrics: where it tells who is there, and what it refuses.
    """

    def __init__(
        self,
        assignments: Assignments,
        registry: Registry,
        coordination: Coordination,
        limits: Limits,
        alive: Path | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._assignments = assignments
        self._registry = registry
        self._coordination = coordination
        self._limits = limits
        self._alive = alive
        self._metrics = metrics or Metrics("gateway")
        self._stopping = False
        job = "/v1/jobs/{job}"
        self.app = Starlette(
            routes=[
                Route("/health", self._health, methods=["GET"]),
                Route("/v1/hello", self._guarded(self._hello), methods=["POST"]),
                Route("/v1/job", self._guarded(self._job), methods=["POST"]),
                Route(f"{job}/progress", self._guarded(self._progress), methods=["POST"]),
                Route(f"{job}/blobs/{{sha256}}", self._guarded(self._blob), methods=["GET"]),
                Route(f"{job}/result", self._guarded(self._result), methods=["POST"]),
                Route(f"{job}/files/{{name}}", self._guarded(self._file), methods=["PUT"]),
            ],
            lifespan=self._lifespan,
        )

    def stop(self) -> None:
        """Have boards that wait for a job be answered, so that the server can end."""
        self._stopping = True

    def targets(self) -> tuple[str, bytes]:
        """The page for Prometheus' HTTP service discovery (prometheus.io, "HTTP SD")."""
        found = self._assignments.scrapes(self._registry.served())
        return "application/json", json.dumps(found).encode()

    def metrics_page(self) -> tuple[str, bytes]:
        """What a scrape gets."""
        self._assignments.show(sorted(self._registry.names()))
        return self._metrics.page()

    # --- requests ---

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Let a board in by its token, a bounded number of times at once; turn what goes wrong into an answer."""

        async def guarded(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            device = await to_thread.run_sync(self._registry.holder_of, token) if scheme == "Bearer" else None
            if device is None:
                return self._refuse(401, "no board is let in with this token", {"WWW-Authenticate": "Bearer"})
            board = self._assignments.board(device)
            if board.requests >= self._limits.requests:
                return self._refuse(429, "this board has too many requests under way")
            board.requests += 1
            self._assignments.heard(board)
            try:
                return await handler(request, board)
            except Refusal as refusal:
                _log.warning("%s: %s %s: %s", device, request.method, request.url.path, refusal.sentence)
                return self._refuse(refusal.status, refusal.sentence)
            except ClientDisconnect:
                return Response(status_code=499)  # which nobody reads
            except (EdgejouleError, redis.RedisError) as error:
                _log.error("%s: %s %s: %s", device, request.method, request.url.path, error)
                return self._refuse(503, "the gateway cannot reach its store or its queues now; try again later")
            finally:
                board.requests -= 1

        return guarded

    def _refuse(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
        self._metrics.add("edgejoule_gateway_refusals_total", status=str(status))
        return JSONResponse({"error": sentence}, status, headers)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"well": True})

    async def _hello(self, request: Request, board: Board) -> Response:
        hello = await self._message(request, DeviceHello)
        host = request.client.host if request.client else None
        await to_thread.run_sync(self._assignments.hello, board, hello, host)
        return JSONResponse({"device": board.device})

    async def _job(self, request: Request, board: Board) -> Response:
        await self._body(request)
        poll = board.poll = uuid4().hex
        until = time.monotonic() + self._limits.poll_s
        await to_thread.run_sync(self._assignments.clear, board)
        await to_thread.run_sync(self._coordination.tell_seen, board.device, now())
        while time.monotonic() < until and not self._stopping:
            if board.poll != poll or await request.is_disconnected():
                raise ClientDisconnect
            self._assignments.heard(board)
            job = await to_thread.run_sync(self._assignments.next_job, board, _SLICE_S)
            if job is not None:
                return _answer(job)
        return Response(status_code=204)

    async def _progress(self, request: Request, board: Board) -> Response:
        said = await self._message(request, DeviceProgress)
        return _answer(await to_thread.run_sync(self._assignments.progress, board, request.path_params["job"], said))

    async def _result(self, request: Request, board: Board) -> Response:
        result = await self._message(request, DeviceResult)
        return _answer(await to_thread.run_sync(self._assignments.deliver, board, request.path_params["job"], result))

    async def _blob(self, request: Request, board: Board) -> Response:
        job, sha256 = request.path_params["job"], request.path_params["sha256"]
        path = await to_thread.run_sync(self._assignments.blob, board, job, sha256)
        descriptor = os.open(path, os.O_RDONLY)  # at once: a copy of a blob may go when nobody has it open
        size_bytes = os.fstat(descriptor).st_size
        asked = _RANGE.fullmatch(request.headers.get("range", "bytes=0-"))
        start = int(asked[1]) if asked else 0
        if start > size_bytes:
            os.close(descriptor)
            raise Refusal(416, f"this input has {size_bytes} bytes")
        headers = {"Content-Length": str(size_bytes - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size_bytes - 1}/{size_bytes}"
        content = self._chunks(descriptor, start, board)
        return StreamingResponse(content, 206 if start else 200, headers, "application/octet-stream")

    async def _chunks(self, descriptor: int, start: int, board: Board) -> AsyncIterator[bytes]:
        try:
            while chunk := await to_thread.run_sync(os.pread, descriptor, _CHUNK_BYTES, start):
                self._assignments.heard(board)
                start += len(chunk)
                yield chunk
        finally:
            os.close(descriptor)

    async def _file(self, request: Request, board: Board) -> Response:
        job, name = request.path_params["job"], request.path_params["name"]
        entry, size_bytes = await to_thread.run_sync(self._assignments.file, board, job, name)
        offset = _whole_number(request.headers.get("upload-offset", "0"))
        length = _whole_number(request.headers.get("content-length", "-"))
        if offset + length > size_bytes:
            raise Refusal(413, f"{name} was said to have {size_bytes} bytes, and {offset + length} are more")
        descriptor = await to_thread.run_sync(entry.open_at, name, offset)
        try:
            async for chunk in self._received(request):
                self._assignments.heard(board)
                offset += len(chunk)
                if offset > size_bytes:
                    raise Refusal(413, f"{name} was said to have {size_bytes} bytes")
                await to_thread.run_sync(_write_all, descriptor, chunk)
        except OSError as error:
            _log.error("%s: the inbox takes nothing more: %s", board.device, error)
            raise Refusal(507, "the gateway's disk takes nothing more; try again later") from error
        finally:
            os.close(descriptor)
        return JSONResponse({"bytes": offset})

    # --- bodies ---

    async def _message(self, request: Request, model: type[_Model]) -> _Model:
        try:
            return model.model_validate_json(await self._body(request))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise Refusal(422, f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}") from None

    async def _body(self, request: Request) -> bytes:
        """A small body, whole."""
        body = b""
        async for chunk in self._received(request):
            body += chunk
            if len(body) > self._limits.json_bytes:
                raise Refusal(413, f"a message may have {self._limits.json_bytes} bytes")
        return body

    async def _received(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it comes; who is silent for too long in the middle of it is not waited for."""
        stream = request.stream()
        while True:
            try:
                yield await asyncio.wait_for(anext(stream), self._limits.body_s)
            except StopAsyncIteration:
                return
            except asyncio.TimeoutError:
                raise Refusal(408, f"nothing came for {self._limits.body_s:g} s") from None

    # --- what goes on by itself ---

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        tasks = [
            asyncio.create_task(self._repeat(self._coordination.timing.beat_s, self._beat)),
            asyncio.create_task(self._repeat(self._limits.unreachable_s / 20, self._end_unreachable)),
            asyncio.create_task(self._repeat(_SWEEP_EVERY_S, self._sweep)),
        ]
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _repeat(self, every_s: float, what: Callable[[], None]) -> None:
        while True:
            try:
                await to_thread.run_sync(what)
            except (EdgejouleError, redis.RedisError, OSError) as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - the others must go on
                _log.exception("a fault of the gateway")
            await asyncio.sleep(every_s)

    def _beat(self) -> None:
        if self._alive is not None:
            touch(self._alive)
        self._assignments.beat()

    def _end_unreachable(self) -> None:
        self._assignments.end_unreachable(self._registry.names())

    def _sweep(self) -> None:
        self._assignments.inbox.sweep(self._limits.kept_s)


def _answer(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _whole_number(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise Refusal(411, "Content-Length and Upload-Offset are whole numbers of bytes")
    return int(text)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
