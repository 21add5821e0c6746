"""Whose token it is."""

from __future__ import annotations

import hmac
import logging
import threading
import time

from edgejoule.boards import DeviceToken, device_of, hash_of, token_of
from edgejoule.errors import StoreError
from edgejoule.store import Store

_log = logging.getLogger(__name__)


class Registry:
    """The boards that hold a token, as the store had it a moment ago.

    A stranger costs the store nothing: only names that are registered are looked up.

    Args:
        refresh_s: how old that may be. While the store does not answer, what was known stays.
    """

    def __init__(self, store: Store, refresh_s: float) -> None:
        self._store = store
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._names: frozenset[str] = frozenset()
        self._names_at = float("-inf")
        self._tokens: dict[str, tuple[float, DeviceToken | None]] = {}

    def names(self) -> frozenset[str]:
        """The boards that were ever given a token."""
        with self._lock:
            if time.monotonic() - self._names_at > self._refresh_s:
                try:
                    self._names = frozenset(self._store.device_names())
                except StoreError as error:
                    _log.warning("the registered devices cannot be read: %s", error)
                self._names_at = time.monotonic()
            return self._names

    def holder_of(self, token: str) -> str | None:
        """The device whose valid token this is; None for any other string."""
        device = device_of(token)
        if device is None or device not in self.names():
            return None
        kept = self._token(device)
        same = kept is not None and hmac.compare_digest(kept.sha256, hash_of(token))
        return device if same and kept is not None and kept.revoked_at is None else None

    def served(self) -> list[str]:
        """The boards whose token is valid."""
        tokens = {device: self._token(device) for device in sorted(self.names())}
        return [device for device, kept in tokens.items() if kept is not None and kept.revoked_at is None]

    def _token(self, device: str) -> DeviceToken | None:
        with self._lock:
            at, kept = self._tokens.get(device, (float("-inf"), None))
            if time.monotonic() - at > self._refresh_s:
                try:
                    kept = token_of(device, self._store)
                except StoreError as error:
                    _log.warning("the token of %s cannot be read: %s", device, error)
                self._tokens[device] = (time.monotonic(), kept)
            return kept
