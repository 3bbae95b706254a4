"""Uvicorn's HTTP/1.1 with a timeout for a request's headers, which Uvicorn lacks."""

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded_protocol(seconds: float) -> type[H11Protocol]:
    """Return Uvicorn's HTTP/1.1 protocol with a limit on the time of request line and headers.

    Otherwise a client that sends a byte now and then would hold its connection forever.
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
        """Log nothing: upgrade requests are answered as normal ones; uvicorn would log that a
        library is missing.
        """

    def _watch(self) -> None:
        # Between requests, before the first byte of the next, uvicorn's keep-alive timeout holds.
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.limit, self._close)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self.transport.close()
