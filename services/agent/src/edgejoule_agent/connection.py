"""One HTTPS connection to the gateway, opened anew whenever it breaks. Nothing but the standard library."""

import contextlib
import http.client
import ipaddress
import json
import select
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional
from urllib.parse import urlsplit

from edgejoule_agent.errors import (
    JobGoneError,
    MessageRefusedError,
    OutOfReachError,
    SettingsError,
    TokenRefusedError,
    UnreadableError,
)

TIMEOUT_S = 30.0
POLL_TIMEOUT_S = 90.0  # the gateway answers within a minute
SLICE_S = 0.2  # of such a wait: so soon it is over when the agent is told to end
BLOB_TIMEOUT_S = 300.0  # it may have to fetch the blob first
CHUNK_BYTES = 1 << 18
MESSAGE_BYTES = 64 << 20
GONE = (404, 410)
NOT_TAKEN = (413, 422)
# ssl's errors are OSErrors but, before Python 3.7, that of a certificate for another name
FAULTS = (OSError, http.client.HTTPException, ssl.CertificateError)


class Connection:
    """Asks the gateway; for one thread at a time.

    Args:
        url: ``https://HOST[:PORT]``; plain ``http`` for this host alone, or where ``plain`` allows it.
        authority: file with the certificates to trust; those of the system when None.
        heard: file to touch whenever the gateway has served us, by which others see that all is well.

    Raises:
        SettingsError: the address is none, or a token would cross the network in the clear.
    """

    def __init__(
        self,
        url: str,
        token: str,
        authority: Optional[str] = None,
        plain: bool = False,
        heard: Optional[str] = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.path not in ("", "/"):
            raise SettingsError(f"{url!r} is no address of a gateway: give https://HOST:PORT")
        if parts.scheme == "http" and not plain and not _is_loopback(parts.hostname):
            raise SettingsError(f"{url} would send the token in the clear: use https, or allow it by --plain")
        if not token or not token.isprintable() or " " in token:
            raise SettingsError("the token is none: bring the one that edgejoule devices create showed")
        self.url = url
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._context = _context(authority) if parts.scheme == "https" else None
        self._token = token
        self._heard = heard
        self._open: Any = None

    def ask(
        self,
        path: str,
        message: Mapping[str, Any],
        timeout_s: float = TIMEOUT_S,
        stopping: Optional[threading.Event] = None,
    ) -> Optional[Dict[str, Any]]:
        """Send a message and give the answer; None when there is none, or ``stopping`` was set before one came.

        Raises:
            OutOfReachError, JobGoneError: see the classes.
        """
        body = json.dumps(message).encode("utf-8")
        response = self._request("POST", path, {"Content-Type": "application/json"}, body, timeout_s, stopping)
        if response is None:
            return None
        data = self._whole(response)
        if not data:
            return None
        try:
            answer = json.loads(data.decode("utf-8"))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._no_gateway()
        return answer

    def download(self, path: str, start: int, take: Callable[[bytes], Any]) -> None:
        """Give the bytes at ``path`` from ``start`` on to ``take``, piece by piece.

        Raises:
            OutOfReachError, JobGoneError: see the classes; what was taken until then is good. What ``take`` raises is
                no fault of the network's and passes as it is.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._request("GET", path, headers, None, BLOB_TIMEOUT_S)
        try:
            expected = response.length
            if expected is None:  # a proxy's, which took the length away: then nobody can tell what is whole
                raise self._no_gateway()
            while expected > 0:
                chunk = self._read(response, min(CHUNK_BYTES, expected))
                if not chunk:
                    raise OutOfReachError(f"{self.url} broke off in the middle of {path}")
                expected -= len(chunk)
                take(chunk)
            self._read(response)
        except BaseException:
            self.close()
            raise

    def upload(self, path: str, file: str, start: int, end: int) -> None:
        """Send the bytes of a file from ``start`` until before ``end``.

        Raises:
            OutOfReachError, JobGoneError: see the classes; the gateway keeps what has arrived.
            UnreadableError: the file cannot be read, or not so far.
        """
        headers = {
            "Upload-Offset": str(start),
            "Content-Length": str(end - start),
            "Content-Type": "application/octet-stream",
        }
        self._whole(self._request("PUT", path, headers, _pieces(file, start, end), TIMEOUT_S))

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Any,
        timeout_s: float,
        stopping: Optional[threading.Event] = None,
    ) -> Any:
        """A response whose status is good; its body is still to be read. None when ``stopping`` was set before."""
        try:
            if self._open is None:
                self._open = self._new(timeout_s)
            elif self._open.sock is not None:
                self._open.sock.settimeout(timeout_s)
            self._open.timeout = timeout_s
            given = dict(headers, Authorization="Bearer " + self._token)
            self._open.request(method, path, body=body, headers=given)
            if stopping is not None and not self._begins(timeout_s, stopping):
                self.close()
                return None
            response = self._open.getresponse()
            if response.status < 300:
                if self._heard is not None:
                    with contextlib.suppress(OSError):  # a full disk is no fault of the gateway's
                        Path(self._heard).touch()
                return response
            reason = self._reason(response)
        except FAULTS as error:
            self.close()
            raise self._out_of_reach(error) from error
        except BaseException:
            self.close()
            raise
        if response.status in GONE:
            if reason is None:  # a proxy's or another server's, which knows nothing of our jobs
                raise self._no_gateway()
            raise JobGoneError(reason)
        if response.status in NOT_TAKEN and reason is not None:
            raise MessageRefusedError(f"the gateway {self.url} does not take it ({response.status}): {reason}")
        reason = reason or str(response.reason)
        if response.status == 401:
            raise TokenRefusedError(f"the gateway {self.url} refuses this board's token: {reason}")
        raise OutOfReachError(f"the gateway {self.url} answers {response.status}: {reason}")

    def _begins(self, timeout_s: float, stopping: threading.Event) -> bool:
        """Wait until an answer comes; False when ``stopping`` is set first, which a signal does not tell a ``recv``."""
        until_s = time.monotonic() + timeout_s
        while not select.select([self._open.sock], [], [], SLICE_S)[0]:
            if stopping.is_set():
                return False
            if time.monotonic() > until_s:
                raise socket.timeout("timed out")
        return True

    def _whole(self, response: Any) -> bytes:
        """The whole body of a response, which says how long it is."""
        if response.length is None or response.length > MESSAGE_BYTES:
            raise self._no_gateway()
        return self._read(response)

    def _read(self, response: Any, limit_bytes: Optional[int] = None) -> bytes:
        """The next bytes of a body, all of them by default."""
        try:
            data: bytes = response.read(limit_bytes)
            return data
        except FAULTS as error:
            self.close()
            raise self._out_of_reach(error) from error

    def _reason(self, response: Any) -> Optional[str]:
        """What a refusal says, read so that the connection can go on; None where it is not in the gateway's words."""
        data = self._whole(response)
        try:
            return str(json.loads(data.decode("utf-8"))["error"])
        except (ValueError, LookupError, TypeError):
            return None

    def _new(self, timeout_s: float) -> Any:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._context)

    def _no_gateway(self) -> OutOfReachError:
        self.close()
        return OutOfReachError(f"what answers at {self.url} is no gateway of edgejoule: see that the address is right")

    def _out_of_reach(self, error: Exception) -> OutOfReachError:
        return OutOfReachError(f"the gateway {self.url} is out of reach: {str(error) or repr(error)}")


def _pieces(file: str, start: int, end: int) -> Iterator[bytes]:
    """A part of a file. A fault of the disk's must not pass for one of the network's, whose errors are OSErrors too."""
    try:
        with open(file, "rb") as content:
            content.seek(start)
            while start < end:
                piece = content.read(min(CHUNK_BYTES, end - start))
                if not piece:
                    raise UnreadableError(f"{file} had {end} bytes and ends before byte {start} now: see to the disk")
                start += len(piece)
                yield piece
    except OSError as error:
        raise UnreadableError(f"{file} cannot be read ({error.strerror or error}): see to the disk") from error


def _context(authority: Optional[str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{authority} holds no certificates ({error}): give the gateway's own") from error
    if hasattr(ssl, "TLSVersion"):
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # novm: asked for above
    else:  # Python 3.6
        context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
