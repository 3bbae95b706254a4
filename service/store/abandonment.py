"""Reads that end when the client that requested them has disconnected."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Abandoned(Exception):
    """The client has disconnected: nobody waits for the answer."""


class Client:
    """The client of a request, and the interrupts of the reads that are in progress for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupts: list[Callable[[], None]] = []
        self.is_gone = False

    @property
    def is_reading(self) -> bool:
        return bool(self._interrupts)

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Have `interrupt` called in another thread if the client goes. Raises Abandoned."""
        with self._lock:
            self.check()
            self._interrupts.append(interrupt)
        try:
            yield
        finally:
            with self._lock:  # an interrupt never reaches whoever uses the connection next
                self._interrupts.remove(interrupt)

    def disconnect(self) -> None:
        """Interrupt the reads in progress, and refuse new ones.

        A read between two statements is not interrupted: call it again while one is in progress.
        """
        self.is_gone = True
        with self._lock:
            for interrupt in self._interrupts:
                interrupt()

    def check(self) -> None:
        if self.is_gone:
            raise Abandoned


_current: ContextVar[Client | None] = ContextVar("client", default=None)


@contextmanager
def reads_of(client: Client | None) -> Iterator[None]:
    """Make the reads within, also those in threads that they start, the client's or nobody's."""
    token = _current.set(client)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Client | None:
    return _current.get()


def check() -> None:
    """Raise Abandoned if the client of the current request is gone."""
    if (client := _current.get()) is not None:
        client.check()
