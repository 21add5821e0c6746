"""The gateway as a process: TLS, and no patience with who connects and says nothing."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgejoule.errors import EdgejouleError
from edgejoule_gateway.app import Gateway
from edgejoule_gateway.limits import Limits

_log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75
_HEAD_BYTES = 16 << 10
_GRACE_S = 10


def check_listening(host: str, certificate: Path | None, key: Path | None, *, plain: bool) -> None:
    """Make sure that no token crosses a network in the clear.

    Raises:
        EdgejouleError: there is no certificate, and others than this host could reach us.
    """
    if (certificate is None) != (key is None):
        raise EdgejouleError("a certificate and its key belong together: give both --certificate and --key")
    for what, path in (("certificate", certificate), ("key", key)):
        if path is not None and not path.is_file():
            raise EdgejouleError(f"there is no {what} {path}: make one with edgejoule gateway certificate NAME")
    if certificate is None and not plain and not _is_loopback(host):
        raise EdgejouleError(
            f"without a certificate the gateway would send tokens in the clear on {host}: give --certificate and --key "
            "(edgejoule gateway certificate NAME makes them), or --plain when TLS ends before it"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(gateway: Gateway, host: str, port: int, certificate: Path | None, key: Path | None, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        EdgejouleError: the certificate cannot be used, or nobody may listen there.
    """
    config = uvicorn.Config(
        gateway.app,
        host=host,
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        http=_patient(limits),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=limits.connections,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise EdgejouleError(f"the certificate {certificate} cannot be used with the key {key}: {error}") from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    server = _Server(config, gateway)
    server.run()
    if not server.started:
        raise EdgejouleError(f"the gateway cannot listen on {host}:{port}: see what listens there already")


class _Server(uvicorn.Server):
    """Has boards that wait for a job answered when it is to end."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._gateway.stop()
        super().handle_exit(sig, frame)


def _patient(limits: Limits) -> type[H11Protocol]:
    """The HTTP protocol with a limit on the time that a request's head may take."""

    class Protocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_expecting()
            elif self._deadline is None:
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_expecting()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._deadline = self.loop.call_later(limits.head_s, self._give_up)

        def _stop_expecting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self) -> None:
            self._deadline = None
            self.transport.abort()

    return Protocol
