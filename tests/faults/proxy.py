"""A TCP proxy that can cut, stall, slow down and restore the connections through it."""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable


class Proxy:
    """Forwards 127.0.0.1:`port` to wherever `connect` connects to."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._flowing = threading.Event()
        self._flowing.set()
        self._rate = math.inf
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.port = 0
        self._listener = self._listen()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        with self._lock:
            self._close(self._listener)
            for pair in self._pairs:
                for end in pair:
                    self._close(end)
            self._pairs.clear()

    def stall(self) -> None:
        """Accept connections, keep those there are, but let nothing through."""
        self._flowing.clear()

    def slow(self, rate: float) -> None:
        """Let so many bytes a second through, of each connection and each way."""
        self._rate = rate

    def restore(self) -> None:
        """Forward again, also what was held back, as fast as it comes."""
        self._rate = math.inf
        self._flowing.set()
        with self._lock:
            if self._listener.fileno() == -1:
                self._listener = self._listen()

    def close(self) -> None:
        self.cut()
        self._flowing.set()

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            try:
                server = self._connect()
            except OSError:
                self._close(client)
                continue
            with self._lock:
                if listener.fileno() == -1:  # cut meanwhile
                    self._close(client)
                    self._close(server)
                    return
                self._pairs.add((client, server))
            for source, target in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pump, args=[source, target, (client, server)], daemon=True
                ).start()

    def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        pair: tuple[socket.socket, socket.socket],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                if self._rate != math.inf:  # what lasts is the fault itself
                    time.sleep(len(data) / self._rate)
                target.sendall(data)
        with self._lock:
            self._pairs.discard(pair)
            for end in pair:
                self._close(end)

    @staticmethod
    def _close(end: socket.socket) -> None:
        # A shutdown wakes the thread that waits in accept or recv; a close alone does not.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
