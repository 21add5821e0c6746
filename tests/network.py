"""A network between two programs that a test can cut."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress


class Network:
    """A port that leads to another one, until it is cut.

    Attributes:
        port: where to connect to.
        carried: bytes towards the server so far.
        stride: bytes that go through at once.
        budget: bytes towards the server after which everything is cut, once; None for no such thing.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.up = True
        self.budget: int | None = None
        self.cuts = 0
        self.carried = 0
        self.stride = 1 << 16
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing goes through any more, and what was open breaks."""
        self.up = False
        self.cuts += 1
        for pair in list(self._pairs):
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.up = True

    def close(self) -> None:
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to), 5) if self.up else None
            except OSError:
                server = None
                if self._server.fileno() < 0:
                    return
            if server is None:
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        self._pairs.add((client, server))
        with client, server, selectors.DefaultSelector() as selector, suppress(OSError):
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(self.stride)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)
                    if key.data is server:
                        self.carried += len(data)
                    if key.data is server and self.budget is not None:
                        self.budget -= len(data)
                        if self.budget < 0:
                            self.budget = None
                            self.cut()
        self._pairs.discard((client, server))
