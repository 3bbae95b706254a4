"""Turns: as many at once as may be, a few wait, others are told to come again."""

import threading

import pytest

from service.domain.errors import Busy
from service.ops.capacity_limiter import Turns


def in_thread(turns, entered, leave):
    def work():
        with turns.taken():
            entered.release()
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_no_more_than_may_are_inside_and_who_finds_the_line_full_is_refused_at_once():
    turns = Turns("reports", at_once=1, waiting=1, seconds=30)
    entered, leave = threading.Semaphore(0), threading.Event()
    first = in_thread(turns, entered, leave)
    assert entered.acquire(timeout=30)
    second = in_thread(turns, entered, leave)
    while turns._line._value:  # the second is in the line
        second.join(0.01)
    with pytest.raises(Busy, match="too many reports are being made") as refused, turns.taken():
        pass
    assert refused.value.status == 503
    assert not entered.acquire(blocking=False)  # the second waits while the first is inside
    leave.set()
    first.join(30)
    second.join(30)
    assert entered.acquire(timeout=30)
    with turns.taken():  # and there is room again
        pass


def test_who_waits_too_long_is_refused_and_leaves_the_line():
    turns = Turns("reports", at_once=1, waiting=1, seconds=0.01)
    entered, leave = threading.Semaphore(0), threading.Event()
    first = in_thread(turns, entered, leave)
    assert entered.acquire(timeout=30)
    for _ in range(3):
        with pytest.raises(Busy), turns.taken():
            pass
    leave.set()
    first.join(30)
    with turns.taken():
        pass


def test_a_failure_inside_gives_the_turn_back():
    turns = Turns("reports", at_once=1, waiting=0, seconds=0.01)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turns.taken():
            raise ZeroDivisionError
