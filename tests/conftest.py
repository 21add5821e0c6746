"""What tests of all folders share: real servers, started when first asked for, once per process of the test run; and
Prometheus' own tool.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import crowded  # noqa: F401  its profile is Hypothesis' own from here on
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


def tool(name: str, project: str, tested: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program with some words and, if given, an ``input``. Without it a test is skipped, and in CI it fails."""
    variable = name.upper()
    program = shutil.which(os.environ.get(variable) or name)
    if program is None:
        lack = f"there is no {name}: install {project}, or say where the tool is, {variable}=/path/{name}"
        if os.environ.get("CI", "false") != "false":
            pytest.fail(f"CI must test {tested}, and {lack}", pytrace=False)
        pytest.skip(lack)

    def run(*words: str | Path, input: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [program, *map(str, words)]
        return subprocess.run(command, input=input, capture_output=True, text=True, timeout=100)

    return run


@pytest.fixture(scope="session")
def promtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Prometheus' own, see :func:`tool`."""
    return tool("promtool", "Prometheus", "Prometheus' rules")


@pytest.fixture(scope="session")
def amtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Alertmanager's own, see :func:`tool`."""
    return tool("amtool", "Alertmanager", "whom alerts are told")
