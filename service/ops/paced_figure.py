"""A figure that costs more the more is stored, computed for a bounded share of the time."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")

_FREE_SECONDS = 0.25
_SHARE = 0.01
_SHARE_FOR_FRESHNESS = 0.1


class PacedFigure(Generic[Value]):
    """Invariant: at most 1 % of the time, one thread computes the figure; the others read it.

    A figure that takes less than a quarter of a second is always fresh.
    """

    def __init__(self, compute: Callable[[], Value]) -> None:
        self._compute = compute
        self._lock = threading.Lock()
        self._result: tuple[Value] | None = None
        self._cost = 0.0
        self._computed_at = 0.0

    def value(self, *, prefer_fresh: bool = False) -> Value:
        """Return the figure; with `prefer_fresh` it may be computed for 10 % of the time.

        Raises what the computation raises.
        """
        share = _SHARE_FOR_FRESHNESS if prefer_fresh else _SHARE
        result = self._result
        if result is not None and not self._is_due(share):
            return result[0]
        # Whoever finds it being computed takes the previous one, if there is one.
        if not self._lock.acquire(blocking=result is None) and result is not None:
            return result[0]
        try:
            if self._result is None or self._is_due(share):
                began = time.monotonic()
                self._result = (self._compute(),)
                self._computed_at = time.monotonic()
                self._cost = self._computed_at - began
            return self._result[0]
        finally:
            self._lock.release()

    def _is_due(self, share: float) -> bool:
        if self._cost < _FREE_SECONDS:
            return True
        return time.monotonic() - self._computed_at >= self._cost / share
