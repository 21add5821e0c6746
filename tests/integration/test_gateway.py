"""Boards behind the gateway, over real TLS: their results are those of the host, and are delivered once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from servers import RedisServer
from toy_gateway import BoardStack, on_board
from toy_stack import plan_of


@pytest.fixture
def stack(redis_server: RedisServer, tmp_path: Path) -> Iterator[BoardStack]:
    redis_server.client().flushall()
    stack = BoardStack(tmp_path, redis_server)
    yield stack
    stack.close()


def test_board_carries_out_steps_and_its_results_are_committed(stack: BoardStack) -> None:
    stack.conductor()
    stack.gateway()
    stack.board()
    stack.submit(plan_of(on_board("a", ticks=3), on_board("b", "a", megabytes=3)))
    assert stack.finish() == {"a": "finished", "b": "finished"}
    keys = stack.done_keys()
    assert len(keys) == 2
    texts = [stack.store.fetch(stack.store.manifest(key).outputs["text"].sha256).read_text() for key in keys]
    assert sorted(texts) == ["a", "b+a"]
    assert {stack.store.manifest(key).made.host for key in keys} == {"nano"}
    stack.wait_until(lambda: not list(stack.store.inbox().iterdir()))
    stack.wait_until(lambda: not (stack.state_of() / "job").exists())
