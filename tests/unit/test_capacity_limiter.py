"""Capacity limiter: a number run at once, a few wait, others are refused."""

import threading

import pytest

from service.domain.errors import Busy
from service.ops.capacity_limiter import CapacityLimiter


def in_thread(limiter, entered, leave):
    def work():
        with limiter.acquire():
            entered.release()
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_no_more_than_may_are_inside_and_who_finds_the_line_full_is_refused_at_once():
    limiter = CapacityLimiter("reports", at_once=1, waiting=1, seconds=30)
    entered, leave = threading.Semaphore(0), threading.Event()
    first = in_thread(limiter, entered, leave)
    assert entered.acquire(timeout=30)
    second = in_thread(limiter, entered, leave)
    while limiter._admitted._value:  # the second is in the line
        second.join(0.01)
    with (
        pytest.raises(Busy, match="the limit of concurrent reports is reached") as refused,
        limiter.acquire(),
    ):
        pass
    assert refused.value.status == 503
    assert not entered.acquire(blocking=False)  # the second waits while the first is inside
    leave.set()
    first.join(30)
    second.join(30)
    assert entered.acquire(timeout=30)
    with limiter.acquire():  # and there is room again
        pass


def test_who_waits_too_long_is_refused_and_leaves_the_line():
    limiter = CapacityLimiter("reports", at_once=1, waiting=1, seconds=0.01)
    entered, leave = threading.Semaphore(0), threading.Event()
    first = in_thread(limiter, entered, leave)
    assert entered.acquire(timeout=30)
    for _ in range(3):
        with pytest.raises(Busy), limiter.acquire():
            pass
    leave.set()
    first.join(30)
    with limiter.acquire():
        pass


def test_a_failure_inside_gives_the_turn_back():
    limiter = CapacityLimiter("reports", at_once=1, waiting=0, seconds=0.01)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), limiter.acquire():
            raise ZeroDivisionError
