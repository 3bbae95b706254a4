"""A figure that is expensive is computed for a small share of the time."""

import threading

import pytest

from service.ops import paced_figure
from service.ops.paced_figure import PacedFigure


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(paced_figure, "time", clock)
    return clock


def figure_of(clock: Clock, cost: float):
    calls = []

    def compute() -> int:
        clock.now += cost
        calls.append(None)
        return len(calls)

    return PacedFigure(compute)


def test_a_cheap_figure_is_always_fresh(clock):
    figure = figure_of(clock, 0.2)
    assert [figure.value() for _ in range(3)] == [1, 2, 3]


def test_an_expensive_figure_is_computed_one_hundredth_of_the_time(clock):
    figure = figure_of(clock, 0.5)
    assert [figure.value() for _ in range(3)] == [1, 1, 1]
    clock.now += 49
    assert figure.value() == 1
    assert figure.value(prefer_fresh=True) == 2
    clock.now += 4
    assert figure.value(prefer_fresh=True) == 2
    clock.now += 47
    assert figure.value() == 3


def test_nobody_waits_for_a_figure_that_is_being_computed_again():
    entered, leave = threading.Event(), threading.Event()
    calls = []

    def compute() -> int:
        calls.append(None)
        if len(calls) == 2:
            entered.set()
            assert leave.wait(30)
        return len(calls)

    figure = PacedFigure(compute)
    assert figure.value() == 1
    thread = threading.Thread(target=figure.value)
    thread.start()
    assert entered.wait(30)
    assert figure.value() == 1
    leave.set()
    thread.join(30)
    assert len(calls) == 2


def test_a_failure_is_raised_and_tried_again():
    calls = []

    def compute() -> int:
        calls.append(None)
        if len(calls) == 1:
            raise ZeroDivisionError
        return 7

    figure = PacedFigure(compute)
    with pytest.raises(ZeroDivisionError):
        figure.value()
    assert figure.value() == 7
