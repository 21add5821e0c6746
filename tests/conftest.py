"""What tests of all folders share: real servers, started when first asked for, once per process of the test run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import BUCKET, RedisServer, S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Shared: keep to a prefix of your own, and leave it running."""
    users = {"reader": [f"Read:{BUCKET}", f"List:{BUCKET}"], "stranger": ["Read:another"]}
    server = S3Server(tmp_path_factory.mktemp("s3"), users)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Shared: flush it (``client().flushall()``) before use, and leave it running."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
