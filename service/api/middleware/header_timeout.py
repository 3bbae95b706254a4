"""Uvicorn's HTTP/1.1 with a limit on how long the head of a request may take, which it lacks."""

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded_protocol(seconds: float) -> type[H11Protocol]:
    """Uvicorn's HTTP/1.1, which closes a connection whose next request line and headers take so
    long to come in all: one that sends a byte now and then would else be kept for ever.
    """

    class Bounded(_Bounded):
        limit = seconds

    return Bounded


class _Bounded(H11Protocol):
    limit: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Says nothing. Whoever asks for an upgrade is answered as if they had not; uvicorn would
        log that a library is missing.
        """

    def _watch(self) -> None:
        # Between two requests, and before the first byte of the next, uvicorn's keep-alive counts.
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.limit, self._give_up)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self.transport.close()
