"""Growth of a function's CPU time with the size of its input."""

import time
from collections.abc import Callable
from typing import TypeVar

Input = TypeVar("Input")

FACTOR = 4
MAX_RATIO = 9.0
"""Four times the input takes 4 times as long if the growth is linear, and 16 times if it is
quadratic. CPU time, unlike wall-clock time, does not grow with the load of the machine."""
_MIN_SECONDS = 0.002  # below it the clock's resolution and fixed costs decide
_TRIES = 5


def assert_linear(
    function: Callable[[Input], object], make: Callable[[int], Input], n: int
) -> None:
    """Assert that `function` on `make(4n)` takes at most MAX_RATIO times the time for `make(n)`.

    The fastest of several tries counts: caches and the garbage collector only add time.
    """
    small, large = make(n), make(FACTOR * n)
    for _ in range(_TRIES):
        before, after = _fastest(function, small), _fastest(function, large)
        if after <= MAX_RATIO * max(before, _MIN_SECONDS):
            return
    raise AssertionError(f"{before:.4f} s for {n}, {after:.4f} s for {FACTOR * n}")


def _fastest(function: Callable[[Input], object], argument: Input) -> float:
    seconds = []
    for _ in range(2):
        began = time.process_time()
        function(argument)
        seconds.append(time.process_time() - began)
    return min(seconds)
